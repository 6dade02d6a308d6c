"""Sizes of the experiments: ``small`` and ``text`` for two cores, ``full`` for the paper's sizes on GPUs.

A profile sets the records, the backbones and the tuning budget, the same for every method. Must not depend on
methods or metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lmeraser.config.modalities import Modality
from lmeraser.errors import InputError

ProfileName = Literal["tiny", "small", "text", "full"]


@dataclass(frozen=True)
class BackboneProfile:
    """A frozen network and the amount of data and tuning it is used with.

    Attributes:
        name: name in tables.
        settings: the settings section ``[backbone]``; a name starting with ``data:`` is a folder beside the data
            sets.
        records: number of private records of each data set; None: all.
        test: number of test records; None: all.
        epochs: epochs of tuning.
        curve_epochs: epochs after which the accuracy curves are evaluated.
    """

    name: str
    settings: Mapping[str, Any]
    records: int | None
    test: int | None
    epochs: int
    curve_epochs: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """The size of the experiments.

    Attributes:
        name: name of the profile.
        data_sets: names of the data sets, unless others are chosen.
        backbones: for each kind of records; the first one is used in all tables, the others have accuracy curves
            only.
        clusters: number of clusters for methods that take one.
        sample_size: private records that the partition is fitted on.
        cluster_counts: numbers of clusters in the plot of accuracy against unlearned share (Figure 5).
        unlearned_shares: shares of the records that are unlearned in that plot.
        shards: number of SISA's shards.
        slices: slices of each shard.
        requests: single deletions that are timed for each method.
        expensive_requests: the same for methods that tune everything again on every request.
        forget_sets: names of the forget sets that are studied.
        seeds: number of retrained models whose spread is measured.
        reference_models: number of reference models for membership inference.
        tuning: tuning settings of all methods, without the epochs.
        tokens: settings of tokens, where they are tuned in place of pixels.
        caution: what its numbers cannot show; stands above the report.
    """

    name: ProfileName
    data_sets: tuple[str, ...]
    backbones: Mapping[Modality, tuple[BackboneProfile, ...]]
    clusters: int
    sample_size: int
    cluster_counts: tuple[int, ...]
    unlearned_shares: tuple[float, ...]
    shards: int
    slices: int
    requests: int
    expensive_requests: int
    forget_sets: tuple[str, ...]
    seeds: int
    reference_models: int
    tuning: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, Any] = field(default_factory=lambda: {"count": 10, "learning_rate": 0.01})
    caution: str = ""


_LITE = {"name": "efficientnet-lite0", "image_size": 48}
_SETS = ("random", "class", "cluster", "sampled", "outliers", "subject")
_HALVES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)

_SMALL_CAUTION = (
    "This profile uses a small part of the records and few passes over them. An order among methods can be read "
    "from it where differences are large, a percentage point cannot."
)


def _texts(records: int | None, test: int | None, epochs: int, curve: tuple[int, ...]) -> BackboneProfile:
    settings = {"name": "all-MiniLM-L6-v2", "micro_batch": 16}
    return BackboneProfile("MiniLM", settings, records, test, epochs, curve)


def _vectors(records: int | None, test: int | None, epochs: int, curve: tuple[int, ...]) -> BackboneProfile:
    return BackboneProfile("given vectors", {"name": "identity", "micro_batch": 64}, records, test, epochs, curve)


_SMALL = Profile(
    name="small",
    data_sets=("cifar10", "cifar100", "svhn", "gtsrb"),
    backbones={
        "image": (
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
        "text": (_texts(500, 500, 5, (1, 2, 5)),),
        "vector": (_vectors(500, 500, 5, (1, 2, 5)),),
    },
    clusters=10,
    sample_size=100,
    cluster_counts=(5, 10, 20),
    unlearned_shares=_HALVES,
    shards=5,
    slices=2,
    requests=8,
    expensive_requests=2,
    forget_sets=_SETS,
    seeds=3,
    reference_models=4,
    tuning={"prompt_learning_rate": 0.06, "head_learning_rate": 0.006},
    caution=_SMALL_CAUTION,
)

PROFILES: dict[str, Profile] = {
    # A miniature of every experiment, for tests: its numbers mean nothing.
    "tiny": Profile(
        name="tiny",
        data_sets=("cifar10",),
        backbones={
            "image": (BackboneProfile("EfficientNet-Lite0", {**_LITE, "image_size": 32}, 60, 30, 2, (1, 2)),),
            "text": (_texts(60, 30, 2, (1, 2)),),
            "vector": (_vectors(60, 30, 2, (1, 2)),),
        },
        clusters=3,
        sample_size=20,
        cluster_counts=(2, 3),
        unlearned_shares=(0.0, 0.5),
        shards=2,
        slices=2,
        requests=2,
        expensive_requests=1,
        forget_sets=("random", "subject"),
        seeds=2,
        reference_models=2,
        caution="This profile is a miniature for tests of the program. Its numbers mean nothing.",
    ),
    "small": _SMALL,
    # The same on texts, with more of them, because they have more classes.
    "text": replace(
        _SMALL,
        name="text",
        data_sets=("banking77", "clinc150", "tv_dialogue"),
        backbones={**_SMALL.backbones, "text": (_texts(1000, 1000, 3, (1, 2, 3)),)},
        clusters=20,
        sample_size=500,
        cluster_counts=(10, 20, 50),
    ),
    # Section V-A of the paper: 50 epochs at 224 px. Numbers of clusters as in its published code.
    "full": Profile(
        name="full",
        data_sets=("cifar10", "cifar100", "svhn", "gtsrb"),
        backbones={
            "image": tuple(
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
            "text": (_texts(None, None, 50, (1, 5, 10, 20, 50)),),
            "vector": (_vectors(None, None, 50, (1, 5, 10, 20, 50)),),
        },
        clusters=100,
        sample_size=1000,
        cluster_counts=(50, 100, 350),
        unlearned_shares=_HALVES,
        shards=20,
        slices=5,
        requests=100,
        expensive_requests=3,
        forget_sets=_SETS,
        seeds=3,
        reference_models=8,
        tuning={"batch_size": 128},
    ),
}


def profile_of(name: str) -> Profile:
    """The profile with this name.

    Raises:
        InputError: there is no such profile.
    """
    if name not in PROFILES:
        raise InputError(
            "Profile not found",
            got=f"{name!r} (there are: {', '.join(PROFILES)})",
            next_step="choose one of them with --profile",
        )
    return PROFILES[name]
