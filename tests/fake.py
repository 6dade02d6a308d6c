"""An executor without torch, for tests that need the pipeline's bookkeeping many times and not its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.modalities import View
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress
from lmeraser.core.tensors import from_bytes, to_bytes
from lmeraser.pipeline.executors.base import Fetch, TuneResult, TuneTask, Vector


class Fake:
    """An executor whose results are digests of its inputs; counts what it does and may stop in the middle."""

    fingerprint = Digest.of(b"environment")
    backbone = Digest.of(b"backbone")

    def __init__(self, stop_after: int = 10**9) -> None:
        self.embedded: list[str] = []
        self.tuned: list[tuple[str, ...]] = []
        self.stop_after = stop_after

    def describe(self) -> dict[str, str]:
        return {"machine": "none"}

    def class_vectors(self) -> NDArray[np.float32]:
        return np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ()
    ) -> Iterator[tuple[str, Vector]]:
        for record_id in ids:
            self.embedded.append(record_id)
            parts = []
            for view in views or ("clean",):
                seen = fetch([record_id])[0] + (b"" if view == "clean" else view.encode())
                seed = int.from_bytes(hashlib.sha256(seen).digest()[:4], "big")
                parts.append(np.random.default_rng(seed).standard_normal(6).astype(np.float32))
            yield record_id, np.concatenate(parts)

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        for task in tasks:
            if len(self.tuned) == self.stop_after:
                raise KeyboardInterrupt
            self.tuned.append(task.ids)
            content = repr(
                (task.ids, task.labels, task.classes, task.groups, task.parts, fetch(task.ids))
            ).encode()
            content += b"" if task.start is None else from_bytes(task.start)["prompt"].tobytes()
            tensor = np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8)
            yield TuneResult(task.key, to_bytes({"prompt": tensor}), 0.1)
