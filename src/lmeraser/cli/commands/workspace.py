"""Commands about the workspace and its records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmeraser.cli.commands.base import (
    AsJson,
    IdColumn,
    Ids,
    IdsFile,
    ImageColumn,
    LabelColumn,
    Positions,
    Split,
    SubjectColumn,
    all_ids,
    columns_of,
    global_options,
    opened,
    print_json,
    print_report,
    split_names,
)


def init(
    preset: Annotated[
        str, typer.Option(help="'instant', 'prompts', 'paper', or the name of a method to compare with.")
    ] = "instant",
    config: Annotated[Path | None, typer.Option(help="TOML file with settings that differ.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names, separated by commas.")] = None,
    signing_key: Annotated[
        Path | None, typer.Option(help="PEM file with your Ed25519 private key; else one is made.")
    ] = None,
) -> None:
    """Make a workspace."""
    from lmeraser.config import schema
    from lmeraser.config.presets import preset_name
    from lmeraser.evidence.dsse import SigningKey
    from lmeraser.workspace.workspace import Workspace

    base = preset_name(preset)
    values = schema.read(config, base=base) if config else schema.preset(base)
    key = SigningKey.read(signing_key) if signing_key else None
    Workspace.create(global_options.workspace, values, classes=split_names(classes), signing_key=key).close()
    typer.echo(
        f"workspace made in {global_options.workspace}; settings are in lmeraser.toml, "
        "the key that verifies its certificates in signing.pub"
    )


def add(
    source: Annotated[str, typer.Argument(help="Folder of class folders, parquet file, or dataset name.")],
    split: Split = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    id_column: IdColumn = None,
    subject_column: SubjectColumn = None,
    positions: Positions = False,
    extend_classes: Annotated[
        bool, typer.Option("--extend-classes", help="Append classes that the workspace does not know.")
    ] = False,
    allow_deleted: Annotated[
        bool, typer.Option("--allow-deleted", help="Add records again that were deleted here; the ledger tells.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave faulty rows out.")] = False,
    refuse_public: Annotated[
        bool, typer.Option("--refuse-public", help="An image that the backbone was trained on is a fault.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add private records: all of a source or, if a row is faulty, none."""
    columns = columns_of(image_column, label_column, id_column, subject_column, positions)
    with opened() as eraser:
        report = eraser.add(
            source,
            split=split,
            columns=columns,
            extend_classes=extend_classes,
            allow_deleted=allow_deleted,
            skip_bad=skip_bad,
            refuse_public=refuse_public,
        )
    if as_json:
        print_json(report.to_json())
        return
    typer.echo(f"{report.added} added, {report.present} already there")
    if report.suppressed:
        typer.echo(f"{report.suppressed} refused: deleted here before (--allow-deleted adds them again)")
    if report.public is not None:
        typer.echo(
            f"{report.public} of those added are public: the backbone was trained on their images, and deleting "
            "them does not change it (--refuse-public refuses them)"
            if report.public
            else "none of those added is among the images that the backbone was trained on"
        )
    for fault in report.faults:
        typer.echo(f"skipped: {fault}", err=True)


def classes(
    extend: Annotated[str | None, typer.Option("--add", help="Names to append, separated by commas.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the list of classes, or extend it on purpose (all clusters will be tuned again)."""
    with opened() as eraser:
        names = eraser.extend_classes(split_names(extend)) if extend else eraser.classes
    print_json(list(names)) if as_json else typer.echo("\n".join(names))


def config() -> None:
    """Print every setting of the workspace."""
    from lmeraser.config.schema import to_toml

    with opened(quiet=True) as eraser:
        typer.echo(to_toml(eraser.workspace.config), nl=False)


def status(as_json: AsJson = False) -> None:
    """Print what the workspace holds and what a deletion costs there."""
    with opened(quiet=True) as eraser:
        report = eraser.status()
    print_report(str(global_options.workspace), report.to_json(), as_json=as_json)


def relabel(
    label: Annotated[str, typer.Option(help="The right class.")],
    ids: Ids = None,
    ids_file: IdsFile = None,
    as_json: AsJson = False,
) -> None:
    """Correct the label of records: the model becomes the one that training with it gives (rectification)."""
    with opened() as eraser:
        settled = eraser.relabel(label, ids=all_ids(ids, ids_file))
    print_report("relabelled", settled.training.to_json() if settled.training else {}, as_json=as_json)


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove files that the served model does not use, and rewrite the database after deletions."""
    with opened(quiet=True) as eraser:
        paths = eraser.purge(dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    print_json(paths) if as_json else typer.echo("\n".join([*paths, f"{len(paths)} files {verb}"]))


def upgrade(as_json: AsJson = False) -> None:
    """Bring the database to the tables of this version of lmeraser; make a backup first."""
    from lmeraser.workspace.workspace import Workspace

    before, after = Workspace(global_options.workspace, wait=global_options.wait).upgrade()
    title = "nothing to do" if before == after else "upgraded"
    print_report(title, {"tables_before": before, "tables_now": after}, as_json=as_json)
