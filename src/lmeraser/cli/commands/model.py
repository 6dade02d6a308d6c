"""Commands for the model: train, predict, evaluate, audit, and measurements."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lmeraser.cli.commands.base import (
    SOURCE_HELP,
    Address,
    AsJson,
    ExecutorName,
    ImageColumn,
    LabelColumn,
    Processes,
    Split,
    compute_settings,
    make_columns,
    open_eraser,
    print_report,
)
from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.terminal import echo, print_json
from lmeraser.errors import StorageError


def train(
    rederive: Annotated[
        bool, typer.Option("--rederive", help="Derive stages again that were derived in another environment.")
    ] = False,
    executor: ExecutorName = None,
    address: Address = None,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Derive the model of the current records and settings."""
    with open_eraser(compute=compute_settings(executor, address, processes)) as eraser:
        report = eraser.train(rederive=rederive)
    from lmeraser.cli.words import command

    print_report("trained", report.to_json(), as_json=as_json, next_steps=[command("evaluate", "SOURCE")])


def cost(
    hits: Annotated[
        int, typer.Option(help="Number of simulated requests that hit the clustering sample.", min=0)
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Simulate the cost of deletion requests on the current records, even before training."""
    with open_eraser() as eraser:
        report = eraser.cost(hits=hits)
    print_report("cost of uniform requests", report.to_json(), as_json=as_json)
    if not (as_json or report.max):
        echo("no request tunes anything again")


def predict(
    queries: Annotated[
        list[str],
        typer.Argument(help="Image files or folders of them; texts; or .npy files of vectors, like the records."),
    ],
    as_json: AsJson = False,
) -> None:
    """Classify images, texts or vectors."""
    from collections import Counter
    from dataclasses import asdict

    from lmeraser.core.console import print_rows
    from lmeraser.data.folders import describe_passed_over

    passed_over: Counter[str] = Counter()
    with open_eraser() as eraser:
        noun = eraser.payload_format.noun
        named = eraser.payload_format.queries(queries, passed_over)
        if passed_over:
            echo(describe_passed_over(passed_over), err=True)
        eraser.session.executors.rely_on_known()
        predictions = eraser.predict(value for _, value in named)
    names = [name for name, _ in named]
    if as_json:
        print_json([{noun: name, **asdict(p)} for name, p in zip(names, predictions, strict=True)])
        return
    rerouted = any(prediction.rerouted for prediction in predictions)
    header = [noun, "class", "probability", "cluster", *(["rerouted"] if rerouted else [])]
    rows = [
        [name, p.class_name, p.probability, p.clusters, *([p.rerouted] if rerouted else [])]
        for name, p in zip(names, predictions, strict=True)
    ]
    print_rows("predictions", header, rows)
    if rerouted:
        echo("rerouted: the nearest cluster is quarantined for a pending deletion; the next nearest was used")


def evaluate(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    split: Split = None,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    linear: Annotated[bool, typer.Option(help="Compare with linear classifiers.")] = True,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a confusion matrix (PNG, CSV) and a reliability diagram.", file_okay=False),
    ] = None,
    executor: ExecutorName = None,
    address: Address = None,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy on labelled records, and that of linear classifiers on features and embedding."""
    from lmeraser.core.console import print_facts, print_rows
    from lmeraser.data.folders import describe_passed_over
    from lmeraser.inference.draw_evaluation import draw_evaluation
    from lmeraser.inference.summary import save_summary

    columns = make_columns(image_column, label_column, None, None, positions=False)
    with open_eraser(compute=compute_settings(executor, address, processes)) as eraser:
        model = eraser.workspace.generations.current()
        report = eraser.evaluate(source, split=split, columns=columns, linear=linear)
        if model is not None and model is eraser.workspace.generations.current():
            with contextlib.suppress(StorageError):  # the report is printed nevertheless
                save_summary(eraser.workspace.reports, model.model_digest, report)
    drawn = [] if out is None else draw_evaluation(report, out)
    if as_json:
        print_json(report.to_json())
        return
    echo(*map(str, drawn))
    if report.passed_over:
        echo(describe_passed_over(report.passed_over))
    rows = [[c.name, c.images, c.accuracy] for c in report.per_class]
    print_rows("accuracy by class", ["class", "images", "accuracy"], rows)
    facts: dict[str, Any] = {"images": report.images, "clusters": report.clusters, "accuracy": report.accuracy}
    facts |= {f"  of the {name.replace('_', ' ')} alone": share for name, share in report.part_accuracy.items()}
    facts["expected share tuned again by a request"] = report.expected_share
    facts["expected calibration error"] = report.calibration_error
    facts["linear classifier, same features"] = report.linear_accuracy
    if report.embedding_accuracy is not None:
        facts["linear classifier, same embedding"] = report.embedding_accuracy
    print_facts("accuracy", facts)


def audit(
    clusters: Annotated[int | None, typer.Option(help="Check only this many clusters, drawn at random.")] = None,
    spot_check: Annotated[
        bool,
        typer.Option(
            "--spot-check",
            help="Look at nothing but these clusters and their records, which takes time for them alone.",
        ),
    ] = False,
    executor: ExecutorName = None,
    address: Address = None,
    processes: Processes = None,
    statement: Annotated[
        Path | None,
        typer.Option(help="Write the result, signed, to this file: an in-toto Simple Verification Result."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Derive the model again from scratch and compare every digest; exit with 1 if one differs."""
    with open_eraser(compute=compute_settings(executor, address, processes)) as eraser:
        report = eraser.audit(clusters=clusters, spot_check=spot_check)
        head = eraser.workspace.generations.require().global_head
        if statement and report.identical:
            write_atomic(statement, eraser.sign_audit(report))
    if as_json:
        print_json(report.to_json())
    elif report.identical and report.spot_check:
        echo(
            f"identical: {report.clusters_checked} of {report.clusters} clusters, tuned again on their "
            f"{report.records_checked} records, have the digests of the served model ({report.model_digest}); "
            "nothing else was checked"
        )
    elif report.identical:
        checked = f"{report.clusters_checked} of {report.clusters} clusters"
        echo(
            f"identical: {'the global head and ' if head else ''}{checked}, derived again from "
            f"{report.records} records, have the digests of the served model ({report.model_digest})"
        )
    else:
        echo("NOT identical:", *(f"  - {line}" for line in report.differences))
        if not report.same_environment:
            echo(
                "The model was derived in another environment (or in several), for which only equality in "
                "distribution is claimed; 'lmeraser train --rederive' derives it again in this one."
            )
    raise typer.Exit(0 if report.identical else 1)


def draw(as_json: AsJson = False) -> None:
    """Draw clusters, classes, the last evaluation and requests over time into the folder 'reports'.

    The next generation removes the pictures.
    """
    with open_eraser() as eraser:
        drawn = [str(path) for path in eraser.draw()]
    print_json(drawn) if as_json else echo(*drawn)


def doctor(
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Device to test, instead of compute.device.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test whether this machine computes reproducibly to the bit; exit with 1 if not."""
    from lmeraser.core.console import print_facts, print_rows
    from lmeraser.pipeline.self_test import measure, run_checks

    with open_eraser(compute={"device": device} if device else None) as eraser:
        config = eraser.workspace.config
        report = run_checks(eraser.executor(), config)
        speeds = measure(eraser.executor(), config)
        eraser.workspace.calibration.note(config, speeds.measured, speeds.seconds)
    rates = {"embedding": round(speeds.embedding, 1), "tuning": speeds.tuning and round(speeds.tuning, 1)}
    if as_json:
        print_json({**report.to_json(), "images_per_second": rates})
    else:
        print_facts("environment", report.environment)
        print_rows("checks", ["check", "same bits"], [[c.name, c.passed] for c in report.checks])
        print_facts("images per second", rates)
    raise typer.Exit(0 if report.sound else 1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the workspaces, pictures and report.")] = Path("demo"),
    text: Annotated[
        Path | None, typer.Option(help="Table of your own texts (.csv, .tsv, .jsonl, .parquet) instead of digits.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of --text that holds the text.")] = None,
    label_column: Annotated[str, typer.Option(help="Column of --text that holds the label.")] = "label",
    as_json: AsJson = False,
) -> None:
    """Demonstrate training and unlearning on digits or texts; exit with 1 unless every audit is identical."""
    from lmeraser.cli.demo import print_demo, run_demo, run_text_demo
    from lmeraser.core.console import Display
    from lmeraser.errors import InputError

    if text is None and (text_column is not None or label_column != "label"):
        raise InputError("Columns without a table", got="no --text", next_step="name the table with --text")
    with Display() as display:
        if text is None:
            report = run_demo(out, progress=display)
        else:
            report = run_text_demo(out, text, text=text_column, label=label_column, progress=display)
    print_json(report.to_json()) if as_json else print_demo(report)
    raise typer.Exit(0 if report.identical else 1)
