"""Settings come back as they were written, and every fault is listed at once with what is allowed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmeraser.config.modalities import MODALITIES, View
from lmeraser.config.presets import PresetName
from lmeraser.config.schema import Config, changed_defaults, parse, preset, read
from lmeraser.config.toml_file import to_toml
from lmeraser.config.tuning import Section
from lmeraser.core.digests import canonical_json
from lmeraser.errors import ConfigError

PRESETS: tuple[PresetName, ...] = get_args(PresetName)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_written_and_read_is_itself(tmp_path: Path, name: PresetName) -> None:
    path = tmp_path / "lmeraser.toml"
    path.write_text(to_toml(preset(name)), encoding="utf-8")
    assert read(path) == preset(name)


_names = st.text(st.characters(codec="utf-8"), max_size=12)
_rates = st.floats(0, 1000, allow_nan=False)


@settings(deadline=None)
@given(_names, _rates, st.floats(1e-9, 1e9), st.integers(0, 2**53 - 1), st.booleans(), st.integers(2, 256))
def test_any_settings_written_and_read_are_themselves(
    name: str, rate: float, threshold: float, seed: int, crop: bool, micro_batch: int
) -> None:
    config = parse(
        {
            "seed": seed,
            "backbone": {"name": name, "micro_batch": micro_batch},
            "partition": {"threshold": threshold},
            "tuning": {"prompt_learning_rate": rate, "crop": crop},
        }
    )
    assert parse(tomllib.loads(to_toml(config))) == config


def test_the_written_file_explains_every_setting_that_has_an_explanation() -> None:
    text = to_toml(preset("prompts")).replace("\n# ", " ")  # long descriptions stand above, in several lines
    for name, section in preset("prompts"):
        if isinstance(section, Section):
            assert f"[{name}]" in text
            for key, field in type(section).model_fields.items():
                assert key in text
                assert (field.description or "") in text


def test_all_unknown_keys_and_all_values_out_of_range_are_listed_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(
            {
                "sed": 1,
                "seed": -1,
                "backbone": {"image_size": 8, "pooling": "max"},
                "tuning": {"epochs": 0, "rate": 1, "momentum": 1.5, "crop": "perhaps"},
                "compute": {"device": "tpu"},
                "partitions": {},
            }
        )
    text = caught.value.got
    lines = {line.strip("- ").split(":")[0]: line for line in text.splitlines()[1:]}
    assert text.startswith("10\n")
    assert "unknown key (there are: seed, data, text, backbone, partition" in lines["sed"]
    assert "unknown key" in lines["partitions"]
    assert "epochs, batch_size" in lines["tuning.rate"]
    assert "greater than or equal to 0 (got -1)" in lines["seed"]
    assert "greater than or equal to 16 (got 8)" in lines["backbone.image_size"]
    assert "'auto', 'cls', 'mean', 'pooler' or 'last' (got 'max')" in lines["backbone.pooling"]
    assert "greater than or equal to 1 (got 0)" in lines["tuning.epochs"]
    assert "less than 1 (got 1.5)" in lines["tuning.momentum"]
    assert "boolean" in lines["tuning.crop"]
    assert "'cpu' or 'cuda'" in lines["compute.device"]


@pytest.mark.parametrize("value", [1, "text", [], None])
def test_a_section_that_is_not_a_table_is_a_fault(value: Any) -> None:
    with pytest.raises(ConfigError, match="tuning"):
        parse({"tuning": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["threshold", "prompt_learning_rate"])
def test_settings_are_finite_numbers(key: str, value: float) -> None:
    section = "partition" if key == "threshold" else "tuning"
    with pytest.raises(ConfigError, match=key):
        parse({section: {key: value}})


@pytest.mark.parametrize(
    "partition",
    [
        {"clusters": 5, "threshold": 1.0},
        {"method": "single", "clusters": 5},
        {"method": "single", "threshold": 1.0},
        {"method": "random", "threshold": 1.0},
        {"method": "random", "clusters": 5, "threshold": 1.0},
    ],
)
def test_there_is_one_way_to_cut(partition: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"clusters|threshold"):
        parse({"partition": partition})


@pytest.mark.parametrize("base", ["prompts", "paper"])
def test_naming_one_way_to_cut_replaces_the_other_of_the_preset(base: PresetName) -> None:
    by_number = parse({"partition": {"clusters": 7}}, base=base).partition
    by_distance = parse({"partition": {"threshold": 3.0}}, base=base).partition
    assert (by_number.clusters, by_number.threshold) == (7, None)
    assert (by_distance.clusters, by_distance.threshold) == (None, 3.0)
    assert parse({"partition": {"method": "single"}}).partition.threshold is None


@pytest.mark.parametrize(("kind", "limit"), [("padding", 24), ("fixed_patch", 48), ("random_patch", 48)])
def test_a_prompt_is_not_wider_than_its_image(kind: str, limit: int) -> None:
    values: dict[str, Any] = {"backbone": {"image_size": 48}, "prompt": {"kind": kind, "width": limit}}
    assert parse(values).prompt_width == limit
    values["prompt"]["width"] = limit + 1
    with pytest.raises(ConfigError, match=f"prompt.width \\({limit + 1}\\) must be at most {limit}"):
        parse(values)


def test_a_canvas_covers_the_input() -> None:
    assert parse({"backbone": {"image_size": 100, "resize": 100}}).backbone.canvas_size == 100
    with pytest.raises(ConfigError, match=r"resize \(99\) must be at least image_size \(100\)"):
        parse({"backbone": {"image_size": 100, "resize": 99}})


def test_the_preset_paper_has_the_papers_numbers() -> None:
    paper = preset("paper")
    assert (paper.backbone.name, paper.backbone.image_size, paper.backbone.canvas_size) == ("vit-b-22k", 224, 256)
    assert paper.backbone.pooling == "pooler", "what its code calls forward_features"
    assert (paper.partition.sample_size, paper.partition.linkage, paper.partition.threshold) == (
        1000,
        "average",
        10,
    )
    assert (paper.partition.metric, paper.partition.method) == ("euclidean", "hier_cluster")
    assert (paper.prompt.kind, paper.prompt_width) == ("padding", 30)
    assert paper.tuning.epochs == 50
    assert paper.head.normalize == "none"


@pytest.mark.parametrize(("size", "width", "canvas"), [(224, 30, 256), (96, 13, 110), (16, 2, 18)])
def test_what_is_not_given_scales_with_the_input(size: int, width: int, canvas: int) -> None:
    config = parse({"backbone": {"image_size": size}})
    assert (config.prompt_width, config.backbone.canvas_size) == (width, canvas)


def test_where_it_is_computed_is_not_a_setting_of_the_model() -> None:
    base = preset("prompts").model_settings()
    assert parse({"compute": {"workers": 7}, "backbone": {"name": "elsewhere"}}).model_settings() == base
    explicit = {"backbone": {"resize": base["backbone"]["resize"]}, "prompt": {"width": base["prompt"]["width"]}}
    assert parse(explicit).model_settings() == base
    assert parse({"tuning": {"epochs": 77}}).model_settings() != base
    assert parse({"seed": 1}).model_settings() != base


@pytest.mark.parametrize("name", PRESETS)
def test_the_settings_of_a_model_are_canonical_json(name: PresetName) -> None:
    assert canonical_json(preset(name).model_settings()) == canonical_json(parse({}, base=name).model_settings())


def test_tuning_stops_within_its_epochs() -> None:
    assert parse({"tuning": {"epochs": 7}}).tuning.epochs_run == 7
    assert parse({"tuning": {"epochs": 7, "stop_after": 3}}).tuning.epochs_run == 3
    with pytest.raises(ConfigError, match="at most epochs"):
        parse({"tuning": {"epochs": 7, "stop_after": 8}})


def test_settings_cannot_be_changed_in_place() -> None:
    config: Any = preset("prompts")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValueError, match="frozen"):
        config.tuning.epochs = 3


@pytest.mark.parametrize("data", [b"seed = ", b"\xff\xfe", b"seed = 1\nseed = 2"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        read(path)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "notepad.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 7\r\n")
    assert read(path).seed == 7


@pytest.mark.parametrize(("values", "base"), [([], "prompts"), (Path("a.toml"), "prompts"), ({}, "imagenet")])
def test_what_are_no_settings_and_no_preset(values: Any, base: Any) -> None:
    with pytest.raises(ConfigError, match=r"Settings are not a dictionary|Preset not found"):
        parse(values, base=base)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read(tmp_path / "none.toml")


def test_a_file_names_itself_in_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[tuning]\nepoch = 1\n")
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        read(path)


def test_an_empty_file_is_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    assert read(path) == preset("prompts") == Config.model_validate({})
    assert read(path, base="paper") == preset("paper")


# --- views, the global head and what is tuned for a cluster -------------------------------------------------

VIEWS: list[View] = list(MODALITIES["image"].views)
_INSTANT: dict[str, Any] = {
    "partition": {"method": "single"},
    "global_head": {"weight": 1.0},
    "constituent": {"kind": "none"},
}


@settings(deadline=None)
@given(
    st.permutations(VIEWS),
    st.integers(1, len(VIEWS)),
    st.floats(1e-6, 1e6),
    st.floats(1e-6, 100),
    st.floats(0, 0.99),
)
def test_any_views_and_any_global_head_written_and_read_are_themselves(
    views: list[View], count: int, penalty: float, sharpness: float, weight: float
) -> None:
    config = parse(
        {
            "embedding": {"views": views[:count]},
            "global_head": {"weight": weight, "penalty": penalty, "sharpness": sharpness},
            "constituent": {"kind": "head"},
        }
    )
    assert config.embedding.views == tuple(views[:count])
    assert parse(tomllib.loads(to_toml(config))) == config
    assert canonical_json(config.model_settings()) == canonical_json(
        parse(tomllib.loads(to_toml(config))).model_settings()
    )


def test_the_preset_instant_tunes_nothing_and_is_read_back_with_its_list_of_views(tmp_path: Path) -> None:
    instant = parse({}, base="instant")
    assert instant == preset("instant")
    assert instant.partition.method == "single"
    assert instant.constituent.kind == "none"
    assert instant.global_head.weight == 1
    assert instant.embedding.views == ("clean", "whole", "near", "frame")
    assert instant.needs_statistics
    text = to_toml(instant)
    assert tomllib.loads(text)["embedding"]["views"] == ["clean", "whole", "near", "frame"]
    path = tmp_path / "lmeraser.toml"
    path.write_text(text, encoding="utf-8")
    assert read(path) == read(path, base="instant") == instant
    views = ["clean", "whole", "near", "frame"]
    assert read(path).model_settings()["embedding"] == {"views": views, "layers": ["auto"]}


def test_settings_on_top_of_the_preset_instant_replace_single_keys() -> None:
    changed = parse({"embedding": {"views": ["far"]}, "global_head": {"penalty": 5}}, base="instant")
    assert changed.embedding.views == ("far",)
    assert (changed.global_head.weight, changed.global_head.penalty) == (1, 5)
    assert changed.constituent.kind == "none"
    paper = parse(_INSTANT, base="paper")
    assert (paper.partition.method, paper.partition.threshold) == ("single", None)


@pytest.mark.parametrize("views", [[], ()])
def test_there_is_at_least_one_view(views: Any) -> None:
    with pytest.raises(ConfigError, match=r"embedding\.views.*at least 1"):
        parse({"embedding": {"views": views}})


@pytest.mark.parametrize("views", [["clean", "clean"], ["far", "clean", "far"]])
def test_views_are_different(views: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"embedding: views must not be repeated \(got {', '.join(views)}\)"):
        parse({"embedding": {"views": views}})


@pytest.mark.parametrize("views", [["clean", "back"], "clean", [1], None])
def test_views_are_a_list_of_known_names(views: Any) -> None:
    with pytest.raises(ConfigError, match=r"embedding\.views"):
        parse({"embedding": {"views": views}})


@pytest.mark.parametrize(
    ("weight", "kind", "allowed"),
    [
        (1.0, "none", True),
        (1, "none", True),
        (0.99, "none", False),
        (0.0, "none", False),
        (1.0, "prompt_head", False),
        (1.0, "head", False),
        (0.99, "prompt_head", True),
        (0.5, "head", True),
        (0.0, "head", True),
        (0.0, "prompt_head", True),
    ],
)
def test_the_weight_is_one_exactly_if_there_are_no_constituents(weight: float, kind: str, allowed: bool) -> None:
    values = {**_INSTANT, "global_head": {"weight": weight}, "constituent": {"kind": kind}}
    if allowed:
        config = parse(values)
        assert config.needs_statistics == (weight > 0 or kind == "head")
        return
    with pytest.raises(ConfigError, match=rf"weight must be 1 if .* \(got {weight:g} with '{kind}'\)"):
        parse(values)


@pytest.mark.parametrize(
    "partition",
    [{"method": "hier_cluster"}, {"method": "random", "clusters": 1}, {"method": "class_tree", "max_records": 5}],
)
def test_without_constituents_there_is_one_cluster(partition: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"must be 'single' if .* \(got '{partition['method']}'\)"):
        parse({**_INSTANT, "partition": partition})
    with pytest.raises(ConfigError, match="'single'"):
        parse({"partition": partition}, base="instant")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight", -0.1),
        ("weight", 1.1),
        ("penalty", 9e-7),
        ("penalty", 2e6),
        ("penalty", float("inf")),
        ("sharpness", 0),
        ("sharpness", 101),
        ("sharpness", float("nan")),
    ],
)
def test_the_global_head_has_its_ranges(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"global_head\.{key}"):
        parse({"global_head": {key: value}})


@pytest.mark.parametrize(
    "change",
    [
        {"embedding": {"views": ["clean", "mirror"]}},
        {"global_head": {"weight": 0.5}},
        {"global_head": {"penalty": 1.0}},
        {"global_head": {"sharpness": 1.0}},
        {"constituent": {"kind": "head"}},
    ],
)
def test_the_global_head_and_what_it_sees_are_settings_of_the_model(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"global_head": {"weight": 0.25}}
    section, values = next(iter(change.items()))
    changed = parse({**base, section: {**base.get(section, {}), **values}})
    assert changed.model_settings() != parse(base).model_settings()


# --- layers, random features, penalty ----------------------------------------------------------------------


def test_settings_that_0_1_did_not_know_are_part_of_the_model_only_where_they_differ() -> None:
    old = parse({}).model_settings()
    assert old["embedding"] == {"views": ["clean"]}
    assert not {"penalty_rule", "score"} & old["global_head"].keys()
    new = parse(
        {
            "embedding": {"layers": ["block3.std", "final"], "random_features": 64},
            "global_head": {"penalty_rule": "cross_validated", "score": "cosine"},
        }
    ).model_settings()
    assert new["embedding"] == {"views": ["clean"], "layers": ["block3.std", "final"], "random_features": 64}
    assert new["global_head"]["penalty_rule"] == "cross_validated"
    assert new["global_head"]["score"] == "cosine"


@pytest.mark.parametrize(
    ("layers", "fault"),
    [
        (["final", "final"], "must not be repeated"),
        (["auto", "final"], "'auto' alone"),
        ([], "at least 1"),
    ],
)
def test_a_list_of_layers_names_each_once(layers: list[str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse({"embedding": {"layers": layers}})


def test_a_penalty_that_is_given_is_used() -> None:
    assert parse({}, base="instant").global_head.penalty_rule == "cross_validated"
    assert parse({"global_head": {"penalty": 2}}, base="instant").global_head.penalty_rule == "fixed"
    assert parse({"global_head": {"weight": 1}}, base="instant").global_head.penalty_rule == "cross_validated"


def test_a_workspace_with_an_older_preset_is_told_what_the_preset_has_changed() -> None:
    assert changed_defaults(parse({}, base="instant")) == {}
    assert changed_defaults(parse({})) == {}
    old = {"embedding": {"layers": ["final"]}, "global_head": {"penalty_rule": "fixed", "score": "distance"}}
    assert changed_defaults(parse(old, base="instant")) == {
        "embedding.layers": (["final"], ["auto"]),
        "global_head.penalty_rule": ("fixed", "cross_validated"),
        "global_head.score": ("distance", "blend"),
    }
    text = parse({"data": {"modality": "text"}, "embedding": {"random_features": 0}}, base="instant")
    assert changed_defaults(text) == {"embedding.random_features": (0, 4096)}


def test_a_setting_is_known_by_its_former_name() -> None:
    assert parse({"service": {"max_images": 9}}).service.max_queries == 9
    with pytest.raises(ConfigError, match="max_images"):
        parse({"service": {"max_images": 9, "max_queries": 8}})


def test_the_defaults_of_all_settings_are_valid() -> None:
    """They are not validated where they stand."""
    for name, field in Config.model_fields.items():
        if isinstance(section := field.default, Section):
            values = section.model_dump(exclude_unset=True)
            assert type(section).model_validate(values) == section, name
            assert type(section).model_validate(section.model_dump()) == section, name
