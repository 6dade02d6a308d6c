"""Execute the steps of experiments: train a method, unlearn with it, predict. Each step runs once and is cached.

An interrupted run resumes from the cached steps (`step_cache`). Trained workspaces stay in ``workspaces`` while a
run lasts, because deletions start from copies of them. Uses the facade (`eraser`); must not depend on tables or
figures.
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
from lmeraser.experiments.datasets import DATA_SETS, SUBJECT, rows
from lmeraser.experiments.forget_sets import StudyRecords, forget_sets
from lmeraser.experiments.methods import method_of, settings_of
from lmeraser.experiments.profiles import BackboneProfile, Profile
from lmeraser.experiments.relearn import ForgottenRecords, relearn_curve
from lmeraser.experiments.resources import measure_resources
from lmeraser.experiments.step_cache import StepCache
from lmeraser.experiments.trials import StepResult, StudyData, Trial, half_of
from lmeraser.inference.predictor import Predictor
from lmeraser.models.backbones import Backbone as Network
from lmeraser.models.modalities import load_backbone

_CHUNK = 256  # images per prediction
_RELEARN_EPOCHS = 5
_TRAINED = "trained"  # marker file in a workspace's folder: the training is complete
REFERENCE = "lmeraser"  # the method whose partition the forget sets are chosen by


class TrialRunner:
    """Runs trainings and deletions, and caches their results in a folder.

    Args:
        out: folder of the run.
        profile: the sizes of the experiments.
        root: folder of the data sets.
        hub: whether to fetch missing data sets from the hub.
        compute: where models are derived.
        progress: callback for progress reports.
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
        self.out = out
        self.profile = profile
        self.root = root
        self.hub = hub
        self._compute = compute or ComputeConfig()
        self._progress = progress
        self._steps = StepCache(out / "steps")
        self._data: dict[tuple[str, int], StudyData] = {}
        self._networks: dict[int, Network] = {}
        self._images: dict[tuple[str, str, int | None], list[bytes]] = {}

    def data(self, name: str, backbone: int = 0) -> StudyData:
        """The data of a study, with forget sets chosen by the reference partition on this backbone."""
        if (name, backbone) not in self._data:
            trial = Trial(name, REFERENCE, backbone=backbone)
            result = self._steps.get_or_run("data", self._cache_key(trial), lambda: self._read_data(trial))
            facts = result.facts
            arrays = result.arrays
            records = StudyRecords(
                ids=facts["ids"],
                labels=arrays["labels"],
                subjects=facts["subjects"],
                features=arrays["features"],
                sample=facts["sample"],
                clusters=dict(zip(facts["ids"], arrays["clusters"].tolist(), strict=True)),
            )
            self._data[name, backbone] = StudyData(
                records, arrays["test_labels"], forget_sets(records), tuple(facts["classes"])
            )
        return self._data[name, backbone]

    def config(self, trial: Trial) -> Config:
        """The complete settings of a trial."""
        backbone = self.backbone(trial)
        config = settings_of(
            method_of(trial.method),
            backbone,
            self.profile,
            root=self.root,
            seed=trial.seed,
            records=backbone.records or DATA_SETS[trial.data].images[0],
            differences=trial.settings,
        )
        return config.computed(self._compute.model_dump(exclude_defaults=True))

    def backbone(self, trial: Trial) -> BackboneProfile:
        """The frozen network of a trial."""
        return self.profile.backbones[trial.backbone]

    def trained(self, trial: Trial) -> StepResult:
        """Train from scratch, then predict all private records and test images."""
        return self._steps.get_or_run("trained", self._cache_key(trial), lambda: self._train(trial))

    def unlearned(self, trial: Trial, forget: str | float) -> StepResult:
        """Train on all records, unlearn a forget set or a random share of them in one request, then predict."""
        key = [self._cache_key(trial), forget]
        return self._steps.get_or_run("forgotten", key, lambda: self._unlearn(trial, forget))

    def requests(self, trial: Trial, count: int) -> list[dict[str, Any]]:
        """Train, then unlearn ``count`` uniformly drawn records one after the other; return the cost of each."""
        key = [self._cache_key(trial), count]
        result = self._steps.get_or_run("requests", key, lambda: self._time_requests(trial, count))
        requests: list[dict[str, Any]] = result.facts["requests"]
        return requests

    def relearned(self, trial: Trial, forget: str) -> list[float]:
        """Accuracy on a forget set per epoch of tuning a trial's model on it; empty for models without tuning."""
        key = [self._cache_key(trial), forget]
        result = self._steps.get_or_run("relearned", key, lambda: self._relearn(trial, forget))
        curve: list[float] = result.facts["curve"]
        return curve

    @contextmanager
    def open_trained(self, trial: Trial) -> Iterator[Eraser]:
        """Open a trial's trained workspace for reading."""
        self.trained(trial)
        with self._open(self._trained_workspace(trial), trial) as eraser:
            yield eraser

    @contextmanager
    def open_copy(self, trial: Trial) -> Iterator[Eraser]:
        """Open a temporary copy of a trial's trained workspace for writing."""
        source = self._trained_workspace(trial)
        copy = source.with_name(f"{source.name}-copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        try:
            with self._open(copy, trial) as eraser:
                yield eraser
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _open(self, folder: Path, trial: Trial) -> Eraser:
        """Open a trial's workspace; trials on a backbone share one network, since loading it takes a second."""
        if trial.backbone not in self._networks:
            self._networks[trial.backbone] = load_backbone(self.config(trial))
        return Eraser(folder, progress=self._progress, backbone=self._networks[trial.backbone])

    def images(self, trial: Trial, split: Literal["train", "test"]) -> list[bytes]:
        """A trial's private or test images, cached in memory because every step needs them."""
        backbone = self.backbone(trial)
        key = (trial.data, split, backbone.records if split == "train" else backbone.test)
        if key not in self._images:
            self._images[key] = [row["image"]["bytes"] for row in rows(DATA_SETS[trial.data], self.root, *key[1:])]
        return self._images[key]

    def _cache_key(self, trial: Trial) -> dict[str, Any]:
        settings = self.config(trial).model_settings()
        backbone = self.backbone(trial)
        fields = {name: value for name, value in asdict(trial).items() if name not in ("settings", "seed")}
        size = {"records": backbone.records, "test": backbone.test}
        return {**fields, **size, "network": backbone.settings["name"], "settings": settings}

    def _folder(self, trial: Trial) -> Path:
        """The folder of a trial's trained workspace."""
        return self.out / "workspaces" / Digest.of_json(self._cache_key(trial)).hex[:16]

    def _trained_workspace(self, trial: Trial) -> Path:
        """The folder of a trial's workspace, trained again if it was removed after an earlier run."""
        if not (self._folder(trial) / _TRAINED).exists():
            with self._new_workspace(trial) as eraser:
                eraser.train()
        return self._folder(trial)

    @contextmanager
    def _new_workspace(self, trial: Trial) -> Iterator[Eraser]:
        """Create a workspace with a trial's settings and records; the caller trains it."""
        folder = self._folder(trial)
        shutil.rmtree(folder, ignore_errors=True)
        Eraser.create(folder, self.config(trial)).close()
        with self._open(folder, trial) as eraser:
            self._add_records(eraser, trial)
            yield eraser
        (folder / _TRAINED).touch()

    def _add_records(self, eraser: Eraser, trial: Trial) -> None:
        """Add the records of a trial."""
        data = DATA_SETS[trial.data]
        backbone = self.backbone(trial)
        eraser.add(rows(data, self.root, "train", backbone.records), columns=data.columns)
        left_out: list[str] = []
        if trial.without is not None:
            left_out = self.data(trial.data, trial.backbone).sets[trial.without]
        if trial.half is not None:
            ids = eraser.record_ids()
            left_out = sorted(set(ids) - set(half_of(ids, trial.half)))
        if left_out:
            eraser.unlearn(ids=left_out)  # nothing is trained yet: this only removes them

    def _train(self, trial: Trial) -> StepResult:
        with self._new_workspace(trial) as eraser:
            eraser.executor()
            report, usage = measure_resources(eraser.train)
            facts = {
                **_model_facts(eraser),
                **asdict(usage),
                "tuning_seconds": report.tuning_seconds,
                "stage_counts": report.stage_counts,
            }
            arrays = self._predict_all(eraser, trial)
        return StepResult(facts, arrays)

    def _unlearn(self, trial: Trial, forget: str | float) -> StepResult:
        data = self.data(trial.data, trial.backbone)
        if isinstance(forget, str):
            ids = data.sets[forget]
        else:
            ids = order(0, "share", data.records.ids)[: round(forget * len(data.records.ids))]
        with self.open_copy(trial) as eraser:
            eraser.executor()
            report, usage = measure_resources(lambda: eraser.unlearn(ids=ids))
            assert report.training is not None
            facts = {**_model_facts(eraser), **asdict(usage), "stage_counts": report.training.stage_counts}
            if isinstance(forget, str):
                facts["relearned"] = relearn_curve(eraser, self._forgotten_records(trial, forget), _RELEARN_EPOCHS)
            return StepResult(facts, self._predict_all(eraser, trial))

    def _relearn(self, trial: Trial, forget: str) -> StepResult:
        with self.open_trained(trial) as eraser:
            curve = relearn_curve(eraser, self._forgotten_records(trial, forget), _RELEARN_EPOCHS)
        return StepResult({"curve": curve}, {})

    def _forgotten_records(self, trial: Trial, forget: str) -> ForgottenRecords:
        data = self.data(trial.data, trial.backbone)
        forgotten = data.in_forget_set(forget)
        images = [image for image, mask in zip(self.images(trial, "train"), forgotten, strict=True) if mask]
        return ForgottenRecords(data.sets[forget], data.records.labels[forgotten].tolist(), images)

    def _time_requests(self, trial: Trial, count: int) -> StepResult:
        requests = []
        with self.open_copy(trial) as eraser:
            eraser.executor()
            eraser.predictor()
            for record_id in order(0, "request", eraser.record_ids())[:count]:
                plan = eraser.plan(ids=[record_id])
                report, usage = measure_resources(lambda record_id=record_id: eraser.unlearn(ids=[record_id]))  # type: ignore[misc]
                assert report.training is not None
                counts = report.training.stage_counts
                requests.append(
                    {
                        **asdict(usage),
                        "sample_hit": plan.sample_hit,
                        "clusters": counts.get("tuned", 0),
                        "records": counts.get("tuned_records", 0),
                    }
                )
            facts = {**_model_facts(eraser), "requests": requests}
        return StepResult(facts, {})

    def _predict_all(self, eraser: Eraser, trial: Trial) -> dict[str, NDArray[Any]]:
        """Probabilities of all private records, including forgotten ones, and of the test images."""
        predictor = eraser.predictor()
        return {
            "probabilities": predict_in_chunks(predictor, self.images(trial, "train"), self._progress),
            "test_probabilities": predict_in_chunks(predictor, self.images(trial, "test"), self._progress),
        }

    def _read_data(self, trial: Trial) -> StepResult:
        """Read the attributes that forget sets are chosen by from a trained reference workspace."""
        from lmeraser.inference.evaluate import training_set

        data = DATA_SETS[trial.data]
        backbone = self.backbone(trial)
        with self._open(self._trained_workspace(trial), trial) as eraser:
            records = eraser.workspace.records
            model = eraser.workspace.generations.require()
            clusters = model.cluster_numbers(records.derived.trie_keys(model.partition.key))
            features = training_set(records, eraser.workspace.config, eraser.executor(), self._progress)
            ids = eraser.record_ids()
            classes = eraser.classes
            sample = eraser.sampled_ids()
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
        return StepResult(facts, arrays)


def predict_in_chunks(
    predictor: Predictor, images: Sequence[bytes], progress: Progress = silent
) -> NDArray[np.float32]:
    """Predict images in chunks; returns probabilities, float32 [n, classes]."""
    parts = []
    for start in range(0, len(images), _CHUNK):
        parts.append(predictor.batch(images[start : start + _CHUNK]).probabilities)
        progress("predicting", min(start + _CHUNK, len(images)), len(images))
    return np.concatenate(parts)


def _model_facts(eraser: Eraser) -> dict[str, Any]:
    """Facts about the model of a trained workspace."""
    model = eraser.workspace.generations.require()
    store = eraser.workspace.store
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
