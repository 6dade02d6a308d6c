"""Modalities: what kind of payload the records of a workspace have, and which settings go with each.

A modality is a family of three modules with its name: its settings are a row of `MODALITIES`, its payloads are in
`data.modalities`, its inputs and backbones in `models.modalities`. Nothing outside of them asks for the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Modality = Literal["image", "text", "vector"]
View = Literal["clean", "mirror", "whole", "near", "far", "frame", "head", "tail"]

_IMAGE_KEYS = ("image_size", "resize", "resample", "fit")


@dataclass(frozen=True)
class ModalityRules:
    """Settings of one modality.

    Attributes:
        views: those that an embedding can be averaged over.
        clean: the view that decides the cluster of a record, and that prompts are added to.
        constituents: the kinds of constituents that can be tuned.
        prompt: what is tuned at the input; None: nothing can be.
        sections: sections of the settings that are inputs of the model for this modality only.
        ignored: settings of ``[backbone]`` that do not matter for this modality.
        settings: differences from all presets.
        presets: further differences by the preset's name.
        unavailable: presets that this modality lacks.
    """

    views: tuple[View, ...]
    clean: View
    constituents: frozenset[str]
    prompt: Literal["pixels", "tokens"] | None = None
    sections: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unavailable: frozenset[str] = frozenset()


_TOKENS = {"constituent": {"kind": "tokens"}}
_HEADS = {"constituent": {"kind": "head"}}

MODALITIES: Mapping[Modality, ModalityRules] = {
    "image": ModalityRules(
        views=("clean", "mirror", "whole", "near", "far", "frame"),
        clean="clean",
        constituents=frozenset(
            {"prompt_head", "head", "network", "tokens", "mapping", "shared_head", "none"},
        ),
        prompt="pixels",
    ),
    "text": ModalityRules(
        views=("head", "tail", "whole"),
        clean="head",
        constituents=frozenset({"head", "network", "tokens", "mapping", "shared_head", "none"}),
        prompt="tokens",
        sections=("data", "text"),
        ignored=_IMAGE_KEYS,
        settings={
            "backbone": {"name": "all-MiniLM-L6-v2", "micro_batch": 16, "pooling": "auto"},
            "prompt": {"kind": "none"},
            "embedding": {"views": ["whole"]},
            "tuning": {"crop": False, "flip": False},
        },
        presets={
            # Sentence vectors are short: a random layer on top lets a linear head separate more of them.
            "instant": {"embedding": {"random_features": 4096}},
            # Soft tokens at the input instead of pixels (Lester et al., 2021).
            "prompts": _TOKENS,
            "paper": _TOKENS,
            "single-prompt": _TOKENS,
            "random-partition": _TOKENS,
        },
    ),
    "vector": ModalityRules(
        views=("clean",),
        clean="clean",
        constituents=frozenset({"head", "none"}),
        sections=("data",),
        ignored=_IMAGE_KEYS,
        settings={
            "backbone": {"name": "identity", "micro_batch": 64, "pooling": "auto"},
            "prompt": {"kind": "none"},
            "embedding": {"views": ["clean"]},
            "tuning": {"crop": False, "flip": False},
        },
        presets={"prompts": _HEADS, "random-partition": _HEADS},
        unavailable=frozenset(
            {"paper", "retrain", "sisa", "single-prompt", "dam-vp", "shared-head", "vpt-shallow", "vpt-deep"}
        ),
    ),
}
