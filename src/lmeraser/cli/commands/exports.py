"""Commands for models that leave the house: export, and the copies outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lmeraser.cli.commands.base import AsJson, open_eraser, print_report
from lmeraser.core.terminal import echo, print_json

if TYPE_CHECKING:
    from lmeraser.workspace.exports import HeldCopy

_ExportId = Annotated[str, typer.Argument(help="Id of the export.")]


def export(
    out: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    format: Annotated[  # noqa: A002 - the option's name
        Literal["folder", "onnx", "transformers"],
        typer.Option(
            help="'folder' for load_predictor; of models with one head also 'onnx' for one graph, or "
            "'transformers' for its Auto classes."
        ),
    ] = "folder",
    with_backbone: Annotated[
        bool, typer.Option("--with-backbone", help="Copy the backbone's files, too.")
    ] = False,
    license: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="Licence of the export for its model card, as an SPDX identifier.")
    ] = None,
    holder_url: Annotated[
        str | None,
        typer.Option(
            help="Where the service tells the holder of a recall; the host is in service.callback_hosts."
        ),
    ] = None,
    holder_contact: Annotated[str | None, typer.Option(help="Whom to tell of a recall otherwise.")] = None,
    oms_key: Annotated[
        Path | None,
        typer.Option(help="Also sign it in the format of OpenSSF Model Signing with this key (PEM, P-256)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the served model to a folder that predicts without the workspace and holds no record or secret.

    The ledger records the copy; 'lmeraser exports' says when it has to be recalled.
    """
    with open_eraser(quiet=as_json) as eraser:
        report = eraser.export(
            out,
            format=format,
            with_backbone=with_backbone,
            license=license,
            holder_url=holder_url,
            holder_contact=holder_contact,
            oms_key=oms_key,
        )
    print_report("exported", report.to_json(), as_json=as_json)
    if not as_json and report.backbone_needed is not None:
        echo(f"whoever loads it needs the backbone: {report.backbone_needed}")


def exports(
    context: typer.Context,
    statement: Annotated[
        Path | None,
        typer.Option(help="Also write a signed statement of them to this file, for 'lmeraser verify'."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the copies outside, and how many erased records still have influence on each, since when."""
    from lmeraser.core.atomic_files import SHARED, write_atomic

    if context.invoked_subcommand is not None:
        return
    with open_eraser(quiet=True) as eraser:
        found = [held.to_json() for held in eraser.exports()]
        if statement is not None:
            write_atomic(statement, eraser.export_statement(), mode=SHARED)
    if as_json:
        print_json(found)
        return
    from lmeraser.core.console import print_rows

    rows = [[copy["id"], copy["state"], _in_words(copy)] for copy in found]
    print_rows("copies outside", ["export", "state", "what is known"], rows, unfolded=["export", "state"])


def _in_words(copy: dict[str, Any]) -> str:
    """What is known of a copy."""
    erased, rectified = copy["records_erased"], copy["records_rectified"]
    holds = [*([f"{erased} erased"] if erased else []), *([f"{rectified} relabelled"] if rectified else [])]
    words = [f"generation {copy['generation']} of {copy['exported'][:10]}"]
    if holder := copy["holder_url"] or copy["holder_contact"]:
        words.append(f"held by {holder}")
    if holds:
        words.append(f"has the influence of {' and '.join(holds)} records, since {copy['since'][:10]}")
    if copy["told"]:
        words.append(f"holder told on {copy['told'][:10]}")
    elif copy["state"] == "recalled":
        words.append("holder not told yet")
    if copy["confirmed"]:
        words.append(f"deletion confirmed on {copy['confirmed'][:10]}")
    return "; ".join(words)


def _print_copy(title: str, held: HeldCopy, *, as_json: bool) -> None:
    values = held.to_json()
    if not as_json:  # in other reports an id is that of a request
        values = {"export": values.pop("id"), **values}
    print_report(title, values, as_json=as_json)


def tell(export: _ExportId, as_json: AsJson = False) -> None:
    """Note that you have told the holder of a recalled copy, by other means than the service."""
    with open_eraser(quiet=True) as eraser:
        held = eraser.tell_export(export)
    _print_copy("told", held, as_json=as_json)


def confirm(export: _ExportId, as_json: AsJson = False) -> None:
    """Note that a copy is deleted, as its holder confirms."""
    with open_eraser(quiet=True) as eraser:
        held = eraser.confirm_export(export)
    _print_copy("confirmed", held, as_json=as_json)
