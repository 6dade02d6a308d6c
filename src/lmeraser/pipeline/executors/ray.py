"""Workers as Ray actors, on any number of machines (extra ``ray``).

An actor that ends, with its process, its node or for lack of memory, is not restarted by Ray: the pool starts a
new one, which waits until the cluster has room. Ray's usage reports are switched off.

Whoever reaches a Ray cluster can run code on it, unless it asks for a token. Ray does so since 2.52, if it is
told to; older versions are refused. A cluster that is started here asks for a token, unless ``RAY_AUTH_MODE``
says otherwise; whether one at an address does is its operator's choice. Knows nothing about tasks.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from lmeraser.errors import WorkerError
from lmeraser.pipeline.executors.worker import Dispatcher, Reply, Worker

_CONNECT_SECONDS = 10.0
_OLDEST = (2, 52)  # the first version that can ask for a token


class RayActors:
    """Starts workers as Ray actors.

    Args:
        settings: all settings, as JSON.
        address: of the cluster's head, or 'auto'; None: a cluster on this machine that ends with this process.
        cores: of each worker.
        gpus: of each worker.
        limit: the most workers; 0: as many as fit.
        create: creates what answers the calls, in the actor.

    Raises:
        WorkerError: Ray is not installed, or the cluster does not answer.
    """

    def __init__(
        self,
        settings: str,
        *,
        address: str | None = None,
        cores: int = 1,
        gpus: int = 0,
        limit: int = 0,
        create: Callable[[str], Any] = Worker,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is None:
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when Ray is imported
        try:
            import ray
        except ImportError as error:
            raise WorkerError(
                "Ray is not installed", got=str(error), next_step="pip install 'lmeraser[ray]'"
            ) from error
        if tuple(map(int, ray.__version__.split(".")[:2])) < _OLDEST:
            raise WorkerError(
                "This version of Ray protects no cluster",
                got=f"{ray.__version__} (at least {_OLDEST[0]}.{_OLDEST[1]})",
                next_step="pip install --upgrade 'lmeraser[ray]'",
            )
        try:
            _check_reachable(address)
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, configure_logging=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise WorkerError(
                "Cannot connect to the Ray cluster",
                got=f"{address}: {error}",
                next_step="check --address; if the cluster asks for a token, set RAY_AUTH_MODE=token",
            ) from error
        self._ray: Any = ray
        self._create = create
        self._settings = settings
        self._cores = cores
        self._gpus = gpus
        self._limit = limit
        self._actor_class: Any = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=0)(Dispatcher)
        self._started: list[_Actor] = []

    @property
    def size(self) -> int:
        """How many workers fit on the nodes of the cluster as it is now.

        Raises:
            WorkerError: not even one.
        """
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(self._fit(resources) for resources in alive)
        if not room:
            raise WorkerError(
                "No node of the cluster has room for a worker",
                got=f"a worker takes {self._cores} cores and {self._gpus} GPUs; the nodes have "
                + ", ".join(f"{r.get('CPU', 0):g} and {r.get('GPU', 0):g}" for r in alive),
                next_step="set compute.workers, the cores of a worker, to fewer, or change compute.device",
            )
        return min(room, self._limit) if self._limit else room

    def _fit(self, resources: Mapping[str, float]) -> int:
        by_cores = int(resources.get("CPU", 0)) // self._cores
        return min(by_cores, int(resources.get("GPU", 0)) // self._gpus) if self._gpus else by_cores

    def start(self) -> _Actor:
        """Request an actor; it starts when there is room."""
        self._started = [actor for actor in self._started if not actor.stopped]
        self._started.append(_Actor(self._ray, self._actor_class.remote(self._create, self._settings)))
        return self._started[-1]

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error means that an actor, or its reply, is gone."""
        exceptions = self._ray.exceptions
        losses = (
            exceptions.RayActorError,
            exceptions.NodeDiedError,
            exceptions.WorkerCrashedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        )
        return isinstance(error, losses)

    def stop(self) -> None:
        """Stop all actors and leave the cluster."""
        for actor in self._started:
            actor.stop()
        self._ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Fail at once if nothing listens at the address; Ray retries for two minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


class _Actor:
    """One actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor
        self.stopped = False

    def submit(self, method: str, *arguments: Any) -> Future[Reply]:
        future: Future[Reply] = self._actor.call.remote(method, *arguments).future()
        return future

    def stop(self) -> None:
        self.stopped = True
        self._ray.kill(self._actor)
