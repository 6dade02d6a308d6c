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
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.deployment import ComputeConfig
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.core.seeding import order
from lmeraser.core.tensors import from_bytes, to_bytes
from lmeraser.data.modalities import payload_format
from lmeraser.eraser import Eraser
from lmeraser.experiments.catalog import BUILT_IN, Catalog
from lmeraser.experiments.datasets import LABEL, SUBJECT, DataSet, rows, value_of
from lmeraser.experiments.features import Arrays, FeatureMethod, FeatureRecords
from lmeraser.experiments.forget_sets import StudyRecords, forget_sets
from lmeraser.experiments.methods import Method, settings_of
from lmeraser.experiments.profiles import BackboneProfile, Profile
from lmeraser.experiments.relearn import ForgottenRecords, relearn_curve
from lmeraser.experiments.resources import ResourceUsage, measure_resources
from lmeraser.experiments.step_cache import StepCache
from lmeraser.experiments.trials import StepResult, StudyData, Trial, half_of
from lmeraser.inference.predictor import Predictor
from lmeraser.models.backbones import Backbone as Network
from lmeraser.models.modalities import load_backbone

_CHUNK = 256  # records per prediction
_RELEARN_EPOCHS = 5
_TRAINED = "trained"  # marker file in a workspace's folder: the training is complete
REFERENCE = "lmeraser"  # the method whose partition the forget sets are chosen by


class TrialRunner:
    """Runs trainings and deletions, and caches their results in a folder.

    Args:
        out: folder of the run.
        profile: the sizes of the experiments.
        root: folder of the data sets.
        catalog: the methods and data sets that there are.
        methods: names of the methods that studies are restricted to; None: each study's own, and those that files
            add to the catalog.
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
        catalog: Catalog = BUILT_IN,
        methods: Sequence[str] | None = None,
        hub: bool = False,
        compute: ComputeConfig | None = None,
        progress: Progress = silent,
    ) -> None:
        self.out = out
        self.profile = profile
        self.root = root
        self.catalog = catalog
        self.hub = hub
        self._methods = None if methods is None else [catalog.method(name) for name in methods]
        self._compute = compute or ComputeConfig()
        self._progress = progress
        self._steps = StepCache(out / "steps")
        self._data: dict[tuple[str, int], StudyData] = {}
        self._networks: dict[Digest, Network] = {}
        self._payloads: dict[tuple[str, str, int | None], list[bytes]] = {}

    def data(self, name: str, backbone: int = 0) -> StudyData:
        """The data of a study, with forget sets chosen by the reference partition on this backbone."""
        if (name, backbone) not in self._data:
            trial = Trial(name, REFERENCE, backbone=backbone)
            result = self._steps.get_or_run("study data", self._cache_key(trial), lambda: self._read_data(trial))
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
                records,
                arrays["test_labels"],
                arrays["test_features"],
                forget_sets(records),
                tuple(facts["classes"]),
            )
        return self._data[name, backbone]

    def methods(self, own: Sequence[str], data: str | None = None) -> list[Method]:
        """The methods that a study compares.

        Args:
            own: names of those that it compares unless others are chosen.
            data: leave out what does not run on this data set.
        """
        added = [method for name, method in self.catalog.methods.items() if name in self.catalog.added]
        chosen = self._methods
        if chosen is None:
            chosen = [*(self.catalog.method(name) for name in own), *added]
        kind = self.data_set(data).modality if data is not None else None
        return [method for method in chosen if kind is None or method.runs_on(kind)]

    def method(self, trial: Trial) -> Method:
        """The method of a trial."""
        return self.catalog.method(trial.method)

    def data_set(self, name: str) -> DataSet:
        """The data set with this name."""
        return self.catalog.data_set(name)

    def config(self, trial: Trial) -> Config:
        """The complete settings of a trial; of a method on features those that its features are computed with."""
        backbone = self.backbone(trial)
        data = self.data_set(trial.data)
        config = settings_of(
            self.method(trial),
            data,
            backbone,
            self.profile,
            root=self.root,
            seed=trial.seed,
            records=backbone.records or data.sizes[0],
            differences=trial.settings,
        )
        return config.computed(self._compute.model_dump(exclude_defaults=True))

    def backbone(self, trial: Trial) -> BackboneProfile:
        """The frozen network of a trial."""
        return self.profile.backbones[self.data_set(trial.data).modality][trial.backbone]

    def trained(self, trial: Trial) -> StepResult:
        """Train from scratch, then predict all private records and test records."""
        train = self._train_on_features if self.method(trial).on_features else self._train
        return self._steps.get_or_run("trained", self._cache_key(trial), lambda: train(trial))

    def unlearned(self, trial: Trial, forget: str | float) -> StepResult:
        """Train on all records, unlearn a forget set or a random share of them in one request, then predict."""
        key = [self._cache_key(trial), forget]
        unlearn = self._unlearn_on_features if self.method(trial).on_features else self._unlearn
        return self._steps.get_or_run("forgotten", key, lambda: unlearn(trial, forget))

    def requests(self, trial: Trial, count: int) -> list[dict[str, Any]]:
        """Train, then unlearn ``count`` uniformly drawn records one after the other; return the cost of each."""
        key = [self._cache_key(trial), count]
        time = self._time_requests_on_features if self.method(trial).on_features else self._time_requests
        result = self._steps.get_or_run("requests", key, lambda: time(trial, count))
        requests: list[dict[str, Any]] = result.facts["requests"]
        return requests

    def relearned(self, trial: Trial, forget: str) -> list[float]:
        """Accuracy on a forget set per epoch of tuning a trial's model on it; empty for models without tuning."""
        if self.method(trial).on_features:
            return []
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
        config = self.config(trial)
        key = Digest.of_json([config.data.model_dump(), config.backbone.model_dump(), config.text.model_dump()])
        if key not in self._networks:
            self._networks[key] = load_backbone(config)
        return Eraser(folder, progress=self._progress, backbone=self._networks[key])

    def payloads(self, trial: Trial, split: Literal["train", "test"]) -> list[bytes]:
        """A trial's private or test records, cached in memory because every step needs them."""
        backbone = self.backbone(trial)
        data = self.data_set(trial.data)
        key = (trial.data, split, backbone.records if split == "train" else backbone.test)
        if key not in self._payloads:
            payload = payload_format(self.config(trial)).payload
            self._payloads[key] = [payload(value_of(data, row)) for row in rows(data, self.root, *key[1:])]
        return self._payloads[key]

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
        data = self.data_set(trial.data)
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
        payloads = [each for each, mask in zip(self.payloads(trial, "train"), forgotten, strict=True) if mask]
        return ForgottenRecords(data.sets[forget], data.records.labels[forgotten].tolist(), payloads)

    def _time_requests(self, trial: Trial, count: int) -> StepResult:
        requests = []
        with self.open_copy(trial) as eraser:
            eraser.executor()
            eraser.predictor()
            for record_id in order(0, "request", eraser.record_ids())[:count]:
                plan = eraser.plan(ids=[record_id])
                report, usage = measure_resources(partial(eraser.unlearn, ids=[record_id]))
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
        """Probabilities of all private records, including forgotten ones, and of the test records."""
        predictor = eraser.predictor()
        return {
            "probabilities": predict_in_chunks(predictor, self.payloads(trial, "train"), self._progress),
            "test_probabilities": predict_in_chunks(predictor, self.payloads(trial, "test"), self._progress),
        }

    def _read_data(self, trial: Trial) -> StepResult:
        """Read the attributes that forget sets are chosen by from a trained reference workspace."""
        from lmeraser.inference.evaluate import training_set

        data = self.data_set(trial.data)
        backbone = self.backbone(trial)
        with self.open_trained(trial) as eraser:  # so that it is trained once, and its result is kept
            test_payloads = self.payloads(trial, "test")
            predictor = eraser.predictor()
            test_features = np.concatenate([predictor.batch(part).features for part in _chunks(test_payloads)])
            records = eraser.workspace.records
            model = eraser.workspace.generations.require()
            clusters = model.cluster_numbers(records.derived.trie_keys(model.partition.key))
            features = training_set(records, eraser.workspace.config, eraser.executor(), self._progress)
            ids = eraser.record_ids()
            classes = eraser.classes
            sample = eraser.sampled_ids()
        test = [row[LABEL] for row in rows(data, self.root, "test", backbone.test)]
        subjects = {}
        if data.subject:
            private = rows(data, self.root, "train", backbone.records)
            subjects = {i: row[SUBJECT] for i, row in zip(ids, private, strict=True)}
        facts = {"ids": ids, "subjects": subjects, "sample": sample, "classes": classes}
        arrays: dict[str, NDArray[Any]] = {
            "labels": features.labels,
            "features": features.features,
            "test_labels": np.array(test, np.int64),
            "test_features": test_features,
            "clusters": np.array([clusters[i] for i in ids], np.int64),
        }
        return StepResult(facts, arrays)

    # --- methods on features --------------------------------------------------------------------------------

    def _train_on_features(self, trial: Trial) -> StepResult:
        method, records, kept = self._on_features(trial)
        model, usage = measure_resources(lambda: method.train(records.subset(kept)))
        facts = {**_facts_on_features(model, usage, int(kept.sum())), "tuning_seconds": usage.seconds}
        return StepResult(facts, self._predict_on_features(trial, model))

    def _unlearn_on_features(self, trial: Trial, forget: str | float) -> StepResult:
        method, records, kept = self._on_features(trial)
        data = self.data(trial.data, trial.backbone)
        if isinstance(forget, str):
            forgotten = data.in_forget_set(forget)
        else:
            ids = order(0, "share", data.records.ids)[: round(forget * len(data.records.ids))]
            forgotten = np.isin(data.records.ids, ids)
        model = method.train(records.subset(kept))
        left = kept & ~forgotten
        changed, usage = measure_resources(
            lambda: method.unlearn(model, records.subset(left), records.subset(kept & forgotten))
        )
        facts = {**_facts_on_features(changed, usage, int(left.sum())), "relearned": []}
        return StepResult(facts, self._predict_on_features(trial, changed))

    def _time_requests_on_features(self, trial: Trial, count: int) -> StepResult:
        method, records, kept = self._on_features(trial)
        ids = self.data(trial.data, trial.backbone).records.ids
        model = method.train(records.subset(kept))
        requests = []
        for record_id in order(0, "request", ids)[:count]:
            forgotten = np.array([each == record_id for each in ids])
            kept = kept & ~forgotten
            model, usage = measure_resources(
                lambda model=model, kept=kept, forgotten=forgotten: method.unlearn(  # type: ignore[misc]
                    model, records.subset(kept), records.subset(forgotten)
                )
            )
            # What such a method reads is its own business: how many records it looks at again is not known.
            requests.append({**asdict(usage), "sample_hit": False, "clusters": 1, "records": None})
        return StepResult({"requests": requests}, {})

    def _on_features(self, trial: Trial) -> tuple[FeatureMethod, FeatureRecords, NDArray[np.bool_]]:
        """The method of a trial, all records, and a mask of those that it is trained on."""
        method = self.method(trial).on_features
        assert method is not None
        data = self.data(trial.data, trial.backbone)
        records = FeatureRecords(data.records.features, data.records.labels, len(data.classes), trial.seed)
        kept = np.ones(len(data.records.ids), bool)
        if trial.without is not None:
            kept &= ~data.in_forget_set(trial.without)
        if trial.half is not None:
            kept &= data.in_half(trial.half)
        return method, records, kept

    def _predict_on_features(self, trial: Trial, model: Arrays) -> dict[str, NDArray[Any]]:
        method = self.method(trial).on_features
        assert method is not None
        data = self.data(trial.data, trial.backbone)
        return {
            "probabilities": method.predict(model, data.records.features),
            "test_probabilities": method.predict(model, data.test_features),
        }


def predict_in_chunks(
    predictor: Predictor, payloads: Sequence[bytes], progress: Progress = silent
) -> NDArray[np.float32]:
    """Predict records in chunks; returns probabilities, float32 [n, classes]."""
    parts: list[NDArray[np.float32]] = []
    for chunk in _chunks(payloads):
        parts.append(predictor.batch(chunk).probabilities)
        progress("predicting", sum(map(len, parts)), len(payloads))
    return np.concatenate(parts)


def _chunks(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(payloads), _CHUNK):
        yield payloads[start : start + _CHUNK]


def _facts_on_features(model: Arrays, usage: ResourceUsage, records: int) -> dict[str, Any]:
    """Facts about the model of a method on features, as `_model_facts` gives them of a workspace's."""
    stored = to_bytes(dict(model))
    parameters = sum(int(array.size) for array in model.values())
    return {
        **asdict(usage),
        "digest": str(Digest.of(stored)),
        "records": records,
        "sizes": [records],
        "clusters": 1,
        "expected_share": None,
        "parameters": parameters,
        "parameters_of_one": parameters,
        "bytes": len(stored),
        "stage_counts": {},
    }


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
