"""Commands for experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmeraser.cli.commands.base import Address, AsJson, ExecutorName, Processes, compute_settings
from lmeraser.core.terminal import print_json

WithFiles = Annotated[
    list[Path] | None,
    typer.Option("--with", help="Python file that defines further methods and data sets; may be repeated."),
]


def run(
    names: Annotated[list[str], typer.Argument(help="Names of experiments, or 'all'.")],
    profile: Annotated[
        str, typer.Option(help="Size: small or text (for 2 cores), full (the paper's sizes) or tiny (for tests).")
    ] = "small",
    folder: Annotated[
        Path | None, typer.Option(help="Folder with NAME/train.parquet and NAME/test.parquet.", file_okay=False)
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option(help="Methods to compare, separated by commas. Default: each experiment's.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Data sets, separated by commas. Default: the profile's.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds. Default: the profile's.", min=1)] = None,
    with_files: WithFiles = None,
    hub: Annotated[bool, typer.Option("--hub", help="Fetch missing data sets from the datasets hub.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run is resumed.")] = Path(
        "experiments"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the trained workspaces, which hold the records.")
    ] = False,
    device: Annotated[str, typer.Option(help="Device: cpu or cuda.")] = "cpu",
    executor: ExecutorName = None,
    address: Address = None,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Run experiments of the paper's comparison and write a report."""
    from lmeraser.config.schema import Config
    from lmeraser.core.console import Display, print_facts
    from lmeraser.experiments.catalog import load_catalog
    from lmeraser.experiments.run import Choice
    from lmeraser.experiments.run import run as run_experiments

    compute = Config().computed({"device": device, **compute_settings(executor, address, processes)}).compute
    with Display() as display:
        report = run_experiments(
            names,
            out,
            profile=profile,
            choice=Choice(_listed(methods), _listed(data), seeds),
            catalog=load_catalog(with_files or ()),
            root=folder,
            hub=hub,
            compute=compute,
            keep_workspaces=keep,
            progress=display,
        )
    if as_json:
        print_json({"report": str(report.report), "seconds": report.seconds})
    else:
        print_facts(
            "experiments", {"report": report.report, **{f"{n}: seconds": s for n, s in report.seconds.items()}}
        )


def list_experiments(with_files: WithFiles = None, as_json: AsJson = False) -> None:
    """List the experiments, methods and data sets."""
    from lmeraser.core.console import print_rows
    from lmeraser.experiments.catalog import load_catalog
    from lmeraser.experiments.studies import STUDIES

    catalog = load_catalog(with_files or ())
    if as_json:
        print_json(
            {
                "experiments": {s.name: s.title for s in STUDIES},
                "methods": {n: m.title for n, m in catalog.methods.items()},
                "data_sets": {n: d.title for n, d in catalog.data_sets.items()},
            }
        )
        return
    print_rows("experiments", ["name", "title", "in the paper"], [[s.name, s.title, s.paper] for s in STUDIES])
    methods = [
        [m.name, m.title, "functions on features" if m.on_features else m.preset] for m in catalog.methods.values()
    ]
    print_rows("methods", ["name", "title", "preset"], methods)
    sets = [[d.name, d.title, d.modality, "yes" if d.subject else "no"] for d in catalog.data_sets.values()]
    print_rows("data sets", ["name", "title", "records are", "subjects known"], sets)


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a run.", file_okay=False)],
    second: Annotated[Path, typer.Argument(help="Folder of another run.", file_okay=False)],
    metrics: Annotated[
        list[str] | None, typer.Option(help="Compare these numbers alone; may be repeated.")
    ] = None,
    experiments: Annotated[
        list[str] | None, typer.Option(help="Compare these experiments alone, separated by commas.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the measured numbers of two runs."""
    from lmeraser.core.console import print_facts, print_rows
    from lmeraser.experiments.measurements import compare as compare_runs

    found = compare_runs(first, second, metrics=metrics or (), experiments=_listed(experiments))
    if as_json:
        print_json(found.to_json())
        return
    if found.environments:
        print_rows("runs differ in", ["", "first", "second"], found.environments)
    if found.different.rows:
        columns = list(found.different.columns)
        metric = columns.index("metric")  # what stands before it says of what the number is, and takes one column
        rows = [[" · ".join(map(str, filter(None, row[:metric]))), *row[metric:]] for row in found.different.rows]
        print_rows(found.different.title, ["number of", *columns[metric:]], rows)
    only_first, only_second = found.only
    facts = {"equal": found.equal, "different": len(found.different.rows)}
    print_facts("numbers", {**facts, "only in the first": only_first, "only in the second": only_second})


def _listed(values: list[str] | None) -> tuple[str, ...]:
    """Names that are separated by commas, or given one by one."""
    return tuple(name for value in values or () for name in value.split(",") if name)
