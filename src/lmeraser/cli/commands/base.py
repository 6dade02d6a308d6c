"""What the commands share: their options, the workspace they open, how they print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lmeraser.data.sources import Columns
    from lmeraser.eraser import Eraser


@dataclass
class GlobalOptions:
    """What is given before the command."""

    workspace: Path = Path()
    wait: float = 10.0
    debug: bool = False


global_options = GlobalOptions()

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Split = Annotated[str | None, typer.Option(help="Which split of a dataset, or sub-folder of a folder.")]
ImageColumn = Annotated[str, typer.Option(help="Column with the image.")]
LabelColumn = Annotated[str, typer.Option(help="Column with the label.")]
IdColumn = Annotated[
    str | None, typer.Option(help="Column with the record id; else the image's path, else the position.")
]
SubjectColumn = Annotated[str | None, typer.Option(help="Column with the person a record is about.")]
Positions = Annotated[bool, typer.Option("--positions", help="Take positions as ids, not the images' paths.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Record id; may be repeated.")]
Subjects = Annotated[list[str] | None, typer.Option("--subject", help="Person; may be repeated.")]
RequestId = Annotated[str | None, typer.Option("--request", help="The request's UUID; else one is made.")]
RegulationName = Annotated[str, typer.Option("--regulation", help="gdpr, ccpa or other.")]
Received = Annotated[str | None, typer.Option(help="When the request came, RFC 3339; else now.")]
Audit = Annotated[bool, typer.Option("--audit", help="Audit the model before the request is completed.")]
IdsFile = Annotated[Path | None, typer.Option("--ids-file", help="Text file with one record id a line.")]
ExecutorName = Annotated[
    str | None,
    typer.Option("--executor", help="local, processes or ray; else as in lmeraser.toml."),
]
Address = Annotated[str | None, typer.Option(help="Address of the Ray cluster's head, or 'auto'.")]
Processes = Annotated[int | None, typer.Option(help="How many, with --executor processes.", min=1)]


@contextmanager
def opened(*, quiet: bool = False, compute: Mapping[str, Any] | None = None) -> Iterator[Eraser]:
    """The workspace of ``-w``, with progress shown unless ``quiet``; settings of ``[compute]`` may differ."""
    from lmeraser.core.progress import silent
    from lmeraser.eraser import Eraser

    where, wait = global_options.workspace, global_options.wait
    if quiet:
        with Eraser(where, wait=wait, progress=silent, compute=compute) as eraser:
            yield eraser
        return
    from lmeraser.core.console import Display

    with Display() as display, Eraser(where, wait=wait, progress=display, compute=compute) as eraser:
        yield eraser


def workers(executor: str | None, address: str | None, processes: int | None) -> dict[str, Any]:
    """The settings of ``[compute]`` that these options name."""
    given = {"executor": executor, "address": address, "processes": processes}
    return {name: value for name, value in given.items() if value is not None}


def columns_of(image: str, label: str, record_id: str | None, subject: str | None, positions: bool) -> Columns:
    """The columns that the options name."""
    from lmeraser.data.sources import Columns

    return Columns(image=image, label=label, id=record_id, subject=subject, positions=positions)


def all_ids(ids: list[str] | None, ids_file: Path | None) -> list[str]:
    """Ids from options and from a file."""
    from lmeraser.workspace.requests.selection import read_ids

    return [*(ids or []), *(read_ids(ids_file) if ids_file else [])]


def split_names(names: str | None) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in names.split(",")] if names else []


def moment(text: str | None) -> datetime | None:
    """A time given as an option."""
    from lmeraser.core.time import from_text

    return from_text(text) if text else None


def print_json(value: Any) -> None:
    """Print a report for programs."""
    typer.echo(json.dumps(value, indent=1))


def print_report(title: str, values: Mapping[str, object], *, as_json: bool) -> None:
    """As JSON, without loading what draws tables, or as a table."""
    if as_json:
        print_json(values)
        return
    from lmeraser.core.console import print_facts

    print_facts(title, values)
