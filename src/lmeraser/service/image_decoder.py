"""Decoding of uploads: apart from all else, within limits that callers share; each image is reduced at once.

Steps of a call:
1. the headers of all its images are read, which decodes no pixel (`uploads.inspect_upload`);
2. their pixels are reserved, together with those of all other callers, until the prediction is made;
3. each image is decoded, and reduced to what a prediction needs of it (`images.reduce_image`); only so many pixels
   are decoded at the same time;
4. a call whose images are not decoded in time is rejected, and what it has not begun is dropped.

Images of few pixels are decoded in threads of this process, where nothing else runs, all others in processes of
their own (`decoding_process`), which run at a lower priority and are ended when an image takes too long: so no key
look-up, acceptance or health check waits for an image. The threads keep their priority, because one that is not
scheduled while it holds the interpreter's lock holds up all others. Knows nothing about HTTP.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from lmeraser.data.canvases import CanvasSize, ReducedImage, reduce_image
from lmeraser.data.images import Header
from lmeraser.errors import ImageError
from lmeraser.service.decoding_process import DecodingEndedError, DecodingProcess
from lmeraser.service.limits import Budget, Reservation
from lmeraser.service.model_holder import ModelHolder
from lmeraser.service.problems import Fault, Problem
from lmeraser.service.uploads import decode_inspected, inspect_upload, not_decoded

_SECONDS = 30.0  # for all images of a call
_PIXELS_AT_ONCE = 1 << 18  # of an image that is decoded here, which takes milliseconds
KEPT_WEIGHT = 4  # a small image is kept as it is until its turn comes, so it counts fourfold


@dataclass(frozen=True)
class Upload:
    """An uploaded file.

    Attributes:
        data: its bytes.
        declared_type: its content type, as declared by the caller.
    """

    data: bytes
    declared_type: str | None = None


@dataclass(frozen=True)
class DecodedImages:
    """The images of one call.

    Attributes:
        images: in their order.
        sizes: of the canvases that they were reduced to.
        reservation: of their pixels; to be released when the prediction is made.
    """

    images: Sequence[Image.Image | ReducedImage]
    sizes: frozenset[CanvasSize]
    reservation: Reservation


class ImageDecoder:
    """Decodes the uploads of all callers.

    Args:
        model_holder: knows which canvases the served model needs.
        max_pixels: of one image, and of all images that are being decoded.
        budget: the pixels of all images that wait for their prediction.
        threads: that decode, and processes, of which each thread may use one at a time.
        nice: by how much to lower the priority of the processes (Linux).
        seconds: in which all images of a call have to be decoded.

    Attributes:
        budget: the pixels of all images that wait for their prediction.
    """

    def __init__(
        self,
        model_holder: ModelHolder,
        *,
        max_pixels: int,
        budget: Budget,
        threads: int,
        nice: int = 0,
        seconds: float = _SECONDS,
    ) -> None:
        self._model_holder = model_holder
        self._max_pixels = max_pixels
        self.budget = budget
        self._seconds = seconds
        self._decoding = _PixelGate(max_pixels)
        self._headers = ThreadPoolExecutor(1, "upload-header")
        self._pixels = ThreadPoolExecutor(threads, "upload-decoder")
        self._processes = [DecodingProcess(nice) for _ in range(threads)]
        self._idle: queue.LifoQueue[DecodingProcess] = queue.LifoQueue()  # so that few are started
        for process in self._processes:
            self._idle.put(process)

    def stop(self) -> None:
        """Drop what has not begun, give up what has, and end threads and processes."""
        for process in self._processes:
            process.stop()
        for executor in (self._headers, self._pixels):
            executor.shutdown(cancel_futures=True)

    async def decode(self, caller: str, uploads: Sequence[Upload]) -> DecodedImages:
        """Decode the uploads of one call, at least one.

        Raises:
            Problem: an upload violates a rule (`uploads`), or they are too many for now.
            NoModelError: there is no model to decode them for.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._decode_all(caller, uploads)
        except TimeoutError:
            raise _too_slow() from None

    async def _decode_all(self, caller: str, uploads: Sequence[Upload]) -> DecodedImages:
        loop = asyncio.get_running_loop()
        until = time.monotonic() + self._seconds
        sizes, headers = await loop.run_in_executor(self._headers, self._inspect, uploads, until)
        reservation = self.budget.reserve(caller, self._weight(headers, sizes))
        futures = [
            self._pixels.submit(self._decode_one, number, upload.data, header, sizes, until)
            for number, (upload, header) in enumerate(zip(uploads, headers, strict=True))
        ]
        try:
            images = await asyncio.gather(*map(asyncio.wrap_future, futures))
        except BaseException:
            _release_when_ended(futures, reservation)
            raise
        return DecodedImages(images, sizes, reservation)

    def _inspect(self, uploads: Sequence[Upload], until: float) -> tuple[frozenset[CanvasSize], list[Header]]:
        """The canvases that are needed, and the headers (step 1), unless the time is over."""
        sizes = self._model_holder.canvas_sizes
        headers = []
        for number, upload in enumerate(uploads):
            if time.monotonic() > until:  # nobody waits for them any more, but other callers do
                raise _too_slow()
            with _naming(number):
                headers.append(
                    inspect_upload(upload.data, declared_type=upload.declared_type, max_pixels=self._max_pixels)
                )
        return sizes, headers

    def _weight(self, headers: Sequence[Header], sizes: Collection[CanvasSize]) -> int:
        """The pixels to reserve for a call (step 2).

        Raises:
            Problem: they are more than a call may have.
        """
        reduced = sum(size.pixels for size in sizes)
        weight = sum(max(pixels, KEPT_WEIGHT * min(pixels, reduced)) for pixels in map(_pixels, headers))
        if weight > self.budget.share:
            limit = f"{self.budget.share / 1e6:g} million pixels"
            raise Problem(413, "image-size", f"All images of the call together exceed the limit of {limit}")
        return weight

    def _decode_one(
        self, number: int, data: bytes, header: Header, sizes: Collection[CanvasSize], until: float
    ) -> Image.Image | ReducedImage:
        """One image, reduced (step 3), in a process that is ended when the time is over."""
        with _naming(number), self._decoding.enter(_pixels(header)):
            if _pixels(header) <= _PIXELS_AT_ONCE:
                return reduce_image(decode_inspected(data), sizes)
            process = self._idle.get()
            try:
                return process.decode(data, sizes, seconds=until - time.monotonic())
            except ImageError as error:
                raise not_decoded(error) from error
            except DecodingEndedError:
                raise _too_slow() from None
            finally:
                self._idle.put(process)


class _PixelGate:
    """Lets threads decode at the same time while all their images together have at most so many pixels."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pixels = 0
        self._changed = threading.Condition()

    @contextmanager
    def enter(self, pixels: int) -> Iterator[None]:
        """Wait for room for an image, and take it; one alone always has room."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pixels or self._pixels + pixels <= self._most)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()


def _too_slow() -> Problem:
    detail = "Decoding the images took too long; send fewer or smaller ones"
    return Problem(503, "busy", detail, headers={"Retry-After": "5"})


def _pixels(header: Header) -> int:
    return header.width * header.height


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """Name the image in a problem."""
    try:
        yield
    except Problem as problem:
        problem.faults.append(Fault(where=f"images.{number}", message=problem.detail))
        raise


def _release_when_ended(futures: Sequence[Future[Image.Image | ReducedImage]], reservation: Reservation) -> None:
    """Drop what has not begun (step 4); what is being decoded holds its pixels until it ends."""
    for future in futures:
        future.cancel()
    left = len(futures)
    lock = threading.Lock()

    def ended(_: object) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            reservation.release()

    for future in futures:
        future.add_done_callback(ended)
