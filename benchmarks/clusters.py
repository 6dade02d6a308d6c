"""A request, a plan and a spot check by the number of clusters. Features are simulated, heads are really tuned.

    python benchmarks/clusters.py --out bench                                             # a quarter of an hour
    python benchmarks/clusters.py --out bench --records 1000000 --features 768 --largest 1500 150 15

The same records in fewer and more clusters: a class tree with at most so many records in a cluster
(``--largest``), each with a head of its own. A workspace is trained in one process and asked in another, so that
the memory of requests is known. ``--keep FOLDER`` keeps the workspaces, and uses those that are there.

Prints, for each number of clusters, medians: seconds of a request for one record apart from the tuning, its
processor seconds with the tuning, and those of a plan; seconds of a spot check of one cluster in a hundred
(`lmeraser audit --clusters N --spot-check`); the most memory that training and asking took; and the exponents of
the power laws that fit best, and what the fewest clusters take as a share of what the most take (1: as long).
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import scale
from growth import exponent
from lmeraser.config.schema import parse
from lmeraser.unlearning.audit import audit
from lmeraser.unlearning.dry_run import dry_run
from lmeraser.unlearning.train import train
from lmeraser.unlearning.unlearn import unlearn
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace
from measuring import keep, parser_of, seconds


def opened(folder: Path, features: int) -> Session:
    """A workspace with simulated features."""
    scale.FEATURES = features
    session = Session.of(Workspace(folder))
    session.executors.use(scale.Simulated(session.workspace.config))
    return session


def prepare(folder: Path, records: int, largest: int, features: int) -> dict[str, float]:
    """Fill and train a workspace."""
    partition = {"method": "class_tree", "max_records": largest}
    config = parse({"partition": partition, "constituent": {"kind": "head"}, "tuning": {"epochs": 1}})
    Workspace.create(folder, config).close()
    session = opened(folder, features)
    filling = seconds(lambda: scale.fill(session.workspace, records))
    training = seconds(lambda: train(session))
    session.workspace.close()
    return {"import, s": filling, "training, s": training, "training: memory, GB": scale.memory()}


def ask(folder: Path, records: int, requests: int, features: int) -> dict[str, float]:
    """Plans, requests and a spot check."""
    session = opened(folder, features)
    workspace = session.workspace
    model = workspace.generations.require()
    found: dict[str, float] = {"clusters": len(model.clusters)}
    held = workspace.records.find(f"record-{number:09d}" for number in range(7, records, max(1, records // 40)))
    names = sorted(held)[: requests + 1]

    def measured(what: str, work: Callable[[str], float], apart: str = "") -> None:
        times = [both(functools.partial(work, name)) for name in names][1:]  # the first one warms up
        found[f"{what}{apart}, s"] = statistics.median(wall for wall, _ in times)
        found[f"{what}, processor s"] = statistics.median(processor for _, processor in times)

    def plan(name: str) -> float:
        dry_run(session, Selector.of([name]))
        return 0.0

    def request(name: str) -> float:
        report = unlearn(session, RequestDraft(Selector.of([name])))
        report.to_json()
        return report.training.tuning_seconds if report.training else 0.0

    measured("plan", plan)
    measured("request", request, " apart from the tuning")
    checked = max(1, len(model.clusters) // 100)
    started = time.perf_counter()
    report = audit(session, clusters=checked, spot_check=True)
    assert report.identical, report.differences
    found["spot check, s"] = time.perf_counter() - started
    found["spot check: records"] = report.records_checked or 0
    workspace.close()
    return found | {"memory, GB": scale.memory()}


def both(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds of some work without those that it returns, and its processor seconds with everything."""
    processor, started = time.process_time(), time.perf_counter()
    less = work()
    return time.perf_counter() - started - less, time.process_time() - processor


def alone(function: Callable[..., dict[str, float]], *arguments: object) -> dict[str, float]:
    """The result of a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--largest", type=int, nargs="+", default=[150, 15], help="most records of a cluster")
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="folder for the workspaces")
    options = parser.parse_args()
    by_clusters: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for largest in options.largest:
            folder = (options.keep or Path(temporary)) / f"{options.records}-{options.features}-{largest}"
            prepared: dict[str, float] = {}
            if not folder.exists():
                prepared = alone(prepare, folder, options.records, largest, options.features)
            asked = alone(ask, folder, options.records, options.requests, options.features)
            by_clusters[int(asked["clusters"])] = prepared | asked
            print(f"{asked['clusters']:8} clusters:", {name: round(v, 4) for name, v in asked.items()}, flush=True)
    rows: dict[str, Any] = {
        f"{clusters} clusters: {name}": value
        for clusters, found in by_clusters.items()
        for name, value in found.items()
    }
    if len(by_clusters) > 1:
        for name in ("request apart from the tuning, s", "request, processor s", "plan, s"):
            curve = {clusters: each[name] for clusters, each in sorted(by_clusters.items())}
            rows[f"{name}: exponent"] = exponent(curve)
            rows[f"{name}: fewest clusters as a share of most"] = curve[min(curve)] / curve[max(curve)]
    keep(options, f"clusters, {options.records} records", rows)


if __name__ == "__main__":
    main()
