"""F: from retained records, settings and backbone to a model, in memoised stages.

    records -> sample -> (features of the sample) -> partition -> place of every record -> clusters
       |                                                                      |  one independent task per cluster
       v                                                                      v
    sums of codes -> global head                                  constituent of each cluster

Training, adding records and unlearning are this one function on the records that are left. A stage whose inputs
are in the store is not run again; that is the only difference between a training and a deletion, and it cannot
change the result. Nothing is patched, warm-started or carried over.

A memo key is keyed with the workspace's secret and names all inputs of a stage: the settings it reads, the
backbone, and for each record the id, the label and the image's digest. The environment is not part of the key:
after an upgrade old results are kept, each with the fingerprint it was made in, unless ``rederive`` is asked for.

Knows nothing about files, databases, torch or who asks.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest, keyed_digest
from lmeraser.core.lda import solve
from lmeraser.core.progress import Progress, silent
from lmeraser.core.seeding import below
from lmeraser.core.sufficient_statistics import SufficientStatistics, embedding, encode
from lmeraser.core.tensors import from_bytes, to_bytes
from lmeraser.data.references import RecordRef
from lmeraser.errors import CorruptError
from lmeraser.models.manifest import Cluster, StageResult
from lmeraser.models.partitions import Fitted, partition_of
from lmeraser.models.partitions.trie import group
from lmeraser.pipeline.caches import FeatureCache, Statistics
from lmeraser.pipeline.executors.base import Executor, Fetch, TuneTask
from lmeraser.storage.artifacts import MemoEntry, Store

_CHUNK = 1024  # records whose features are in memory at once while they are assigned


@dataclass(frozen=True)
class Inputs:
    """All that F is a function of.

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
    """How F's stages run and where results are remembered; none of these changes a result.

    Attributes:
        store: artifacts and memo.
        memory: features and places of single records.
        counts: codes of single records, and their sums.
        executor: gives the executor.
        fetch: image bytes of record ids.
        secret: key of the memo keys.
        progress: told how far it is.
        rederive: run again the stages whose result was made in another environment.
    """

    store: Store
    memory: FeatureCache
    counts: Statistics
    executor: Callable[[], Executor]
    fetch: Fetch
    secret: bytes
    progress: Progress = silent
    rederive: bool = False


@dataclass(frozen=True)
class ClusterAssignment:
    """The first half of F: which record is in which cluster.

    Attributes:
        partition: its stage.
        groups: members of each cluster, sorted, by its path; in the order of the clusters' numbers.
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
    """What F gave.

    Attributes:
        partition: the partition's artifact.
        clusters: the clusters with members, by number.
        global_head: if the settings ask for one and there are records.
        ran: how often each stage ran: records embedded and assigned, partitions fitted, clusters tuned, records
            in tuned clusters.
        tuning_seconds: time spent on tuning.
    """

    partition: StageResult
    clusters: tuple[Cluster, ...]
    global_head: StageResult | None = None
    stage_counts: Mapping[str, int] = field(default_factory=dict)
    tuning_seconds: float = 0.0


def derive(inputs: Inputs, tools: PipelineContext) -> Derivation:
    """F: codes and the global head, the partition, and a constituent for every cluster with members."""
    stage_counts: Counter[str] = Counter()
    head = fit_global_head(inputs, tools, stage_counts)
    division = divide(inputs, tools, stage_counts)
    started = time.perf_counter()
    clusters = tune_clusters(inputs, division.numbered(), tools, stage_counts)
    return Derivation(division.partition, clusters, head, dict(stage_counts), time.perf_counter() - started)


def fit_global_head(inputs: Inputs, tools: PipelineContext, stage_counts: Counter[str]) -> StageResult | None:
    """Count every record in the sums, and solve for the global head if the settings ask for one."""
    if not inputs.config.needs_statistics or not inputs.records:
        return None
    _count(inputs, tools, stage_counts)
    if inputs.config.global_head.weight == 0:
        return None
    sums = tools.counts.sums()
    assert sums is not None
    labels = Counter(record.label for record in inputs.records)
    wanted = tuple(labels[label] for label in range(inputs.classes))
    check_counts(sums.widened(inputs.classes).records_by_class == wanted)
    return solve_global_head(sums, inputs, tools, stage_counts)


def solve_global_head(
    sums: SufficientStatistics, inputs: Inputs, tools: PipelineContext, stage_counts: Counter[str]
) -> StageResult:
    """The global head from the sums over all records."""
    sums, penalty = sums.widened(inputs.classes), inputs.config.global_head.penalty
    key = keyed_digest(tools.secret, {"stage": "global_head", "sums": sums.digest, "penalty": penalty})
    entry = _find(key, tools)
    if entry is None:
        entry = _keep(key, to_bytes(solve(sums, penalty)), tools)
        stage_counts["solved"] += 1
    return _result(key, entry)


def divide(inputs: Inputs, tools: PipelineContext, stage_counts: Counter[str]) -> ClusterAssignment:
    """Fit the partition on the sample and give every record its cluster."""
    partition = partition_of(inputs.config)
    by_id = {record.id: record for record in inputs.records}
    sample = partition.sample(list(by_id))
    settings = inputs.config.model_settings()
    key = keyed_digest(
        tools.secret,
        {
            "stage": "partition",
            "settings": {name: settings[name] for name in ("seed", "backbone", "partition")},
            "backbone": inputs.backbone,
            "sample": [[record_id, by_id[record_id].image_digest] for record_id in sample],
        },
    )
    entry = _find(key, tools)
    if entry is None:
        if inputs.config.partition.public:
            points = tools.executor().class_vectors()
        else:
            points = _stack(_features(sample, inputs, tools, stage_counts), sample)
        entry = _keep(key, to_bytes(partition.fit(points)), tools)
        stage_counts["fitted"] += 1
    fitted = from_bytes(tools.store.read(entry.artifact))
    result = _result(key, entry)
    places = _trie_keys(fitted, key, sample, list(by_id), inputs, tools, stage_counts)
    return ClusterAssignment(result, group(places, inputs.config.partition.max_records))


def tune_clusters(
    inputs: Inputs,
    clusters: Mapping[int, tuple[str, Sequence[str]]],
    tools: PipelineContext,
    stage_counts: Counter[str],
) -> tuple[Cluster, ...]:
    """A constituent for each of these clusters; those whose members are in the memo are not tuned again."""
    if inputs.config.constituent.kind == "none":
        stage_counts.update(tuned=0, tuned_records=0)
        return tuple(
            Cluster(number=n, path=path, records=len(ids), constituent=None) for n, (path, ids) in clusters.items()
        )
    if inputs.config.constituent.together:
        groups = {i: number for number, (_, ids) in clusters.items() for i in ids}
        one = _chains({0: sorted(groups)}, inputs, tools, stage_counts, groups)
        chains = dict.fromkeys(clusters, one[0])
    else:
        chains = _chains({number: ids for number, (_, ids) in clusters.items()}, inputs, tools, stage_counts)
    return tuple(_cluster(n, path, len(ids), chains[n]) for n, (path, ids) in clusters.items())


def _chains(
    units: Mapping[int, Sequence[str]],
    inputs: Inputs,
    tools: PipelineContext,
    stage_counts: Counter[str],
    groups: Mapping[str, int] | None = None,
) -> dict[int, list[StageResult]]:
    """What the slices of each unit gave, one after the other; the last is its constituent.

    Args:
        units: the members of each task's cluster, or of all clusters.
        inputs: of F.
        tools: of F.
        stage_counts: how often each stage ran.
        groups: number of the cluster of each record, where clusters are tuned together.
    """
    by_id = {record.id: record for record in inputs.records}
    slices = {i: slice_of(inputs.config, i) for ids in units.values() for i in ids}
    chains: dict[int, list[StageResult]] = {number: [] for number in units}
    for level in range(inputs.config.tuning.slices):
        tasks, starts = {}, {}
        for number, ids in units.items():
            if any(slices[i] == level for i in ids):  # a slice without members adds nothing
                start = chains[number][-1].artifact if chains[number] else None
                task = _task([by_id[i] for i in ids if slices[i] <= level], inputs, tools.secret, start, groups)
                tasks[number], starts[task.key] = task, start
        results = _tuned(list(tasks.values()), starts, inputs, tools, stage_counts)
        for number, task in tasks.items():
            chains[number].append(results[task.key])
    return chains


def slice_of(config: Config, record_id: str) -> int:
    """In which slice of its cluster a record is tuned; depends on the record alone."""
    slices = config.tuning.slices
    return 0 if slices == 1 else below(config.seed, "slice", (slices,), record_id)[0]


def feature_key(config: Config, backbone: Digest, fingerprint: Digest) -> str:
    """Names what features depend on besides the image."""
    settings = config.model_settings()["backbone"]
    return Digest.of_json({"settings": settings, "backbone": backbone, "fingerprint": fingerprint})


def code_key(config: Config, backbone: Digest, fingerprint: Digest) -> Digest:
    """Names what codes depend on besides the image."""
    views = list(config.embedding.views)
    frame = [config.seed, config.prompt_width] if "frame" in views else None
    return Digest.of_json({"features": feature_key(config, backbone, fingerprint), "views": views, "frame": frame})


def _count(inputs: Inputs, tools: PipelineContext, stage_counts: Counter[str]) -> None:
    """Count the records that are not counted yet; their clean features are stored on the way."""
    named = inputs.config, inputs.backbone, tools.executor().fingerprint
    key, labels = code_key(*named), {record.id: record.label for record in inputs.records}
    counted = tools.counts.ids(key=key)
    missing = [record.id for record in inputs.records if record.id not in counted]
    if not missing:
        return
    views = inputs.config.embedding.views
    stream = tools.executor().embed(missing, tools.fetch, tools.progress, views)
    while chunk := dict(itertools.islice(stream, _CHUNK)):
        features = np.stack(list(chunk.values())).reshape(len(chunk), len(views), -1)
        if "clean" in views:
            clean = dict(zip(chunk, features[:, views.index("clean")], strict=True))
            tools.memory.store_features(clean, key=feature_key(*named))
        codes = dict(zip(chunk, encode(embedding(features)), strict=True))
        tools.counts.count(codes, [labels[record_id] for record_id in chunk], inputs.classes, key=key)
    stage_counts["counted"] += len(missing)


def check_counts(right: bool) -> None:
    """Stop where the sums do not count every record once.

    Raises:
        CorruptError: they do not.
    """
    if not right:
        raise CorruptError(
            "The sums count every record once, in its class.",
            got="other numbers of records than the workspace holds",
            next_step="count them again with 'lmeraser train --rederive'",
        )


def _task(
    records: Sequence[RecordRef],
    inputs: Inputs,
    secret: bytes,
    start: Digest | None,
    groups: Mapping[str, int] | None,
) -> TuneTask:
    settings = inputs.config.model_settings()
    together = [] if groups is None else [groups[record.id] for record in records]
    parts = 1 if groups is None else len(set(groups.values()))
    key = keyed_digest(
        secret,
        {
            "together": [parts, together],
            "stage": "tune",
            "settings": {name: settings[name] for name in inputs.config.constituent.reads},
            "backbone": inputs.backbone,
            "classes": inputs.classes,
            "members": [[record.id, record.label, record.image_digest] for record in records],
            "start": start,
        },
    )
    ids, labels = zip(*((record.id, record.label) for record in records), strict=True)
    return TuneTask(key, ids, labels, inputs.classes, groups=tuple(together), parts=parts)


def _cluster(number: int, path: str, records: int, chain: Sequence[StageResult]) -> Cluster:
    *checkpoints, last = chain
    return Cluster(number=number, path=path, records=records, constituent=last, checkpoints=tuple(checkpoints))


def _tuned(
    tasks: Sequence[TuneTask],
    starts: Mapping[Digest, Digest | None],
    inputs: Inputs,
    tools: PipelineContext,
    stage_counts: Counter[str],
) -> dict[Digest, StageResult]:
    """Results of these tasks by their keys; those that are not in the memo are run, from their checkpoints."""
    found = {task.key: _find(task.key, tools) for task in tasks}
    pending = [task for task in tasks if found[task.key] is None]
    if pending:
        fetch = tools.counts.codes if inputs.config.constituent.given == "codes" else tools.fetch
        begun = [replace(t, start=tools.store.read(start)) if (start := starts[t.key]) else t for t in pending]
        for result in tools.executor().tune(begun, fetch, tools.progress):
            found[result.key] = _keep(result.key, result.data, tools, seconds=result.seconds)
    stage_counts["tuned"] += sum(task.parts for task in pending)
    stage_counts["tuned_records"] += sum(len(task.ids) for task in pending)
    return {key: _result(key, entry) for key, entry in found.items() if entry is not None}


def _find(key: Digest, tools: PipelineContext) -> MemoEntry | None:
    entry = tools.store.find(key)
    if entry is not None and tools.rederive and entry.fingerprint != tools.executor().fingerprint:
        return None
    return entry


def _result(key: Digest, entry: MemoEntry) -> StageResult:
    return StageResult(key=key, artifact=entry.artifact, fingerprint=entry.fingerprint)


def _keep(key: Digest, data: bytes, tools: PipelineContext, *, seconds: float = 0.0) -> MemoEntry:
    return tools.store.keep(key, data, fingerprint=tools.executor().fingerprint, seconds=seconds)


def _trie_keys(
    fitted: Fitted,
    key: Digest,
    sample: Sequence[str],
    ids: Sequence[str],
    inputs: Inputs,
    tools: PipelineContext,
    stage_counts: Counter[str],
) -> dict[str, str]:
    """Place of every record: known, or the dendrogram's for sampled ones, or the partition's rule."""
    partition = partition_of(inputs.config)
    places = tools.memory.trie_keys(key)
    drawn = dict(zip(sample, partition.sample_places(fitted, sample), strict=True))
    if fresh := {i: place for i, place in drawn.items() if i not in places}:
        tools.memory.store_trie_keys(fresh, partition=key, sampled=True)
        places |= fresh
    missing = [record_id for record_id in ids if record_id not in places]
    for start in range(0, len(missing), _CHUNK):
        chunk = missing[start : start + _CHUNK]
        vectors = _features(chunk, inputs, tools, stage_counts) if partition.needs_features else {}
        new = dict(zip(chunk, partition.trie_keys(fitted, chunk, _stack(vectors, chunk)), strict=True))
        tools.memory.store_trie_keys(new, partition=key)
        places |= new
        tools.progress("assigning records", start + len(chunk), len(missing))
    stage_counts["assigned"] += len(missing)
    return places


def _features(
    ids: Sequence[str], inputs: Inputs, tools: PipelineContext, stage_counts: Counter[str]
) -> dict[str, NDArray[np.float32]]:
    """Features of these records, from memory or embedded now; finished ones are stored as they come."""
    key = feature_key(inputs.config, inputs.backbone, tools.executor().fingerprint)
    known = tools.memory.features(ids, key=key)
    missing = [record_id for record_id in ids if record_id not in known]
    if not missing:
        return known
    fresh: dict[str, NDArray[np.float32]] = {}
    for record_id, vector in tools.executor().embed(missing, tools.fetch, tools.progress):
        fresh[record_id] = vector
        if len(fresh) == _CHUNK:
            tools.memory.store_features(fresh, key=key)
            known |= fresh
            fresh = {}
    tools.memory.store_features(fresh, key=key)
    stage_counts["embedded"] += len(missing)
    return known | fresh


def _stack(vectors: Mapping[str, NDArray[np.float32]], ids: Sequence[str]) -> NDArray[Any]:
    rows = [vectors[record_id] for record_id in ids if record_id in vectors]
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
