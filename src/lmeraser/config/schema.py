"""Settings: everything besides the records and the backbone's weights that decides what the model is.

One frozen dataclass-like section per concern, read from ``lmeraser.toml``. All settings except ``[compute]``,
``[storage]``, ``[requests]`` and ``[service]`` are inputs of F and therefore part of `Config.model_settings`, of
every memo key and of ``model_digest``. They are meant to be fixed before private data are seen: tuning them on
records that are deleted later is outside the guarantee. Knows nothing about records, tensors or the workspace.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from lmeraser.config.deployment import ComputeConfig, RequestsConfig, ServiceConfig, StorageConfig
from lmeraser.config.presets import PRESETS, PresetName
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

View = Literal["clean", "mirror", "whole", "near", "far", "frame"]


def default_canvas_size(image_size: int) -> int:
    """Side of a decoded image before cropping, px: 8/7 of the input's side (the paper: 256 for 224)."""
    return round(image_size * 8 / 7)


class BackboneConfig(Section):
    """The frozen network and the fixed shape in which it is always called."""

    name: str = Field(
        default="efficientnet-lite0",
        description="'efficientnet-lite0', an alias (vit-b-22k, vit-b-1k, swin-b-22k, swin-b-1k), "
        "a hub name, or a local folder of a transformers image model",
    )
    image_size: int = Field(default=96, ge=16, le=1024, description="side of the input, px")
    resize: int | None = Field(
        default=None, ge=16, le=1280, description="side before cropping, px; default 8/7 of image_size"
    )
    pooling: Literal["auto", "cls", "mean", "pooler"] = Field(
        default="auto", description="how a transformer's tokens become one feature vector"
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="of the backbone's arithmetic; prompts, heads and gradients stay fp32"
    )
    micro_batch: int = Field(
        default=8,
        ge=2,
        le=256,
        description="images in every pass; part of the model, because another shape gives other bits",
    )

    @property
    def canvas_size(self) -> int:
        """Side of a decoded image before cropping, px: ``resize``, or `default_canvas_size`."""
        return self.resize if self.resize is not None else default_canvas_size(self.image_size)

    @model_validator(mode="after")
    def _resize_covers_input(self) -> Self:
        if self.canvas_size < self.image_size:
            raise ValueError(f"resize ({self.resize}) must be at least image_size ({self.image_size})")
        return self


class PartitionConfig(Section):
    """How records are divided into clusters (paper, Algorithms 1 and 2)."""

    method: Literal["hier_cluster", "class_tree", "random", "single"] = "hier_cluster"
    fitted: Literal["private", "public"] | None = Field(
        default=None, description="on a sample of the records, or on the backbone's public classes"
    )
    sample_size: int = Field(default=1000, ge=2, le=20000, description="records that shape the clusters")
    linkage: Literal["average", "complete", "ward"] = "ward"
    metric: Literal["euclidean", "cosine"] = Field(
        default="cosine", description="'cosine' compares L2-normalised features"
    )
    clusters: int | None = Field(default=None, ge=1, le=10000, description="wanted number of clusters")
    threshold: float | None = Field(
        default=None, gt=0, description="distance at which merging stops (hier_cluster only)"
    )

    expected_share: float | None = Field(
        default=None, gt=0, le=1, description="wanted share of the sample that one request tunes again"
    )
    max_share: float | None = Field(
        default=None, gt=0, le=1, description="a cluster with more than this share of the sample is split"
    )
    max_records: int | None = Field(
        default=None, ge=1, description="a cluster that would hold more records is divided"
    )

    @property
    def public(self) -> bool:
        """Whether it is fitted on the backbone's public classes: no private record shapes it."""
        return self.method == "class_tree" or self.fitted == "public"

    def sampled(self, records: int) -> int:
        """How many of so many records shape the partition."""
        return min(self.sample_size, records) if self.method == "hier_cluster" and not self.public else 0

    @property
    def fitted_on(self) -> str:
        """What shapes the partition, in words for reports."""
        if self.public:
            return "the backbone's public classes; no private record"
        if self.method == "hier_cluster":
            return f"features of {self.sample_size} private records at most"
        return "nothing: record ids are hashed"

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> Self:
        given = {name for name in ("clusters", "threshold", "expected_share") if getattr(self, name) is not None}
        if self.method == "single" and (given - {"clusters"} or self.clusters not in (None, 1)):
            raise ValueError(
                "method 'single' takes none of clusters, threshold and expected_share; the preset 'prompts' does"
            )
        if self.method == "random" and given != {"clusters"}:
            raise ValueError("method 'random' takes clusters, neither threshold nor expected_share")
        if self.method == "class_tree" and (given or self.max_records is None):
            raise ValueError("method 'class_tree' takes max_records, not clusters, threshold or expected_share")
        if self.method == "hier_cluster" and len(given) != 1:
            raise ValueError("method 'hier_cluster' takes exactly one of clusters, threshold and expected_share")
        if self.method != "hier_cluster" and self.max_share is not None:
            raise ValueError("max_share is for method 'hier_cluster'")
        if self.fitted is not None and self.method in ("random", "single"):
            raise ValueError(f"method {self.method!r} is fitted on nothing")
        if self.method == "class_tree" and self.fitted == "private":
            raise ValueError("method 'class_tree' is fitted on public classes")
        return self


class EmbeddingConfig(Section):
    """What heads see that are fitted without tuning a prompt: features averaged over fixed views of an image."""

    views: tuple[View, ...] = Field(
        default=("clean",),
        min_length=1,
        description="'clean', 'mirror', 'whole' (uncropped), 'near', 'far', 'frame' (a random frame, never tuned)",
    )

    @model_validator(mode="after")
    def _each_view_once(self) -> Self:
        if len(set(self.views)) < len(self.views):
            raise ValueError(f"views are different, not {', '.join(self.views)}")
        return self


class GlobalHeadConfig(Section):
    """Linear discriminants of all records, from sums that a record can be subtracted from (docs/adr/0010)."""

    weight: float = Field(
        default=0.0, ge=0, le=1, description="of its probabilities in a prediction; 0: there is none"
    )
    penalty: float = Field(
        default=0.4, ge=1e-6, le=1e6, description="of the scatter, in mean squared distances to the class mean"
    )
    sharpness: float = Field(
        default=0.3, gt=0, le=100, description="factor of its scores before they become probabilities"
    )


class Config(Section):
    """All settings of a workspace."""

    seed: int = Field(default=0, ge=0, lt=2**53)
    backbone: BackboneConfig = BackboneConfig()
    partition: PartitionConfig = PartitionConfig(clusters=20)
    prompt: PromptConfig = PromptConfig()
    head: HeadConfig = HeadConfig()
    network: NetworkConfig = NetworkConfig()
    tokens: TokensConfig = TokensConfig()
    mapping: MappingConfig = MappingConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    global_head: GlobalHeadConfig = GlobalHeadConfig()
    constituent: ConstituentConfig = ConstituentConfig()
    tuning: TuningConfig = TuningConfig()
    aggregation: AggregationConfig = AggregationConfig()
    compute: ComputeConfig = ComputeConfig()
    storage: StorageConfig = StorageConfig()
    requests: RequestsConfig = RequestsConfig()
    service: ServiceConfig = ServiceConfig()

    @model_validator(mode="after")
    def _prompt_fits_input(self) -> Self:
        width, size = self.prompt_width, self.backbone.image_size
        limit = size // 2 if self.prompt.kind == "padding" else size
        if self.prompt.kind != "none" and width > limit:
            raise ValueError(f"prompt.width ({width}) must be at most {limit} for an input of {size} px")
        return self

    @model_validator(mode="after")
    def _something_answers(self) -> Self:
        weight, kind = self.global_head.weight, self.constituent.kind
        if (kind == "none") != (weight == 1):
            raise ValueError(
                f"global_head.weight is 1 exactly if constituent.kind is 'none', not {weight:g} with {kind!r}"
            )
        if kind == "none" and self.partition.method != "single":
            raise ValueError(f"without constituents partition.method is 'single', not {self.partition.method!r}")
        return self

    @model_validator(mode="after")
    def _mapping_tunes_a_prompt(self) -> Self:
        if self.constituent.kind == "mapping" and self.prompt.kind == "none":
            raise ValueError("constituent.kind 'mapping' tunes nothing but a prompt, so prompt.kind is not 'none'")
        return self

    @model_validator(mode="after")
    def _one_is_drawn_by_hash(self) -> Self:
        if self.aggregation.route == "one" and self.partition.method not in ("random", "single"):
            raise ValueError(
                f"aggregation.route 'one' is for partition.method 'random', not {self.partition.method!r}, whose "
                "images have clusters of their own"
            )
        return self

    @property
    def needs_statistics(self) -> bool:
        """Whether the model has a part that is fitted on codes of all records (`sums`)."""
        return self.global_head.weight > 0 or self.constituent.given == "codes"

    @property
    def prompt_width(self) -> int:
        """Width of the frame or patch, px: 30 at an input of 224 unless it is given (paper, section V-A)."""
        if self.prompt.width is not None:
            return self.prompt.width
        return max(1, round(self.backbone.image_size * 30 / 224))

    def computed(self, different: Mapping[str, Any]) -> Config:
        """The same settings, but for some of ``[compute]``.

        Raises:
            ConfigError: values out of range, all of them listed.
        """
        return parse(merge(self.model_dump(), {"compute": dict(different)})) if different else self

    def model_settings(self) -> dict[str, Any]:
        """The settings that are inputs of F, as JSON values.

        All but ``[compute]``, ``[storage]``, ``[requests]``, ``[service]`` and the backbone's name.

        The backbone enters by the digest of its weights; where they were loaded from does not matter.
        """
        sections = dict.fromkeys(("compute", "storage", "requests", "service"), True)
        settings = self.model_dump(mode="json", exclude={**sections, "backbone": {"name"}})
        settings["backbone"]["resize"] = self.backbone.canvas_size
        settings["prompt"]["width"] = self.prompt_width
        return settings


def preset(name: PresetName) -> Config:
    """The settings of a preset."""
    return Config.model_validate(PRESETS[name])


def parse(values: dict[str, Any], *, origin: str = "the settings", base: PresetName = "prompts") -> Config:
    """Settings from nested dictionaries, on top of a preset; a given section key replaces the preset's.

    Raises:
        ConfigError: unknown keys or values out of range, all of them listed with what is allowed.
    """
    merged = merge(PRESETS[base], values)
    if isinstance(given := values.get("partition"), dict):
        merged["partition"] = _one_cut(merged["partition"], given)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(
            f"Every setting is a known key with a value in its range ({origin}).",
            got=listing([_fault(fault) for fault in error.errors()]),
            next_step="correct or remove these keys; 'lmeraser config' prints all of them",
        ) from error


def read(path: Path, *, base: PresetName = "prompts") -> Config:
    """Settings from a TOML file.

    Raises:
        ConfigError: the file is missing, not TOML, or has faults (all listed).
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "The settings are a readable TOML file.", got=f"{path}: {error}", next_step="correct the file"
        ) from error
    return parse(values, origin=str(path), base=base)


def to_toml(config: Config) -> str:
    """Every setting with its description as a comment; `read` gives back an equal `Config`."""
    lines = [
        "# Settings. All but [compute], [storage], [requests] and [service] are part of the model.",
        "",
    ]
    sections = [(name, value) for name, value in config if isinstance(value, Section)]
    lines += [f"{name} = {_toml(value)}" for name, value in config if not isinstance(value, Section)]
    for name, section in sections:
        lines += ["", f"[{name}]"]
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            comment = f"  # {field.description}" if field.description else ""
            lines.append(f"# {key} ={comment}" if value is None else f"{key} = {_toml(value)}{comment}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes as JSON does
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Nested settings on top of others."""
    merged = {**base}
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _one_cut(merged: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Naming one way to cut replaces the preset's other way; naming none keeps a default where one is due."""
    ways, method = {"clusters", "threshold", "expected_share"}, merged.get("method", "hier_cluster")
    named = ways & given.keys()
    dropped = ways - named if named or method in ("single", "class_tree") else set()
    result = {key: value for key, value in merged.items() if key not in dropped}
    if method in ("hier_cluster", "random") and not ways & result.keys():
        result["clusters"] = 20
    return result


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "(together)"
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown key; known here: {', '.join(_known(fault['loc']))}"
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
