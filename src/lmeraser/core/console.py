"""What a person sees: progress on standard error while work goes on, tables on standard output when it is done.

On a terminal, progress is a bar with an estimate of the time left; elsewhere (a log, a pipe) it is a line every
ten seconds. Reports are printed as tables; `--json` bypasses them. Knows nothing about how anything is computed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_LOG_EVERY = 10.0  # seconds
_UNITS = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))


class Display:
    """A `lmeraser.core.progress.Progress` that draws on standard error; a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._step = ""
        self._started = self._logged = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """Show how far a step is; a new step replaces the one before."""
        with self._lock:
            if step != self._step:
                self._begin(step, total)
            if self._task is not None:
                self._bars.update(self._task, completed=done, total=total)
            elif time.monotonic() - self._logged >= _LOG_EVERY:
                self._log(done, total)

    def _begin(self, step: str, total: int | None) -> None:
        self._step = step
        self._started = self._logged = time.monotonic()
        if self._console.is_terminal:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(step, total=total)

    def _log(self, done: int, total: int | None) -> None:
        self._logged = time.monotonic()
        passed = self._logged - self._started
        left = f", about {passed * (total - done) / done:.0f} s left" if total and done else ""
        self._console.print(f"{self._step}: {done} of {total or 'unknown'}{left}", highlight=False)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """A table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, format_value(value))
    Console().print(table)


def print_rows(
    title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, whole: Collection[str] = ()
) -> None:
    """A table with a header; numbers are set to the right, and columns in ``whole`` are never folded."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=name in whole)
    for row in rows:
        table.add_row(*(format_value(value) for value in row))
    Console().print(table)


def format_duration(seconds: object) -> str:
    """A span of time for people.

    >>> format_duration(200000)
    '2 days'
    """
    if not isinstance(seconds, int):
        return "-"
    size, unit = next(((s, u) for s, u in _UNITS if abs(seconds) >= s), _UNITS[-1])
    shown = f"{abs(seconds) // size} {unit}"
    return f"{shown} late" if seconds < 0 else shown


def format_value(value: object) -> str:
    """A value as tables show it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_value(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(item) for item in value)
    return str(value)
