"""Commands for models that leave the house: export, and the copies outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmeraser.cli.commands.base import AsJson, open_eraser, print_report
from lmeraser.core.terminal import echo


def export(
    out: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    with_backbone: Annotated[
        bool, typer.Option("--with-backbone", help="Copy the backbone's files, too.")
    ] = False,
    license: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="Licence of the export for its model card, as an SPDX identifier.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the served model to a folder that predicts without the workspace and holds no record or secret."""
    with open_eraser(quiet=as_json) as eraser:
        report = eraser.export(out, with_backbone=with_backbone, license=license)
    print_report("exported", report.to_json(), as_json=as_json)
    if not as_json and report.backbone_needed is not None:
        echo(f"whoever loads it needs the backbone: {report.backbone_needed}")
