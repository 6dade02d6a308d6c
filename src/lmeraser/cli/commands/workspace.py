"""Commands for the workspace and its records."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmeraser.cli.commands.base import (
    SOURCE_HELP,
    AsJson,
    FollowPaths,
    IdColumn,
    Ids,
    IdsFile,
    ImageColumn,
    LabelColumn,
    Positions,
    Split,
    SubjectColumn,
    SubjectLevel,
    SubjectPattern,
    SubjectsFile,
    collect_ids,
    global_options,
    make_columns,
    open_eraser,
    print_report,
    split_names,
)
from lmeraser.core.terminal import echo, print_json
from lmeraser.errors import InputError, listing

if TYPE_CHECKING:
    from lmeraser.data.name_lookup import NameSurvey


def init(
    preset: Annotated[
        str, typer.Option(help="Preset: instant, prompts, paper, or a method for comparison.")
    ] = "instant",
    config: Annotated[Path | None, typer.Option(help="TOML file with settings that override the preset.")] = None,
    modality: Annotated[
        str | None, typer.Option(help="Of the records: image, text or vector. Default: image.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Numbers in a vector; needed for --modality vector.", min=1)
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class names, separated by commas.")] = None,
    signing_key: Annotated[
        Path | None, typer.Option(help="PEM file with an Ed25519 private key. Default: a new one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a workspace."""
    from lmeraser.cli.words import command, suggest
    from lmeraser.config import schema
    from lmeraser.config.presets import preset_name
    from lmeraser.config.toml_file import read_values
    from lmeraser.evidence.dsse import SigningKey
    from lmeraser.models.backbone_names import locate_backbone
    from lmeraser.models.backbone_scaling import describe_scaling
    from lmeraser.workspace.workspace import Workspace

    base = preset_name(preset)
    given = read_values(config) if config else {}
    data = {name: value for name, value in (("modality", modality), ("length", length)) if value is not None}
    parsed = schema.parse(schema.merge(given, {"data": data} if data else {}), origin=str(config or ""), base=base)
    values = locate_backbone(parsed, config.parent) if config else parsed
    key = SigningKey.read(signing_key) if signing_key else None
    workspace = Workspace.create(global_options.workspace, values, classes=split_names(classes), signing_key=key)
    workspace.close()
    scaling = describe_scaling(values, workspace.config)
    if as_json:
        layout = workspace.layout
        files = {"settings": str(layout.settings), "public_key": str(layout.root / "signing.pub")}
        print_json({"workspace": str(layout.root), "preset": base, **files, "scaling": scaling})
        return
    echo(
        f"workspace created in {global_options.workspace}; settings are in lmeraser.toml, "
        "the public key of its certificates is in signing.pub"
    )
    if scaling:
        echo(scaling)
    suggest(command("add", "SOURCE"))


def add(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    split: Split = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    id_column: IdColumn = None,
    subject_column: SubjectColumn = None,
    subjects: SubjectsFile = None,
    subject_level: SubjectLevel = None,
    subject_pattern: SubjectPattern = None,
    positions: Positions = False,
    follow_paths: FollowPaths = False,
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
    from lmeraser.cli.words import command, suggest
    from lmeraser.data.folders import describe_passed_over

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
            subjects=subjects,
            subject_level=subject_level,
            subject_pattern=subject_pattern,
            follow_paths=follow_paths,
        )
        noun = eraser.payload_format.noun
    if as_json:
        print_json(report.to_json())
        return
    echo(f"{report.added} added, {report.present} already present")
    if report.passed_over:
        echo(describe_passed_over(report.passed_over))
    if report.suppressed:
        echo(f"{report.suppressed} rejected: deleted here before (--allow-deleted adds them again)")
    if report.public is not None:
        echo(
            f"public images among the added records: {report.public} (the backbone was trained on them). Deleting "
            "them does not change the backbone (--refuse-public rejects them)"
            if report.public
            else "no added record is among the images that the backbone was trained on"
        )
    if report.duplicates:
        echo(
            f"duplicates among the added records: {report.duplicates} (an earlier record holds the same {noun}). "
            "Deleting one of them leaves the others (--with-duplicates deletes them, too)"
        )
    for line in (*report.spellings, *report.hints):
        echo(f"note: {line}")
    for fault in report.faults:
        echo(f"skipped: {fault}", err=True)
    if report.added:
        suggest(command("train"))


def classes(
    extend: Annotated[str | None, typer.Option("--add", help="Class names to add, separated by commas.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the list of classes, or extend it (all clusters will be tuned again)."""
    with open_eraser() as eraser:
        names = eraser.extend_classes(split_names(extend)) if extend is not None else eraser.classes
    print_json(list(names)) if as_json else echo(*names)


def config(as_json: AsJson = False) -> None:
    """Print all settings of the workspace, and what the preset `instant` has changed since."""
    from lmeraser.config.schema import changed_defaults
    from lmeraser.config.toml_file import to_toml

    with open_eraser(quiet=True) as eraser:
        settings = eraser.workspace.config
    if as_json:
        print_json(settings.model_dump(mode="json"))
        return
    echo(*to_toml(settings).splitlines())
    if changed := changed_defaults(settings):
        echo("", "# This workspace keeps its settings. A new one with the preset 'instant' has others:")
        echo(*(f"#   {name}: {new!r} instead of {own!r}" for name, (own, new) in changed.items()))


def status(as_json: AsJson = False) -> None:
    """Show the contents of the workspace and the cost of a deletion."""
    with open_eraser(quiet=True) as eraser:
        report = eraser.status().to_json()
    if as_json:
        print_json(report)
        return
    from lmeraser.cli.words import after_status, suggest

    facts = {name: value for name, value in report.items() if name != "unfinished"}
    print_report(str(global_options.workspace), facts, as_json=False)
    echo(*(f"UNFINISHED {each}" for each in report["unfinished"]))  # type: ignore[attr-defined]
    suggest(*after_status(report))


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
    print_json(paths) if as_json else echo(*paths, f"{len(paths)} files {verb}")


def upgrade(
    merge_names: Annotated[
        bool, typer.Option("--merge-names", help="Merge subjects that are one name in several spellings, unasked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Migrate the database to the tables of this version, and find names in all of their spellings.

    Make a backup first. Where a subject is written in several ways (accents composed or not, white space), this
    asks before these become one.
    """
    from lmeraser.workspace.workspace import Workspace

    with contextlib.closing(Workspace(global_options.workspace, wait=global_options.wait)) as workspace:
        before, after = workspace.upgrade()
        names = workspace.survey_names()
        if names.merging and not (merge_names or (not as_json and _agrees_to_merge(names))):
            raise InputError(
                "Subjects in several spellings would become one; tables are upgraded, names are as they were",
                got=listing(names.describe_merging()),
                next_step="run 'lmeraser upgrade --merge-names' if each is one person; else name every spelling",
            )
        workspace.merge_names()
    tables = {"tables_before": before, "tables_now": after}
    if as_json:
        print_json({**tables, **names.to_json()})
        return
    print_report("already up to date" if before == after else "upgraded", tables, as_json=False)
    for subject, ways in names.respelled.items():
        echo(f"subject {subject!r} is found in every spelling now: {', '.join(map(ascii, sorted(ways)))}")
    for record_id, ids in names.ids.items():
        echo(f"ids of the name {record_id!r} stay as they are: {', '.join(map(ascii, sorted(ids)))}")


def _agrees_to_merge(names: NameSurvey) -> bool:
    """Ask on a terminal whether subjects may become one; elsewhere nobody agrees."""
    if not sys.stdin.isatty():
        return False
    echo("These subjects are written in several ways:")
    echo(*names.describe_merging())
    return typer.confirm("Is each of them one person, so that the spellings become one name?")
