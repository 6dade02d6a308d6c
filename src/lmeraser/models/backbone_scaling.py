"""How a backbone's publisher scales images, as settings of a new workspace. Needs no torch.

A workspace's settings fix how images are resized and cropped (`data.images.to_canvas`): prompts are tuned on
random crops of a canvas, and version 0.1 resized with a bilinear filter to 8/7 of the input's side, whatever the
backbone. What the settings of a new workspace leave open is taken from the image processor's file in the
backbone's folder: the filter, and the side before a central crop. A rule without a central crop (ViT's, which
squeezes images to a square) leaves the side as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmeraser.config.schema import Config, Resample

_FILTERS: dict[int | str, Resample] = {  # Pillow's numbers, and timm's words
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    "lanczos": "lanczos",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
}
_SIDES = range(16, 1281)  # px, that `backbone.resize` may have


def adopt_scaling(config: Config) -> Config:
    """Settings with the publisher's scaling, where they leave it open and name a folder.

    Args:
        config: all settings, of a new workspace; the backbone's folder is named by its path.
    """
    backbone = config.backbone
    processor = _processor(Path(backbone.name))
    adopted: dict[str, Any] = {}
    named = processor.get("resample")
    resample = _FILTERS.get(named) if isinstance(named, (int, str)) else None
    if backbone.resample is None and resample is not None:
        adopted["resample"] = resample
    share = _share(processor)
    side = round(backbone.image_size / share) if share is not None else 0
    if backbone.resize is None and side in _SIDES and side >= backbone.image_size:
        adopted["resize"] = side
    return config.model_copy(update={"backbone": backbone.model_copy(update=adopted)})


def _share(processor: dict[str, Any]) -> float | None:
    """The side of the central crop, divided by that of the resized image; None if there is no central crop."""
    edge, crop = processor.get("size"), processor.get("crop_size")
    edge = edge.get("shortest_edge") if isinstance(edge, dict) else edge
    crop = crop.get("height") if isinstance(crop, dict) else crop
    share = processor.get("crop_pct")
    if processor.get("do_resize") and processor.get("do_center_crop"):
        share = crop / edge if isinstance(edge, int) and isinstance(crop, int) and edge > 0 else None
    return share if isinstance(share, float) and 0 < share <= 1 else None


def _processor(folder: Path) -> dict[str, Any]:
    """The settings of the image processor in a folder; none if it cannot be read, which loading will say."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        values = _read(folder / name)
        if values:
            inner = values.get("image_processor", values)
            return inner if isinstance(inner, dict) else {}
    timm = _read(folder / "config.json").get("pretrained_cfg")
    if not isinstance(timm, dict) or timm.get("crop_mode", "center") != "center":
        return {}
    return {"resample": timm.get("interpolation"), "crop_pct": timm.get("crop_pct")}


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
