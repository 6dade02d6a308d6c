"""Predictions of many callers together: images that wait at the same time share the passes of the backbone.

One thread takes what waits, asks the served model once, and answers all. An image's answer does not depend on its
neighbours (`predict`), so sharing changes no bit; every pass has room for a micro-batch whether it is full or not.
The thread, and those that it starts, give way to the rest of the process: a call that needs little is not late
because many images wait. Who would wait too long is sent away at once. Follows `state`; knows nothing about HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from PIL import Image

from lmeraser.core.thread_priority import lower_priority
from lmeraser.inference.predictor import Prediction
from lmeraser.service.model_holder import Answering, ModelHolder
from lmeraser.service.problems import Problem


@dataclass(frozen=True)
class PredictionBatch:
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
    asked: float = field(default_factory=time.monotonic)
    answers: Future[PredictionBatch] = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        return sum(image.width * image.height for image in self.images)


class Predictions:
    """Answers images, in a thread of its own.

    Args:
        served: what answers.
        together: how many images are answered at once, at least.
        most_pixels: of all images that wait.
        most_seconds: for which an image may have waited when another one comes.
        nice: how much answering gives way to other threads and processes (Linux).
    """

    def __init__(
        self, served: ModelHolder, *, together: int, most_pixels: float, most_seconds: float, nice: int = 0
    ) -> None:
        self._served, self._together, self._nice = served, together, nice
        self._most_pixels, self._most_seconds = most_pixels, most_seconds
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
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
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def ask(self, images: Sequence[Image.Image]) -> Future[PredictionBatch]:
        """Answer images (RGB); at least one.

        Raises:
            Problem: too many pixels are waiting, or one has waited too long.
        """
        job = _Job(images)
        with self._changed:
            late = self._jobs and job.asked - self._jobs[0].asked > self._most_seconds
            if late or (self._pixels and self._pixels + job.pixels > self._most_pixels):
                raise Problem(503, "busy", "Not too many images wait at once.", headers={"Retry-After": "1"})
            self._count(job, 1)
            self._jobs.append(job)
            self._changed.notify()
        return job.answers

    def _count(self, job: _Job, sign: int) -> None:
        self._pixels += sign * job.pixels
        self._images += sign * len(job.images)

    def _run(self) -> None:
        lower_priority(self._nice)
        while jobs := self._taken():
            try:
                self._answer(jobs)
            except Exception as error:
                _fail(jobs, error)
            finally:
                with self._changed:
                    for job in jobs:
                        self._count(job, -1)

    def _taken(self) -> list[_Job]:
        """What waits, up to so many images; nothing: it is time to end."""
        jobs, images = list[_Job](), 0
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopping)
            while self._jobs and images < self._together:
                jobs.append(self._jobs.popleft())
                images += len(jobs[-1].images)
        return jobs

    def _answer(self, jobs: Sequence[_Job]) -> None:
        by = self._served.ready()
        found = iter(by.predictor.predict([image for job in jobs for image in job.images]))
        for job in jobs:
            answers = PredictionBatch([next(found) for _ in job.images], by)
            if job.answers.set_running_or_notify_cancel():
                job.answers.set_result(answers)


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    for job in jobs:
        if job.answers.set_running_or_notify_cancel():
            job.answers.set_exception(error)
