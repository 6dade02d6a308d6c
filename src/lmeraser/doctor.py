"""Whether this machine keeps the promise that F rests on: the same bits whatever else is in the batch or running.

Each check compares features and input gradients of the workspace's backbone bit by bit.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from lmeraser.environment import deterministic, features_and_gradients, probe_images
from lmeraser.executors.local import LocalExecutor

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Check:
    """One comparison of bits."""

    name: str
    passed: bool


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        environment: the fields of the fingerprint.
        checks: the comparisons.
    """

    environment: dict[str, str | int]
    checks: tuple[Check, ...]

    @property
    def sound(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """The examination as JSON values."""
        return {**asdict(self), "sound": self.sound}


def examine(executor: LocalExecutor) -> Examination:
    """Run every check with the executor's backbone."""
    backbone = executor.network
    images, strangers = probe_images(backbone, seed=1), probe_images(backbone, seed=2)
    size = len(images)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(3))
    mixed = strangers.clone()
    mixed[size - 1] = images[0]
    with deterministic():
        first = features_and_gradients(backbone, images)
        again = features_and_gradients(backbone, images)
        permuted = features_and_gradients(backbone, images[order])
        neighbours = features_and_gradients(backbone, mixed)
        with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            together = list(pool.map(lambda _: features_and_gradients(backbone, images), range(4)))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    with deterministic():
        other_threads = features_and_gradients(backbone, images)
    torch.set_num_threads(threads)
    checks = (
        Check("the same batch twice", _equal(first, again)),
        Check("images in another order", _equal(_rows(first, order), permuted)),
        Check("an image among other images, at another place", _equal(_row(first, 0), _row(neighbours, size - 1))),
        Check("four tasks at once", all(_equal(first, other) for other in together)),
        Check(f"a process that is set to {threads + 1} threads", _equal(first, other_threads)),
    )
    return Examination(executor.environment.model_dump(), checks)


def _equal(one: Pair, other: Pair) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _rows(pair: Pair, order: Tensor) -> Pair:
    return pair[0][order], pair[1][order]


def _row(pair: Pair, index: int) -> Pair:
    return pair[0][index], pair[1][index]
