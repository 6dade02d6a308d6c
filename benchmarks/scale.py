"""Bookkeeping with many records: import, first partition, plan, unlearning of one record. Features are simulated.

    python benchmarks/scale.py --out bench --records 1000000
    python benchmarks/scale.py --out bench --records 1000000 --heads 130     # 10,000 clusters, heads really tuned
    python benchmarks/scale.py --out bench --records 12000 --instant --together 10000    # requests that wait

Nothing is embedded: the executor generates features (768 numbers around one of many centres). Nothing is tuned
either, every cluster gets a constituent of one number, so that only the bookkeeping is measured. With
``--heads N`` the partition is a class tree with at most N records in a cluster, records are counted, and each
cluster gets a head of its own, tuned for an epoch. With ``--instant`` the model is that of the preset. With
``--together N`` so many requests are accepted and carried out in one derivation, certificates included.

Prints seconds of each step (the last is the compaction of the database), the sizes of files, and the
peak memory of the process.
"""

from __future__ import annotations

import functools
import io
import resource
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config, parse
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.core.sufficient_statistics import stack_quantized
from lmeraser.core.tensors import Array, to_bytes
from lmeraser.data import sources
from lmeraser.data.importing import import_records
from lmeraser.models.tuners.base import Members
from lmeraser.models.tuners.head import HeadTuner
from lmeraser.pipeline.executors.base import Fetch, TuneResult, TuneTask, Vector
from lmeraser.unlearning.dry_run import dry_run
from lmeraser.unlearning.train import train
from lmeraser.unlearning.unlearn import unlearn
from lmeraser.workspace.purge import purge
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.session import Session
from lmeraser.workspace.status import status
from lmeraser.workspace.workspace import Workspace
from measuring import keep, parser_of, seconds

FEATURES, CENTRES = 768, 500


class Simulated:
    """An executor that makes results up."""

    fingerprint = Digest.of(b"simulated environment")
    backbone = Digest.of(b"simulated backbone")

    def __init__(self, config: Config) -> None:
        self._config = config
        self._centres = np.random.default_rng(0).standard_normal((CENTRES, FEATURES), dtype=np.float32)

    def describe(self) -> dict[str, str]:
        """Nothing real."""
        return {"machine": "simulated"}

    def class_vectors(self) -> NDArray[np.float32]:
        """The centres."""
        return self._centres

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ()
    ) -> Iterator[tuple[str, Vector]]:
        """A centre and noise, by the number in the id."""
        for record_id in ids:
            coins = np.random.default_rng(int(record_id.rpartition("-")[2]))
            noise = coins.standard_normal(FEATURES, dtype=np.float32)
            yield record_id, self._centres[coins.integers(CENTRES)] + noise

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """One number, or a head."""
        torch.set_num_threads(1)
        for task in tasks:
            made: Mapping[str, Array] = {"records": np.array([len(task.ids)])}
            if self._config.constituent.kind == "head":
                members = Members(task.ids, task.labels, stack_quantized(fetch(task.ids)))
                made = HeadTuner(self._config).tune(members, classes=task.classes)
            yield TuneResult(task.key, to_bytes(made), 0.0)


def rows(count: int) -> Iterator[sources.Row]:
    """Pictures of one pixel, each of another colour."""
    for number in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (1, 1), (number >> 16 & 255, number >> 8 & 255, number & 255)).save(buffer, "ppm")
        yield sources.Row(number, f"record-{number:09d}", None, number % 10, buffer.getvalue())


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--heads", type=int, default=0, metavar="N")
    parser.add_argument("--instant", action="store_true", help="the settings of the preset instant")
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--together", type=int, default=0, metavar="N")
    options = parser.parse_args()
    config = parse({"partition": {"clusters": options.clusters, "sample_size": 2000}})
    if options.heads:
        partition = {"method": "class_tree", "max_records": options.heads}
        config = parse({"partition": partition, "constituent": {"kind": "head"}, "tuning": {"epochs": 1}})
    if options.instant:
        config = parse({}, base="instant")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.create(Path(folder) / "w", config)
        session = Session.of(workspace)
        session.executors.use(Simulated(config))

        def step(name: str, function: Any) -> None:
            found[name] = seconds(function)
            print(f"{name:30} {found[name]:10.3f} s   {memory():6.2f} GB", flush=True)

        step("import", lambda: fill(workspace, options.records))
        step("train", lambda: train(session))
        found["clusters"] = len(workspace.generations.require().clusters)
        found |= dict(sizes(workspace.root))
        names = [f"record-{number:09d}" for number in range(7, options.records, options.records // 40)]
        sampled = workspace.generations.require().partition.key
        usual = [name for name in names if not workspace.records.derived.any_sampled(sampled, [name])]
        step("status", lambda: status(workspace))
        for what, work in (
            ("plan", lambda name: dry_run(session, Selector.of([name]))),
            ("unlearn", lambda name: unlearn(session, RequestDraft(Selector.of([name])))),
        ):
            times = [seconds(functools.partial(work, name)) for name in usual[: options.requests]]
            found[f"{what}, median"] = statistics.median(times)
            print(f"{what}, median {found[f'{what}, median']:10.3f} s   {memory():6.2f} GB", flush=True)
        if options.together:
            held = [f"record-{number:09d}" for number in range(options.records)]
            held = [name for name in held if name not in usual]
            accept_all(workspace, held[: options.together])
            step(f"{options.together} requests together", lambda: unlearn(session))
            found["requests a second"] = options.together / found[f"{options.together} requests together"]
            print(f"requests a second {found['requests a second']:10.1f}", flush=True)
        step("purge", lambda: purge(workspace, compact=True))
        workspace.close()
    found["memory, GB"] = memory()
    kind = ", heads" if options.heads else ", instant" if options.instant else ""
    keep(options, f"scale {options.records}{kind}", found)


def fill(workspace: Workspace, count: int) -> None:
    """Import the made-up records."""
    classes = tuple(str(number) for number in range(10))
    source = sources.Source("simulated", classes, count, rows(count))
    with workspace.writing("add"):
        import_records(workspace.records, source, ledger=workspace.ledger, now=workspace.clock(), progress=silent)


def accept_all(workspace: Workspace, names: Sequence[str]) -> None:
    """Accept a request for each of these records."""
    with workspace.write_transaction() as connection:
        for name in names:
            draft = RequestDraft(Selector.of([name]))
            workspace.request_changes.accept(draft, now=workspace.clock(), connection=connection)


def sizes(root: Path) -> Iterator[tuple[str, float]]:
    """Of the parts of a workspace, GB."""
    for part in ("records.db", "records.keys", "generations", "artifacts", "memo"):
        files = [path for path in (root / part).rglob("*") if path.is_file()] or [root / part]
        yield f"{part}, GB", sum(path.stat().st_size for path in files) / 1e9


def memory() -> float:
    """The most memory this process has held, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
