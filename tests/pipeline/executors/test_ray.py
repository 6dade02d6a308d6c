"""A real Ray cluster gives the same bytes as this process, and may lose workers and nodes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, digits, needs, tiny_config
from lmeraser import Eraser
from lmeraser.errors import WorkerError
from lmeraser.pipeline.executors import ray as ray_module
from lmeraser.pipeline.executors.ray import RayActors

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = needs("ray")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

SETTINGS = {"partition": {"clusters": 4, "sample_size": 10}, "tuning": {"epochs": 3, "batch_size": 4}}
HANGS = 120.0  # seconds; starting a process takes long where all cores are busy


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes, each of its own processes, with one core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def workers_of(node: Any) -> list[int]:
    """Processes of actors on a node."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet and (folder / "cmdline").read_bytes().startswith(b"ray::Dispatcher"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def digest_of(folder: Path, compute: dict[str, Any], progress: Callable[..., None] | None = None) -> list[str]:
    options: dict[str, Any] = {"progress": progress} if progress else {}
    with Eraser.create(
        folder, tiny_config(**SETTINGS, compute=compute), classes=DIGIT_CLASSES, **options
    ) as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()
        digests = [eraser.model_digest]
        eraser.unlearn(ids=["digit-0003", eraser.sampled_ids()[0]])
        return [*digests, eraser.model_digest]


@pytest.mark.long
@pytest.mark.parametrize("loss", ["worker", "node"])
def test_a_loss_in_the_middle_of_a_training_changes_no_bit(tmp_path: Path, cluster: Cluster, loss: str) -> None:
    head, other = cluster.list_all_nodes()
    lost: list[Any] = []

    def lose(step: str, done: int, total: int | None) -> None:
        if step != "tuning clusters" or not done or lost:
            return
        pids = workers_of(other)
        assert pids, "both nodes work"
        assert workers_of(head)
        lost.append(pids)
        if loss == "worker":
            os.kill(pids[0], 9)
        else:
            cluster.remove_node(other, allow_graceful=False)

    compute = {"executor": "ray", "address": cluster.address, "workers": 1}
    found = digest_of(tmp_path / "ray", compute, lose)
    if loss == "node":
        cluster.add_node(num_cpus=1)  # other tests need two
        cluster.wait_for_nodes()
    assert lost
    assert found == digest_of(tmp_path / "local", {"workers": 1})


@pytest.mark.long
def test_the_command_line_trains_on_a_cluster(tmp_path: Path, cluster: Cluster) -> None:
    with Eraser.create(tmp_path / "w", tiny_config(**SETTINGS, compute={"workers": 1})) as eraser:
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
    program = [sys.executable, "-m", "lmeraser", "-w", str(tmp_path / "w")]
    cluster_options = ["--executor", "ray", "--address", cluster.address]
    subprocess.run([*program, "train", *cluster_options], check=True, capture_output=True, timeout=280)
    with Eraser(tmp_path / "w") as eraser:
        assert eraser.audit().identical


@pytest.mark.long
def test_the_command_line_evaluates_on_a_cluster(tmp_path: Path, cluster: Cluster) -> None:
    with Eraser.create(tmp_path / "w", tiny_config(**SETTINGS, compute={"workers": 1})) as eraser:
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
    program = [sys.executable, "-m", "lmeraser", "-w", str(tmp_path / "w")]
    cluster_options = ["--executor", "ray", "--address", cluster.address]
    digits(range(20, 40)).to_parquet(tmp_path / "test.parquet")
    reports = []
    for options in ([], cluster_options):
        evaluate = [*program, "evaluate", str(tmp_path / "test.parquet"), "--json", *options]
        reports.append(subprocess.run(evaluate, check=True, capture_output=True, timeout=280).stdout)
    assert reports[0] == reports[1]


class Slow:
    """Answers late."""

    def __init__(self, settings: str) -> None:
        self.settings = settings

    def wait(self) -> None:
        time.sleep(600)

    def say(self) -> tuple[str, str | None]:
        return self.settings, os.environ.get("RAY_USAGE_STATS_ENABLED")


@pytest.mark.long  # starting a cluster takes as long as all of test_pool, which has its rules
def test_actors_take_calls_and_are_replaced_when_there_is_room(cluster: Cluster) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import this module
    backend = RayActors("settings", address=cluster.address, create=Slow)
    assert backend.size == 2
    first, second = backend.start(), backend.start()
    for worker in (first, second):
        assert worker.submit("say").result(HANGS).value == ("settings", "0")
    third = backend.start()  # only now: the cluster does not say whom it starts first
    waiting = third.submit("say")
    running = first.submit("wait")
    time.sleep(1)
    assert not waiting.done(), "two cores, two actors"
    first.stop()
    error = running.exception(HANGS)
    assert error is not None
    assert backend.is_loss(error)
    assert waiting.result(HANGS).value == ("settings", "0")
    backend.stop()


@pytest.mark.long
def test_a_worker_that_fits_on_no_node_is_an_error(cluster: Cluster) -> None:
    backend = RayActors("settings", address=cluster.address, cores=2)
    with pytest.raises(WorkerError, match="takes 2 cores and 0 GPUs; the nodes have 1 and 0, 1 and 0"):
        _ = backend.size
    backend.stop()


def test_a_cluster_that_is_not_there_is_an_error_with_a_next_step() -> None:
    with pytest.raises(WorkerError, match="check --address"):
        RayActors("settings", address="127.0.0.1:1")


def test_a_version_of_ray_without_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.51.2"))
    with pytest.raises(WorkerError, match="protects no cluster"):
        RayActors("{}")


@pytest.mark.parametrize(("address", "mode"), [(None, "token"), ("127.0.0.1:1", None)])
def test_a_cluster_that_is_started_here_asks_for_a_token(
    monkeypatch: pytest.MonkeyPatch, address: str | None, mode: str | None
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.delenv("RAY_AUTH_MODE")
    started: list[str | None] = []

    def init(**_: object) -> None:
        started.append(os.environ.get("RAY_AUTH_MODE"))
        raise RuntimeError("far enough")

    monkeypatch.setattr(ray_module, "_check_reachable", lambda _: None)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.52.0", init=init))
    with pytest.raises(WorkerError, match="Cannot connect"):
        RayActors("{}", address=address)
    assert started == [mode]
