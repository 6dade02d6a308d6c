"""The choice of executors: this process, or the pool of workers that ``[compute]`` names; started at first use.

Knows nothing about workspaces; imports torch only when an executor is started.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.errors import BackboneError, LmeraserError
from lmeraser.models.backbone_names import given_features, locate_backbone, locate_in_workspace
from lmeraser.models.manifest import Model

if TYPE_CHECKING:
    from lmeraser.models.backbones import Backbone
    from lmeraser.pipeline.executors.base import Executor
    from lmeraser.pipeline.executors.deferred import DeferredExecutor
    from lmeraser.pipeline.executors.local import LocalExecutor
    from lmeraser.pipeline.executors.pool import PooledExecutor, WorkerBackend


RanOn = Literal["asking process", "pool", "new workers"]  # in reports of audits and in certificates


class ExecutorProvider:
    """The executors for one set of settings.

    Args:
        settings: returns the settings; called when an executor is needed.
        preferred: returns the environments that a pool prefers, for instance those of the served model.
        backbone: the frozen network, if the caller has loaded it already.
        root: folder of the workspace, near which the backbone's folder is looked for; None: it is not of one.
        progress: receives progress reports.
    """

    def __init__(
        self,
        settings: Callable[[], Config],
        *,
        preferred: Callable[[], Iterable[Digest]] = tuple,
        backbone: Backbone | None = None,
        root: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        self._settings = settings
        self._root = root
        self._preferred = preferred
        self._backbone = backbone
        self._progress = progress
        self._local: LocalExecutor | None = None
        self._rely_on_known = False

    def local(self) -> LocalExecutor:
        """The executor of this process; loads the backbone at first use."""
        if self._local is None:
            from lmeraser.pipeline.executors.local import LocalExecutor

            self._progress("loading the backbone", 0, None)
            located = self._located(self._settings())
            self._local = LocalExecutor(located, self._backbone, rely_on_known=self._rely_on_known)
        return self._local

    def rely_on_known(self) -> None:
        """Take the environment from an earlier process where it is known, without finding it out again.

        For a process that only predicts: it says of no result in which environment it was computed.
        """
        self._rely_on_known = True

    def use(self, executor: Executor) -> None:
        """Take an executor that exists already as that of this process.

        Args:
            executor: shared with another provider, or a stand-in. Training needs no more than an `Executor`;
                prediction needs a `LocalExecutor`.
        """
        self._local = cast("LocalExecutor", executor)

    @property
    def is_loaded(self) -> bool:
        """Whether this process has its executor, and so the backbone, in memory."""
        return self._local is not None

    def for_training(self) -> Executor:
        """The executor that derives models: this process, or the pool; its workers are started at first use.

        Where an earlier process found out what backbone and environment these are, this process loads the backbone
        only when something is to be computed with it.
        """
        if self._settings().compute.executor != "local":
            return self._pool
        if self._local is None and (deferred := self._deferred) is not None:
            return deferred
        return self.local()

    def load(self) -> None:
        """Load what derives models now, so that a backbone that cannot be loaded changes nothing."""
        if self._settings().compute.executor != "local":
            _ = self._pool
        elif self._local is None:
            self._load_known()

    def for_training_named(self) -> tuple[Executor, RanOn]:
        """The executor that derives models, and what it is."""
        return self.for_training(), "asking process" if self._settings().compute.executor == "local" else "pool"

    def for_audit(self) -> tuple[Executor, RanOn]:
        """An executor of the same environment that none of the workers is part of, and what it is.

        It is that of this process, if its environment is the pool's; else a pool of new workers.
        """
        executor, ran_on = self.for_training_named()
        if ran_on == "asking process":
            return self.local(), ran_on
        with contextlib.suppress(LmeraserError):  # for instance, the workers' device is missing here
            local = self.local()
            if (local.fingerprint, local.backbone) == (executor.fingerprint, executor.backbone):
                return local, "asking process"
        return self._new_pool, "new workers"

    def for_model(self, model: Model) -> Executor:
        """The executor for passes of a model: that for training if the settings agree, else this process."""
        return self.for_training() if model.matches(self._settings()) else self.local_for_model(model)

    def local_for_model(self, model: Model) -> LocalExecutor:
        """The executor of this process with a model's own settings, which may not be the current ones."""
        settings = self._settings()
        if model.matches(settings):
            return self.local()
        from lmeraser.pipeline.executors.local import LocalExecutor

        located = self._located(model.config(settings.compute))
        return LocalExecutor(located, rely_on_known=self._rely_on_known)

    def close(self) -> None:
        """Stop the workers, if any were started."""
        for name in ("_pool", "_new_pool"):
            if name in self.__dict__:
                self.__dict__[name].close()

    @cached_property
    def _deferred(self) -> DeferredExecutor | None:
        """The executor of this process before its backbone is loaded; None if its environment is not known."""
        from lmeraser.models import known_environments
        from lmeraser.pipeline.executors.deferred import DeferredExecutor

        if self._backbone is not None:
            return None
        config = self._located(self._settings())
        known = known_environments.find(known_environments.facts_of(config))
        if known is None:
            return None
        return DeferredExecutor(
            known.fingerprint.digest,
            known.backbone,
            self._load_known,
            environment=known.fingerprint,
            given=given_features(config),
        )

    def _load_known(self) -> Executor:
        """The executor of this process, which has to be what it was known to be.

        Raises:
            BackboneError: it is not. What was known is forgotten, so that the next process finds out.
        """
        from lmeraser.models import known_environments

        known, local = self._deferred, self.local()
        if known is not None and (local.fingerprint, local.backbone) != (known.fingerprint, known.backbone):
            known_environments.forget(known_environments.facts_of(self._located(self._settings())))
            raise BackboneError(
                "The backbone or the environment is not the one that an earlier run found with the same files",
                got=f"fingerprint {local.fingerprint.short} instead of {known.fingerprint.short}, backbone "
                f"{local.backbone.short} instead of {known.backbone.short}",
                next_step="run the same command again; it relies on what was found now",
            )
        return local

    @cached_property
    def _pool(self) -> PooledExecutor:
        self._progress("starting workers", 0, None)
        return worker_pool(self._located(self._settings()), prefer=self._preferred())

    @cached_property
    def _new_pool(self) -> PooledExecutor:
        self._progress("starting new workers", 0, None)
        return worker_pool(self._located(self._settings()), prefer=[self._pool.fingerprint])

    def _located(self, config: Config) -> Config:
        return locate_backbone(config) if self._root is None else locate_in_workspace(config, self._root)


def worker_pool(config: Config, *, prefer: Iterable[Digest] = ()) -> PooledExecutor:
    """The pool of workers that ``[compute]`` names; they are started when they are needed.

    Args:
        config: all settings.
        prefer: environments that are preferred.
    """
    from lmeraser.pipeline.executors.pool import PooledExecutor

    compute = config.compute
    on_gpus = compute.device == "cuda"
    cores = compute.workers or 1
    settings = config.computed({"executor": "local", "workers": cores}).model_dump_json()
    backend: WorkerBackend
    if compute.executor == "ray":
        from lmeraser.pipeline.executors.ray import RayActors

        backend = RayActors(
            settings, address=compute.address, cores=cores, gpus=int(on_gpus), limit=compute.processes
        )
    else:
        from lmeraser.pipeline.executors.processes import Processes

        gpus = _gpu_count() if on_gpus else 0
        size = compute.processes or gpus or max(1, (os.cpu_count() or 1) // cores)
        backend = Processes(settings, size=size, gpus=gpus)
    return PooledExecutor(config, backend, prefer=prefer)


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()
