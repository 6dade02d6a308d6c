"""Ways to divide records into clusters; `partition_of` gives the one that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmeraser.config.schema import Config

if TYPE_CHECKING:
    from lmeraser.models.partitions.base import Partition

__all__ = ["partition_of"]


def partition_of(config: Config) -> Partition:
    """The partition that the settings name.

    They are imported here because they need numpy; `trie` and `cost` do not, so what uses only these starts fast.
    """
    from lmeraser.models.partitions.class_tree import ClassTree
    from lmeraser.models.partitions.hashed import HashedPartition
    from lmeraser.models.partitions.hierarchical import HierCluster

    if config.partition.method == "hier_cluster":
        return HierCluster(config)
    if config.partition.method == "class_tree":
        return ClassTree(config)
    return HashedPartition(config)
