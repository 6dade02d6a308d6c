"""What a model's image processor does to the values of pixels, as one affine map for each channel.

The values are those of the processor of ``transformers`` that belongs to the checkpoint, from whichever file the
version that saved it wrote them into: ``preprocessor_config.json``, ``processor_config.json``, or ``config.json``
(timm). An image of one colour shows whether they say all of what the processor does. Where they do not
(`EfficientNet` divides by the deviation twice), the map is measured on images of single colours. A processor that
is no such map is refused. A checkpoint without any processor is taken as made for pixels from -1 to 1.

How images are scaled and cropped is not taken from here: prompts need room for random crops, so it is part of the
settings, which a new workspace takes from the processor (`models.backbone_scaling`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmeraser.errors import BackboneError
from lmeraser.models.backbones.location import Location

_FILES = ("preprocessor_config.json", "processor_config.json")
_TIMM = "timm_wrapper"  # keeps the values in config.json
_SIDE = 64  # px, of the images that a processor is tried on
_COLOUR = (30, 90, 200)
_GREY = (128, 128, 128)
_MORE_THAN_VALUES = ("rescale_offset", "include_top")  # settings that change what mean and deviation mean
_RGB = (0, 1, 2)
_VALUES = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_flip_channel_order")


@dataclass(frozen=True)
class PixelStatistics:
    """Channel c of the input is (pixel / 255 - mean[c]) / std[c] of the image's channel order[c].

    Attributes:
        mean: by channel, of pixels from 0 to 1.
        std: standard deviation, by channel.
        order: the image's channels (0: red, 1: green, 2: blue) in the order of the input's.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    order: tuple[int, ...] = _RGB

    def of(self, colour: tuple[int, int, int]) -> NDArray[np.float64]:
        """The input's values for a pixel, [3]."""
        return (np.asarray(colour)[list(self.order)] / 255 - self.mean) / self.std


def pixel_statistics(location: Location, model_type: str, name: str) -> PixelStatistics:
    """The statistics that a model's own image processor normalises pixels with.

    Args:
        location: where the model is.
        model_type: of its configuration.
        name: ``backbone.name``, for errors.

    Raises:
        BackboneError: the processor cannot be loaded, or does something else to pixels.
    """
    try:
        values = _stored_values(location)
        if values is None and model_type != _TIMM:
            return PixelStatistics()
        processor = _processor(location, values)
        stated = _from_values({key: getattr(processor, key, None) for key in _VALUES})
        if 0 in stated.std:
            raise ValueError("a standard deviation of zero")
        return _checked(processor, stated)
    except Exception as error:  # transformers raises OSError, ValueError, ImportError, KeyError...
        lines = str(error).strip().splitlines()
        raise BackboneError(
            "The backbone's image processor is not understood, so its pixels would not be what it was trained on",
            got=f"{name}: {lines[0] if lines else type(error).__name__}",
            next_step="save the backbone with a processor that rescales and normalises the channels of RGB images",
        ) from error


def _stored_values(location: Location) -> dict[str, Any] | None:
    """The content of the processor's file; None if the checkpoint has none."""
    for file in _FILES:
        path = location.file(file)
        if path is not None:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            inner: dict[str, Any] = values.get("image_processor", values)
            return inner
    return None


class _StoredProcessor:
    """The values in a processor's file, where its class needs packages that are not installed."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


def _processor(location: Location, values: dict[str, Any] | None) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(location.name, **location.loading)
    except Exception:
        complete = values is not None and {"image_mean", "image_std"} <= values.keys()
        if values is None or not complete or any(values.get(key) for key in _MORE_THAN_VALUES):
            raise
        return _StoredProcessor(values)


def _from_values(values: dict[str, Any]) -> PixelStatistics:
    """The statistics that a processor's settings stand for."""
    factor = 1.0 if values.get("do_rescale") is False else float(values.get("rescale_factor") or 1 / 255)
    mean = std = None
    if values.get("do_normalize") is not False:
        mean, std = values.get("image_mean"), values.get("image_std")
    mean, std = _by_channel(mean, 0.0), _by_channel(std, 1.0)
    if abs(factor * 255 - 1) > 1e-9:
        mean = tuple(value / (255 * factor) for value in mean)
        std = tuple(value / (255 * factor) for value in std)
    flip = bool(values.get("do_flip_channel_order"))
    return PixelStatistics(mean, std, tuple(reversed(_RGB)) if flip else _RGB)


def _by_channel(values: Any, default: float) -> tuple[float, ...]:
    if values is None:
        values = default
    listed = [values] if isinstance(values, (int, float)) else list(values)
    return tuple(float(value) for value in (listed * 3 if len(listed) == 1 else listed))


def _checked(processor: Any, statistics: PixelStatistics) -> PixelStatistics:
    """The statistics, if the processor does what they say, else measured ones.

    Raises:
        ValueError: the processor is no affine map of the channels.
    """
    if isinstance(processor, _StoredProcessor):
        return statistics
    if len(statistics.mean) == len(statistics.std) == 3 and _fits(processor, statistics):
        return statistics
    black = _input_of(processor, (0, 0, 0))
    single = [_input_of(processor, colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    gains = np.stack(single, axis=1) - black[:, None]  # [input's channel, image's channel]
    order = np.abs(gains).argmax(axis=1)
    scale = gains[np.arange(3), order]
    if (scale > 0).all():
        std = 1 / scale
        measured = PixelStatistics(
            tuple((-black * std).tolist()), tuple(std.tolist()), tuple(int(channel) for channel in order)
        )
        if _fits(processor, measured):
            return measured
    raise ValueError(f"{type(processor).__name__} does more to pixels than to rescale and normalise each channel")


def _fits(processor: Any, statistics: PixelStatistics) -> bool:
    """Whether a processor's output for two colours is what the statistics say, up to rounding."""
    return all(
        np.allclose(_input_of(processor, colour), statistics.of(colour), rtol=1e-4, atol=1e-4)
        for colour in (_COLOUR, _GREY)
    )


def _input_of(processor: Any, colour: tuple[int, int, int]) -> NDArray[np.float64]:
    """The values in the middle of the processed image of one colour, [3]."""
    output = processor(images=Image.new("RGB", (_SIDE, _SIDE), colour), return_tensors="pt")
    pixels: NDArray[np.float64] = output["pixel_values"].double().numpy()
    if pixels.ndim != 4 or pixels.shape[:2] != (1, 3):
        raise ValueError(f"{type(processor).__name__} gives pixels of shape {list(pixels.shape)}, not of an image")
    return pixels[0, :, pixels.shape[2] // 2, pixels.shape[3] // 2]
