"""Commands about the public side: where a frozen backbone comes from. They need no workspace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmeraser.cli.commands.base import AsJson, ImageColumn, LabelColumn, Split, columns_of, print_report

if TYPE_CHECKING:
    from lmeraser.data.sources import Columns, Source


def pretrain(
    source: Annotated[
        str, typer.Argument(help="Public images: folder of class folders, parquet file, or dataset name.")
    ],
    out: Annotated[Path, typer.Option(help="The backbone's folder; a stopped training in it goes on.")],
    arch: Annotated[str, typer.Option(help="vit-tiny, vit-small or vit-base.")] = "vit-small",
    split: Split = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    held_out: Annotated[
        str | None, typer.Option(help="Public images to measure accuracy on; else none is measured.")
    ] = None,
    held_out_split: Annotated[str | None, typer.Option(help="Their split; alone, of the source.")] = None,
    image_size: Annotated[int, typer.Option(help="Side of the input, px.")] = 224,
    patch_size: Annotated[int, typer.Option(help="Side of a patch, px.")] = 16,
    epochs: Annotated[int, typer.Option(help="Times that every image is seen.")] = 90,
    batch_size: Annotated[int, typer.Option(help="Images in a step.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="After the warm-up.")] = 0.0005,
    weight_decay: Annotated[float, typer.Option(help="Of matrices.")] = 0.05,
    warmup_epochs: Annotated[float, typer.Option(help="Until the learning rate is full.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Of initial weights, order, crops and mirror images.")] = 0,
    checkpoint_steps: Annotated[int, typer.Option(help="After how many steps the state is kept.", min=1)] = 500,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use no GPU.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave faulty rows out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a backbone on public images, or go on with a training that was stopped."""
    from lmeraser.core.console import Display
    from lmeraser.models.pretraining.pretrain import pretrain
    from lmeraser.models.pretraining.recipe import recipe

    how = recipe(
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
    columns = columns_of(image_column, label_column, None, None, positions=True)
    tested = held_out or (source if held_out_split else None)
    with Display() as display:
        told = pretrain(
            _named(source, split, columns),
            out,
            how,
            held_out=_named(tested, held_out_split, columns) if tested else None,
            cpu=cpu,
            skip_bad=skip_bad,
            checkpoint_steps=checkpoint_steps,
            progress=display,
        )
    if told is not None:
        print_report(f"backbone in {out}", told, as_json=as_json)


def _named(where: str, split: str | None, columns: Columns) -> Source:
    """A source whose name tells the split as well, for the provenance."""
    from lmeraser.data.sources import open_source

    opened = open_source(where, split=split, columns=columns)
    return replace(opened, name=f"{opened.name}, split {split}") if split else opened


def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: .pth, .pt or .safetensors.")],
    arch: Annotated[str, typer.Option(help="vit-b-22k, vit-b-1k, swin-b-22k or swin-b-1k.")],
    out: Annotated[Path, typer.Option(help="The backbone's folder.")],
    unverified: Annotated[
        bool, typer.Option("--any", help="Take another file of the same layout than the published one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a backbone's folder from a checkpoint file of the paper's code."""
    from lmeraser.models.backbones.checkpoints import convert

    print_report(f"backbone in {out}", convert(file, out, arch, unverified=unverified), as_json=as_json)
