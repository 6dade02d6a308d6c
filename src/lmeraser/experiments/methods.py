"""The methods under comparison, each a preset run with the study's backbone and tuning budget.

A preset defines only what the method *is*. Backbone, epochs, batch size and learning rates come from the profile
and are the same for all methods, so that differences in results are due to the methods. Methods that are functions
on features (`features`) have neither preset nor settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmeraser.config.modalities import MODALITIES, Modality
from lmeraser.config.presets import PresetName
from lmeraser.config.schema import Config, merge, parse
from lmeraser.config.tuning import HeadConfig, TuningConfig
from lmeraser.errors import InputError
from lmeraser.experiments.datasets import DataSet
from lmeraser.experiments.features import FeatureMethod, FineTuning, GradientAscent
from lmeraser.experiments.profiles import BackboneProfile, Profile

DATA = "data:"  # prefix of backbone names that are folders beside the data sets


@dataclass(frozen=True)
class Method:
    """A way to train and to unlearn.

    Attributes:
        name: name on the command line and in files.
        title: name in tables.
        preset: preset with its settings; of a method on features that of the linear classifier.
        settings: settings that a study overrides; words in capitals are replaced by numbers of the profile.
        expensive: whether every request tunes everything again.
        paper: row of the paper's tables with its numbers.
        on_features: the functions of a method that learns on features alone; None: the preset is derived.
        modalities: the only kinds of records that it runs on; None: all that have the preset.
    """

    name: str
    title: str
    preset: PresetName = "linear"
    settings: Mapping[str, Any] = field(default_factory=dict)
    expensive: bool = False
    paper: str | None = None
    on_features: FeatureMethod | None = None
    modalities: frozenset[Modality] | None = None

    def runs_on(self, kind: Modality) -> bool:
        """Whether it can be used for records of this kind."""
        chosen = self.modalities is None or kind in self.modalities
        return chosen and self.preset not in MODALITIES[kind].unavailable


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
            modalities=frozenset({"image"}),  # networks for texts have no public classes
        ),
        # What prompts gain: the same clusters with heads on features that no prompt changes.
        Method(
            "cluster-heads",
            "Heads of clusters, without prompts",
            "prompts",
            {**_SAMPLED, "constituent": {"kind": "head"}},
        ),
        Method("instant", "instant (ours, default)", "instant"),
        Method("retrain", "Retraining, whole network", "retrain", expensive=True, paper="Retrain"),
        Method(
            "sisa",
            "SISA",
            "sisa",
            {"partition": {"clusters": "SHARDS"}, "tuning": {"slices": "SLICES"}},
            paper="SISA",
        ),
        Method("single-prompt", "Single prompt (VP)", "single-prompt", expensive=True, paper="Single Prompt"),
        Method("dam-vp", "DAM-VP", "dam-vp", _SAMPLED, paper="DAM-VP"),
        Method(
            "random-one",
            "Random partition, one head asked",
            "random-partition",
            {**_CLUSTERS, "aggregation": {"route": "one"}},
            paper="RndPart",
        ),
        Method("random-all", "Random partition, all heads asked", "random-partition", _CLUSTERS),
        Method("shared-head", "One shared head", "shared-head", _SAMPLED, expensive=True),
        Method("linear", "Linear classifier", "linear", expensive=True),
        Method("vpt-shallow", "VPT, shallow", "vpt-shallow", _TOKENS, expensive=True),
        Method("vpt-deep", "VPT, deep", "vpt-deep", _TOKENS, expensive=True),
        Method("fine-tuning", "Fine-tuning (approximate)", on_features=FineTuning()),
        Method("gradient-ascent", "Gradient ascent (approximate)", on_features=GradientAscent()),
    )
}


def settings_of(
    method: Method,
    data: DataSet,
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
        method: the method to run.
        data: the data set.
        backbone: the frozen network.
        profile: the size of the study.
        root: folder of the data sets, for backbones stored beside them.
        seed: seed of all randomness.
        records: number of private records.
        differences: settings that the experiment varies.
    """
    numbers = {
        "CLUSTERS": profile.clusters,
        "SAMPLE": profile.sample_size,
        "SHARDS": profile.shards,
        "SLICES": profile.slices,
        "LIMIT": max(1, round(1.7 * records / profile.clusters)),
    }
    own = _substitute(method.settings, numbers)
    sliced = own.get("tuning", {}).get("slices", 1)
    # Slice s is tuned on s/S of the records: with this number of epochs per slice, all methods make equally many
    # passes over the records.
    epochs = max(1, round(backbone.epochs * 2 / (sliced + 1)))
    common = {
        "seed": seed,
        "data": data.settings,
        "backbone": {**backbone.settings, "name": backbone_location(backbone, root)},
        # Complete sections, so that no optimiser, rate or schedule of a preset survives: they are the study's.
        "head": HeadConfig().model_dump(),
        "tuning": {
            **TuningConfig(**profile.tuning).model_dump(exclude={"slices", "stop_after"}),
            "epochs": epochs,
        },
    }
    if MODALITIES[data.modality].prompt == "tokens":  # they are tuned in place of pixels
        common["tokens"] = dict(profile.tokens)
    values = merge(merge(common, own), dict(differences))
    return parse(values, base=method.preset)


def backbone_location(backbone: BackboneProfile, root: Path | None) -> str:
    """The backbone's name, or the path of its folder beside the data sets."""
    name = str(backbone.settings["name"])
    if not name.startswith(DATA):
        return name
    if root is None:
        raise InputError(
            "Backbone not found",
            got=f"{backbone.name} lies beside the data sets, and no folder was given",
            next_step="pass the folder of the data sets with --folder",
        )
    return str(root / name.removeprefix(DATA))


def _substitute(value: Any, numbers: Mapping[str, int]) -> Any:
    """Replace the words in capitals by their numbers, at any depth."""
    if isinstance(value, Mapping):
        return {key: _substitute(item, numbers) for key, item in value.items()}
    return numbers.get(value, value) if isinstance(value, str) else value
