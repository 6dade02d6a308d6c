"""A process decodes images to the same bits, and is ended when one takes too long."""

from __future__ import annotations

import io
import os
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lmeraser.data.canvases import CanvasSize, ReducedImage, to_canvas
from lmeraser.errors import ImageError
from lmeraser.service import decoding_process
from lmeraser.service.decoding_process import DecodingEndedError, DecodingProcess
from serving import PATIENCE

SIZE = CanvasSize(8)


def test_an_image_is_decoded_and_a_process_is_ended_and_started_again() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    process = DecodingProcess(1)
    assert process.process_id is None, "it is started when the first image comes"
    with pytest.raises(DecodingEndedError):
        process.decode(buffer.getvalue(), [SIZE], seconds=0.0)
    assert process.process_id is None
    reduced = process.decode(buffer.getvalue(), [SIZE], seconds=PATIENCE)
    assert isinstance(reduced, ReducedImage)
    np.testing.assert_array_equal(to_canvas(reduced, *SIZE), to_canvas(Image.fromarray(pixels), *SIZE))
    first = process.process_id
    with pytest.raises(ImageError, match="Not an image file"):
        process.decode(b"x", [SIZE], seconds=PATIENCE)
    assert process.process_id == first, "an image that is none ends nothing"
    process.stop()
    assert process.process_id is None
    with pytest.raises(DecodingEndedError):
        process.decode(buffer.getvalue(), [SIZE], seconds=PATIENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_a_process_is_started_at_its_low_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its imports take a quarter of a second of a processor, which others may need."""
    started: list[int] = []

    class Started(SimpleNamespace):
        def start(self) -> None:
            started.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    context = SimpleNamespace(Pipe=decoding_process._CONTEXT.Pipe, Process=Started)
    monkeypatch.setattr(decoding_process, "_CONTEXT", context)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    DecodingProcess(19)._start().close()
    assert started == [19]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
