"""Settings: everything besides the records and the backbone's weights that determines the model.

One immutable section per concern, read from ``lmeraser.toml``. All settings except ``[compute]``, ``[storage]``,
``[requests]`` and ``[service]`` are inputs of the training function, and therefore part of
`Config.model_settings`, of memo keys and of ``model_digest``. They are meant to be fixed before private data are
seen: tuning them on records that are deleted later is outside the guarantee.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from lmeraser.config.deployment import ComputeConfig, RequestsConfig, ServiceConfig, StorageConfig
from lmeraser.config.modalities import MODALITIES, Modality, ModalityRules, View
from lmeraser.config.presets import PRESETS, PresetName, preset_name
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

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table

_TOML_WIDTH = 112

PenaltyRule = Literal["fixed", "cross_validated"]
Score = Literal["distance", "cosine", "blend"]
Resample = Literal["bilinear", "bicubic", "lanczos"]
Fit = Literal["crop", "squeeze"]


def default_canvas_size(image_size: int) -> int:
    """Side of a decoded image before cropping, px: 8/7 of the input's side (the paper: 256 for 224)."""
    return round(image_size * 8 / 7)


class DataConfig(Section):
    """What the payload of a record is; fixed when a workspace is created."""

    modality: Modality = Field(default="image", description="'image', 'text' or 'vector'")
    length: int | None = Field(
        default=None, ge=1, le=65536, description="numbers in a vector ('vector' only, and needed there)"
    )

    @model_validator(mode="after")
    def _length_of_vectors(self) -> Self:
        if (self.length is not None) != (self.modality == "vector"):
            raise ValueError(
                f"length (init --length) must be given for modality 'vector', and for no other (got {self.length} "
                f"with {self.modality!r})"
            )
        return self


class TextConfig(Section):
    """How texts become inputs of the backbone (modality 'text' only)."""

    max_tokens: int = Field(
        default=256, ge=8, le=8192, description="of one window; longer texts are divided into windows"
    )
    windows: int = Field(
        default=8, ge=1, le=1024, description="most windows of a text; of more, so many evenly spaced ones"
    )
    prefix: str | None = Field(
        default=None, max_length=1000, description="put before every text; by default the publisher's"
    )


class BackboneConfig(Section):
    """The frozen network and the fixed shape in which it is always called."""

    name: str = Field(
        default="efficientnet-lite0",
        description="'efficientnet-lite0' (bundled), an alias (vit-b-22k, vit-b-1k, swin-b-22k, swin-b-1k), "
        "a local folder of a transformers model, or hub:OWNER/NAME; for text 'all-MiniLM-L6-v2' (bundled with the "
        "extra 'text'); for vectors 'identity' or 'identity:NAME', the public name of the model that made them",
    )
    image_size: int = Field(default=96, ge=16, le=1024, description="side of the input, px")
    resize: int | None = Field(
        default=None,
        ge=16,
        le=1280,
        description="side to which images are resized before cropping, px; by default 8/7 of image_size",
    )
    resample: Resample | None = Field(
        default=None,
        description="filter of resizing: 'bilinear' (default), 'bicubic' or 'lanczos'; init takes the publisher's",
    )
    fit: Fit | None = Field(
        default=None,
        description="how images become square: 'crop' to the centred square (default) or 'squeeze' the whole "
        "image; init takes the publisher's",
    )
    pooling: Literal["auto", "cls", "mean", "pooler", "last"] = Field(
        default="auto",
        description="how a transformer's tokens become one feature vector: 'auto', 'cls', 'mean', 'pooler' or, "
        "for texts, 'last'",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="of the backbone's arithmetic: 'fp32' or 'bf16'; prompts, heads and gradients stay fp32",
    )
    micro_batch: int = Field(
        default=8,
        ge=2,
        le=256,
        description="records in every pass; part of the model, because another number gives other bits",
    )

    @property
    def canvas_size(self) -> int:
        """Side of a decoded image before cropping, px: ``resize``, or `default_canvas_size`."""
        return self.resize if self.resize is not None else default_canvas_size(self.image_size)

    @property
    def canvas_filter(self) -> Resample:
        """Filter with which images are resized: ``resample``, or bilinear as in version 0.1."""
        return self.resample if self.resample is not None else "bilinear"

    @property
    def canvas_fit(self) -> Fit:
        """How images become square: ``fit``, or cropped as in version 0.1."""
        return self.fit if self.fit is not None else "crop"

    @model_validator(mode="after")
    def _resize_covers_input(self) -> Self:
        if self.canvas_size < self.image_size:
            raise ValueError(f"resize ({self.resize}) must be at least image_size ({self.image_size})")
        return self


class PartitionConfig(Section):
    """How records are divided into clusters (paper, Algorithms 1 and 2)."""

    method: Literal["hier_cluster", "class_tree", "random", "single"] = Field(
        default="hier_cluster",
        description="'hier_cluster' (by features), 'class_tree' (public classes), 'random' (by hash) or 'single'",
    )
    fitted: Literal["private", "public"] | None = Field(
        default=None,
        description="'private': on a sample of the records; 'public': on the backbone's public classes",
    )
    sample_size: int = Field(
        default=1000, ge=2, le=20000, description="number of records that the partition is fitted on"
    )
    linkage: Literal["average", "complete", "ward"] = Field(
        default="ward", description="of hierarchical clustering: 'average', 'complete' or 'ward'"
    )
    metric: Literal["euclidean", "cosine"] = Field(
        default="cosine", description="'euclidean', or 'cosine', which compares L2-normalised features"
    )
    clusters: int | None = Field(default=None, ge=1, le=10000, description="target number of clusters")
    threshold: float | None = Field(
        default=None, gt=0, description="distance at which merging stops ('hier_cluster' only)"
    )
    expected_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="target share of the sample that one request tunes again, instead of clusters",
    )
    max_share: float | None = Field(
        default=None, gt=0, le=1, description="clusters with more than this share of the sample are split"
    )
    max_records: int | None = Field(default=None, ge=1, description="clusters with more records are split")

    @property
    def public(self) -> bool:
        """Whether the partition is fitted on the backbone's public classes, and on no private record."""
        return self.method == "class_tree" or self.fitted == "public"

    def sampled(self, records: int) -> int:
        """How many of this number of records the partition is fitted on."""
        return min(self.sample_size, records) if self.method == "hier_cluster" and not self.public else 0

    @property
    def fitted_on(self) -> str:
        """What the partition is fitted on, in words for reports."""
        if self.public:
            return "the backbone's public classes; no private record"
        if self.method == "hier_cluster":
            return f"features of at most {self.sample_size} private records"
        return "nothing: record ids are hashed"

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> Self:
        given = {name for name in ("clusters", "threshold", "expected_share") if getattr(self, name) is not None}
        if self.method == "single" and (given - {"clusters"} or self.clusters not in (None, 1)):
            raise ValueError("method 'single' takes none of clusters, threshold and expected_share")
        if self.method == "random" and given != {"clusters"}:
            raise ValueError("method 'random' requires clusters, and takes neither threshold nor expected_share")
        if self.method == "class_tree" and (given or self.max_records is None):
            raise ValueError("method 'class_tree' requires max_records, not clusters, threshold or expected_share")
        if self.method == "hier_cluster" and len(given) != 1:
            raise ValueError(
                "method 'hier_cluster' requires exactly one of clusters, threshold and expected_share"
            )
        if self.method != "hier_cluster" and self.max_share is not None:
            raise ValueError("max_share requires method 'hier_cluster'")
        if self.fitted is not None and self.method in ("random", "single"):
            raise ValueError(f"fitted must not be set for method {self.method!r}, which is fitted on nothing")
        if self.method == "class_tree" and self.fitted == "private":
            raise ValueError("fitted must be 'public' for method 'class_tree'")
        return self


class EmbeddingConfig(Section):
    """Inputs of heads without a prompt: layers of the backbone, averaged over fixed views, and a random layer."""

    views: tuple[View, ...] = Field(
        default=("clean",),
        min_length=1,
        description="of images: any of 'clean', 'mirror', 'whole' (uncropped), 'near', 'far', 'frame' (random, "
        "never tuned); of texts: 'head', 'tail' (the first and the last window), 'whole'",
    )

    layers: tuple[str, ...] = Field(
        default=("final",),
        min_length=1,
        description="of the backbone, concatenated: 'final' (its features), names of layers below as the backbone "
        "offers them (docs/backbones.md), or 'auto' alone for the backbone's own choice",
    )
    random_features: int = Field(
        default=0,
        ge=0,
        le=8192,
        description="outputs of a random layer on top, which is drawn from the seed; 0: no random layer",
    )

    @model_validator(mode="after")
    def _each_view_once(self) -> Self:
        if len(set(self.views)) < len(self.views):
            raise ValueError(f"views must not be repeated (got {', '.join(self.views)})")
        return self

    @model_validator(mode="after")
    def _each_layer_once(self) -> Self:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers must not be repeated (got {', '.join(self.layers)})")
        if "auto" in self.layers and len(self.layers) > 1:
            raise ValueError(f"layers must be 'auto' alone, or names of layers (got {', '.join(self.layers)})")
        return self

    def settings_since_0_1(self) -> dict[str, Any]:
        """The settings that version 0.1 did not know, where they differ from what it did."""
        new: dict[str, Any] = {"layers": list(self.layers), "random_features": self.random_features}
        known = type(self).model_fields
        return {name: value for name, value in new.items() if getattr(self, name) != known[name].get_default()}


class GlobalHeadConfig(Section):
    """Linear discriminant analysis of all records, from statistics that records can be subtracted from."""

    weight: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="of the global head's probabilities in a prediction; 0: no global head",
    )
    penalty_rule: PenaltyRule = Field(
        default="fixed",
        description="'fixed': the penalty below; 'cross_validated': a penalty that follows from the sufficient "
        "statistics, by generalised cross-validation",
    )
    penalty: float = Field(
        default=0.4,
        ge=1e-6,
        le=1e6,
        description="of the scatter matrix, in mean squared distances to the class mean ('fixed' only)",
    )
    score: Score = Field(
        default="distance",
        description="of a class: by the 'distance' to its mean, or by the 'cosine' of the angle with it, seen "
        "from the mean of all, with a factor that follows from the sufficient statistics; or by a 'blend' of "
        "both, mostly angles where there are many classes, without what is chance in lengths and priors",
    )
    sharpness: float = Field(default=0.3, gt=0, le=100, description="factor of the scores in the softmax")


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
    values = {
        f"{section}.{name}": (getattr(getattr(config, section), name), getattr(getattr(now, section), name))
        for section, name in names
    }
    return {name: (_plain(own), _plain(new)) for name, (own, new) in values.items() if own != new}


def read(path: Path, *, base: PresetName = "prompts") -> Config:
    """Settings from a TOML file.

    Raises:
        ConfigError: the file is missing, not TOML, or has faults (all listed).
    """
    return parse(read_values(path), origin=str(path), base=base)


def read_values(path: Path) -> dict[str, Any]:
    """Nested settings from a TOML file, unchecked.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin files with a mark
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "Cannot read settings", got=f"{path}: {error}", next_step="correct the TOML file or its path"
        ) from error


def to_toml(config: Config) -> str:
    """Every setting with its description as a comment; `read` returns an equal `Config`."""
    import tomlkit

    document = tomlkit.document()
    document.add(
        tomlkit.comment("Settings. All but [compute], [storage], [requests] and [service] are part of the model.")
    )
    document.add(tomlkit.nl())
    for name, value in config:
        if not isinstance(value, Section):
            _add_setting(document, name, value, type(config).model_fields[name].description or "")
            continue
        table = tomlkit.table()
        table.comment(_first_line(type(value)))
        for key, field in type(value).model_fields.items():
            _add_setting(table, key, getattr(value, key), field.description or "")
        document.add(tomlkit.nl())
        document.add(name, table)
    return tomlkit.dumps(document)


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").partition("\n")[0]


def _add_setting(table: TOMLDocument | Table, key: str, value: Any, description: str) -> None:
    """Add a key and its description: behind it, or above it where the line would get too long.

    TOML has no null, so a setting without a value is written as a comment.
    """
    import tomlkit

    item = tomlkit.item(_plain(value)) if value is not None else None
    line = f"{key} = {item.as_string()}" if item is not None else f"# {key} ="
    behind = len(line) + len(description) < _TOML_WIDTH
    if not behind:
        for part in textwrap.wrap(description, _TOML_WIDTH):
            table.add(tomlkit.comment(part))
    if item is None:
        table.add(tomlkit.comment(f"{key} =  # {description}" if behind and description else f"{key} ="))
        return
    if behind and description:
        item.comment(description)
    table.add(key, item)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


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
