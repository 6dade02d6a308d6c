"""Images are decoded within limits that all callers share, reduced at once, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

import lmeraser.service.image_decoder
import lmeraser.service.uploads
from lmeraser.data.canvases import CanvasSize, ReducedImage, to_canvas
from lmeraser.data.images import decode
from lmeraser.service.decoding_process import DecodingEndedError, DecodingProcess
from lmeraser.service.image_decoder import DecodedImages, ImageDecoder, Upload
from lmeraser.service.limits import Budget
from lmeraser.service.problems import Problem
from serving import PATIENCE, Running, fixtures, problem, until

network, trained, root, api = fixtures("instant")

SIZES = frozenset({CanvasSize(8), CanvasSize(12, "bicubic")})
SMALL, LARGE = (10, 10), (60, 50)


def png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Decoding:
    """Stands for the decoder of images: waits until it is let, and remembers what it was given."""

    def __init__(self) -> None:
        self.began = 0
        self.now = 0
        self.most = 0
        self.let = threading.Event()
        self.lock = threading.Lock()

    def __call__(self, data: bytes) -> Image.Image:
        with self.lock:
            self.began += 1
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.let.wait(PATIENCE)
        with self.lock:
            self.now -= 1
        return decode(data)


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoding]:
    one = Decoding()
    monkeypatch.setattr(lmeraser.service.uploads, "decode", one)
    yield one
    one.let.set()


def decoder(**changes: Any) -> ImageDecoder:
    holder: Any = SimpleNamespace(canvas_sizes=SIZES)
    options: dict[str, Any] = {"max_pixels": 3000, "budget": Budget(10_000), "threads": 4, **changes}
    return ImageDecoder(holder, **options)


def decoded(one: ImageDecoder, *uploads: bytes, caller: str = "a") -> DecodedImages:
    return asyncio.run(one.decode(caller, [Upload(data) for data in uploads]))


def refused(one: ImageDecoder, *uploads: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        decoded(one, *uploads)
    return caught.value


def test_an_image_is_reduced_to_its_canvases_and_gives_the_same_bits() -> None:
    one = decoder()
    found = decoded(one, png(LARGE), png(SMALL))
    assert isinstance(found.images[0], ReducedImage)
    assert isinstance(found.images[1], Image.Image), "it has fewer pixels than its canvases"
    for image, size in zip(found.images, (LARGE, SMALL), strict=True):
        for canvas in SIZES:
            np.testing.assert_array_equal(to_canvas(image, *canvas), to_canvas(decode(png(size)), *canvas))
    assert found.sizes == SIZES
    assert one.budget.held == 3000 + 4 * 100
    found.reservation.release()
    assert one.budget.held == 0
    one.stop()


def test_images_of_many_pixels_are_decoded_in_a_process_that_is_ended_in_the_end(
    decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmeraser.service.image_decoder, "_PIXELS_AT_ONCE", 100)
    decoding.let.set()
    one = decoder(threads=1)
    found = decoded(one, png(LARGE), png(SMALL))
    assert decoding.began == 1, "the small one alone"
    for canvas in SIZES:
        np.testing.assert_array_equal(to_canvas(found.images[0], *canvas), to_canvas(decode(png(LARGE)), *canvas))
    cut = png(LARGE)[:-30] + png(LARGE)[-12:]
    assert (refused(one, cut).status, refused(one, cut).faults[0].where) == (422, "images.0")
    one.stop()
    assert not multiprocessing.active_children()


def test_the_process_of_an_image_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode_slowly(_self: object, _data: bytes, _sizes: object, *, seconds: float) -> None:
        given.append(seconds)
        raise DecodingEndedError

    given: list[float] = []
    monkeypatch.setattr(lmeraser.service.image_decoder, "_PIXELS_AT_ONCE", 0)
    monkeypatch.setattr(DecodingProcess, "decode", decode_slowly)
    one = decoder(seconds=20.0)
    assert refused(one, png(LARGE)).status == 503
    assert 0 < given[0] <= 20.0, "what is left for the call"
    until(lambda: not one.budget.held)
    one.stop()


def test_pixels_are_reserved_by_headers_before_anything_is_decoded(decoding: Decoding) -> None:
    one = decoder()
    first = refused(one, *[png(LARGE)] * 4)
    assert (first.status, first.kind, decoding.began) == (413, "image-size", 0), "the first call is not exempt"
    with one.budget.reserve("another", 8000):
        assert (refused(one, png(LARGE)).status, decoding.began) == (503, 0)
    assert refused(one, png((60, 51))).faults[0].where == "images.0"
    decoding.let.set()
    assert len(decoded(one, *[png(LARGE)] * 3).images) == 3
    one.stop()


def test_only_so_many_pixels_are_decoded_at_the_same_time(decoding: Decoding) -> None:
    one = decoder(budget=Budget(100_000))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(decoded, one, *[png(LARGE)] * 4)
        until(lambda: decoding.began)
        decoding.let.set()
        assert len(waiting.result(PATIENCE).images) == 4
    assert decoding.most == 1
    one.stop()


def test_what_is_not_decoded_in_time_is_given_up_and_holds_its_pixels_until_it_ends(decoding: Decoding) -> None:
    one = decoder(threads=1, seconds=0.5)
    assert (refused(one, png(LARGE), png(LARGE)).status, decoding.began) == (503, 1)
    assert one.budget.held == 6000
    decoding.let.set()
    until(lambda: not one.budget.held)
    assert decoding.began == 1, "what had not begun is dropped"
    one.stop()


def test_a_faulty_image_gives_all_pixels_of_its_call_back() -> None:
    one = decoder()
    problem = refused(one, png(LARGE), png(LARGE)[:-30] + png(LARGE)[-12:])
    assert (problem.status, problem.faults[0].where) == (422, "images.1")
    until(lambda: not one.budget.held)
    one.stop()


def test_acceptances_and_health_do_not_wait_for_predictions(api: Running, decoding: Decoding) -> None:
    """44 calls: one more than all threads of the default pool, with some to spare."""
    with ThreadPoolExecutor(44) as pool:
        predictions = [pool.submit(api.predict, png(SMALL), scope="admin") for _ in range(44)]
        until(lambda: decoding.began)
        assert api.http.get("/healthz").status_code == 200
        assert api.http.get("/readyz").status_code == 200
        assert api.file("digit-0003").status_code == 201
        decoding.let.set()
        assert {one.result(PATIENCE).status_code for one in predictions} == {200}


def in_chunks(image: bytes) -> dict[str, Any]:
    """A form whose length is not declared."""
    form = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n%s\r\n--x--\r\n' % image
    return {
        "content": iter([form[:50], form[50:]]),
        "headers": {"Content-Type": "multipart/form-data; boundary=x"},
    }


def test_uploads_that_are_held_open_share_a_budget(api: Running) -> None:
    service = api.service
    key = next(key.id for key in service.workspace.api_keys.all() if key.name == "predict")
    assert service.upload_budget.total <= 256 << 20
    with service.upload_budget.reserve(key, service.upload_budget.share):
        problem(api.predict(png(SMALL)), 503, "busy")
        problem(api.call("POST", "/predict", "predict", **in_chunks(png(SMALL))), 503, "busy")
        assert api.predict(png(SMALL), scope="admin").status_code == 200
        assert api.call("POST", "/predict", "admin", **in_chunks(png(SMALL))).status_code == 200
    assert api.predict(png(SMALL)).status_code == 200
    assert service.upload_budget.held == 0


def test_an_upload_without_room_is_refused_before_it_is_received(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once would each be received up to its share, and nearly all of that for nothing."""

    def received(_: object) -> None:
        raise AssertionError("received")

    budget = api.service.upload_budget
    key = next(key.id for key in api.service.workspace.api_keys.all() if key.name == "predict")
    monkeypatch.setattr(Request, "stream", received)
    with budget.reserve(key, budget.share - len(png(SMALL))):
        problem(api.predict(png(SMALL)), 503, "busy")
