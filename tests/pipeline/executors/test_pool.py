"""Whatever happens to workers, the results are those of one worker, each once, and of one environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fake import Fake
from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError, ImageError, WorkerError
from lmeraser.pipeline.executors import pool as pool_module
from lmeraser.pipeline.executors.base import TuneTask
from lmeraser.pipeline.executors.pool import TRIES, PooledExecutor
from lmeraser.pipeline.executors.worker import Reply, WorkerInfo, WorkerResult

CONFIG = parse({"backbone": {"micro_batch": 2}})
HERE, THERE = Fake.fingerprint, Digest.of(b"another environment")


class LostError(Exception):
    """A worker is gone."""


class Script:
    """Decides what happens to each call: 'answer', 'lose', 'damage' or 'move' (to another environment)."""

    def __init__(self, events: Sequence[str] = (), environments: Sequence[Digest] = (HERE,)) -> None:
        self.events, self.environments = list(events), list(environments)
        self.started = self.stopped = 0
        self.calls: Counter[str] = Counter()
        self.shared_sent = 0

    def backend(self, size: int = 3) -> WorkerBackend:
        return WorkerBackend(self, size)


class WorkerBackend:
    """Workers in this process; a call is answered when it is submitted."""

    def __init__(self, script: Script, size: int) -> None:
        self.script = script
        self.size = size
        self.stopped = False

    def start(self) -> Handle:
        self.script.started += 1
        return Handle(self.script, self.script.environments[self.script.started % len(self.script.environments)])

    def is_loss(self, error: BaseException) -> bool:
        return isinstance(error, LostError)

    def stop(self) -> None:
        self.stopped = True


class Handle:
    def __init__(self, script: Script, environment: Digest) -> None:
        self.script, self.environment, self.busy = script, environment, False
        self.fake = Fake()
        self.shared: Any = None

    def submit(self, method: str, *arguments: Any) -> Future[Reply]:
        future: Future[Reply] = Future()
        self.script.calls[method] += 1
        event = self.script.events.pop(0) if self.script.events else "answer"
        if event == "lose":
            future.set_exception(LostError("gone"))
        else:
            future.set_result(self._reply(event, method, *arguments))
        return future

    def stop(self) -> None:
        self.script.stopped += 1

    def _reply(self, event: str, method: str, *arguments: Any) -> Reply:
        if method == "describe":
            return Reply(WorkerInfo(self.environment, Fake.backbone, {"machine": "none"}, None))
        environment = THERE if event == "move" else self.environment
        if method == "embed":
            images, views = arguments
            ids = list(map(str, range(len(images))))
            vectors = [
                v for _, v in self.fake.embed(ids, lambda some: [images[int(i)] for i in some], note, views)
            ]
            return Reply(WorkerResult(environment, np.stack(vectors)))
        if method == "apply":
            function, part, *shared = arguments
            if shared:
                self.script.shared_sent += 1
                (self.shared,) = shared
            return Reply(WorkerResult(environment, function(self.fake, self.shared, part)))
        task, payloads = arguments
        (result,) = self.fake.tune([task], lambda ids: payloads, note)
        digest = Digest.of(b"other bytes") if event == "damage" else Digest.of(result.data)
        return Reply(WorkerResult(environment, result, digest))


def note(step: str, done: int, total: int | None) -> None:
    """Report nothing."""


def fetch(ids: Sequence[str]) -> list[bytes]:
    return [f"image {i}".encode() for i in ids]


TASKS = [
    TuneTask(Digest.of(bytes([n])), tuple(f"{n}-{k}" for k in range(1 + n % 4)), (0,) * (1 + n % 4), 3)
    for n in range(9)
]
EXPECTED = {result.key: result.data for result in Fake().tune(TASKS, fetch, note)}
IDS = [f"r{n:03d}" for n in range(100)]


@given(
    events=st.lists(st.sampled_from(["answer", "answer", "answer", "lose", "damage", "move"]), max_size=25),
    size=st.integers(1, 5),
)
@settings(deadline=None)
def test_every_task_is_done_once_with_the_bytes_of_one_worker(events: list[str], size: int) -> None:
    pool = PooledExecutor(CONFIG, Script(["answer"] * size + events).backend(size))
    try:
        found = list(pool.tune(TASKS, fetch, note))
    except WorkerError:
        assume(False)
    assert sorted(result.key for result in found) == sorted(EXPECTED)
    assert {result.key: result.data for result in found} == EXPECTED


@given(
    events=st.lists(st.sampled_from(["answer", "answer", "answer", "answer", "lose", "move"]), max_size=20),
    size=st.integers(1, 4),
)
@settings(deadline=None)
def test_features_come_in_the_order_of_the_images(events: list[str], size: int) -> None:
    pool = PooledExecutor(CONFIG, Script(["answer"] * size + events).backend(size))
    try:
        found = list(pool.embed(IDS, fetch, note, ("clean", "mirror")))
    except WorkerError:
        assume(False)
    expected = list(Fake().embed(IDS, fetch, note, ("clean", "mirror")))
    assert [record_id for record_id, _ in found] == IDS
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def joined(executor: object, shared: str, part: int) -> str:
    return f"{shared} {part}"


@given(
    events=st.lists(st.sampled_from(["answer", "answer", "answer", "answer", "lose", "move"]), max_size=20),
    size=st.integers(1, 4),
)
@settings(deadline=None)
def test_functions_are_applied_to_every_part_and_shared_values_sent_once(events: list[str], size: int) -> None:
    script = Script(["answer"] * size + events)
    pool = PooledExecutor(CONFIG, script.backend(size))
    for shared in ("first", "second"):  # what was shared before is forgotten
        sent_before = script.shared_sent
        try:
            found = list(pool.apply(joined, shared, iter(range(40))))
        except WorkerError:
            assume(False)
        assert found == [f"{shared} {part}" for part in range(40)]
        assert script.shared_sent - sent_before <= size + events.count("lose") + events.count("move")


def test_parts_are_taken_when_a_worker_is_free() -> None:
    taken: list[int] = []

    def parts() -> Iterator[int]:
        for part in range(10_000):
            taken.append(part)
            yield part

    pool = PooledExecutor(CONFIG, Script().backend(2))
    next(pool.apply(joined, "x", parts()))
    assert len(taken) < 20


def test_nothing_to_do_is_done_at_once() -> None:
    pool = PooledExecutor(CONFIG, Script().backend())
    assert list(pool.tune([], fetch, note)) == []
    assert list(pool.embed([], fetch, note)) == []


def test_the_biggest_tasks_come_first() -> None:
    pool = PooledExecutor(CONFIG, Script().backend(1))
    size = {task.key: len(task.ids) for task in TASKS}
    sizes = [size[result.key] for result in pool.tune(TASKS, fetch, note)]
    assert sizes == sorted(sizes, reverse=True)


def test_images_are_read_when_a_worker_is_free() -> None:
    read: list[str] = []

    def reading(ids: Sequence[str]) -> list[bytes]:
        read.extend(ids)
        return fetch(ids)

    pool = PooledExecutor(CONFIG, Script().backend(2))
    results = pool.tune(TASKS, reading, note)
    next(results)
    assert len(read) <= 3 * 4
    read.clear()
    next(pool.embed([f"r{n}" for n in range(10_000)], reading, note))
    assert len(read) < 500


def test_progress_is_reported() -> None:
    reports: list[tuple[str, int, int | None]] = []
    pool = PooledExecutor(CONFIG, Script(["answer"] * 3 + ["lose"]).backend())
    list(pool.tune(TASKS, fetch, lambda *step: reports.append(step)))
    total = sum(len(task.ids) for task in TASKS) * CONFIG.tuning.epochs
    assert reports[0] == ("tuning clusters", 0, total)
    assert reports[-1] == ("tuning clusters (1 lost workers replaced)", total, total)
    assert [done for _, done, _ in reports] == sorted(done for _, done, _ in reports)


# --- environments ------------------------------------------------------------------------------------------


def test_workers_of_another_environment_are_rejected() -> None:
    script = Script(environments=[HERE, THERE, HERE])
    pool = PooledExecutor(CONFIG, script.backend(6))
    assert pool.fingerprint == HERE
    assert (pool.rejected, script.stopped) == ({THERE: 2}, 2)
    assert {result.key: result.data for result in pool.tune(TASKS, fetch, note)} == EXPECTED


def test_the_environment_of_the_served_model_is_preferred() -> None:
    pool = PooledExecutor(CONFIG, Script(environments=[HERE, THERE, HERE]).backend(6), prefer=[THERE])
    assert (pool.fingerprint, pool.rejected) == (THERE, {HERE: 4})


@pytest.mark.parametrize("order", [[HERE, THERE], [THERE, HERE]])
def test_the_choice_does_not_depend_on_which_was_first(order: list[Digest]) -> None:
    pool = PooledExecutor(CONFIG, Script(environments=order).backend(4))
    assert pool.fingerprint == min(HERE, THERE)


def test_replacements_of_another_environment_are_an_error_when_no_other_is_left() -> None:
    script = Script(["answer", "lose"], environments=[THERE, HERE])
    with pytest.raises(WorkerError, match="of other environments were rejected"):
        list(PooledExecutor(CONFIG, script.backend(1)).tune(TASKS, fetch, note))


# --- losses and errors -------------------------------------------------------------------------------------


def test_a_task_that_loses_every_worker_is_an_error() -> None:
    script = Script(["answer"] + ["lose", "answer"] * TRIES)
    with pytest.raises(WorkerError, match=f"{TRIES} workers were lost with it"):
        list(PooledExecutor(CONFIG, script.backend(1)).tune(TASKS[:1], fetch, note))


def test_workers_that_never_start_are_an_error() -> None:
    script = Script(["lose"] * 100)
    with pytest.raises(WorkerError, match="Workers failed to start"):
        _ = PooledExecutor(CONFIG, script.backend(2)).fingerprint


@pytest.mark.parametrize("method", ["describe", "tune"])
def test_an_error_of_the_work_itself_is_raised_and_not_retried(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, real = Script(), Handle._reply
    error = BackboneError("Weights not found") if method == "describe" else ImageError("Not an image")

    def wrong(self: Handle, event: str, name: str, *arguments: Any) -> Reply:
        return Reply(error=error) if name == method else real(self, event, name, *arguments)

    monkeypatch.setattr(Handle, "_reply", wrong)
    pool = PooledExecutor(CONFIG, script.backend(1))
    with pytest.raises(type(error)):
        list(pool.tune(TASKS, fetch, note))
    assert script.calls[method] == 1


def test_work_whose_results_are_not_taken_is_stopped() -> None:
    script = Script()
    pool = PooledExecutor(CONFIG, script.backend(3))
    results = pool.tune(TASKS, fetch, note)
    next(results)
    assert script.stopped == 0
    results.close()  # type: ignore[attr-defined]
    assert script.stopped > 0
    assert {result.key: result.data for result in pool.tune(TASKS, fetch, note)} == EXPECTED, "others took over"


def test_a_backbone_without_public_classes_is_an_error() -> None:
    with pytest.raises(BackboneError, match="hier_cluster"):
        PooledExecutor(CONFIG, Script().backend()).class_vectors()


def test_closing_ends_the_workers() -> None:
    backend = Script().backend()
    PooledExecutor(CONFIG, backend).close()
    assert backend.stopped


# --- workers that lie --------------------------------------------------------------------------------------


class Liar(WorkerBackend):
    """Of its workers, the second one answers in its own way, with digests that fit."""

    def __init__(self, lie: str, size: int = 2) -> None:
        super().__init__(Script(), size)
        self.lie, self.liars = lie, 1

    def start(self) -> Handle:
        handle = super().start()
        return Lying(self.script, handle.environment, self.lie) if self.script.started == 2 else handle


class Lying(Handle):
    def __init__(self, script: Script, environment: Digest, lie: str) -> None:
        super().__init__(script, environment)
        self.lie = lie

    def _reply(self, event: str, method: str, *arguments: Any) -> Reply:
        reply = super()._reply(event, method, *arguments)
        if method == "describe":
            return reply
        result = reply.value
        if method == "embed":
            return Reply(WorkerResult(result.fingerprint, result.value[:-1]))
        value: Any = {
            "older bytes": replace(result.value, data=b"the artifact from before the deletion"),
            "another key": replace(result.value, key=Digest.of(b"another task")),
            "no result": "nothing",
        }[self.lie]
        data = getattr(value, "data", b"")
        return Reply(WorkerResult(result.fingerprint, value, Digest.of(data)))


@pytest.mark.parametrize("lie", ["another key", "no result"])
def test_a_result_of_another_task_is_not_accepted(lie: str) -> None:
    found = list(PooledExecutor(CONFIG, Liar(lie)).tune(TASKS, fetch, note))
    assert {result.key: result.data for result in found} == EXPECTED
    assert len(found) == len(TASKS)


def test_features_of_fewer_images_than_were_sent_are_not_accepted() -> None:
    found = dict(PooledExecutor(CONFIG, Liar("embed")).embed(IDS, fetch, note))
    assert list(found) == IDS


def test_two_workers_that_differ_on_a_task_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong artifact has the digest that the worker says; only another worker can tell."""
    monkeypatch.setattr(pool_module, "_draw", lambda count: list(range(count)))
    with pytest.raises(WorkerError, match="different results"):
        list(PooledExecutor(CONFIG, Liar("older bytes")).tune(TASKS, fetch, note))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_task_that_is_checked_is_run_by_two_workers_and_told_once(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(pool_module, "_draw", lambda count: [0, 4])
    script = Script()
    found = list(PooledExecutor(CONFIG, script.backend(size)).tune(TASKS, fetch, note))
    assert sorted(result.key for result in found) == sorted(EXPECTED)
    assert script.calls["tune"] == len(TASKS) + (2 if size > 1 else 0)


def test_which_tasks_are_checked_is_drawn_anew() -> None:
    assert 300 < sum(len(pool_module._draw(100)) for _ in range(100)) < 700
