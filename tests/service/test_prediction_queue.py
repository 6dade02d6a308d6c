"""Images that wait together are answered together, nobody waits for too long, and all of it gives way."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lmeraser.inference.predictor import Prediction
from lmeraser.service.prediction_queue import PredictionQueue
from lmeraser.service.problems import Problem

IMAGE = Image.new("RGB", (10, 10))


class Model:
    """Answers when it is let, and remembers how many images it was asked at once, and at which priority."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.nice: list[int] = []
        self.began, self.let = threading.Semaphore(0), threading.Semaphore(0)

    def ready(self) -> Any:
        return SimpleNamespace(predictor=self)

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        self.asked.append(len(images))
        self.began.release()
        assert self.let.acquire(timeout=30)
        starts = threading.Thread(target=lambda: self.nice.append(os.getpriority(os.PRIO_PROCESS, 0)))
        starts.start()
        starts.join()
        if any(image.width == 1 for image in images):
            raise ValueError("too small")
        return [Prediction(image.width, str(image.width), 1.0, ()) for image in images]


@pytest.fixture
def model() -> Model:
    return Model()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def predictions(model: Model, clock: Clock) -> Iterator[PredictionQueue]:
    one = PredictionQueue(model, batch_queries=3, max_wait_seconds=5.0, nice=7, clock=clock)  # type: ignore[arg-type]
    one.start()
    yield one
    model.let.release(100)
    one.stop()


def test_what_waits_is_asked_together_and_answered_apart(model: Model, predictions: PredictionQueue) -> None:
    first = predictions.submit([IMAGE])
    assert model.began.acquire(timeout=30)
    waiting = [predictions.submit([Image.new("RGB", (side, 2))] * 2) for side in (4, 5, 6)]
    assert predictions.waiting == 7
    model.let.release(3)
    labels = [[one.label for one in job.result(30).predictions] for job in (first, *waiting)]
    assert labels == [[10], [4, 4], [5, 5], [6, 6]]
    assert model.asked == [1, 4, 2]  # at least three at once where so many wait


def test_the_first_who_comes_back_does_not_get_a_batch_to_itself(model: Model, clock: Clock) -> None:
    """A pass of the network takes as long for one image as for a whole micro-batch."""
    one = PredictionQueue(model, batch_queries=8, max_wait_seconds=1e6, clock=clock)  # type: ignore[arg-type]
    asked = [one.submit([IMAGE]) for _ in range(4)]
    one.start()
    assert model.began.acquire(timeout=30)
    clock.now += 1e4  # so the others have an hour to come back
    model.let.release()
    for job in asked:
        job.result(30)
    back = [one.submit([IMAGE])]
    assert not model.began.acquire(timeout=0.05)
    back.append(one.submit([IMAGE]))
    model.let.release(100)
    for job in back:
        job.result(30)
    one.submit([IMAGE]).result(30)  # who asks alone waits for nobody
    one.stop()
    assert model.asked == [4, 2, 1]


@pytest.mark.parametrize(
    ("calls", "batches"), [([1] * 6, [4, 2]), ([1] * 8, [8]), ([3], [3]), ([1, 3, 3], [4, 3]), ([3, 3, 3], [9])]
)
def test_queries_that_would_begin_another_pass_are_left_for_the_next_batch(
    model: Model, calls: list[int], batches: list[int]
) -> None:
    one = PredictionQueue(model, batch_queries=64, pass_queries=4, max_wait_seconds=60.0)  # type: ignore[arg-type]
    asked = [one.submit([IMAGE] * queries) for queries in calls]
    one.start()
    model.let.release(100)
    assert [len(job.result(30).predictions) for job in asked] == calls
    one.stop()
    assert model.asked == batches


def test_an_error_is_that_of_all_who_were_asked_together(model: Model, predictions: PredictionQueue) -> None:
    model.let.release(2)
    with pytest.raises(ValueError, match="too small"):
        predictions.submit([Image.new("RGB", (1, 1))]).result(30)
    assert len(predictions.submit([IMAGE]).result(30).predictions) == 1


def test_who_would_wait_too_long_is_sent_away(model: Model, predictions: PredictionQueue, clock: Clock) -> None:
    asked = [predictions.submit([IMAGE])]
    assert model.began.acquire(timeout=30)
    asked.append(predictions.submit([IMAGE]))
    clock.now += 5.0
    asked.append(predictions.submit([IMAGE]))
    clock.now += 0.1
    with pytest.raises(Problem) as caught:
        predictions.submit([IMAGE])
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "1")
    model.let.release(100)
    assert [len(job.result(30).predictions) for job in asked] == [1, 1, 1]
    assert len(predictions.submit([IMAGE]).result(30).predictions) == 1  # nobody waits any more


def test_what_waits_is_answered_before_the_end(model: Model) -> None:
    one = PredictionQueue(model, batch_queries=1, max_wait_seconds=60.0)  # type: ignore[arg-type]
    one.start()
    asked = [one.submit([IMAGE]) for _ in range(3)]
    model.let.release(100)
    one.stop()
    assert all(job.done() for job in asked)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_answering_gives_way_and_the_rest_of_the_process_does_not(
    model: Model, predictions: PredictionQueue
) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    model.let.release()
    predictions.submit([IMAGE]).result(30)
    assert model.nice == [max(7, before)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
