"""The methods that are compared, each a preset of the same machinery with the study's backbone and budget.

Only what a method *is* comes from its preset; backbone, number of epochs, batch size and learning rates are the
profile's, the same for all, so that differences are the methods'. Knows nothing about data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmeraser.config.presets import PresetName
from lmeraser.config.schema import Config, merge, parse
from lmeraser.config.tuning import HeadConfig, TuningConfig
from lmeraser.errors import InputError
from lmeraser.experiments.profiles import BackboneProfile, Profile

DATA = "data:"  # begins the name of a backbone that lies beside the data sets


@dataclass(frozen=True)
class Method:
    """A way to train and to unlearn.

    Attributes:
        name: on the command line and in files.
        title: in tables.
        preset: its settings.
        settings: what a study sets beside; words in capitals stand for the profile's numbers.
        dear: whether every request tunes everything again.
        paper: its row in the paper's tables.
    """

    name: str
    title: str
    preset: PresetName
    settings: Mapping[str, Any] = field(default_factory=dict)
    dear: bool = False
    paper: str | None = None


_CLUSTERS = {"partition": {"clusters": "CLUSTERS"}}
_SAMPLED = {"partition": {"clusters": "CLUSTERS", "sample_size": "SAMPLE"}}
_TOKENS = {"tokens": {"count": 10, "learning_rate": 0.01, "weight_decay": 0.0}}  # rates for AdamW

METHODS = {
    method.name: method
    for method in (
        Method(
            "lmeraser-paper",
            "LMEraser (paper's clustering)",
            "prompts",
            # The published code cuts at a fixed number of clusters too; a threshold belongs to one backbone.
            merge(_SAMPLED, {"partition": {"linkage": "average", "metric": "euclidean"}}),
            paper="LMEraser",
        ),
        Method("lmeraser", "LMEraser (ours, Ward)", "prompts", _SAMPLED),
        Method(
            "lmeraser-tree",
            "LMEraser (ours, class tree)",
            "prompts",
            {"partition": {"method": "class_tree", "max_records": "LIMIT"}},
        ),
        Method("instant", "instant (ours, default)", "instant"),
        Method("retrain", "Retraining, whole network", "retrain", dear=True, paper="Retrain"),
        Method(
            "sisa",
            "SISA",
            "sisa",
            {"partition": {"clusters": "SHARDS"}, "tuning": {"slices": "SLICES"}},
            paper="SISA",
        ),
        Method("single-prompt", "Single prompt (VP)", "single-prompt", dear=True, paper="Single Prompt"),
        Method("dam-vp", "DAM-VP", "dam-vp", _SAMPLED, paper="DAM-VP"),
        Method(
            "random-one",
            "Random partition, one head asked",
            "random-partition",
            {**_CLUSTERS, "aggregation": {"route": "one"}},
            paper="RndPart",
        ),
        Method("random-all", "Random partition, all heads asked", "random-partition", _CLUSTERS),
        Method("shared-head", "One shared head", "shared-head", _SAMPLED, dear=True),
        Method("linear", "Linear classifier", "linear", dear=True),
        Method("vpt-shallow", "VPT, shallow", "vpt-shallow", _TOKENS, dear=True),
        Method("vpt-deep", "VPT, deep", "vpt-deep", _TOKENS, dear=True),
    )
}


def method_of(name: str) -> Method:
    """The method of this name.

    Raises:
        InputError: there is none.
    """
    if name not in METHODS:
        raise InputError(f"A method is one of {', '.join(METHODS)}.", got=name, next_step="choose one of them")
    return METHODS[name]


def settings_of(
    method: Method,
    backbone: BackboneProfile,
    profile: Profile,
    *,
    root: Path | None,
    seed: int,
    records: int,
    differences: Mapping[str, Any],
) -> Config:
    """All settings of a method in a study.

    Args:
        method: what to run.
        backbone: on which frozen network.
        profile: the size of the study.
        root: folder of the data sets, for backbones that lie there.
        seed: of all coins.
        records: number of private records.
        differences: settings that one experiment varies.
    """
    slices = profile.slices
    numbers = {
        "CLUSTERS": profile.clusters,
        "SAMPLE": profile.sample,
        "SHARDS": profile.shards,
        "SLICES": slices,
        "LIMIT": max(1, round(1.7 * records / profile.clusters)),
    }
    own = _filled(method.settings, numbers)
    sliced = own.get("tuning", {}).get("slices", 1)
    # Slice s is tuned on s/S of the records: so many epochs each give all methods the same number of passes.
    epochs = max(1, round(backbone.epochs * 2 / (sliced + 1)))
    common = {
        "seed": seed,
        "backbone": {**backbone.settings, "name": located(backbone, root)},
        # Whole sections, so that no optimiser, rate or schedule of a preset is left: these are the study's.
        "head": HeadConfig().model_dump(),
        "tuning": {
            **TuningConfig(**profile.tuning).model_dump(exclude={"slices", "stop_after"}),
            "epochs": epochs,
        },
    }
    values = merge(merge(common, own), dict(differences))
    return parse(values, base=method.preset)


def located(backbone: BackboneProfile, root: Path | None) -> str:
    """A backbone's name, or its folder beside the data sets."""
    name = str(backbone.settings["name"])
    if not name.startswith(DATA):
        return name
    if root is None:
        raise InputError(
            f"{backbone.name} is a folder beside the data sets.", got="no folder", next_step="give it with --data"
        )
    return str(root / name.removeprefix(DATA))


def _filled(value: Any, numbers: Mapping[str, int]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, numbers) for key, item in value.items()}
    return numbers.get(value, value) if isinstance(value, str) else value
