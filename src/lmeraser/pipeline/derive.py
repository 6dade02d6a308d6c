"""The training function: from retained records, settings and backbone to a model, in cached stages.

    records -> sample -> (features of the sample) -> partition -> trie key of every record -> clusters
       |                                                                        |  one independent task per cluster
       v                                                                        v
    sufficient statistics -> global head                               constituent of each cluster

Training, adding records and unlearning all run this one function on the records that are left. Stages are cached
by the digests of their inputs: a stage whose inputs have a stored result is not run again. That is the only
difference between a training and a deletion, and it cannot change the result. Nothing is patched, warm-started or
carried over.

A memo key is keyed with the workspace's secret and covers all inputs of a stage: the settings it reads, the
backbone, and for each record the id, the label and the payload's digest. The environment is not part of the key:
after an upgrade old results are kept, each with the fingerprint of the environment that made it, unless
``rederive`` is set.

Knows nothing about files, databases or torch: records are references, and caches and executors are protocols.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest, keyed_digest
from lmeraser.core.progress import Progress, silent
from lmeraser.core.seeding import below
from lmeraser.core.sufficient_statistics import SufficientStatistics
from lmeraser.core.tensors import from_bytes, to_bytes
from lmeraser.data.references import RecordRef
from lmeraser.errors import CorruptError
from lmeraser.models.embeddings import quantized_embeddings
from lmeraser.models.global_head import global_head, sums_digest
from lmeraser.models.manifest import Cluster, StageResult
from lmeraser.models.partitions import partition_of
from lmeraser.models.partitions.base import Fitted
from lmeraser.models.partitions.trie import group
from lmeraser.pipeline.caches import FeatureCache, Statistics
from lmeraser.pipeline.early_head import EarlyHead
from lmeraser.pipeline.executors.base import Executor, Fetch, TuneResult, TuneTask
from lmeraser.storage.artifacts import ArtifactStore, MemoEntry, StageOutput

_CHUNK = 1024  # records whose features are in memory at once while they are assigned
_BATCH = 256  # most results that are stored together
_BATCH_BYTES = 1 << 24  # as many of them, or as much as the last one exceeds that by
_BATCH_SECONDS = 1.0  # as many as took so long to tune, or one that took longer: the most that a crash loses


@dataclass(frozen=True)
class Inputs:
    """Everything that determines the model.

    Attributes:
        records: retained records, sorted by id.
        config: the settings.
        classes: number of classes.
        backbone: digest of the frozen network.
    """

    records: Sequence[RecordRef]
    config: Config
    classes: int
    backbone: Digest


@dataclass(frozen=True)
class PipelineContext:
    """How stages run and where their results are cached; none of this changes a result.

    Attributes:
        store: artifacts and memo.
        cache: features and trie keys of single records.
        statistics: quantized embeddings of single records, and their sufficient statistics.
        executor: returns the executor; called only when one is needed.
        fetch: payloads of record ids.
        secret: key of the memo keys.
        progress: receives progress reports.
        rederive: run stages again whose result was made in another environment.
        early_head: the global head of statistics that were stored just now, if one is solved for meanwhile.
    """

    store: ArtifactStore
    cache: FeatureCache
    statistics: Statistics
    executor: Callable[[], Executor]
    fetch: Fetch
    secret: bytes
    progress: Progress = silent
    rederive: bool = False
    early_head: EarlyHead | None = None


@dataclass(frozen=True)
class ClusterAssignment:
    """The fitted partition, and which record is in which cluster.

    Attributes:
        partition: result of the partition stage.
        groups: sorted members of each cluster by its path, in the order of the clusters' numbers.
    """

    partition: StageResult
    groups: Mapping[str, Sequence[str]]

    def numbered(self) -> dict[int, tuple[str, Sequence[str]]]:
        """Path and members of each cluster by its number."""
        return dict(enumerate(self.groups.items()))

    def numbers(self) -> dict[str, int]:
        """Number of the cluster of each record."""
        return {i: number for number, (_, members) in self.numbered().items() for i in members}


@dataclass(frozen=True)
class Derivation:
    """The result of a run of the training function.

    Attributes:
        partition: result of the partition stage.
        clusters: the clusters with members, by number.
        global_head: None if the settings ask for none or there are no records.
        stage_counts: how often each stage ran: records embedded and assigned, partitions fitted, clusters tuned,
            records in tuned clusters.
        tuning_seconds: time spent on tuning.
    """

    partition: StageResult
    clusters: Sequence[Cluster]
    global_head: StageResult | None = None
    stage_counts: Mapping[str, int] = field(default_factory=dict)
    tuning_seconds: float = 0.0


class Pipeline:
    """One run of the training function.

    Args:
        inputs: everything that determines the model.
        context: how stages run and where their results are cached.

    Attributes:
        stage_counts: how often each stage has run so far.
    """

    def __init__(self, inputs: Inputs, context: PipelineContext) -> None:
        self.inputs = inputs
        self.context = context
        self.stage_counts: Counter[str] = Counter()

    def derive(self) -> Derivation:
        """The global head, the partition, and a constituent for every cluster with members."""
        global_head = self.fit_global_head()
        assignment = self.assign_clusters()
        started = time.perf_counter()
        clusters = self.tune_clusters(assignment.numbered())
        seconds = time.perf_counter() - started
        return Derivation(assignment.partition, clusters, global_head, dict(self.stage_counts), seconds)

    def restricted_to(self, records: Sequence[RecordRef]) -> Pipeline:
        """The same run, with the same stage counts, on some of the records."""
        other = Pipeline(replace(self.inputs, records=records), self.context)
        other.stage_counts = self.stage_counts
        return other

    # --- global head -----------------------------------------------------------------------------------

    def fit_global_head(self) -> StageResult | None:
        """Include every record in the statistics, and solve for the global head if the settings ask for one."""
        inputs = self.inputs
        if not inputs.config.needs_statistics or not inputs.records:
            return None
        self.complete_statistics()
        if inputs.config.global_head.weight == 0:
            return None
        statistics = self.context.statistics.current()
        assert statistics is not None
        by_label = Counter(record.label for record in inputs.records)
        expected = tuple(by_label[label] for label in range(inputs.classes))
        require_matching_statistics(statistics.widened(inputs.classes).records_by_class == expected)
        return self.solve_global_head(statistics)

    def solve_global_head(self, statistics: SufficientStatistics) -> StageResult:
        """The global head, from the sufficient statistics of all records."""
        statistics = statistics.widened(self.inputs.classes)
        settings = self.inputs.config.global_head
        early = self.context.early_head.solution(statistics) if self.context.early_head else None
        sums = early[0] if early else sums_digest(statistics, settings)
        penalty: float | str = settings.penalty if settings.penalty_rule == "fixed" else settings.penalty_rule
        score = {} if settings.score == "distance" else {"score": settings.score}
        key = self._memo_key({"stage": "global_head", "sums": sums, "penalty": penalty, **score})
        entry = self._cached(key)
        if entry is None:
            entry = self._store_one(key, to_bytes(early[1] if early else global_head(statistics, settings)))
            self.stage_counts["solved"] += 1
        return _stage_result(key, entry)

    def complete_statistics(self) -> None:
        """Add the records that the statistics lack; their clean features are stored on the way."""
        inputs = self.inputs
        context = self.context
        executor = context.executor()
        key = embedding_key(inputs.config, inputs.backbone, executor.fingerprint)
        included = context.statistics.ids(key=key)
        labels = {each.id: each.label for each in _as_stored(inputs.records) if each.id not in included}
        missing = list(labels)
        if not missing:
            return
        views = inputs.config.embedding.views
        stream = executor.embed(missing, context.fetch, context.progress, views)
        while chunk := dict(itertools.islice(stream, _CHUNK)):
            vectors = np.stack(list(chunk.values())).reshape(len(chunk), len(views), -1)  # [n, views, d]
            if inputs.config.embedding.layers == ("final",) and inputs.config.clean_view in views:
                clean = dict(zip(chunk, vectors[:, views.index(inputs.config.clean_view)], strict=True))
                context.cache.store_features(clean, key=self._feature_key())
            quantized = dict(zip(chunk, quantized_embeddings(vectors, inputs.config), strict=True))
            chunk_labels = [labels[record_id] for record_id in chunk]
            context.statistics.include(quantized, chunk_labels, inputs.classes, key=key)
        self.stage_counts["counted"] += len(missing)

    # --- partition and clusters ------------------------------------------------------------------------

    def assign_clusters(self) -> ClusterAssignment:
        """Fit the partition on the sample and assign every record to a cluster."""
        inputs = self.inputs
        partition = partition_of(inputs.config)
        by_id = {record.id: record for record in inputs.records}
        sample = partition.sample(list(by_id))
        settings = inputs.config.model_settings()
        own = inputs.config.modality.sections
        key = self._memo_key(
            {
                "stage": "partition",
                "settings": {name: settings[name] for name in ("seed", "backbone", "partition", *own)},
                "backbone": inputs.backbone,
                "sample": [[record_id, by_id[record_id].payload_digest] for record_id in sample],
            }
        )
        entry = self._cached(key)
        if entry is None:
            if inputs.config.partition.public:
                points = self.context.executor().class_vectors()
            else:
                points = _stack(self._features(sample), sample)
            entry = self._store_one(key, to_bytes(partition.fit(points)))
            self.stage_counts["fitted"] += 1
        fitted = from_bytes(self.context.store.read(entry.artifact))
        trie_keys = self.trie_keys(fitted, key, sample, [each.id for each in _as_stored(inputs.records)])
        return ClusterAssignment(_stage_result(key, entry), group(trie_keys, inputs.config.partition.max_records))

    def trie_keys(self, fitted: Fitted, key: Digest, sample: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
        """Trie key of every record: the cached one, the dendrogram's if sampled, else by the partition's rule.

        Args:
            fitted: the partition's tensors.
            key: of its stage.
            sample: ids of the records that it was fitted on, in its order; they get trie keys, too.
            ids: of the records.
        """
        context = self.context
        partition = partition_of(self.inputs.config)
        trie_keys = context.cache.trie_keys(key)
        of_sample = dict(zip(sample, partition.sample_trie_keys(fitted, sample), strict=True))
        if uncached := {i: trie_key for i, trie_key in of_sample.items() if i not in trie_keys}:
            context.cache.store_trie_keys(uncached, partition=key, sampled=True)
            trie_keys |= uncached
        missing = [record_id for record_id in ids if record_id not in trie_keys]
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            vectors = self._features(chunk) if partition.needs_features else {}
            assigned = dict(zip(chunk, partition.trie_keys(fitted, chunk, _stack(vectors, chunk)), strict=True))
            context.cache.store_trie_keys(assigned, partition=key)
            trie_keys |= assigned
            context.progress("assigning records", start + len(chunk), len(missing))
        self.stage_counts["assigned"] += len(missing)
        return trie_keys

    def _features(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Features of these records, float32 [d] each, cached or embedded now; stored as they are finished."""
        context = self.context
        key = self._feature_key()
        known = context.cache.features(ids, key=key)
        missing = [record_id for record_id in ids if record_id not in known]
        if not missing:
            return known
        unsaved: dict[str, NDArray[np.float32]] = {}
        for record_id, vector in context.executor().embed(missing, context.fetch, context.progress):
            unsaved[record_id] = vector
            if len(unsaved) == _CHUNK:
                context.cache.store_features(unsaved, key=key)
                known |= unsaved
                unsaved = {}
        context.cache.store_features(unsaved, key=key)
        self.stage_counts["embedded"] += len(missing)
        return known | unsaved

    def _feature_key(self) -> str:
        return feature_key(self.inputs.config, self.inputs.backbone, self.context.executor().fingerprint)

    # --- constituents ----------------------------------------------------------------------------------

    def tune_clusters(self, clusters: Mapping[int, tuple[str, Sequence[str]]]) -> tuple[Cluster, ...]:
        """A constituent for each of these clusters; those with a cached result are not tuned again.

        Args:
            clusters: path and members of each cluster by its number.
        """
        constituent = self.inputs.config.constituent
        if constituent.kind == "none":
            self.stage_counts.update(tuned=0, tuned_records=0)
            return tuple(
                Cluster(number=n, path=path, records=len(ids), constituent=None)
                for n, (path, ids) in clusters.items()
            )
        if constituent.together:
            cluster_of = {i: number for number, (_, ids) in clusters.items() for i in ids}
            shared = self._slice_results({0: sorted(cluster_of)}, cluster_of)
            results = dict.fromkeys(clusters, shared[0])
        else:
            results = self._slice_results({number: ids for number, (_, ids) in clusters.items()})
        return tuple(_cluster(n, path, len(ids), results[n]) for n, (path, ids) in clusters.items())

    def _slice_results(
        self, units: Mapping[int, Sequence[str]], cluster_of: Mapping[str, int] | None = None
    ) -> dict[int, list[StageResult]]:
        """Results of the slices of each unit, in their order (SISA); the last one is its constituent.

        Args:
            units: the members of each task's cluster, or of all clusters where they are tuned together.
            cluster_of: number of the cluster of each record, where clusters are tuned together.
        """
        config = self.inputs.config
        by_id = {record.id: record for record in self.inputs.records}
        slices = {i: slice_of(config, i) for ids in units.values() for i in ids}
        results: dict[int, list[StageResult]] = {number: [] for number in units}
        for level in range(config.tuning.slices):
            tasks: dict[int, TuneTask] = {}
            starts: dict[Digest, Digest | None] = {}
            for number, ids in units.items():
                if any(slices[i] == level for i in ids):  # a slice without members adds nothing
                    start = results[number][-1].artifact if results[number] else None
                    members = [by_id[i] for i in ids if slices[i] <= level]
                    task = self._tune_task(members, start, cluster_of)
                    tasks[number] = task
                    starts[task.key] = start
            tuned = self._tune(list(tasks.values()), starts)
            for number, task in tasks.items():
                results[number].append(tuned[task.key])
        return results

    def _tune_task(
        self, members: Sequence[RecordRef], start: Digest | None, cluster_of: Mapping[str, int] | None
    ) -> TuneTask:
        inputs = self.inputs
        settings = inputs.config.model_settings()
        together = [] if cluster_of is None else [cluster_of[record.id] for record in members]
        parts = 1 if cluster_of is None else len(set(cluster_of.values()))
        key = self._memo_key(
            {
                "together": [parts, together],
                "stage": "tune",
                "settings": {name: settings[name] for name in inputs.config.sections_of_tuning},
                "backbone": inputs.backbone,
                "classes": inputs.classes,
                "members": [[record.id, record.label, record.payload_digest] for record in members],
                "start": start,
            }
        )
        ids = tuple(record.id for record in members)
        labels = tuple(record.label for record in members)
        return TuneTask(key, ids, labels, inputs.classes, groups=tuple(together), parts=parts)

    def _tune(
        self, tasks: Sequence[TuneTask], starts: Mapping[Digest, Digest | None]
    ) -> dict[Digest, StageResult]:
        """Results of these tasks by their keys; those without a cached result run, from their checkpoints."""
        context = self.context
        found = {task.key: self._cached(task.key) for task in tasks}
        pending = [task for task in tasks if found[task.key] is None]
        if pending:
            on_embeddings = self.inputs.config.constituent.tuned_on == "quantized_embeddings"
            fetch = context.statistics.quantized_embeddings if on_embeddings else context.fetch
            runnable = [
                replace(task, start=context.store.read(start)) if (start := starts[task.key]) else task
                for task in pending
            ]
            for results in in_batches(context.executor().tune(runnable, fetch, context.progress)):
                found |= self._store({one.key: StageOutput(one.data, one.seconds) for one in results})
        self.stage_counts["tuned"] += sum(task.parts for task in pending)
        self.stage_counts["tuned_records"] += sum(len(task.ids) for task in pending)
        return {key: _stage_result(key, entry) for key, entry in found.items() if entry is not None}

    # --- cache of stages -------------------------------------------------------------------------------

    def _memo_key(self, stage_inputs: Mapping[str, Any]) -> Digest:
        """Key of a stage's result; the names in ``stage_inputs`` are part of the stored format."""
        return keyed_digest(self.context.secret, stage_inputs)

    def _cached(self, key: Digest) -> MemoEntry | None:
        entry = self.context.store.find(key)
        if entry is None or not self.context.rederive:
            return entry
        return entry if entry.fingerprint == self.context.executor().fingerprint else None

    def _store_one(self, key: Digest, data: bytes) -> MemoEntry:
        return self._store({key: StageOutput(data)})[key]

    def _store(self, results: Mapping[Digest, StageOutput]) -> dict[Digest, MemoEntry]:
        return self.context.store.put(results, fingerprint=self.context.executor().fingerprint)


def in_batches(results: Iterable[TuneResult]) -> Generator[list[TuneResult], None, None]:
    """Results in their order, in batches that are to be stored together, each as soon as it is there.

    What took long to tune is stored at once, other results with those that follow: a crash loses as much tuning as
    `_BATCH_SECONDS` at most. After an exception the results that came before it are the last batch.
    """
    waiting = list[TuneResult]()
    try:
        for result in results:
            waiting.append(result)
            seconds = sum(one.seconds for one in waiting)
            size = sum(len(one.data) for one in waiting)
            if seconds >= _BATCH_SECONDS or len(waiting) >= _BATCH or size >= _BATCH_BYTES:
                batch = waiting
                waiting = []
                yield batch
    finally:
        if waiting:
            yield waiting


def slice_of(config: Config, record_id: str) -> int:
    """In which slice of its cluster a record is tuned; depends on the record alone."""
    slices = config.tuning.slices
    return 0 if slices == 1 else below(config.seed, "slice", (slices,), record_id)[0]


def feature_key(config: Config, backbone: Digest, fingerprint: Digest) -> str:
    """Identifies what features depend on besides the payload."""
    settings = config.model_settings()
    read = settings["backbone"] | {name: settings[name] for name in config.modality.sections}
    return Digest.of_json({"settings": read, "backbone": backbone, "fingerprint": fingerprint})


def embedding_key(config: Config, backbone: Digest, fingerprint: Digest) -> Digest:
    """Identifies what quantized embeddings depend on besides the payload."""
    views = list(config.embedding.views)
    frame = [config.seed, config.prompt_width] if "frame" in views else None
    added: dict[str, Any] = dict(config.embedding.settings_since_0_1())
    if config.embedding.random_features:
        added["seed"] = config.seed
    key = {"features": feature_key(config, backbone, fingerprint), "views": views, "frame": frame, **added}
    return Digest.of_json(key)


def require_matching_statistics(matching: bool) -> None:
    """Refuse sufficient statistics that do not cover every record once.

    Raises:
        CorruptError: they do not.
    """
    if not matching:
        raise CorruptError(
            "Sufficient statistics do not match the records",
            got="they cover other numbers of records than the workspace holds",
            next_step="compute them again with 'lmeraser train --rederive'",
        )


def _as_stored(records: Iterable[RecordRef]) -> list[RecordRef]:
    """Records in the order in which they lie in the store: in any other, each is on another page of the database.

    No result depends on it: sums are exact, and what is computed of a record depends on it alone.
    """
    return sorted(records, key=attrgetter("number"))


def _stage_result(key: Digest, entry: MemoEntry) -> StageResult:
    return StageResult(key=key, artifact=entry.artifact, fingerprint=entry.fingerprint)


def _cluster(number: int, path: str, records: int, results: Sequence[StageResult]) -> Cluster:
    *checkpoints, last = results
    return Cluster(number=number, path=path, records=records, constituent=last, checkpoints=tuple(checkpoints))


def _stack(vectors: Mapping[str, NDArray[np.float32]], ids: Sequence[str]) -> NDArray[Any]:
    rows = [vectors[record_id] for record_id in ids if record_id in vectors]
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
