"""Shared parts of the commands: option types, opening the workspace, printing reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmeraser.core.terminal import echo, print_json

if TYPE_CHECKING:
    from lmeraser.data.sources import Columns
    from lmeraser.eraser import Eraser


@dataclass
class GlobalOptions:
    """Options given before the command."""

    workspace: Path = Path()
    wait: float = 10.0
    debug: bool = False


global_options = GlobalOptions()

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
SOURCE_HELP = "Folder of class folders, table (.csv, .tsv, .jsonl, .parquet), arrays (.npz), or hub:OWNER/NAME."
Split = Annotated[str | None, typer.Option(help="Split of a dataset, or subfolder of a folder.")]
ImageColumn = Annotated[
    str,
    typer.Option(
        "--image-column", "--text-column", "--vector-column", help="Column that holds the image, text or vector."
    ),
]
LabelColumn = Annotated[str, typer.Option(help="Column that holds the label.")]
IdColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the record ids. Default: 'id' of a list or table, else the image's path or its row."
    ),
]
SubjectColumn = Annotated[
    str | None,
    typer.Option(help="Column of the subjects, the people that records are about. Default: 'subject'."),
]
SubjectsFile = Annotated[
    Path | None,
    typer.Option("--subjects", help="Subjects of the records: .csv or .jsonl file with the columns id, subject."),
]
SubjectLevel = Annotated[
    int | None,
    typer.Option(help="Folder in an image's path that is its subject; 2 in CLASS/PERSON/FILE.", min=1),
]
SubjectPattern = Annotated[
    str | None, typer.Option(help="Regular expression whose group in an image's path is its subject.")
]
FollowPaths = Annotated[
    bool,
    typer.Option("--follow-paths", help="Also read files outside of the source that it names by their paths."),
]
Positions = Annotated[
    bool, typer.Option("--positions", help="Use row numbers as record ids, not the paths of the images.")
]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Record id; may be repeated.")]
Subjects = Annotated[
    list[str] | None, typer.Option("--subject", help="Subject, whose records are selected; may be repeated.")
]
RequestId = Annotated[str | None, typer.Option("--request", help="UUID of the request. Default: a new one.")]
RegulationName = Annotated[
    str, typer.Option("--regulation", help="Regulation that sets the deadline: gdpr, ccpa or other.")
]
Received = Annotated[str | None, typer.Option(help="Day or time of receipt, RFC 3339. Default: now.")]
AskedOn = Annotated[
    str | None,
    typer.Option(
        "--asked-on", help="Day or time at which the person asked: 2026-01-31. The deadline counts from it."
    ),
]
WithDuplicates = Annotated[
    bool,
    typer.Option("--with-duplicates", help="Also select the other records with the same image, text or vector."),
]
Audit = Annotated[bool, typer.Option("--audit", help="Audit the new model before completing the request.")]
IdsFile = Annotated[
    Path | None,
    typer.Option(
        "--ids-file",
        help="File with one record id per line, literally; or .csv (column id), or .jsonl.",
    ),
]
ExecutorName = Annotated[
    str | None,
    typer.Option("--executor", help="local, processes or ray. Default: the setting in lmeraser.toml."),
]
Address = Annotated[str | None, typer.Option(help="Address of the Ray cluster's head node, or 'auto'.")]
Processes = Annotated[
    int | None, typer.Option(help="Number of worker processes with --executor processes.", min=1)
]


@contextmanager
def open_eraser(*, quiet: bool = False, compute: Mapping[str, Any] | None = None) -> Iterator[Eraser]:
    """Open the workspace given with ``-w``.

    Args:
        quiet: show no progress.
        compute: overrides of settings in ``[compute]``.
    """
    from lmeraser.core.progress import silent
    from lmeraser.eraser import Eraser

    root = global_options.workspace
    wait = global_options.wait
    if quiet:
        with Eraser(root, wait=wait, progress=silent, compute=compute) as eraser:
            yield eraser
        return
    from lmeraser.core.console import Display

    with Display() as display, Eraser(root, wait=wait, progress=display, compute=compute) as eraser:
        yield eraser


def compute_settings(executor: str | None, address: str | None, processes: int | None) -> dict[str, Any]:
    """The settings of ``[compute]`` that these options override."""
    options = {"executor": executor, "address": address, "processes": processes}
    return {name: value for name, value in options.items() if value is not None}


def make_columns(image: str, label: str, record_id: str | None, subject: str | None, positions: bool) -> Columns:
    """The column names given as options."""
    from lmeraser.data.sources import Columns

    return Columns(image=image, label=label, id=record_id, subject=subject, positions=positions)


def collect_ids(ids: list[str] | None, ids_file: Path | None) -> list[str] | None:
    """Record ids given as options and in a file; None: neither option was given."""
    from lmeraser.workspace.requests.selection import read_ids

    if ids_file is None:
        return ids
    return [*(ids or []), *read_ids(ids_file)]


def split_names(names: str | None) -> list[str]:
    """Split names separated by commas; none were given if it is None, and one empty name if it is empty."""
    return [name.strip() for name in names.split(",")] if names is not None else []


def print_report(
    title: str, values: Mapping[str, object], *, as_json: bool, next_steps: Sequence[str] = ()
) -> None:
    """Print a report as JSON or as a table; JSON output does not load the table library.

    Args:
        title: above the table.
        values: the report as JSON values; the table shows them in words (`cli.words`).
        as_json: print JSON.
        next_steps: commands that usually come next, printed below the table.
    """
    if as_json:
        print_json(values)
        return
    from lmeraser.cli.words import in_words, suggest
    from lmeraser.core.console import print_facts

    if facts := in_words(values):
        print_facts(title, facts)
    else:
        echo(title)
    suggest(*next_steps)
