"""Ways of dividing records into clusters: `partition_of` gives the one that the settings name."""

from __future__ import annotations

from lmeraser.config import Config
from lmeraser.partitions.base import Fitted, Partition
from lmeraser.partitions.class_tree import ClassTree
from lmeraser.partitions.hashed import HashedPartition
from lmeraser.partitions.hier_cluster import HierCluster

__all__ = ["Fitted", "Partition", "partition_of"]


def partition_of(config: Config) -> Partition:
    """The partition that the settings name."""
    if config.partition.method == "hier_cluster":
        return HierCluster(config)
    if config.partition.method == "class_tree":
        return ClassTree(config)
    return HashedPartition(config)
