"""Where F runs: in this process (`local`), or on workers (`pool_of`)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.pipeline.executors.pool import PooledExecutor, WorkerBackend

__all__ = ["pool_of"]


def pool_of(config: Config, *, prefer: Iterable[Digest] = ()) -> PooledExecutor:
    """The workers that ``[compute]`` names; started when they are needed.

    Args:
        config: all settings.
        prefer: environments that are preferred.
    """
    compute = config.compute
    gpu = compute.device == "cuda"
    cores = compute.workers or 1
    settings = config.computed({"executor": "local", "workers": cores}).model_dump_json()
    engine: WorkerBackend
    if compute.executor == "ray":
        from lmeraser.pipeline.executors.ray import RayActors

        engine = RayActors(settings, address=compute.address, cores=cores, gpus=int(gpu), most=compute.processes)
    else:
        from lmeraser.pipeline.executors.processes import Processes

        gpus = _gpus() if gpu else 0
        size = compute.processes or gpus or max(1, (os.cpu_count() or 1) // cores)
        engine = Processes(settings, size=size, gpus=gpus)
    return PooledExecutor(config, engine, prefer=prefer)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
