"""The steps that experiments are made of: train a method, unlearn with it, answer; each done once and kept.

An interrupted run goes on from what is kept (`steps`). Workspaces stay in ``workspaces`` while a run lasts,
because deletions start from copies of them. Follows the facade (`eraser`); knows nothing about tables or figures.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.deployment import ComputeConfig
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.core.seeding import order
from lmeraser.core.tensors import from_bytes
from lmeraser.eraser import Eraser
from lmeraser.experiments.cells import Cell, Data, Outcome, half_of
from lmeraser.experiments.datasets import DATA_SETS, SUBJECT, rows
from lmeraser.experiments.forget_sets import Known, forget_sets
from lmeraser.experiments.methods import method_of, settings_of
from lmeraser.experiments.profiles import BackboneProfile, Profile
from lmeraser.experiments.relearn import Forgotten, relearn_curve
from lmeraser.experiments.resources import measured
from lmeraser.experiments.steps import Steps
from lmeraser.inference.predictor import Predictor
from lmeraser.models.backbones import Backbone as Network
from lmeraser.models.backbones import load_backbone

_CHUNK = 256
_RELEARN = 5  # epochs
_TRAINED = "trained"  # a file beside a workspace's own: its training ended
REFERENCE = "lmeraser"  # the method whose partition forget sets are chosen by


class Bench:
    """Runs steps, and remembers them in a folder.

    Args:
        out: the folder.
        profile: the size of everything.
        root: folder of the data sets.
        hub: whether those that are not there come from the hub.
        compute: where models are derived.
        progress: told how far it is.
    """

    def __init__(
        self,
        out: Path,
        profile: Profile,
        *,
        root: Path | None,
        hub: bool = False,
        compute: ComputeConfig | None = None,
        progress: Progress = silent,
    ) -> None:
        self.out, self.profile, self.root, self.hub = out, profile, root, hub
        self._compute, self._progress = compute or ComputeConfig(), progress
        self._steps = Steps(out / "steps")
        self._data: dict[tuple[str, int], Data] = {}
        self._networks: dict[int, Network] = {}
        self._kept: dict[tuple[str, str, int | None], list[bytes]] = {}

    def data(self, name: str, backbone: int = 0) -> Data:
        """The records of a data set, with forget sets chosen by the reference partition on this backbone."""
        if (name, backbone) not in self._data:
            cell = Cell(name, REFERENCE, backbone=backbone)
            found = self._steps.outcome("data", self._key(cell), lambda: self._know(cell))
            facts, arrays = found.facts, found.arrays
            known = Known(
                facts["ids"],
                arrays["labels"],
                facts["subjects"],
                arrays["features"],
                facts["sample"],
                dict(zip(facts["ids"], arrays["clusters"].tolist(), strict=True)),
            )
            self._data[name, backbone] = Data(
                known, arrays["test_labels"], forget_sets(known), tuple(facts["classes"])
            )
        return self._data[name, backbone]

    def config(self, cell: Cell) -> Config:
        """All settings of a cell."""
        backbone = self.backbone(cell)
        config = settings_of(
            method_of(cell.method),
            backbone,
            self.profile,
            root=self.root,
            seed=cell.seed,
            records=backbone.records or DATA_SETS[cell.data].images[0],
            differences=cell.settings,
        )
        return config.computed(self._compute.model_dump(exclude_defaults=True))

    def backbone(self, cell: Cell) -> BackboneProfile:
        """The frozen network of a cell."""
        return self.profile.backbones[cell.backbone]

    def trained(self, cell: Cell) -> Outcome:
        """Train from nothing, and answer for all private records and test images."""
        return self._steps.outcome("trained", self._key(cell), lambda: self._train(cell))

    def forgotten(self, cell: Cell, forget: str | float) -> Outcome:
        """Train on all records, unlearn a forget set, or a random share of them, at once, and answer."""
        return self._steps.outcome("forgotten", [self._key(cell), forget], lambda: self._forget(cell, forget))

    def requests(self, cell: Cell, count: int) -> list[dict[str, Any]]:
        """Train, then unlearn so many uniformly drawn records, one after the other; what each took."""
        found = self._steps.outcome("requests", [self._key(cell), count], lambda: self._request(cell, count))
        requests: list[dict[str, Any]] = found.facts["requests"]
        return requests

    def relearned(self, cell: Cell, forget: str) -> list[float]:
        """Accuracy on a forget set while a cell's model is tuned on it, epoch by epoch; empty if it cannot be."""
        found = self._steps.outcome("relearned", [self._key(cell), forget], lambda: self._relearn(cell, forget))
        curve: list[float] = found.facts["curve"]
        return curve

    @contextmanager
    def opened(self, cell: Cell) -> Iterator[Eraser]:
        """A cell's trained workspace, to read."""
        self.trained(cell)
        with self._eraser(self._trained_workspace(cell), cell) as eraser:
            yield eraser

    @contextmanager
    def copied(self, cell: Cell) -> Iterator[Eraser]:
        """A copy of a cell's trained workspace, to change; gone afterwards."""
        source = self._trained_workspace(cell)
        copy = source.with_name(f"{source.name}-copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        try:
            with self._eraser(copy, cell) as eraser:
                yield eraser
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _eraser(self, folder: Path, cell: Cell) -> Eraser:
        """A cell's workspace, with a network that all cells on this backbone share: loading takes a second."""
        if cell.backbone not in self._networks:
            self._networks[cell.backbone] = load_backbone(self.config(cell))
        return Eraser(folder, progress=self._progress, backbone=self._networks[cell.backbone])

    def images(self, cell: Cell, split: Literal["train", "test"]) -> list[bytes]:
        """A cell's private or test images, kept in memory: every step asks for them."""
        backbone = self.backbone(cell)
        key = (cell.data, split, backbone.records if split == "train" else backbone.test)
        if key not in self._kept:
            self._kept[key] = [row["image"]["bytes"] for row in rows(DATA_SETS[cell.data], self.root, *key[1:])]
        return self._kept[key]

    def _key(self, cell: Cell) -> dict[str, Any]:
        settings = self.config(cell).model_settings()
        backbone = self.backbone(cell)
        named = {name: value for name, value in asdict(cell).items() if name not in ("settings", "seed")}
        size = {"records": backbone.records, "test": backbone.test}
        return {**named, **size, "network": backbone.settings["name"], "settings": settings}

    def _folder(self, cell: Cell) -> Path:
        """Where a cell's trained workspace is."""
        return self.out / "workspaces" / Digest.of_json(self._key(cell)).hex[:16]

    def _trained_workspace(self, cell: Cell) -> Path:
        """The folder of a cell's trained workspace; trained again if it was removed after an earlier run."""
        if not (self._folder(cell) / _TRAINED).exists():
            with self._filled(cell) as eraser:
                eraser.train()
        return self._folder(cell)

    @contextmanager
    def _filled(self, cell: Cell) -> Iterator[Eraser]:
        """A new workspace with a cell's settings and records, to train."""
        folder = self._folder(cell)
        shutil.rmtree(folder, ignore_errors=True)
        Eraser.create(folder, self.config(cell)).close()
        with self._eraser(folder, cell) as eraser:
            self._fill(eraser, cell)
            yield eraser
        (folder / _TRAINED).touch()

    def _fill(self, eraser: Eraser, cell: Cell) -> None:
        """Add the records of a cell."""
        data, backbone = DATA_SETS[cell.data], self.backbone(cell)
        eraser.add(rows(data, self.root, "train", backbone.records), columns=data.columns)
        left_out: list[str] = []
        if cell.without is not None:
            left_out = self.data(cell.data, cell.backbone).sets[cell.without]
        if cell.half is not None:
            ids = eraser.record_ids()
            left_out = sorted(set(ids) - set(half_of(ids, cell.half)))
        if left_out:
            eraser.unlearn(ids=left_out)  # before any training: they are simply not there

    def _train(self, cell: Cell) -> Outcome:
        with self._filled(cell) as eraser:
            eraser.executor()
            report, used = measured(eraser.train)
            facts = {
                **_facts(eraser),
                **asdict(used),
                "tuning_seconds": report.tuning_seconds,
                "ran": report.stage_counts,
            }
            arrays = self._answers(eraser, cell)
        return Outcome(facts, arrays)

    def _forget(self, cell: Cell, forget: str | float) -> Outcome:
        data = self.data(cell.data, cell.backbone)
        if isinstance(forget, str):
            ids = data.sets[forget]
        else:
            ids = order(0, "share", data.known.ids)[: round(forget * len(data.known.ids))]
        with self.copied(cell) as eraser:
            eraser.executor()
            report, used = measured(lambda: eraser.unlearn(ids=ids))
            assert report.training is not None
            facts = {**_facts(eraser), **asdict(used), "ran": report.training.stage_counts}
            if isinstance(forget, str):
                facts["relearned"] = relearn_curve(eraser, self._forgotten_records(cell, forget), _RELEARN)
            return Outcome(facts, self._answers(eraser, cell))

    def _relearn(self, cell: Cell, forget: str) -> Outcome:
        with self.opened(cell) as eraser:
            curve = relearn_curve(eraser, self._forgotten_records(cell, forget), _RELEARN)
        return Outcome({"curve": curve}, {})

    def _forgotten_records(self, cell: Cell, forget: str) -> Forgotten:
        data = self.data(cell.data, cell.backbone)
        chosen = data.chosen(forget)
        images = [image for image, wanted in zip(self.images(cell, "train"), chosen, strict=True) if wanted]
        return Forgotten(data.sets[forget], data.known.labels[chosen].tolist(), images)

    def _request(self, cell: Cell, count: int) -> Outcome:
        requests = []
        with self.copied(cell) as eraser:
            eraser.executor()
            eraser.predictor()
            for record_id in order(0, "request", eraser.record_ids())[:count]:
                plan = eraser.plan(ids=[record_id])
                report, used = measured(lambda record_id=record_id: eraser.unlearn(ids=[record_id]))  # type: ignore[misc]
                assert report.training is not None
                ran = report.training.stage_counts
                requests.append(
                    {
                        **asdict(used),
                        "sample_hit": plan.sample_hit,
                        "clusters": ran.get("tuned", 0),
                        "records": ran.get("tuned_records", 0),
                    }
                )
            facts = {**_facts(eraser), "requests": requests}
        return Outcome(facts, {})

    def _answers(self, eraser: Eraser, cell: Cell) -> dict[str, NDArray[Any]]:
        """Probabilities for all private records, also those that were forgotten, and for test images."""
        predictor = eraser.predictor()
        return {
            "probabilities": answers(predictor, self.images(cell, "train"), self._progress),
            "test_probabilities": answers(predictor, self.images(cell, "test"), self._progress),
        }

    def _know(self, cell: Cell) -> Outcome:
        """What forget sets are chosen by, from a trained reference workspace."""
        from lmeraser.inference.evaluate import training_set

        data, backbone = DATA_SETS[cell.data], self.backbone(cell)
        with self._eraser(self._trained_workspace(cell), cell) as eraser:
            records, model = eraser.workspace.records, eraser.workspace.generations.require()
            clusters = model.numbers(records.trie_keys(model.partition.key))
            features = training_set(records, eraser.workspace.config, eraser.executor(), self._progress)
            ids, classes, sample = eraser.record_ids(), eraser.classes, eraser.sampled_ids()
        test = [row["label"] for row in rows(data, self.root, "test", backbone.test)]
        subjects = {}
        if data.subject:
            private = rows(data, self.root, "train", backbone.records)
            subjects = {i: row[SUBJECT] for i, row in zip(ids, private, strict=True)}
        facts = {"ids": ids, "subjects": subjects, "sample": sample, "classes": classes}
        arrays: dict[str, NDArray[Any]] = {
            "labels": features.labels,
            "features": features.features,
            "test_labels": np.array(test, np.int64),
            "clusters": np.array([clusters[i] for i in ids], np.int64),
        }
        return Outcome(facts, arrays)


def answers(predictor: Predictor, images: Sequence[bytes], progress: Progress = silent) -> NDArray[np.float32]:
    """Probabilities of images, float32 [n, classes]."""
    parts = []
    for start in range(0, len(images), _CHUNK):
        parts.append(predictor.batch(images[start : start + _CHUNK]).probabilities)
        progress("answering", min(start + _CHUNK, len(images)), len(images))
    return np.concatenate(parts)


def _facts(eraser: Eraser) -> dict[str, Any]:
    """What a trained workspace's model is."""
    model, store = eraser.workspace.generations.require(), eraser.workspace.store
    constituents = {c.constituent.artifact for c in model.clusters if c.constituent}
    tensors = [from_bytes(data) for data in store.read_all(sorted(constituents))]
    parameters = [sum(array.size for array in each.values()) for each in tensors]
    artifacts = store.read_all(sorted({stage.artifact for stage in model.stages.values()}))
    return {
        "digest": str(model.model_digest),
        "records": model.records,
        "sizes": [cluster.records for cluster in model.clusters],
        "clusters": len(model.clusters),
        "expected_share": model.expected_share,
        "parameters": sum(parameters),
        "parameters_of_one": max(parameters, default=0),
        "bytes": sum(map(len, artifacts)),
    }
