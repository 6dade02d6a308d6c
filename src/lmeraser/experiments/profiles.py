"""How large an experiment is: ``small`` for two cores, ``full`` for the paper's size on GPUs.

A profile says which records, which backbones and how much tuning every method gets; methods differ in nothing
else than what they are. Knows nothing about methods or what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lmeraser.errors import InputError

ProfileName = Literal["tiny", "small", "full"]


@dataclass(frozen=True)
class BackboneProfile:
    """A frozen network as an experiment uses it.

    Attributes:
        name: in tables.
        settings: the section ``[backbone]``; a name that begins with ``data:`` is a folder beside the data sets.
        records: private records of each data set; None: all.
        test: test images; None: all.
        epochs: of tuning.
        read_at: epochs after which accuracy is read for the curves.
    """

    name: str
    settings: Mapping[str, Any]
    records: int | None
    test: int | None
    epochs: int
    read_at: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """The size of the experiments.

    Attributes:
        name: of the profile.
        data: names of the data sets.
        backbones: the first is the one of all tables; the others have curves only.
        clusters: for which methods that take a number of clusters divide the records.
        sample: of the private records, which shapes their partition.
        numbers: of clusters, for accuracy against what was unlearned (Figure 5).
        shares: of the records that are unlearned there.
        shards: of SISA.
        slices: of each shard.
        requests: single deletions that are timed for each method.
        dear_requests: the same where every request tunes everything again.
        sets: forget sets that are studied.
        seeds: for the spread of the retrained model.
        references: models for membership inference.
        tuning: of all methods, besides the epochs.
    """

    name: ProfileName
    data: tuple[str, ...]
    backbones: tuple[BackboneProfile, ...]
    clusters: int
    sample: int
    numbers: tuple[int, ...]
    shares: tuple[float, ...]
    shards: int
    slices: int
    requests: int
    dear_requests: int
    sets: tuple[str, ...]
    seeds: int
    references: int
    tuning: Mapping[str, Any] = field(default_factory=dict)


_LITE = {"name": "efficientnet-lite0", "image_size": 48}
_SETS = ("random", "class", "cluster", "sampled", "outliers", "subject")
_HALVES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)

PROFILES: dict[str, Profile] = {
    # A miniature of everything, for tests: it shows that the machinery works and nothing else.
    "tiny": Profile(
        name="tiny",
        data=("cifar10",),
        backbones=(BackboneProfile("EfficientNet-Lite0", {**_LITE, "image_size": 32}, 60, 30, 2, (1, 2)),),
        clusters=3,
        sample=20,
        numbers=(2, 3),
        shares=(0.0, 0.5),
        shards=2,
        slices=2,
        requests=2,
        dear_requests=1,
        sets=("random", "subject"),
        seeds=2,
        references=2,
    ),
    "small": Profile(
        name="small",
        data=("cifar10", "cifar100", "svhn", "gtsrb"),
        backbones=(
            BackboneProfile("EfficientNet-Lite0", _LITE, 500, 500, 5, (1, 2, 5)),
            BackboneProfile(
                "small ViT",
                {"name": "data:weights/vit-small-saliency", "image_size": 70, "pooling": "cls"},
                200,
                200,
                3,
                (1, 3),
            ),
        ),
        clusters=10,
        sample=100,
        numbers=(5, 10, 20),
        shares=_HALVES,
        shards=5,
        slices=2,
        requests=8,
        dear_requests=2,
        sets=_SETS,
        seeds=3,
        references=4,
        tuning={"prompt_learning_rate": 0.06, "head_learning_rate": 0.006},
    ),
    # Section V-A of the paper: 50 epochs at 224 px. Numbers of clusters as in its published code.
    "full": Profile(
        name="full",
        data=("cifar10", "cifar100", "svhn", "gtsrb"),
        backbones=tuple(
            BackboneProfile(
                name, {"name": alias, "image_size": 224, "resize": 256}, None, None, 50, (1, 5, 10, 20, 50)
            )
            for name, alias in (
                ("ViT-B-22K", "vit-b-22k"),
                ("ViT-B-1K", "vit-b-1k"),
                ("Swin-B-22K", "swin-b-22k"),
                ("Swin-B-1K", "swin-b-1k"),
            )
        ),
        clusters=100,
        sample=1000,
        numbers=(50, 100, 350),
        shares=_HALVES,
        shards=20,
        slices=5,
        requests=100,
        dear_requests=3,
        sets=_SETS,
        seeds=3,
        references=8,
        tuning={"batch_size": 128},
    ),
}


def profile_of(name: str) -> Profile:
    """The profile of this name.

    Raises:
        InputError: there is none.
    """
    if name not in PROFILES:
        raise InputError(f"A profile is one of {', '.join(PROFILES)}.", got=name, next_step="choose one of them")
    return PROFILES[name]
