"""A page: a run of clusters as bytes, which a manifest of many clusters names by their digest.

Rules:
- a page ends behind each cluster whose path has a digest divisible by 256, whatever the other clusters are;
- it holds no numbers, so that a cluster that vanishes changes no page but its own;
- it begins with what the model's digest covers of its clusters, which is read without parsing the page.

A page is compact JSON; its field names are a stored format.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError
from lmeraser.models.cluster import Cluster, StageResult
from lmeraser.models.partitions.trie import sort_key

_PAGE = 256  # clusters of a page, on average
_MODEL = b'{"model":['
_AFTER_MODEL = b'],"records":['  # no path, digest or null has it
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_FEW = 16  # digests that are looked for one by one

# A digest in a page; only those of clusters that are wanted become objects of their own.
_Text = Annotated[str, StringConstraints(pattern=f"^{_DIGEST.pattern.decode()}$")]


class _Content(BaseModel):
    """The fields of a page, one entry for each of its clusters.

    Attributes:
        model: path and artifact, as the model's digest covers them.
        records: number of members.
        keys: of the constituents' stages.
        environments: places of the constituents' fingerprints in ``fingerprints``.
        checkpoints: key, artifact and place of the fingerprint of each.
        fingerprints: of all environments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: tuple[tuple[str, _Text | None], ...]
    records: tuple[int, ...]
    keys: tuple[_Text | None, ...]
    environments: tuple[int | None, ...]
    checkpoints: tuple[tuple[tuple[_Text, _Text, int], ...], ...]
    fingerprints: tuple[_Text, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse fields that do not fit together."""
        columns = self.model, self.records, self.keys, self.environments, self.checkpoints
        used = [place for place in self.environments if place is not None]
        used += [place for checkpoints in self.checkpoints for *_, place in checkpoints]
        if len(set(map(len, columns))) > 1 or not all(0 <= place < len(self.fingerprints) for place in used):
            raise ValueError("a page whose fields do not fit together")
        return self

    def cluster(self, place: int, number: int) -> Cluster:
        """The cluster at a place of the page, which has this number among all."""
        path, artifact = self.model[place]
        key, environment = self.keys[place], self.environments[place]
        constituent = None
        if artifact is not None and key is not None and environment is not None:
            constituent = self._result(key, artifact, environment)
        return Cluster.model_construct(
            number=number,
            path=path,
            records=self.records[place],
            constituent=constituent,
            checkpoints=tuple(self._result(*each) for each in self.checkpoints[place]),
        )

    def _result(self, key: str, artifact: str, environment: int) -> StageResult:
        fingerprint = Digest(self.fingerprints[environment])
        return StageResult.model_construct(key=Digest(key), artifact=Digest(artifact), fingerprint=fingerprint)


class PageEntry(BaseModel):
    """What a manifest says of a page.

    Attributes:
        digest: of its bytes.
        last: path of its last cluster.
        clusters: number of its clusters.
        records: number of their members.
        fingerprints: of the environments in which its parts were computed, sorted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Digest
    last: str
    clusters: int
    records: int
    fingerprints: tuple[Digest, ...]


class Page:
    """A run of clusters.

    Args:
        entry: what the manifest says of it.
        data: its bytes, which have the entry's digest.
    """

    def __init__(self, entry: PageEntry, data: bytes) -> None:
        self.entry = entry
        self.data = data
        self._model_ends = data.find(_AFTER_MODEL)
        if self._model_ends < 0 or not data.startswith(_MODEL):
            raise _damaged(entry.digest)

    @classmethod
    def of(cls, clusters: Sequence[Cluster]) -> Page:
        """The page of these clusters; at least one."""
        results = [each for cluster in clusters for each in cluster.results]
        fingerprints = sorted({each.fingerprint for each in results})
        places = {fingerprint: place for place, fingerprint in enumerate(fingerprints)}
        constituents = [cluster.constituent for cluster in clusters]
        content = {
            "model": [in_model(cluster) for cluster in clusters],
            "records": [cluster.records for cluster in clusters],
            "keys": [constituent and constituent.key for constituent in constituents],
            "environments": [constituent and places[constituent.fingerprint] for constituent in constituents],
            "checkpoints": [
                [[each.key, each.artifact, places[each.fingerprint]] for each in cluster.checkpoints]
                for cluster in clusters
            ],
            "fingerprints": fingerprints,
        }
        data = compact(content)
        entry = PageEntry.model_construct(
            digest=Digest.of(data),
            last=clusters[-1].path,
            clusters=len(clusters),
            records=sum(cluster.records for cluster in clusters),
            fingerprints=tuple(fingerprints),
        )
        return cls(entry, data)

    @property
    def digest(self) -> Digest:
        """Digest of its bytes."""
        return self.entry.digest

    @property
    def model_part(self) -> bytes:
        """What the model's digest covers of its clusters: elements of a list in canonical JSON."""
        return self.data[len(_MODEL) : self._model_ends]

    @cached_property
    def rows(self) -> Mapping[str, tuple[int, int]]:
        """The place in the page and the number of records of each of its clusters, by path."""
        content = self._parse()
        return {
            path: (place, records)
            for place, ((path, _), records) in enumerate(zip(content.model, content.records, strict=True))
        }

    @cached_property
    def sort_keys(self) -> Sequence[tuple[int, str]]:
        """What its clusters are sorted by."""
        return list(map(sort_key, self.rows))

    def clusters(self, first: int = 0, places: Iterable[int] | None = None) -> tuple[Cluster, ...]:
        """Its clusters, numbered from ``first`` on.

        Args:
            first: number of the first one.
            places: of those that are wanted; None: all.

        Raises:
            CorruptError: its bytes are not those of the page that the manifest means.
        """
        content = self._parse()
        chosen = range(len(content.model)) if places is None else places
        return tuple(content.cluster(place, first + place) for place in chosen)

    def _parse(self) -> _Content:
        """Its fields; not kept, because they are many times as large as its bytes."""
        try:
            content = _Content.model_validate_json(self.data)
        except ValueError as error:
            raise _damaged(self.digest) from error
        last = content.model[-1][0] if content.model else None
        found = last, len(content.model), sum(content.records)
        if found != (self.entry.last, self.entry.clusters, self.entry.records):
            raise _damaged(self.digest)
        return content


def without_those_in(pages: Iterable[Page], digests: set[Digest]) -> set[Digest]:
    """Those of some digests of artifacts and stage keys that no part of a cluster in these pages has."""
    left = set(digests)
    for page in pages:
        if not left:
            break
        if len(left) <= _FEW:
            left = {digest for digest in left if digest.encode() not in page.data}
        else:
            left.difference_update(Digest(text.decode()) for text in _DIGEST.findall(page.data))
    return left


def in_model(cluster: Cluster) -> list[str | None]:
    """What the model's digest covers of a cluster."""
    return [cluster.path, cluster.constituent.artifact if cluster.constituent else None]


def compact(value: object) -> bytes:
    """JSON without white space."""
    return json.dumps(value, separators=(",", ":")).encode()


def ends_page(path: str) -> bool:
    """Whether a page ends behind the cluster with this path."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4]) % _PAGE == 0


def in_runs(clusters: Iterable[Cluster]) -> Iterator[list[Cluster]]:
    """The clusters of each page."""
    run = list[Cluster]()
    for cluster in clusters:
        run.append(cluster)
        if ends_page(cluster.path):
            yield run
            run = []
    if run:
        yield run


def _damaged(page: Digest) -> CorruptError:
    return CorruptError(
        "Page of the served model's clusters is damaged",
        got=f"page {page.short} is not what its manifest says",
        next_step="delete the folder generations and run 'lmeraser train'; it derives the model again",
    )
