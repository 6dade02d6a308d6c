"""Settings: everything besides the records and the backbone's weights that determines the model.

One immutable section per concern, in the modules beside this one, read from ``lmeraser.toml``. All settings except
``[compute]``, ``[storage]``, ``[requests]`` and ``[service]`` are inputs of the training function, and therefore
part of `Config.model_settings`, of memo keys and of ``model_digest``. They are meant to be fixed before private
data are seen: tuning them on records that are deleted later is outside the guarantee.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from lmeraser.config.deployment import ComputeConfig, RequestsConfig, ServiceConfig, StorageConfig
from lmeraser.config.global_head import EmbeddingConfig, GlobalHeadConfig
from lmeraser.config.inputs import BackboneConfig, DataConfig, TextConfig
from lmeraser.config.modalities import MODALITIES, ModalityRules, View
from lmeraser.config.partition import PartitionConfig
from lmeraser.config.presets import PRESETS, PresetName, preset_name
from lmeraser.config.toml_file import read_values
from lmeraser.config.tuning import (
    AggregationConfig,
    ConstituentConfig,
    HeadConfig,
    MappingConfig,
    NetworkConfig,
    PromptConfig,
    Section,
    TokensConfig,
    TuningConfig,
)
from lmeraser.errors import ConfigError, listing


class Config(Section):
    """All settings of a workspace."""

    seed: int = Field(default=0, ge=0, lt=2**53, description="seed of all randomness in the model")
    # Not validated here, for which the validators of each section would be built while this module is imported.
    data: DataConfig = DataConfig.model_construct()
    text: TextConfig = TextConfig.model_construct()
    backbone: BackboneConfig = BackboneConfig.model_construct()
    partition: PartitionConfig = PartitionConfig.model_construct(clusters=20)
    prompt: PromptConfig = PromptConfig.model_construct()
    head: HeadConfig = HeadConfig.model_construct()
    network: NetworkConfig = NetworkConfig.model_construct()
    tokens: TokensConfig = TokensConfig.model_construct()
    mapping: MappingConfig = MappingConfig.model_construct()
    embedding: EmbeddingConfig = EmbeddingConfig.model_construct()
    global_head: GlobalHeadConfig = GlobalHeadConfig.model_construct()
    constituent: ConstituentConfig = ConstituentConfig.model_construct()
    tuning: TuningConfig = TuningConfig.model_construct()
    aggregation: AggregationConfig = AggregationConfig.model_construct()
    compute: ComputeConfig = ComputeConfig.model_construct()
    storage: StorageConfig = StorageConfig.model_construct()
    requests: RequestsConfig = RequestsConfig.model_construct()
    service: ServiceConfig = ServiceConfig.model_construct()

    @model_validator(mode="after")
    def _settings_fit_modality(self) -> Self:
        name = self.data.modality
        rules = self.modality
        if other := set(self.embedding.views) - set(rules.views):
            raise ValueError(
                f"embedding.views must be of {', '.join(rules.views)} for modality {name!r} "
                f"(got {', '.join(sorted(other))})"
            )
        if self.constituent.kind not in rules.constituents:
            possible = ", ".join(sorted(rules.constituents))
            raise ValueError(
                f"constituent.kind must be one of {possible} for modality {name!r} (got {self.constituent.kind!r})"
            )
        return self

    @model_validator(mode="after")
    def _prompt_fits_input(self) -> Self:
        width = self.prompt_width
        size = self.backbone.image_size
        limit = size // 2 if self.prompt.kind == "padding" else size
        if self.prompt.kind != "none" and width > limit:
            raise ValueError(f"prompt.width ({width}) must be at most {limit} for an input of {size} px")
        return self

    @model_validator(mode="after")
    def _something_answers(self) -> Self:
        weight = self.global_head.weight
        kind = self.constituent.kind
        if (kind == "none") != (weight == 1):
            raise ValueError(
                "global_head.weight must be 1 if constituent.kind is 'none', and less than 1 otherwise "
                f"(got {weight:g} with {kind!r})"
            )
        if kind == "none" and self.partition.method != "single":
            raise ValueError(
                f"partition.method must be 'single' if constituent.kind is 'none' (got {self.partition.method!r})"
            )
        return self

    @model_validator(mode="after")
    def _mapping_tunes_a_prompt(self) -> Self:
        pixels = self.modality.prompt == "pixels"
        if self.constituent.kind == "mapping" and pixels and self.prompt.kind == "none":
            raise ValueError(
                "prompt.kind must not be 'none' if constituent.kind is 'mapping', which tunes only a prompt"
            )
        return self

    @model_validator(mode="after")
    def _one_is_drawn_by_hash(self) -> Self:
        if self.aggregation.route == "one" and self.partition.method not in ("random", "single"):
            raise ValueError(
                "aggregation.route 'one' requires partition.method 'random' or 'single' "
                f"(got {self.partition.method!r}, which routes images by features)"
            )
        return self

    @property
    def modality(self) -> ModalityRules:
        """What goes with the modality of the records."""
        return MODALITIES[self.data.modality]

    @property
    def clean_view(self) -> View:
        """The view that decides the cluster of a record, and that prompts are added to."""
        return self.modality.clean

    @property
    def sections_of_tuning(self) -> tuple[str, ...]:
        """The sections of the settings that tuning a constituent reads; they are part of its memo key."""
        tokens = self.modality.prompt == "tokens" and self.constituent.kind in ("mapping", "shared_head")
        prompts = ("tokens",) if tokens else ()
        return (*self.constituent.reads, *self.modality.sections, *prompts)

    @property
    def needs_statistics(self) -> bool:
        """Whether the training function computes quantized embeddings and their sufficient statistics."""
        return self.global_head.weight > 0 or self.constituent.tuned_on == "quantized_embeddings"

    @property
    def prompt_width(self) -> int:
        """Width of the frame or patch, px; by default 30 for an input of 224 px (paper, section V-A)."""
        if self.prompt.width is not None:
            return self.prompt.width
        return max(1, round(self.backbone.image_size * 30 / 224))

    def computed(self, different: Mapping[str, Any]) -> Config:
        """These settings with some of ``[compute]`` replaced.

        Raises:
            ConfigError: values out of range, all of them listed.
        """
        return parse(merge(self.model_dump(), {"compute": dict(different)})) if different else self

    def model_settings(self) -> dict[str, Any]:
        """The settings that are inputs of the training function, as JSON values.

        All but ``[compute]``, ``[storage]``, ``[requests]``, ``[service]`` and the backbone's name: the backbone
        is identified by the digest of its weights; where they were loaded from does not matter.
        """
        own = self.modality.sections
        others = [name for name in ("data", "text") if name not in own]
        sections = dict.fromkeys(("compute", "storage", "requests", "service", *others), True)
        ignored = {"name", *self.modality.ignored}
        settings = self.model_dump(mode="json", exclude={**sections, "backbone": ignored})
        backbone = settings["backbone"]
        if "resize" in backbone:
            backbone["resize"] = self.backbone.canvas_size
            # Version 0.1, whose settings name neither, knew these only.
            if self.backbone.canvas_filter == "bilinear":
                del backbone["resample"]
            if self.backbone.canvas_fit == "crop":
                del backbone["fit"]
        settings["prompt"]["width"] = self.prompt_width
        added = self.embedding.settings_since_0_1()
        settings["embedding"] = {"views": settings["embedding"]["views"], **added}
        if self.global_head.penalty_rule == "fixed":  # as in version 0.1, whose settings did not name it
            del settings["global_head"]["penalty_rule"]
        if self.global_head.score == "distance":  # the same
            del settings["global_head"]["score"]
        return settings


def preset(name: PresetName) -> Config:
    """The settings of a preset."""
    return Config.model_validate(PRESETS[name])


def parse(values: dict[str, Any], *, origin: str = "", base: PresetName = "prompts") -> Config:
    """Settings from nested dictionaries, on top of a preset: each given key replaces the preset's value.

    Raises:
        ConfigError: unknown keys or values out of range, all of them listed with what is allowed.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            "Settings are not a dictionary",
            got=f"a value of type {type(values).__name__}",
            next_step="give nested dictionaries; `config.schema.read` reads a TOML file",
        )
    merged = merge(_base(preset_name(base), values), values)
    if isinstance(given := values.get("partition"), dict):
        merged["partition"] = _one_cut(merged["partition"], given)
    if isinstance(head := values.get("global_head"), dict) and "penalty" in head and "penalty_rule" not in head:
        merged["global_head"] = merge(merged["global_head"], {"penalty_rule": "fixed"})
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        faults = listing([_fault(fault) for fault in error.errors()])
        raise ConfigError(
            "Invalid settings",
            got=f"{origin}: {faults}" if origin else faults,
            next_step="correct or remove these keys; 'lmeraser config' prints all settings",
        ) from error


def _base(name: PresetName, values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset as it is for the modality that the settings name.

    Raises:
        ConfigError: the modality lacks it.
    """
    data = values.get("data")
    modality = data.get("modality", "image") if isinstance(data, Mapping) else "image"
    rules = dict[Any, ModalityRules](MODALITIES).get(modality)
    if rules is None:  # reported with all other faults
        return PRESETS[name]
    if name in rules.unavailable:
        possible = ", ".join(sorted(PRESETS.keys() - rules.unavailable))
        raise ConfigError(
            "Preset not available for this modality",
            got=f"{name!r} for {modality!r} (there are: {possible})",
            next_step="choose one of them",
        )
    return merge(merge(PRESETS[name], rules.settings), rules.presets.get(name, {}))


def changed_defaults(config: Config) -> dict[str, tuple[Any, Any]]:
    """Settings of a workspace with the preset ``instant`` that the preset has changed since, as its value and now.

    A workspace keeps the settings that it was created with; with others its records are embedded again.
    """
    if config.constituent.kind != "none":
        return {}
    now = parse({"data": config.data.model_dump(exclude_none=True)}, base="instant")
    names = (
        *(("embedding", name) for name in ("layers", "random_features")),
        *(("global_head", name) for name in ("penalty_rule", "score")),
    )
    own = config.model_dump(mode="json")
    new = now.model_dump(mode="json")
    values = {f"{section}.{name}": (own[section][name], new[section][name]) for section, name in names}
    return {name: (before, after) for name, (before, after) in values.items() if before != after}


def read(path: Path, *, base: PresetName = "prompts") -> Config:
    """Settings from a TOML file.

    Raises:
        ConfigError: the file is missing, not TOML, or has faults (all listed).
    """
    return parse(read_values(path), origin=str(path), base=base)


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested settings: those of ``top`` replace those of ``base``."""
    merged = {**base}
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _one_cut(merged: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Keep one criterion for the clusters: a given one replaces the preset's; without any, a default applies."""
    criteria = {"clusters", "threshold", "expected_share"}
    method = merged.get("method", "hier_cluster")
    named = criteria & given.keys()
    dropped = criteria - named if named or method in ("single", "class_tree") else set()
    result = {key: value for key, value in merged.items() if key not in dropped}
    if method in ("hier_cluster", "random") and not criteria & result.keys():
        result["clusters"] = 20
    return result


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "(settings in combination)"
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown key (there are: {', '.join(_known(fault['loc']))})"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    shown = "" if isinstance(given, (dict, BaseModel)) else f" (got {given!r})"
    return f"{where}: {message}{shown}"


def _known(loc: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return list(model.model_fields)
