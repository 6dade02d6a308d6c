"""Presets: named settings, as differences from the defaults (`schema`)."""

from __future__ import annotations

from typing import Any, Literal, get_args

from lmeraser.errors import ConfigError

PresetName = Literal[
    "instant",
    "prompts",
    "paper",
    "retrain",
    "sisa",
    "single-prompt",
    "dam-vp",
    "random-partition",
    "shared-head",
    "linear",
    "vpt-shallow",
    "vpt-deep",
]

_VIT = {"name": "vit-b-22k", "image_size": 224, "resize": 256}

# VPT (Jia et al., 2022): SGD, 100 epochs, ten of them warm-up. The paper searches the number of tokens, the
# learning rate and the weight decay for each task; these are from the middle of its grids (rate 2.5 for steps of
# 256 records).
_VPT: dict[str, Any] = {
    "backbone": _VIT,
    "partition": {"method": "single"},
    "constituent": {"kind": "tokens"},
    "head": {"normalize": "none"},
    "tuning": {
        "epochs": 100,
        "batch_size": 64,
        "optimizer": "sgd",
        "momentum": 0.9,
        "head_learning_rate": 0.625,
        "head_weight_decay": 0.001,
        "schedule": "cosine",
        "warmup_epochs": 10.0,
        "crop": True,
        "flip": True,
    },
}
_TOKENS = {"count": 50, "learning_rate": 0.625, "weight_decay": 0.001}

PRESETS: dict[str, dict[str, Any]] = {
    # A prompt and a head for every cluster, as in the paper, with settings for the bundled backbone.
    "prompts": {},
    # No prompt is tuned: a deletion subtracts from sufficient statistics and solves for the head once.
    "instant": {
        "partition": {"method": "single"},
        "embedding": {"views": ["clean", "whole", "near", "frame"], "layers": ["auto"]},
        "global_head": {"weight": 1.0, "penalty_rule": "cross_validated", "score": "blend"},
        "constituent": {"kind": "none"},
    },
    # The paper's settings (section V-A). It does not state the learning rates that its code uses; see
    # docs/adr/0006.
    "paper": {
        # The paper's code takes this backbone's features after pre_logits, which transformers calls the pooler.
        "backbone": {**_VIT, "pooling": "pooler"},
        "partition": {
            "method": "hier_cluster",
            "sample_size": 1000,
            "linkage": "average",
            "metric": "euclidean",
            "threshold": 10.0,
        },
        "prompt": {"kind": "padding", "width": 30, "init_scale": 1.0},
        "head": {"normalize": "none"},
        "tuning": {
            "epochs": 50,
            "batch_size": 128,
            "optimizer": "sgd",
            "momentum": 0.9,
            "prompt_learning_rate": 0.1,
            "head_learning_rate": 0.1,
            "head_weight_decay": 0.0,
            "schedule": "cosine",
            "warmup_epochs": 0.0,
            "crop": True,
            "flip": True,
        },
    },
    # --- methods that the paper compares with, on the bundled backbone unless stated otherwise; docs/adr/0016 ---
    # The whole network, tuned on all records: a deletion tunes all of it again.
    "retrain": {"partition": {"method": "single"}, "constituent": {"kind": "network"}},
    # Bourtoule et al. (2021): isolated networks of random shards, tuned slice by slice, with a majority vote. The
    # epochs are chosen so that records are seen as often as in 10 epochs without slices: 2 * 10 / (slices + 1).
    "sisa": {
        "partition": {"method": "random", "clusters": 20},
        "constituent": {"kind": "network"},
        "tuning": {"slices": 4, "epochs": 4},
        "aggregation": {"combine": "vote"},
    },
    # VP (Bahng et al., 2022), with a head: one prompt for all records.
    "single-prompt": {"partition": {"method": "single"}},
    # Huang et al. (2023) without a head: prompts of clusters, and a feature stands for each class. Their code
    # chooses features by their activity on noise, and starts from prompts meta-learned on public data. On the
    # bundled backbone that is hardly better than chance (docs/adr/0016), so here features are chosen by the
    # members' activations.
    "dam-vp": {
        "constituent": {"kind": "mapping"},
        "mapping": {"assign": "members"},
        "tuning": {"prompt_learning_rate": 0.1},
    },
    # "RndPart": prompts and heads of random clusters, all of which predict.
    "random-partition": {"partition": {"method": "random", "clusters": 20}},
    # Prompts of clusters with one head for all, tuned together: a deletion tunes everything again.
    "shared-head": {"constituent": {"kind": "shared_head"}},
    # A linear classifier on clean features of all records, tuned by gradient steps.
    "linear": {"partition": {"method": "single"}, "constituent": {"kind": "head"}},
    # Tuned tokens instead of pixels, on all records.
    "vpt-shallow": {**_VPT, "tokens": _TOKENS},
    "vpt-deep": {**_VPT, "tokens": {**_TOKENS, "deep": True}},
}


def preset_name(text: str) -> PresetName:
    """Check the name of a preset.

    Raises:
        ConfigError: there is no such preset.
    """
    known: tuple[PresetName, ...] = get_args(PresetName)
    for name in known:
        if text == name:
            return name
    raise ConfigError(
        "Preset not found", got=f"{text!r} (there are: {', '.join(known)})", next_step="choose one of them"
    )
