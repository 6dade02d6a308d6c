"""Output for people: progress on standard error during the work, tables on standard output after it.

On a terminal, progress is a bar with an estimate of the time left; elsewhere (a log, a pipe) it is a line every
ten seconds. Reports are printed as tables; `--json` bypasses this module. Single lines are printed by `terminal`.
The table library is loaded when it is used.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lmeraser.core.terminal import echo, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LOG_INTERVAL = 10.0  # seconds
_WIDEST = 100_000  # columns of a line in a file
_UNITS = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))


class Display:
    """A `lmeraser.core.progress.Progress` that draws on standard error; a context manager."""

    def __init__(self) -> None:
        self._bars = _progress_bars() if sys.stderr.isatty() else None
        self._task: TaskID | None = None
        self._step = ""
        self._started = time.monotonic()
        self._logged = self._started
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """Show the progress of a step; a new step replaces the previous one."""
        step = printable(step)
        with self._lock:
            if step != self._step:
                self._begin(step, total)
            if self._bars is not None and self._task is not None:
                self._bars.update(self._task, completed=done, total=total)
            elif time.monotonic() - self._logged >= _LOG_INTERVAL:
                self._log(done, total)

    def _begin(self, step: str, total: int | None) -> None:
        self._step = step
        self._started = time.monotonic()
        self._logged = self._started
        if self._bars is not None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(step, total=total)

    def _log(self, done: int, total: int | None) -> None:
        self._logged = time.monotonic()
        elapsed = self._logged - self._started
        left = f", about {elapsed * (total - done) / done:.0f} s left" if total and done else ""
        echo(f"{self._step}: {done} of {total or 'unknown'}{left}", err=True)


def _progress_bars() -> Progress:
    from rich import progress

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left:"),
        progress.TimeRemainingColumn(),
        console=_console(stderr=True),
        transient=True,
    )


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print a table of names and values, without those that are empty (`is_empty`)."""
    shown = {name: value for name, value in facts.items() if not is_empty(value)}
    table = _table(title, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in shown.items():
        table.add_row(printable(name), format_value(value))
    _print_table(table)


def print_rows(
    title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, unfolded: Collection[str] = ()
) -> None:
    """Print a table with a header; a title that says so where there are no rows.

    Args:
        title: above the table.
        header: names of the columns; columns of numbers are aligned to the right.
        rows: one value per column.
        unfolded: names of columns whose values are never broken into several lines.
    """
    if not rows:
        echo(f"no {title}")
        return
    table = _table(title)
    for index, name in enumerate(header):
        numeric = all(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=name in unfolded)
    for row in rows:
        table.add_row(*(format_value(value) for value in row))
    _print_table(table)


def is_empty(value: object) -> bool:
    """Whether a value says nothing: None, no text, or no items."""
    return value is None or (isinstance(value, (str, Mapping, list, tuple)) and not value)


def _table(title: str, *, show_header: bool = True) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=printable(title), title_justify="left", show_header=show_header, box=SIMPLE_HEAD, pad_edge=False
    )


def _print_table(table: Any) -> None:
    """Print a table; where no terminal limits the width (a file, a pipe), without folding any value.

    The variable COLUMNS limits it everywhere.
    """
    console = _console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        wide = console.options.update_width(_WIDEST)
        console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


def _console(*, stderr: bool = False) -> Console:
    """A console that takes nothing in a value for its own markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False)


def format_duration(seconds: object) -> str:
    """A duration in its largest whole unit; negative ones are late.

    >>> format_duration(200000), format_duration(-86400)
    ('2 days', '1 day late')
    """
    if not isinstance(seconds, int):
        return "-"
    size, unit = next(((s, u) for s, u in _UNITS if abs(seconds) >= s), _UNITS[-1])
    count = abs(seconds) // size
    duration = f"{count} {unit.removesuffix('s') if count == 1 and unit == 'days' else unit}"
    return f"{duration} late" if seconds < 0 else duration


def format_value(value: object) -> str:
    """A value as it is printed in tables, on one line and with control characters as escapes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(str(name))} {format_value(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(item) for item in value)
    return printable(str(value))
