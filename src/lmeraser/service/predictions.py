"""Predictions of many callers together: images that wait at the same time share the passes of the backbone.

One thread takes what waits, asks the served model once, and answers all. An image's answer does not depend on its
neighbours (`predict`), so sharing changes no bit; every pass has room for a micro-batch whether it is full or not.
Follows `state`; knows nothing about HTTP.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from PIL import Image

from lmeraser.predict import Prediction
from lmeraser.service.problems import Problem
from lmeraser.service.state import Answering, Served


@dataclass(frozen=True)
class Answers:
    """The answers for the images of one call, all of one model.

    Attributes:
        predictions: in the order of the images.
        by: what answered.
    """

    predictions: list[Prediction]
    by: Answering


@dataclass(frozen=True)
class _Job:
    images: Sequence[Image.Image]
    answers: Future[Answers] = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        return sum(image.width * image.height for image in self.images)


class Predictions:
    """Answers images, in a thread of its own.

    Args:
        served: what answers.
        together: how many images are answered at once, at least.
        most_pixels: of all images that wait.
    """

    def __init__(self, served: Served, *, together: int, most_pixels: float) -> None:
        self._served, self._together, self._most = served, together, most_pixels
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pixels = self._images = 0
        self._thread = threading.Thread(target=self._run, name="predictions", daemon=True)

    @property
    def waiting(self) -> int:
        """Images that wait or are being answered."""
        return self._images

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, then end."""
        self._jobs.put(None)
        self._thread.join()

    def ask(self, images: Sequence[Image.Image]) -> Future[Answers]:
        """Answer images (RGB); at least one.

        Raises:
            Problem: too many pixels are waiting.
        """
        job = _Job(images)
        with self._lock:
            if self._pixels and self._pixels + job.pixels > self._most:
                raise Problem(503, "busy", "Not too many images wait at once.", headers={"Retry-After": "1"})
            self._count(job, 1)
        self._jobs.put(job)
        return job.answers

    def _count(self, job: _Job, sign: int) -> None:
        self._pixels += sign * job.pixels
        self._images += sign * len(job.images)

    def _run(self) -> None:
        going = True
        while going:
            jobs, going = self._taken()
            if not jobs:
                continue
            try:
                self._answer(jobs)
            except Exception as error:
                _fail(jobs, error)
            finally:
                with self._lock:
                    for job in jobs:
                        self._count(job, -1)

    def _taken(self) -> tuple[list[_Job], bool]:
        """What waits, up to so many images, and whether to go on after it."""
        jobs, images, job = list[_Job](), 0, self._jobs.get()
        while job is not None:
            jobs.append(job)
            images += len(job.images)
            if images >= self._together:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _answer(self, jobs: Sequence[_Job]) -> None:
        by = self._served.current
        found = iter(by.predictor.predict([image for job in jobs for image in job.images]))
        for job in jobs:
            answers = Answers([next(found) for _ in job.images], by)
            if job.answers.set_running_or_notify_cancel():
                job.answers.set_result(answers)


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    for job in jobs:
        if job.answers.set_running_or_notify_cancel():
            job.answers.set_exception(error)
