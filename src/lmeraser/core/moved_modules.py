"""Import paths of version 0.1, which work for one more release and warn.

The modules have moved into the packages of their purposes (`docs/adr/0019-rooms-and-words.md`). Names inside them
may have changed as well; the public names are those of `lmeraser` itself. To be removed with the next release.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Paths in 0.1 and today, below `lmeraser`. Modules of a moved package that kept their name follow it.
MOVED = {
    "aggregation": "inference.voting",
    "api_keys": "workspace.api_keys",
    "audit": "unlearning.audit",
    "backbones": "models.backbones",
    "backup": "workspace.backup",
    "blobs": "storage.blobs",
    "bucket": "storage.s3",
    "calibration": "pipeline.calibration",
    "cards": "data.identities",
    "certificate": "evidence.certificate",
    "chain": "evidence.hash_chain",
    "changes": "data.changelog",
    "constituents": "models.tuners",
    "constituents.descent": "models.tuners.gradient_tuner",
    "constituents.optimizing": "models.tuners.optimization",
    "cost": "models.partitions.cost",
    "counted": "data.statistics",
    "database": "storage.database",
    "deletion": "workspace.requests.state",
    "demo": "cli.demo",
    "derive": "pipeline.derive",
    "determinism": "core.seeding",
    "discriminant": "core.lda",
    "display": "core.console",
    "doctor": "pipeline.self_test",
    "dry_run": "unlearning.dry_run",
    "engines": "storage.engines",
    "environment": "models.environment",
    "evaluate": "inference.evaluate",
    "executors": "pipeline.executors",
    "executors.pooled": "pipeline.executors.pool",
    "executors.ray_actors": "pipeline.executors.ray",
    "files": "core.atomic_files",
    "generations": "workspace.registry",
    "grouping": "models.partitions.trie",
    "hashing": "core.digests",
    "images": "data.images",
    "importing": "data.importing",
    "keys": "storage.keystore",
    "ledger": "evidence.ledger",
    "memory": "pipeline.caches",
    "metrics": "experiments.metrics",
    "model": "models.manifest",
    "nearest": "core.nearest",
    "partitions": "models.partitions",
    "partitions.hier_cluster": "models.partitions.hierarchical",
    "pictures": "workspace.figures",
    "plan": "unlearning.plan",
    "predict": "inference.predictor",
    "predict_on_workers": "inference.distributed",
    "presets": "config.presets",
    "pretraining": "models.pretraining.pretrain",
    "priority": "core.thread_priority",
    "progress": "core.progress",
    "prompts": "models.modalities.pixel_prompts",
    "public": "data.provenance",
    "purge": "workspace.purge",
    "quarantine": "inference.quarantine",
    "reapply": "workspace.replay",
    "recipe": "models.pretraining.recipe",
    "reconcile": "evidence.reconcile",
    "records": "data.records",
    "relabel": "unlearning.relabel",
    "requests": "workspace.requests.repository",
    "residue": "unlearning.residue",
    "restore": "workspace.restore",
    "schema": "storage.migrate",
    "sections": "config.tuning",
    "selection": "workspace.requests.selection",
    "served": "workspace.freshness",
    "settings": "config.deployment",
    "signing": "evidence.dsse",
    "simulation": "unlearning.cost_simulation",
    "sources": "data.sources",
    "spool": "models.pretraining.arrow_dataset",
    "status": "workspace.status",
    "store": "storage.artifacts",
    "subscriptions": "workspace.requests.subscriptions",
    "sums": "core.sufficient_statistics",
    "tensors": "core.tensors",
    "times": "core.time",
    "touched": "pipeline.incremental",
    "train": "unlearning.train",
    "training": "models.pretraining.trainer",
    "unlearn": "unlearning.unlearn",
    "views": "models.modalities.image",
}


class _Alias:
    """A loader that gives a module from where it is today."""

    def __init__(self, target: str) -> None:
        self._module = importlib.import_module(target)
        self._spec = self._module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which importing it by the old name has replaced


class MovedModules:
    """A finder of modules by their import path of 0.1.

    Without the base classes of ``importlib.abc``, whose import takes as long as half of that of `lmeraser`.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module that has this path today, or None if it is no path of 0.1."""
        current = _current(fullname)
        if current is None or not _exists(current):
            return None
        warnings.warn(f"{fullname} is deprecated: it is {current} now", DeprecationWarning, stacklevel=2)
        loader: Any = _Alias(current)
        return ModuleSpec(fullname, loader)


def install() -> None:
    """Let imports find moved modules."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        # Before the others, which would find a moved package's files and load them a second time.
        sys.meta_path.insert(0, MovedModules())


def names_of(*modules: str, package: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package that was a module in 0.1: it gives the names of ``modules`` and warns."""

    def __getattr__(name: str) -> Any:  # noqa: N807 - what a package calls it
        if name.startswith("_") or _exists(f"{package}.{name}"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        homes = [module for module in modules if hasattr(importlib.import_module(module), name)]
        if not homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[0]), name)
        warnings.warn(f"{package}.{name} is deprecated: it is in {homes[0]}", DeprecationWarning, stacklevel=2)
        return value

    return __getattr__


def _exists(module: str) -> bool:
    from importlib.util import find_spec  # only old names need it

    return find_spec(module) is not None


def _current(fullname: str) -> str | None:
    root, _, name = fullname.partition(".")
    if root != "lmeraser":
        return None
    package, _, module = name.rpartition(".")
    if name in MOVED:
        return f"lmeraser.{MOVED[name]}"
    return f"lmeraser.{MOVED[package]}.{module}" if package in MOVED else None
