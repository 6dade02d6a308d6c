"""Commands for experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmeraser.cli.commands.base import Address, AsJson, ExecutorName, Processes, compute_settings, print_json


def run(
    names: Annotated[list[str], typer.Argument(help="Names of experiments, or 'all'.")],
    profile: Annotated[
        str, typer.Option(help="Size: small (for 2 cores), full (the paper's sizes) or tiny (for tests).")
    ] = "small",
    data: Annotated[
        Path | None, typer.Option(help="Folder with NAME/train.parquet and NAME/test.parquet.", file_okay=False)
    ] = None,
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
    from lmeraser.experiments.run import run as run_experiments

    compute = Config().computed({"device": device, **compute_settings(executor, address, processes)}).compute
    with Display() as display:
        report = run_experiments(
            names,
            out,
            profile=profile,
            root=data,
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


def list_experiments(as_json: AsJson = False) -> None:
    """List the experiments and methods."""
    from lmeraser.core.console import print_rows
    from lmeraser.experiments.methods import METHODS
    from lmeraser.experiments.studies import STUDIES

    if as_json:
        print_json(
            {
                "experiments": {s.name: s.title for s in STUDIES},
                "methods": {n: m.title for n, m in METHODS.items()},
            }
        )
        return
    print_rows("experiments", ["name", "title", "in the paper"], [[s.name, s.title, s.paper] for s in STUDIES])
    print_rows("methods", ["name", "title", "preset"], [[m.name, m.title, m.preset] for m in METHODS.values()])
