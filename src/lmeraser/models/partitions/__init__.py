"""Ways to divide records into clusters; `partition_of` gives the one that the settings name."""

from __future__ import annotations

from lmeraser.config.schema import Config
from lmeraser.models.partitions.base import Fitted, Partition
from lmeraser.models.partitions.class_tree import ClassTree
from lmeraser.models.partitions.hashed import HashedPartition
from lmeraser.models.partitions.hierarchical import HierCluster

__all__ = ["Fitted", "Partition", "partition_of"]


def partition_of(config: Config) -> Partition:
    """The partition that the settings name."""
    if config.partition.method == "hier_cluster":
        return HierCluster(config)
    if config.partition.method == "class_tree":
        return ClassTree(config)
    return HashedPartition(config)
