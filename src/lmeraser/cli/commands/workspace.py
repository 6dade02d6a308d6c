"""Commands for the workspace and its records."""

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
    collect_ids,
    global_options,
    make_columns,
    open_eraser,
    print_json,
    print_report,
    split_names,
)


def init(
    preset: Annotated[
        str, typer.Option(help="Preset: instant, prompts, paper, or a method for comparison.")
    ] = "instant",
    config: Annotated[Path | None, typer.Option(help="TOML file with settings that override the preset.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names, separated by commas.")] = None,
    signing_key: Annotated[
        Path | None, typer.Option(help="PEM file with an Ed25519 private key. Default: a new one.")
    ] = None,
) -> None:
    """Create a workspace."""
    from lmeraser.config import schema
    from lmeraser.config.presets import preset_name
    from lmeraser.evidence.dsse import SigningKey
    from lmeraser.workspace.workspace import Workspace

    base = preset_name(preset)
    values = locate_backbone(schema.read(config, base=base), config.parent) if config else schema.preset(base)
    key = SigningKey.read(signing_key) if signing_key else None
    Workspace.create(global_options.workspace, values, classes=split_names(classes), signing_key=key).close()
    typer.echo(
        f"workspace created in {global_options.workspace}; settings are in lmeraser.toml, "
        "the public key of its certificates is in signing.pub"
    )

    from lmeraser.models.backbone_names import locate_backbone

def add(
    source: Annotated[str, typer.Argument(help="Folder of class folders, parquet files, or hub:OWNER/NAME.")],
    split: Split = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    id_column: IdColumn = None,
    subject_column: SubjectColumn = None,
    positions: Positions = False,
    extend_classes: Annotated[
        bool, typer.Option("--extend-classes", help="Add classes that are new to the workspace.")
    ] = False,
    allow_deleted: Annotated[
        bool,
        typer.Option("--allow-deleted", help="Add records again that were deleted here; noted in the ledger."),
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip invalid rows.")] = False,
    refuse_public: Annotated[
        bool, typer.Option("--refuse-public", help="Reject images that the backbone was trained on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add private records: all rows of a source or, if one is invalid, none."""
    columns = make_columns(image_column, label_column, id_column, subject_column, positions)
    with open_eraser() as eraser:
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
    typer.echo(f"{report.added} added, {report.present} already present")
    if report.suppressed:
        typer.echo(f"{report.suppressed} rejected: deleted here before (--allow-deleted adds them again)")
    if report.public is not None:
        typer.echo(
            f"{report.public} added records are public: the backbone was trained on their images; deleting them "
            "does not change the backbone (--refuse-public rejects them)"
            if report.public
            else "no added record is among the images that the backbone was trained on"
        )
    for fault in report.faults:
        typer.echo(f"skipped: {fault}", err=True)


def classes(
    extend: Annotated[str | None, typer.Option("--add", help="Class names to add, separated by commas.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the list of classes, or extend it (all clusters will be tuned again)."""
    with open_eraser() as eraser:
        names = eraser.extend_classes(split_names(extend)) if extend else eraser.classes
    print_json(list(names)) if as_json else typer.echo("\n".join(names))


def config() -> None:
    """Print all settings of the workspace."""
    from lmeraser.config.schema import to_toml

    with open_eraser(quiet=True) as eraser:
        typer.echo(to_toml(eraser.workspace.config), nl=False)


def status(as_json: AsJson = False) -> None:
    """Show the contents of the workspace and the cost of a deletion."""
    with open_eraser(quiet=True) as eraser:
        report = eraser.status()
    print_report(str(global_options.workspace), report.to_json(), as_json=as_json)


def relabel(
    label: Annotated[str, typer.Option(help="Correct class.")],
    ids: Ids = None,
    ids_file: IdsFile = None,
    as_json: AsJson = False,
) -> None:
    """Correct the label of records, and derive the model that training with it would give."""
    with open_eraser() as eraser:
        settled = eraser.relabel(label, ids=collect_ids(ids, ids_file) or [])
    print_report("relabelled", settled.training.to_json() if settled.training else {}, as_json=as_json)


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove files that the served model does not use, and compact the database after deletions."""
    with open_eraser(quiet=True) as eraser:
        paths = eraser.purge(dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    print_json(paths) if as_json else typer.echo("\n".join([*paths, f"{len(paths)} files {verb}"]))


def upgrade(as_json: AsJson = False) -> None:
    """Migrate the database to the tables of this version of lmeraser; make a backup first."""
    from lmeraser.workspace.workspace import Workspace

    before, after = Workspace(global_options.workspace, wait=global_options.wait).upgrade()
    title = "already up to date" if before == after else "upgraded"
    print_report(title, {"tables_before": before, "tables_now": after}, as_json=as_json)
