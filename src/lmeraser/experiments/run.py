"""Run experiments: one after the other, each kept as soon as it is done, and a report of all of them at the end.

A run's folder holds ``environment.json`` (versions, machine), ``config.json`` (the profile), ``steps`` (every
training and request), ``results``, ``tables``, ``figures`` and ``report.html``. An interrupted run goes on where
it stopped. Trained workspaces are removed at the end, because they hold the records.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lmeraser._version import __version__
from lmeraser.config.deployment import ComputeConfig
from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.progress import Progress, silent
from lmeraser.errors import InputError
from lmeraser.experiments.bench import Bench
from lmeraser.experiments.profiles import profile_of
from lmeraser.experiments.report import keep, write_report
from lmeraser.experiments.studies import STUDIES
from lmeraser.experiments.studies.base import data_of


@dataclass(frozen=True)
class RunReport:
    """What a run left.

    Attributes:
        report: the HTML file.
        seconds: of each experiment that was run now.
    """

    report: Path
    seconds: dict[str, float]


def run(
    names: Sequence[str],
    out: Path,
    *,
    profile: str = "small",
    root: Path | None = None,
    hub: bool = False,
    compute: ComputeConfig | None = None,
    keep_workspaces: bool = False,
    progress: Progress = silent,
) -> RunReport:
    """Run experiments and write the report.

    Args:
        names: of experiments, or ``all``.
        out: the run's folder; another run of the same profile is continued.
        profile: how large everything is.
        root: folder of the data sets.
        hub: whether those that are not there come from the ``datasets`` hub.
        compute: where models are derived.
        keep_workspaces: leave trained workspaces, which hold the records.
        progress: told how far it is.

    Raises:
        InputError: an unknown name, no data set at hand, or the folder holds a run of another profile.
    """
    chosen = _chosen(names)
    bench = Bench(out, profile_of(profile), root=root, hub=hub, compute=compute, progress=progress)
    if not list(data_of(bench)):
        raise InputError(
            f"At least one data set of the profile is at hand: {', '.join(bench.profile.data)}.",
            got=f"none of them in {root}" if root else "no folder",
            next_step="give a folder with NAME/train.parquet and NAME/test.parquet with --data, or --hub",
        )
    _settle(out, profile)
    write_atomic(out / "config.json", json.dumps(asdict(bench.profile), indent=1).encode())
    seconds = {}
    for done, study in enumerate(study for study in STUDIES if study.name in chosen):
        progress("experiments", done, len(chosen))
        if (out / "results" / f"{study.name}.json").exists():
            continue
        started = time.perf_counter()
        keep(out, study.run(bench))
        seconds[study.name] = round(time.perf_counter() - started, 1)
    if not keep_workspaces:
        shutil.rmtree(out / "workspaces", ignore_errors=True)
    return RunReport(write_report(out, [study.name for study in STUDIES]), seconds)


def _chosen(names: Sequence[str]) -> set[str]:
    known = [study.name for study in STUDIES]
    if unknown := set(names) - {*known, "all"}:
        raise InputError(
            f"An experiment is 'all' or one of {', '.join(known)}.",
            got=", ".join(sorted(unknown)),
            next_step="'lmeraser experiments list' says what they are",
        )
    return set(known) if "all" in names else set(names)


def _settle(out: Path, profile: str) -> None:
    """Write down where and how a run is made; refuse to mix two."""
    import torch

    values = {
        "lmeraser": __version__,
        "profile": profile,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
    }
    file = out / "environment.json"
    if not file.exists() and out.exists() and any(out.iterdir()):
        raise InputError(
            "A run is made in a missing or empty folder, or continues an earlier one.",
            got=f"{out} holds other files",
            next_step="choose another folder with --out",
        )
    if file.exists() and (known := json.loads(file.read_text())) != values:
        differences = [f"{name}: {known.get(name)}" for name, value in values.items() if known.get(name) != value]
        raise InputError(
            "A run is continued with the same profile, versions and machine.",
            got=f"a run with {', '.join(differences)}",
            next_step="choose another folder with --out",
        )
    write_atomic(file, json.dumps(values, indent=1).encode())
