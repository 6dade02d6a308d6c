"""The manifest of a model: the digests of its parts, one manifest per generation.

A model consists of the settings, the classes, the backbone's digest, the partition, a constituent for every
cluster with members, and the global head, as far as the settings ask for them. ``model_digest`` covers exactly
these and nothing else (no time, no salt, no sizes), so that models of different workspaces can be compared. The
manifest also has what reports need.

Ledger and certificates outlive the models that they name. Whoever has the sufficient statistics of today's records
could add a guess of a deleted record and compare the digest of the model before; so they name a generation by the
digest of its manifest, which has a random nonce: without the manifest, which is purged with its generation, that
digest says nothing.

The manifest of a model of many clusters names pages of clusters instead of listing them (`models.clusters`); its
digest covers the pages by their digests. The model's own digest is the same function of the clusters in both.
Knows nothing about files; `workspace.registry` keeps manifests on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from lmeraser.config.deployment import ComputeConfig
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest, canonical_json
from lmeraser.models.cluster import Cluster, StageResult
from lmeraser.models.cluster_page import Page, PageEntry, without_those_in
from lmeraser.models.clusters import ClusterPages, Clusters, arranged
from lmeraser.models.partitions.cost import Cost, CostCounts, cost_of_counts
from lmeraser.models.partitions.trie import find_path

__all__ = ["Cluster", "Model", "OwnParts", "StageResult"]

IN_PAGES = 2  # format of a manifest that names pages


def _arranged(value: Any, validate: ValidatorFunctionWrapHandler) -> Clusters:
    return arranged(value if isinstance(value, Clusters) else validate(value))


_AsList = Annotated[tuple[Cluster, ...], WrapValidator(_arranged)]


class Model(BaseModel):
    """One generation of the model.

    Attributes:
        format: version of a manifest's layout that lists its clusters; `to_bytes` writes `IN_PAGES` for others.
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
    clusters: Annotated[Clusters, GetPydanticSchema(lambda _, handler: handler(_AsList))]
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
    def parse(cls, data: bytes, *, read_page: Callable[[PageEntry], Page] | None = None) -> Self:
        """From the bytes of a stored manifest.

        Args:
            data: the bytes.
            read_page: reads the pages that it names; None: a manifest that names some is refused.

        Raises:
            ValueError: they are none.
        """
        values = json.loads(data)
        if read_page is not None and isinstance(values, dict) and values.get("format") == IN_PAGES:
            del values["format"]
            stored = _Pages.model_validate(values["clusters"])
            values["clusters"] = ClusterPages(map(read_page, stored.pages), stored.costs.counted)
            model = cls.model_validate(values)
        else:
            model = cls.model_validate_json(data)
            if model.format >= IN_PAGES:
                raise ValueError("a list of clusters in a manifest whose format has pages")
        if model.nonce is not None:
            vars(model)["public_digest"] = Digest.of(data)  # of these bytes, whichever version wrote them
        return model

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, as pydantic makes it, whose digests are those of these fields."""
        updated = dict(update or {})
        if not isinstance(clusters := updated.get("clusters", self.clusters), Clusters):
            updated["clusters"] = arranged(clusters)
        copied = super().model_copy(update=updated, deep=deep)
        for name in [name for name in vars(copied) if name not in type(self).model_fields]:
            del vars(copied)[name]  # pydantic copies what was computed of the old fields
        return copied

    def to_bytes(self) -> bytes:
        """The bytes of the manifest; those of its pages are apart."""
        if not self.pages:
            return self.model_dump_json(indent=1, by_alias=True).encode() + b"\n"
        values = self.model_dump(mode="json", by_alias=True, exclude={"clusters"})
        limit = self.settings.get("partition", {}).get("max_records")
        counts = tuple((size, cost, number) for (size, cost), number in sorted(self.clusters.costs(limit).items()))
        entries = tuple(page.entry for page in self.pages)
        pages = _Pages(pages=entries, costs=_Costs(limit=limit, counts=counts))
        values |= {"format": IN_PAGES, "clusters": pages.model_dump(mode="json")}
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"  # compact: written many times faster

    @property
    def pages(self) -> tuple[Page, ...]:
        """The pages of its clusters; none where the manifest lists them itself."""
        return self.clusters.pages

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
        # There may be a hundred thousand clusters, and lists of ASCII text and null are the same in canonical JSON
        # as in compact JSON, which is written many times faster, or is in pages already. No text can hold what is
        # replaced, because quotes are escaped in it.
        before, _, after = canonical_json(parts).partition(b'"clusters":[]')
        digest = hashlib.sha256(before + b'"clusters":')
        for part in self.clusters.model_parts():
            digest.update(part)
        digest.update(after)
        return Digest("sha256:" + digest.hexdigest())

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
        named = {**self.shared_stages, **clusters, **checkpoints}
        return {name: result for name, result in named.items() if result is not None}

    @property
    def shared_stages(self) -> dict[str, StageResult]:
        """The results that belong to no cluster."""
        named = {"partition": self.partition, "global head": self.global_head}
        return {name: result for name, result in named.items() if result is not None}

    @property
    def tuned(self) -> bool:
        """Whether its clusters have constituents, so that a deletion has something to tune again."""
        return bool(self.clusters.fingerprints)

    def cluster_numbers(self, trie_keys: Mapping[str, str]) -> dict[str, int]:
        """The number of each record's cluster.

        Args:
            trie_keys: trie key of each record, by record id.

        Returns:
            Cluster numbers by record id; records without a cluster are left out.
        """
        numbers = self.clusters.numbers
        if len(trie_keys) > len(numbers):
            numbers = dict(numbers)  # looked up faster
        paths = {record_id: find_path(trie_key, numbers) for record_id, trie_key in trie_keys.items()}
        return {record_id: numbers[path] for record_id, path in paths.items() if path is not None}

    @property
    def records(self) -> int:
        """Number of records that it was derived from."""
        return self.clusters.records

    @property
    def cost(self) -> Cost:
        """The cost of deletion requests on this model (`partitions.cost`); all zero for an empty one."""
        partition = self.config().partition
        counts = self.clusters.costs(partition.max_records)
        sampled = partition.sampled(self.records)
        return cost_of_counts(counts, sampled=sampled, tuned=self.tuned, together=self.together)

    @property
    def expected_share(self) -> float:
        """Expected share of the records that a uniformly drawn request tunes again, sample hits included."""
        return self.cost.expected_share

    @property
    def together(self) -> bool:
        """Whether all clusters were tuned together, so that any deletion tunes all of them again."""
        if len(self.clusters) < 2 or not self.tuned:
            return False
        first, second = self.clusters[0].constituent, self.clusters[1].constituent
        return first == second and all(cluster.constituent == first for cluster in self.clusters)

    def with_jointly_tuned(self, numbers: Iterable[int]) -> frozenset[int]:
        """These clusters and all that were tuned together with one of them.

        Args:
            numbers: cluster numbers.
        """
        selected = frozenset(numbers)  # clusters are tuned all together, or each alone
        return frozenset(range(len(self.clusters))) if selected and self.together else selected

    @cached_property
    def fingerprints(self) -> tuple[Digest, ...]:
        """Fingerprints of the environments in which its parts were computed, sorted.

        With more than one of them, a retrained model is equal in distribution, not to the bit.
        """
        shared = {result.fingerprint for result in self.shared_stages.values()}
        return tuple(sorted(shared | self.clusters.fingerprints))

    def matches(self, config: Config) -> bool:
        """Whether it was derived with these settings and the backbone that they name."""
        return self.settings == config.model_settings() and self.backbone_name == config.backbone.name

    def config(self, compute: ComputeConfig | None = None) -> Config:
        """The settings that it was derived with, and ``compute`` or the defaults for where to compute."""
        backbone = {**self.settings["backbone"], "name": self.backbone_name}
        return Config.model_validate(
            {**self.settings, "backbone": backbone, "compute": compute or ComputeConfig()}
        )


class OwnParts:
    """What a generation has and another one does not; pages that both have are not parsed.

    Args:
        model: the generation.
        other: the other one.
    """

    def __init__(self, model: Model, other: Model) -> None:
        ours, theirs = ({page.digest for page in each.pages} for each in (model, other))
        self._common = [page for page in model.pages if page.digest in theirs]
        self._of_clusters = [each for cluster in model.clusters.outside(theirs) for each in cluster.results]
        self._results = [*model.shared_stages.values(), *self._of_clusters]
        others = (each for cluster in other.clusters.outside(ours) for each in cluster.results)
        self._others = [*other.shared_stages.values(), *others]

    @cached_property
    def artifacts(self) -> set[Digest]:
        """Digests of artifacts."""
        others = {result.artifact for result in self._others}
        return without_those_in(self._common, {result.artifact for result in self._results} - others)

    @cached_property
    def keys(self) -> set[Digest]:
        """Keys of stages."""
        others = {result.key for result in self._others}
        return without_those_in(self._common, {result.key for result in self._results} - others)

    @property
    def results(self) -> int:
        """How many results of clusters, and of their checkpoints, have one of the artifacts."""
        return sum(result.artifact in self.artifacts for result in self._of_clusters)


class _Costs(BaseModel):
    """Number of clusters by their size and cost (`partitions.cost.cost_counts`).

    Attributes:
        limit: the most records that a cluster holds; None: no limit.
        counts: records of a cluster, records that are tuned again if it loses one, number of such clusters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: int | None
    counts: tuple[tuple[int, int, int], ...]

    @property
    def counted(self) -> tuple[int | None, CostCounts]:
        """As `ClusterPages` takes it."""
        return self.limit, Counter({(size, cost): number for size, cost, number in self.counts})


class _Pages(BaseModel):
    """What a manifest in pages has instead of a list of clusters.

    Attributes:
        pages: those of the clusters, in their order.
        costs: of deletions; not part of the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pages: tuple[PageEntry, ...]
    costs: _Costs
