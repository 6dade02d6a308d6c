"""Named settings: what differs from each setting's own default.

Knows nothing about what the settings mean (`config`).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from lmeraser.errors import ConfigError

PresetName = Literal["instant", "prompts", "paper"]

PRESETS: dict[str, dict[str, Any]] = {
    # A prompt and a head for every cluster, as in the paper, with settings for the embedded backbone.
    "prompts": {},
    # No prompt is tuned: a deletion subtracts from sums and solves once.
    "instant": {
        "partition": {"method": "single"},
        "embedding": {"views": ["clean", "whole", "near", "frame"]},
        "global_head": {"weight": 1.0},
        "constituent": {"kind": "none"},
    },
    # The paper's settings (section V-A). It names no learning rates that its code uses; see docs/adr/0006.
    "paper": {
        # Its code takes the features of this backbone behind pre_logits, transformers' pooler.
        "backbone": {"name": "vit-b-22k", "image_size": 224, "resize": 256, "pooling": "pooler"},
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
}


def preset_name(text: str) -> PresetName:
    """A preset's name.

    Raises:
        ConfigError: there is no such preset.
    """
    for name in get_args(PresetName):
        if text == name:
            return name  # type: ignore[no-any-return]
    raise ConfigError(
        "A preset is 'instant', 'prompts' or 'paper'.", got=repr(text), next_step="choose one of them"
    )
