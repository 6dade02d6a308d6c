"""Settings of the partition: how records are divided into clusters."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lmeraser.config.tuning import Section


class PartitionConfig(Section):
    """How records are divided into clusters (paper, Algorithms 1 and 2)."""

    method: Literal["hier_cluster", "class_tree", "random", "single"] = Field(
        default="hier_cluster",
        description="'hier_cluster' (by features), 'class_tree' (public classes), 'random' (by hash) or 'single'",
    )
    fitted: Literal["private", "public"] | None = Field(
        default=None,
        description="'private': on a sample of the records; 'public': on the backbone's public classes",
    )
    sample_size: int = Field(
        default=1000, ge=2, le=20000, description="number of records that the partition is fitted on"
    )
    linkage: Literal["average", "complete", "ward"] = Field(
        default="ward", description="of hierarchical clustering: 'average', 'complete' or 'ward'"
    )
    metric: Literal["euclidean", "cosine"] = Field(
        default="cosine", description="'euclidean', or 'cosine', which compares L2-normalised features"
    )
    clusters: int | None = Field(default=None, ge=1, le=10000, description="target number of clusters")
    threshold: float | None = Field(
        default=None, gt=0, description="distance at which merging stops ('hier_cluster' only)"
    )
    expected_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="target share of the sample that one request tunes again, instead of clusters",
    )
    max_share: float | None = Field(
        default=None, gt=0, le=1, description="clusters with more than this share of the sample are split"
    )
    max_records: int | None = Field(default=None, ge=1, description="clusters with more records are split")

    @property
    def public(self) -> bool:
        """Whether the partition is fitted on the backbone's public classes, and on no private record."""
        return self.method == "class_tree" or self.fitted == "public"

    def sampled(self, records: int) -> int:
        """How many of this number of records the partition is fitted on."""
        return min(self.sample_size, records) if self.method == "hier_cluster" and not self.public else 0

    @property
    def fitted_on(self) -> str:
        """What the partition is fitted on, in words for reports."""
        if self.public:
            return "the backbone's public classes; no private record"
        if self.method == "hier_cluster":
            return f"features of at most {self.sample_size} private records"
        return "nothing: record ids are hashed"

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> Self:
        given = {name for name in ("clusters", "threshold", "expected_share") if getattr(self, name) is not None}
        if self.method == "single" and (given - {"clusters"} or self.clusters not in (None, 1)):
            raise ValueError("method 'single' takes none of clusters, threshold and expected_share")
        if self.method == "random" and given != {"clusters"}:
            raise ValueError("method 'random' requires clusters, and takes neither threshold nor expected_share")
        if self.method == "class_tree" and (given or self.max_records is None):
            raise ValueError("method 'class_tree' requires max_records, not clusters, threshold or expected_share")
        if self.method == "hier_cluster" and len(given) != 1:
            raise ValueError(
                "method 'hier_cluster' requires exactly one of clusters, threshold and expected_share"
            )
        if self.method != "hier_cluster" and self.max_share is not None:
            raise ValueError("max_share requires method 'hier_cluster'")
        if self.fitted is not None and self.method in ("random", "single"):
            raise ValueError(f"fitted must not be set for method {self.method!r}, which is fitted on nothing")
        if self.method == "class_tree" and self.fitted == "private":
            raise ValueError("fitted must be 'public' for method 'class_tree'")
        return self
