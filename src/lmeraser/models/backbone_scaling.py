"""How a backbone's publisher scales images, as settings of a new workspace.

A workspace's settings fix how images are resized and cropped (`data.canvases.to_canvas`): prompts are tuned on
random crops of a canvas, and version 0.1 cropped the centred square and resized it with a bilinear filter to 8/7
of the input's side, whatever the backbone. What the settings of a new workspace leave open is taken from the
backbone's image processor, in its folder or on the hub: the filter, the side before a central crop, and whether
images are cropped to a square or squeezed. What the processor does is measured (`backbones.published_scaling`); if
it cannot be loaded, what its file says counts. Needs torch only for a backbone that has a processor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmeraser.config.inputs import Fit, Resample
from lmeraser.config.schema import Config
from lmeraser.models.backbone_names import ALIASES, BUNDLED, HUB

_FILTERS: dict[int | str, Resample] = {  # Pillow's numbers, and timm's words
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    "lanczos": "lanczos",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
}
_FILES = ("preprocessor_config.json", "processor_config.json")
_TYPES = ("image_processor_type", "feature_extractor_type")  # keys in them that name the processor's class
_HUB_TIMEOUT = 10.0  # seconds
_SIDES = range(16, 1281)  # px, that `backbone.resize` may have


def adopt_scaling(config: Config) -> Config:
    """Settings with the publisher's scaling, where they leave it open and name a folder or a model of the hub.

    Side and fit belong together: where one of them is given, the other is not adopted.

    Args:
        config: all settings, of a new workspace; the backbone's folder is named by its path.
    """
    backbone = config.backbone
    sides_open = backbone.resize is None and backbone.fit is None
    if (
        "fit" in config.modality.ignored
        or backbone.name == BUNDLED
        or not (sides_open or backbone.resample is None)
    ):
        return config
    if backbone.name in ALIASES and not sides_open:  # the preset "paper" scales as its code does
        return config
    folder = Path(backbone.name)
    remote = backbone.name in ALIASES or backbone.name.startswith(HUB)
    rule = _measured(backbone.name) if remote or _has_processor(folder) else None
    if rule is None:
        rule = {} if remote else _read_rule(folder)
    adopted: dict[str, Any] = {}
    if backbone.resample is None and rule.get("resample") is not None:
        adopted["resample"] = rule["resample"]
    share = rule.get("share")
    side = round(backbone.image_size / share) if share is not None else 0
    if sides_open and side in _SIDES and side >= backbone.image_size:
        adopted["resize"] = side
        if rule["fit"] == "squeeze":  # cropping is the default, which settings need not name
            adopted["fit"] = "squeeze"
    return config.model_copy(update={"backbone": backbone.model_copy(update=adopted)})


def describe_scaling(before: Config, after: Config) -> str | None:
    """What `adopt_scaling` made of the settings of a new workspace; None if the publisher was not asked.

    Args:
        before: as they were given.
        after: as they are used.
    """
    given, used = before.backbone, after.backbone
    if "fit" in after.modality.ignored or used.name == BUNDLED:
        return None
    trained = _trained_size(Path(used.name))
    another = ""
    if trained not in (None, used.image_size):
        another = (
            f". The backbone was made for {trained} px: unless {used.image_size} is meant, create the workspace "
            f"with backbone.image_size = {trained}"
        )
    if used.canvas_fit == "squeeze":
        fit = f"squeezed to {used.canvas_size} x {used.canvas_size} px"
    else:
        fit = f"cropped to the centred square and resized to {used.canvas_size} px"
    rule = f"images are {fit} ({used.canvas_filter} filter), the input is {used.image_size} px"
    adopted = [key for key in ("resize", "resample", "fit") if getattr(given, key) != getattr(used, key)]
    if adopted:
        return f"{rule}; as the backbone's publisher does: {', '.join(adopted)}{another}"
    if given.resize is None and given.fit is None:
        return f"{rule}; no rule of the backbone's publisher was found that could be adopted{another}"
    return f"{rule}{another}" if another else None


def _trained_size(folder: Path) -> int | None:
    """The side of the inputs that the configuration in a folder is for, px; None: it does not say."""
    config = _read(folder / "config.json")
    vision = config.get("vision_config")
    timm = config.get("pretrained_cfg")
    sizes = [config.get("image_size")]
    if isinstance(vision, dict):
        sizes.append(vision.get("image_size"))
    if isinstance(timm, dict) and isinstance(timm.get("input_size"), list):
        sizes.append(timm["input_size"][1:])
    for size in sizes:
        sides = set(size) if isinstance(size, list) else {size}
        if len(sides) == 1 and isinstance(side := sides.pop(), int):
            return side
    return None


def _has_processor(folder: Path) -> bool:
    """Whether a folder has the settings of an image processor of transformers that names its class."""
    for name in _FILES:
        values = _read(folder / name)
        inner = values.get("image_processor", values)
        if isinstance(inner, dict) and any(isinstance(inner.get(key), str) for key in _TYPES):
            return True
    return False


def _measured(name: str) -> dict[str, Any] | None:
    """The rule of the publisher's processor, as it was measured; None if it cannot be loaded.

    Of a model of the hub, what is in the local cache is used before a server is asked.
    """
    from lmeraser.models.backbones.location import Location
    from lmeraser.models.backbones.published_scaling import published_scaling

    there = Location.of(name)
    for location in dict.fromkeys((Location(there.name, local_files_only=True), there)):
        if not (location.local_files_only or _hub_answers()):
            continue
        try:
            rule = published_scaling(location)
        except Exception:  # transformers raises OSError, ValueError, ImportError, KeyError...
            continue
        if rule is None:
            return {}
        return {"resample": rule.resample, "share": rule.crop / rule.side, "fit": rule.fit}
    return None


def _hub_answers() -> bool:
    """Whether the hub can be reached: one request, where transformers would repeat many for minutes."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
    except Exception:  # offline by its settings, no network, a proxy...
        return False
    return True


def _read_rule(folder: Path) -> dict[str, Any]:
    """The rule that the processor's file in a folder tells."""
    processor = _processor(folder)
    named = processor.get("resample")
    fit: Fit = "squeeze" if _squeezes(processor) else "crop"
    return {
        "resample": _FILTERS.get(named) if isinstance(named, (int, str)) else None,
        "share": _share(processor),
        "fit": fit,
    }


def _squeezes(processor: dict[str, Any]) -> bool:
    """Whether an image is resized to a height and a width that are equal."""
    size = processor.get("size")
    if processor.get("crop_mode") == "squash":
        return True
    return isinstance(size, dict) and isinstance(size.get("height"), int) and size["height"] == size.get("width")


def _share(processor: dict[str, Any]) -> float | None:
    """The side of the central crop, divided by that of the resized image; None if the file does not tell."""
    edge, crop = processor.get("size"), processor.get("crop_size")
    if isinstance(edge, dict):
        edge = edge.get("height") if _squeezes(processor) else edge.get("shortest_edge")
    crop = crop.get("height") if isinstance(crop, dict) else crop
    share = processor.get("crop_pct")
    if processor.get("do_resize") and processor.get("do_center_crop"):
        share = crop / edge if isinstance(edge, int) and isinstance(crop, int) and edge > 0 else None
    elif processor.get("do_resize") and share is None and _squeezes(processor):
        share = 1.0
    return share if isinstance(share, float) and 0 < share <= 1 else None


def _processor(folder: Path) -> dict[str, Any]:
    """The settings of the image processor in a folder; none if it cannot be read, which loading will say."""
    for name in _FILES:
        values = _read(folder / name)
        if values:
            inner = values.get("image_processor", values)
            return inner if isinstance(inner, dict) else {}
    timm = _read(folder / "config.json").get("pretrained_cfg")
    if not isinstance(timm, dict) or timm.get("crop_mode", "center") not in ("center", "squash"):
        return {}
    return {
        "resample": timm.get("interpolation"),
        "crop_pct": timm.get("crop_pct"),
        "crop_mode": timm.get("crop_mode"),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
