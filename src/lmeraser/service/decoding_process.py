"""A process that decodes images, so that whoever asks can do other things meanwhile, and can end it.

Pillow and the decoders below it hold the interpreter's lock while they allocate, fill and convert pixels, and some
of them while they decode: an image of 50 million pixels stops all threads of its process for a second. A thread
cannot be ended either, so an image that is slow to decode would go on after its deadline.

The process is started when the first image comes, and again after it was ended. It imports nothing but the
decoder, and runs at a lower priority. Knows nothing about HTTP.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Collection
from multiprocessing.connection import Connection

from PIL import Image

from lmeraser.core.thread_priority import lower_priority, run_with_lower_priority
from lmeraser.data.canvases import CanvasSize, ReducedImage, reduce_image
from lmeraser.data.images import decode
from lmeraser.errors import ImageError

_CONTEXT = multiprocessing.get_context("spawn")  # a fork would copy the threads and locks of torch


class DecodingEndedError(Exception):
    """The process ended before the image was decoded, or had to be ended."""


class DecodingProcess:
    """Decodes one image at a time in a process of its own.

    Args:
        nice: by how much to lower its priority (Linux).
    """

    def __init__(self, nice: int = 0) -> None:
        self._nice = nice
        self._connection: Connection | None = None
        self._busy = threading.Lock()  # held while an image is decoded
        self._lock = threading.Lock()  # held while a process is started or ended
        self._process: multiprocessing.process.BaseProcess | None = None
        self._stopped = False

    @property
    def process_id(self) -> int | None:
        """Id of the process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def decode(self, data: bytes, sizes: Collection[CanvasSize], *, seconds: float) -> Image.Image | ReducedImage:
        """Decode an image and reduce it (`images.decode`, `images.reduce_image`).

        Args:
            data: bytes of an image file.
            sizes: of the canvases that will be asked for.
            seconds: after which the process is ended.

        Raises:
            ImageError: it does not decode.
            DecodingEndedError: the process ended, or the time is over.
        """
        with self._busy:
            connection = self._start()
            try:
                connection.send((data, frozenset(sizes)))
                answer = connection.recv() if connection.poll(max(0.0, seconds)) else None
            except (EOFError, OSError):
                answer = None
            if answer is None:
                self._end()
                raise DecodingEndedError
        if isinstance(answer, ImageError):
            raise answer
        image: Image.Image | ReducedImage = answer
        return image

    def stop(self) -> None:
        """End the process for good; an image that it decodes is given up."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()  # so that who waits for it goes on
        with self._busy:
            self._end()

    def _start(self) -> Connection:
        with self._lock:
            if self._stopped:
                raise DecodingEndedError
            if self._connection is None:
                self._connection, theirs = _CONTEXT.Pipe()
                self._process = _CONTEXT.Process(target=_serve, args=(theirs, self._nice), daemon=True)
                # It imports for a quarter of a second, at the priority of the thread that starts it.
                run_with_lower_priority(self._process.start, self._nice)
                theirs.close()  # so that the end of the process is the end of the pipe
            return self._connection

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()  # `_serve` has nothing to put in order
                self._process.join()
                self._process.close()
            if self._connection is not None:
                self._connection.close()
            self._process = None
            self._connection = None


def _serve(connection: Connection, nice: int) -> None:
    """Decode images until the other end is closed."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C in the terminal is for the service, which ends this process
    lower_priority(nice)
    answer: Image.Image | ReducedImage | ImageError
    while True:
        try:
            data, sizes = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = reduce_image(decode(data), sizes)
        except ImageError as error:
            answer = error.with_traceback(None)
        connection.send(answer)
        del data, answer  # not kept until the next image comes
