"""The command line: one command per verb.

Every command that reports takes ``--json``. Errors of lmeraser become one message (rule, value got, next step) and
exit status 2; an audit or a doctor that finds a difference exits with 1; an interrupted command exits with 130 and
can be run again. Heavy modules are imported inside the commands, so ``--help`` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmeraser._version import __version__
from lmeraser.errors import InputError, LmeraserError, StoppedError

if TYPE_CHECKING:
    from lmeraser.eraser import Eraser
    from lmeraser.sources import Columns

app = typer.Typer(
    help="Exact unlearning for image classifiers built on large frozen backbones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@dataclass
class _Globals:
    workspace: Path = Path()
    wait: float = 10.0
    debug: bool = False


_globals = _Globals()

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
IdsFile = Annotated[Path | None, typer.Option("--ids-file", help="Text file with one record id a line.")]


def main() -> None:
    """Run the command line; the one place where errors become messages."""
    try:
        status = app(standalone_mode=False)
        if status == StoppedError.exit_code:  # typer turns an interruption into this status and says nothing
            raise KeyboardInterrupt
    except LmeraserError as error:
        if _globals.debug:
            raise
        typer.echo(f"lmeraser: {error.diagnostics()}", err=True)
        status = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        stopped = StoppedError("Interrupted.", next_step="run the same command again; finished parts are kept")
        typer.echo(f"lmeraser: {stopped.diagnostics()}", err=True)
        status = stopped.exit_code
    except Exception as error:
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):  # not one of click's usage errors
            raise
        error.show()
        status = error.exit_code
    sys.exit(status or 0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", envvar="LMERASER_WORKSPACE", help="The workspace's folder.")
    ] = Path(),
    wait: Annotated[float, typer.Option(help="Seconds to wait for another writer.", min=0)] = 10.0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _globals.workspace, _globals.wait, _globals.debug = workspace, wait, debug


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the workspace, pictures and report.")] = Path("demo"),
    as_json: AsJson = False,
) -> None:
    """Run the main job end to end on handwritten digits; exits with 1 unless every audit is identical."""
    from lmeraser.demo import print_demo, run_demo
    from lmeraser.display import Display

    with Display() as display:
        report = run_demo(out, progress=display)
    _print_json(report.to_json()) if as_json else print_demo(report)
    raise typer.Exit(0 if report.identical else 1)


@app.command()
def init(
    preset: Annotated[str, typer.Option(help="'default', or 'paper' for the paper's settings.")] = "default",
    config: Annotated[Path | None, typer.Option(help="TOML file with settings that differ.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names, separated by commas.")] = None,
) -> None:
    """Make a workspace."""
    from lmeraser import config as settings
    from lmeraser.workspace import Workspace

    if preset not in ("default", "paper"):
        raise InputError("A preset is 'default' or 'paper'.", got=repr(preset))
    base: settings.PresetName = "paper" if preset == "paper" else "default"
    values = settings.read(config, base=base) if config else settings.preset(base)
    Workspace.create(_globals.workspace, values, classes=_names(classes)).close()
    typer.echo(f"workspace made in {_globals.workspace}; settings are in lmeraser.toml")


@app.command()
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
    restore_deleted: Annotated[
        bool, typer.Option("--restore-deleted", help="Add records again that were deleted here.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave faulty rows out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add private records: all of a source or, if a row is faulty, none."""
    columns = _columns(image_column, label_column, id_column, subject_column, positions)
    with _eraser() as eraser:
        report = eraser.add(
            source,
            split=split,
            columns=columns,
            extend_classes=extend_classes,
            restore_deleted=restore_deleted,
            skip_bad=skip_bad,
        )
    if as_json:
        _print_json(report.to_json())
        return
    typer.echo(f"{report.added} added, {report.present} already there")
    if report.suppressed:
        typer.echo(f"{report.suppressed} refused: deleted here before (--restore-deleted adds them again)")
    for fault in report.faults:
        typer.echo(f"skipped: {fault}", err=True)


@app.command()
def classes(
    extend: Annotated[str | None, typer.Option("--add", help="Names to append, separated by commas.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the list of classes, or extend it on purpose (all clusters will be tuned again)."""
    with _eraser() as eraser:
        names = eraser.extend_classes(_names(extend)) if extend else eraser.classes
    _print_json(list(names)) if as_json else typer.echo("\n".join(names))


@app.command()
def train(
    rederive: Annotated[
        bool, typer.Option("--rederive", help="Run again what was made in another environment.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the model up to date with the records and settings."""
    with _eraser() as eraser:
        report = eraser.train(rederive=rederive)
    _print_report("training", report.to_json(), as_json=as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Print what the workspace holds and what a deletion costs there."""
    with _eraser(quiet=True) as eraser:
        report = eraser.status()
    _print_report(str(_globals.workspace), report.to_json(), as_json=as_json)


@app.command()
def config() -> None:
    """Print every setting of the workspace."""
    from lmeraser.config import to_toml

    with _eraser(quiet=True) as eraser:
        typer.echo(to_toml(eraser.workspace.config), nl=False)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Test whether this machine computes the same bits whatever else it does; exits with 1 if not."""
    from lmeraser.display import print_facts, print_rows
    from lmeraser.doctor import examine

    with _eraser() as eraser:
        report = examine(eraser.executor())
    if as_json:
        _print_json(report.to_json())
    else:
        print_facts("environment", report.environment)
        print_rows("checks", ["check", "same bits"], [[c.name, c.passed] for c in report.checks])
    raise typer.Exit(0 if report.sound else 1)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    as_json: AsJson = False,
) -> None:
    """Classify images."""
    from dataclasses import asdict

    from lmeraser.display import print_rows
    from lmeraser.sources import image_files

    files = image_files(images)
    with _eraser() as eraser:
        answers = eraser.predict(files)
    if as_json:
        _print_json([{"image": str(f), **asdict(a)} for f, a in zip(files, answers, strict=True)])
        return
    rows = [[f, a.class_name, a.probability, a.clusters] for f, a in zip(files, answers, strict=True)]
    print_rows("predictions", ["image", "class", "probability", "cluster"], rows)


@app.command()
def evaluate(
    source: Annotated[str, typer.Argument(help="Folder of class folders, parquet file, or dataset name.")],
    split: Split = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    linear: Annotated[bool, typer.Option(help="Compare with a linear classifier.")] = True,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy on labelled images, beside a linear classifier on the same frozen features."""
    from lmeraser.display import print_facts, print_rows

    columns = _columns(image_column, label_column, None, None, positions=True)
    with _eraser() as eraser:
        report = eraser.evaluate(source, split=split, columns=columns, linear=linear)
    if as_json:
        _print_json(report.to_json())
        return
    rows = [[c.name, c.images, c.accuracy] for c in report.per_class]
    print_rows("accuracy by class", ["class", "images", "accuracy"], rows)
    facts = {"images": report.images, "accuracy": report.accuracy}
    print_facts("accuracy", {**facts, "linear classifier, same features": report.linear_accuracy})


@app.command()
def plan(ids: Ids = None, subjects: Subjects = None, ids_file: IdsFile = None, as_json: AsJson = False) -> None:
    """Print what a deletion would do and cost; changes nothing."""
    from lmeraser.display import print_facts, print_rows

    with _eraser() as eraser:
        report = eraser.plan(ids=_ids(ids, ids_file), subjects=subjects or [])
    if as_json:
        _print_json(report.to_json())
        return
    rows = [[c.cluster, c.records_before, c.records_forgotten] for c in report.affected]
    print_rows("affected clusters", ["cluster", "records now", "of these forgotten"], rows)
    print_facts("plan", {name: value for name, value in report.to_json().items() if name != "affected"})


@app.command()
def unlearn(ids: Ids = None, subjects: Subjects = None, ids_file: IdsFile = None, as_json: AsJson = False) -> None:
    """Forget records: afterwards the model is the one that training without them gives."""
    with _eraser() as eraser:
        report = eraser.unlearn(ids=_ids(ids, ids_file), subjects=subjects or [])
    _print_report("unlearned", report.to_json(), as_json=as_json)


@app.command()
def audit(
    clusters: Annotated[int | None, typer.Option(help="Check so many clusters, drawn at random.")] = None,
    as_json: AsJson = False,
) -> None:
    """Derive the model again from nothing and compare every digest; exits with 1 when one differs."""
    with _eraser() as eraser:
        report = eraser.audit(clusters=clusters)
    if as_json:
        _print_json(report.to_json())
    elif report.identical:
        typer.echo(
            f"identical: {report.clusters_checked} of {report.clusters} clusters, derived again from "
            f"{report.records} records, have the served digests (model {report.model_digest})"
        )
    else:
        typer.echo("NOT identical:\n" + "\n".join(f"  - {line}" for line in report.differences))
        if not report.same_environment:
            typer.echo(
                "The model was made in another environment (or in several), where only equality in "
                "distribution is claimed; 'lmeraser train --rederive' makes it here."
            )
    raise typer.Exit(0 if report.identical else 1)


@app.command()
def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove files that the served model does not use."""
    with _eraser(quiet=True) as eraser:
        paths = [str(path) for path in eraser.purge(dry_run=dry_run)]
    verb = "would be removed" if dry_run else "removed"
    _print_json(paths) if as_json else typer.echo("\n".join([*paths, f"{len(paths)} files {verb}"]))


@contextmanager
def _eraser(*, quiet: bool = False) -> Iterator[Eraser]:
    from lmeraser.eraser import Eraser
    from lmeraser.progress import silent

    if quiet:
        with Eraser(_globals.workspace, wait=_globals.wait, progress=silent) as eraser:
            yield eraser
        return
    from lmeraser.display import Display

    with Display() as display, Eraser(_globals.workspace, wait=_globals.wait, progress=display) as eraser:
        yield eraser


def _columns(image: str, label: str, record_id: str | None, subject: str | None, positions: bool) -> Columns:
    from lmeraser.sources import Columns

    return Columns(image=image, label=label, id=record_id, subject=subject, positions=positions)


def _ids(ids: list[str] | None, ids_file: Path | None) -> list[str]:
    from lmeraser.deletion import read_ids

    return [*(ids or []), *(read_ids(ids_file) if ids_file else [])]


def _names(names: str | None) -> list[str]:
    return [name.strip() for name in names.split(",")] if names else []


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1))


def _print_report(title: str, values: Mapping[str, object], *, as_json: bool) -> None:
    """As JSON, without loading what draws tables, or as a table."""
    if as_json:
        _print_json(values)
        return
    from lmeraser.display import print_facts

    print_facts(title, values)
