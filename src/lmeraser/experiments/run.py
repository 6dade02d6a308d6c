"""Run experiments in sequence, save each result as soon as it is complete, and write a report at the end.

The folder of a run holds ``environment.json`` (versions, machine, choices), ``config.json`` (the profile),
``steps`` (every training and request), ``results``, ``tables``, ``figures``, ``measurements.parquet`` and
``.csv``, and ``report.html``. An interrupted run resumes where it stopped. Trained workspaces are removed at the
end because they hold the records.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lmeraser._version import __version__
from lmeraser.config.deployment import ComputeConfig
from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.progress import Progress, silent
from lmeraser.errors import InputError
from lmeraser.experiments.catalog import BUILT_IN, Catalog
from lmeraser.experiments.profiles import Profile, profile_of
from lmeraser.experiments.report import write_report, write_result
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.studies import STUDIES
from lmeraser.experiments.studies.base import available_data_sets


@dataclass(frozen=True)
class Choice:
    """What a run compares, where it is not what the profile and the experiments say.

    Attributes:
        methods: names of the methods; empty: those of each experiment.
        data: names of the data sets; empty: those of the profile.
        seeds: number of seeds that are compared; None: that of the profile.
    """

    methods: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    seeds: int | None = None

    def applied(self, profile: Profile, catalog: Catalog) -> Profile:
        """The profile with these data sets and seeds.

        Raises:
            InputError: a name is unknown, or a number of seeds is none.
        """
        for name in self.methods:
            catalog.method(name)
        for name in self.data:
            if name not in catalog.data_sets and Path(name).is_dir():
                raise InputError(
                    "Data set not found", got=f"{name!r}, which is a folder", next_step="pass it with --folder"
                )
            catalog.data_set(name)
        if self.seeds is not None and self.seeds < 1:
            raise InputError("Number of seeds is out of range", got=f"{self.seeds}, expected at least 1")
        added = tuple(name for name in catalog.data_sets if name in catalog.added)
        return replace(
            profile,
            data_sets=self.data or (*profile.data_sets, *added),
            seeds=self.seeds if self.seeds is not None else profile.seeds,
        )


@dataclass(frozen=True)
class RunReport:
    """The outcome of a run.

    Attributes:
        report: path of the HTML report.
        seconds: duration of each experiment that was executed now.
    """

    report: Path
    seconds: dict[str, float]


def run(
    names: Sequence[str],
    out: Path,
    *,
    profile: str = "small",
    choice: Choice | None = None,
    catalog: Catalog = BUILT_IN,
    root: Path | None = None,
    hub: bool = False,
    compute: ComputeConfig | None = None,
    keep_workspaces: bool = False,
    progress: Progress = silent,
) -> RunReport:
    """Run experiments and write the report.

    Args:
        names: names of experiments, or ``all``.
        out: folder of the run; an earlier run with the same profile is resumed.
        profile: name of the profile.
        choice: methods, data sets and seeds, where not all are compared.
        catalog: the methods and data sets that there are.
        root: folder of the data sets.
        hub: whether to fetch missing data sets from the ``datasets`` hub.
        compute: where models are derived.
        keep_workspaces: keep the trained workspaces, which hold the records.
        progress: callback for progress reports.

    Raises:
        InputError: an unknown name, no data set available, or the folder holds files of another run.
    """
    chosen = _selected(names)
    choice = choice or Choice()
    runner = TrialRunner(
        out,
        choice.applied(profile_of(profile), catalog),
        root=root,
        catalog=catalog,
        methods=choice.methods or None,
        hub=hub,
        compute=compute,
        progress=progress,
    )
    if not list(available_data_sets(runner)):
        raise InputError(
            "No data set of the profile found",
            got=f"none of {', '.join(runner.profile.data_sets)} in {root}" if root else "no folder was given",
            next_step="pass a folder with NAME/train.parquet and NAME/test.parquet with --folder, or use --hub",
        )
    chosen_values = {name: value for name, value in asdict(choice).items() if value}
    files = {"files": dict(catalog.files)} if catalog.files else {}
    _write_environment(out, {"profile": profile, **chosen_values, **files})
    write_atomic(out / "config.json", json.dumps(asdict(runner.profile), indent=1).encode())
    seconds = {}
    for done, study in enumerate(study for study in STUDIES if study.name in chosen):
        progress("experiments", done, len(chosen))
        if (out / "results" / f"{study.name}.json").exists():
            continue
        started = time.perf_counter()
        write_result(out, study.run(runner))
        seconds[study.name] = round(time.perf_counter() - started, 1)
    if not keep_workspaces:
        shutil.rmtree(out / "workspaces", ignore_errors=True)
    return RunReport(write_report(out, [study.name for study in STUDIES]), seconds)


def _selected(names: Sequence[str]) -> set[str]:
    """Names of the experiments to run."""
    known = [study.name for study in STUDIES]
    if unknown := set(names) - {*known, "all"}:
        raise InputError(
            "Experiment not found",
            got=f"{', '.join(map(repr, sorted(unknown)))} (there are: {', '.join(known)}, all)",
            next_step="see 'lmeraser experiments list'",
        )
    return set(known) if "all" in names else set(names)


def _write_environment(out: Path, chosen: dict[str, object]) -> None:
    """Record versions, machine and choices of a run; refuse to continue a run made with others."""
    import torch

    values = {
        "lmeraser": __version__,
        **json.loads(json.dumps(chosen)),
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
            "Output folder is not empty",
            got=f"{out} holds files that are not of an earlier run",
            next_step="choose another folder with --out",
        )
    if file.exists() and (known := json.loads(file.read_text())) != values:
        names = dict.fromkeys((*values, *known))
        differences = [f"{name}: {known.get(name)}" for name in names if known.get(name) != values.get(name)]
        raise InputError(
            "Run cannot be resumed with other choices, or another version or machine",
            got=f"{out} holds a run with {', '.join(differences)}",
            next_step="choose another folder with --out",
        )
    write_atomic(file, json.dumps(values, indent=1).encode())
