"""The manifest of a model: the digests of its parts, one manifest per generation.

A model consists of the settings, the classes, the backbone's digest, the partition, a constituent for every
cluster with members, and the global head, as far as the settings ask for them. ``model_digest`` covers exactly
these and nothing else (no time, no salt, no sizes), so that models of different workspaces can be compared. The
manifest also has what reports need.

Ledger and certificates outlive the models that they name. Whoever has the sufficient statistics of today's records
could add a guess of a deleted record and compare the digest of the model before; so they name a generation by the
digest of its manifest, which has a random nonce: without the manifest, which is purged with its generation, that
digest says nothing. Knows nothing about files; `workspace.registry` keeps manifests on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from lmeraser.config.deployment import ComputeConfig
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest, canonical_json
from lmeraser.models.partitions.cost import Cost, cost_of
from lmeraser.models.partitions.trie import find_path


class StageResult(BaseModel):
    """The result of one stage of the training function.

    Attributes:
        key: keyed digest of the stage's inputs.
        artifact: digest of its result.
        fingerprint: of the environment in which it was computed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Digest
    artifact: Digest
    fingerprint: Digest


class Cluster(BaseModel):
    """One cluster with members.

    Attributes:
        number: its number among the clusters with members.
        path: prefix of the trie keys of its members (`partitions.trie`).
        records: number of its members.
        constituent: the result of its tuning; None where nothing is tuned.
        checkpoints: of its earlier slices, from which tuning continues after a deletion; not part of the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    path: str
    records: int
    constituent: StageResult | None
    checkpoints: tuple[StageResult, ...] = ()


class Model(BaseModel):
    """One generation of the model.

    Attributes:
        format: version of this manifest's layout.
        generation: 0, 1, 2, ...
        parent: model digest of the generation before; only in manifests of before 0.2.
        settings: `Config.model_settings`.
        classes: class names in the order of the labels.
        backbone: digest of the frozen network.
        backbone_name: from where its weights are loaded; not part of the model.
        partition: prototypes and the sample's clusters.
        global_head: fitted on all records; None where the settings ask for none, or there are no records.
        clusters: those with members, by number.
        embedding_key: digest of what quantized embeddings depend on besides the image; not part of the model, and
            called ``code_key`` in the stored manifest.
        revision: of the records that the model was derived from.
        previous: public digest of the generation before; None for the first.
        nonce: 32 random bytes, hexadecimal, which make the manifest's digest unpredictable; None before 0.2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    format: int = 1
    generation: int
    parent: Digest | None = None
    settings: dict[str, Any]
    classes: tuple[str, ...]
    backbone: Digest
    backbone_name: str
    partition: StageResult
    global_head: StageResult | None = None
    clusters: tuple[Cluster, ...]
    embedding_key: Digest | None = Field(default=None, alias="code_key")
    revision: int
    previous: Digest | None = None
    nonce: str | None = None

    def __copy__(self) -> Self:
        """A copy that computes anew what this one has computed of its fields, which may be replaced in it."""
        copied = super().__copy__()
        for name in vars(self).keys() - type(self).model_fields.keys():
            del vars(copied)[name]
        return copied

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """From the bytes of a stored manifest.

        Raises:
            ValueError: they are none.
        """
        model = cls.model_validate_json(data)
        if model.nonce is not None:
            vars(model)["public_digest"] = Digest.of(data)  # of these bytes, whichever version wrote them
        return model

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, as pydantic makes it, whose digests are those of these fields."""
        copied = super().model_copy(update=update, deep=deep)
        for name in [name for name in vars(copied) if name not in type(self).model_fields]:
            del vars(copied)[name]  # pydantic copies what was computed of the old fields
        return copied

    def to_bytes(self) -> bytes:
        """The bytes of the manifest."""
        return self.model_dump_json(indent=1, by_alias=True).encode() + b"\n"

    @cached_property
    def public_digest(self) -> Digest:
        """What ledger and certificates call it: the digest of its manifest; before 0.2, that of the model."""
        return self.model_digest if self.nonce is None else Digest.of(self.to_bytes())

    @cached_property
    def model_digest(self) -> Digest:
        """Digest of every tensor, prototype and setting of the model."""
        parts: dict[str, Any] = {
            "settings": self.settings,
            "classes": list(self.classes),
            "backbone": self.backbone,
            "partition": self.partition.artifact,
            "clusters": [],
        }
        if self.global_head is not None:
            parts["global_head"] = self.global_head.artifact
        # There may be a hundred thousand clusters. Lists of ASCII text and null are the same in canonical JSON and
        # in compact JSON, which the standard library writes many times faster. No text can hold what is replaced,
        # because quotes are escaped in it.
        clusters = [[c.path, c.constituent.artifact if c.constituent else None] for c in self.clusters]
        before, _, after = canonical_json(parts).partition(b'"clusters":[]')
        return Digest.of(before + b'"clusters":' + json.dumps(clusters, separators=(",", ":")).encode() + after)

    @cached_property
    def settings_digest(self) -> Digest:
        """Digest of the settings."""
        return Digest.of_json(self.settings)

    @cached_property
    def stages(self) -> Mapping[str, StageResult]:
        """The results that the model consists of, by the name of their stage, with the checkpoints of clusters."""
        clusters = {f"cluster {cluster.number}": cluster.constituent for cluster in self.clusters}
        checkpoints = {
            f"cluster {cluster.number}, checkpoint {number}": result
            for cluster in self.clusters
            for number, result in enumerate(cluster.checkpoints)
        }
        named = {"partition": self.partition, "global head": self.global_head, **clusters, **checkpoints}
        return {name: result for name, result in named.items() if result is not None}

    @property
    def tuned(self) -> bool:
        """Whether its clusters have constituents, so that a deletion has something to tune again."""
        return any(cluster.constituent is not None for cluster in self.clusters)

    def cluster_numbers(self, trie_keys: Mapping[str, str]) -> dict[str, int]:
        """The number of each record's cluster.

        Args:
            trie_keys: trie key of each record, by record id.

        Returns:
            Cluster numbers by record id; records without a cluster are left out.
        """
        numbers = {cluster.path: cluster.number for cluster in self.clusters}
        paths = {record_id: find_path(trie_key, numbers) for record_id, trie_key in trie_keys.items()}
        return {record_id: numbers[path] for record_id, path in paths.items() if path is not None}

    @property
    def records(self) -> int:
        """Number of records that it was derived from."""
        return sum(cluster.records for cluster in self.clusters)

    @property
    def cost(self) -> Cost:
        """The cost of deletion requests on this model (`partitions.cost`); all zero for an empty one."""
        partition = self.config().partition
        return cost_of(
            {cluster.path: cluster.records for cluster in self.clusters},
            partition.max_records,
            sampled=partition.sampled(self.records),
            tuned=self.tuned,
            together=self.together,
        )

    @property
    def expected_share(self) -> float:
        """Expected share of the records that a uniformly drawn request tunes again, sample hits included."""
        return self.cost.expected_share

    @property
    def together(self) -> bool:
        """Whether all clusters were tuned together, so that any deletion tunes all of them again."""
        return (
            len(self.clusters) > 1 and len({cluster.constituent for cluster in self.clusters}) == 1 and self.tuned
        )

    def with_jointly_tuned(self, numbers: Iterable[int]) -> frozenset[int]:
        """These clusters and all that were tuned together with one of them.

        Args:
            numbers: cluster numbers.
        """
        selected = frozenset(numbers)
        stage_keys = {c.number: c.constituent.key for c in self.clusters if c.constituent is not None}
        keys = {stage_keys[number] for number in selected if number in stage_keys}
        return selected | {number for number, key in stage_keys.items() if key in keys}

    @cached_property
    def fingerprints(self) -> tuple[Digest, ...]:
        """Fingerprints of the environments in which its parts were computed, sorted.

        With more than one of them, a retrained model is equal in distribution, not to the bit.
        """
        return tuple(sorted({result.fingerprint for result in self.stages.values()}))

    def matches(self, config: Config) -> bool:
        """Whether it was derived with these settings and the backbone that they name."""
        return self.settings == config.model_settings() and self.backbone_name == config.backbone.name

    def config(self, compute: ComputeConfig | None = None) -> Config:
        """The settings that it was derived with, and ``compute`` or the defaults for where to compute."""
        backbone = {**self.settings["backbone"], "name": self.backbone_name}
        return Config.model_validate(
            {**self.settings, "backbone": backbone, "compute": compute or ComputeConfig()}
        )
