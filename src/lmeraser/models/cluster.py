"""A cluster of a model, and the results of the training function's stages."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from lmeraser.core.digests import Digest


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

    @property
    def results(self) -> tuple[StageResult, ...]:
        """Its constituent, if it has one, and its checkpoints."""
        return self.checkpoints if self.constituent is None else (self.constituent, *self.checkpoints)
