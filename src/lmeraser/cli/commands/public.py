"""Commands for backbones made from public data: pretrain and convert. They need no workspace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmeraser.cli.commands.base import (
    SOURCE_HELP,
    AsJson,
    ImageColumn,
    LabelColumn,
    Split,
    make_columns,
    print_report,
)
from lmeraser.core.terminal import echo

if TYPE_CHECKING:
    from lmeraser.data.sources import Columns, Source


def pretrain(
    source: Annotated[str, typer.Argument(help=f"Public images. {SOURCE_HELP}")],
    out: Annotated[Path, typer.Option(help="Folder of the backbone; an interrupted training in it is resumed.")],
    arch: Annotated[str, typer.Option(help="Architecture: vit-tiny, vit-small or vit-base.")] = "vit-small",
    split: Split = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    held_out: Annotated[
        str | None, typer.Option(help="Public images to measure accuracy on. Default: none.")
    ] = None,
    held_out_split: Annotated[
        str | None, typer.Option(help="Split of --held-out, or of the source without it.")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side length of the input, px.")] = 224,
    patch_size: Annotated[int, typer.Option(help="Side length of a patch, px.")] = 16,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 90,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Learning rate after the warm-up.")] = 0.0005,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of matrices.")] = 0.05,
    warmup_epochs: Annotated[float, typer.Option(help="Epochs until the learning rate is reached.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of initial weights, order, crops and flips.")] = 0,
    checkpoint_steps: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 500,
    cpu: Annotated[bool, typer.Option("--cpu", help="Do not use a GPU.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip invalid rows.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a backbone on public images, or resume an interrupted training."""
    from lmeraser.core.console import Display
    from lmeraser.models.pretraining.pretrain import pretrain
    from lmeraser.models.pretraining.recipe import parse_recipe

    settings = parse_recipe(
        arch=arch,
        image_size=image_size,
        patch_size=patch_size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        seed=seed,
    )
    columns = make_columns(image_column, label_column, None, None, positions=False)
    test_source = held_out or (source if held_out_split else None)
    with Display() as display:
        report = pretrain(
            _open_named(source, split, columns),
            out,
            settings,
            held_out=_open_named(test_source, held_out_split, columns) if test_source else None,
            cpu=cpu,
            skip_bad=skip_bad,
            checkpoint_steps=checkpoint_steps,
            progress=display,
        )
    if report is not None:
        print_report(f"backbone in {out}", report, as_json=as_json)


def _open_named(location: str, split: str | None, columns: Columns) -> Source:
    """Open a source whose name includes the split, for the provenance."""
    from lmeraser.data.folders import describe_passed_over
    from lmeraser.data.sources import open_source

    opened_source = open_source(location, split=split, columns=columns)
    if opened_source.passed_over:
        echo(describe_passed_over(opened_source.passed_over), err=True)
    return replace(opened_source, name=f"{opened_source.name}, split {split}") if split else opened_source


def convert(
    file: Annotated[Path, typer.Argument(help="Published checkpoint: .pth, .pt or .safetensors.")],
    arch: Annotated[str, typer.Option(help="Architecture: vit-b-22k, vit-b-1k, swin-b-22k or swin-b-1k.")],
    out: Annotated[Path, typer.Option(help="Folder of the backbone.")],
    unverified: Annotated[
        bool, typer.Option("--any", help="Accept another file with the layout of the published one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint file of the paper's code to a backbone folder."""
    from lmeraser.models.backbones.checkpoints import convert

    print_report(f"backbone in {out}", convert(file, out, arch, unverified=unverified), as_json=as_json)
