"""Scheduling of derivations, and supervision of the process that runs them (`derivation_process`).

A request is left alone for its grace period, in which it can be taken back. A derivation starts some seconds after
the first one whose grace period is over, so that requests filed close together share one; requests that a crash
left in progress are resumed at once. While requests keep arriving, derivations pause in between and use only a
share of the time: their records are quarantined from acceptance on anyway. The process may die at any moment: it
is restarted, and the workspace's own journal says what is left to do.

Knows nothing about HTTP.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lmeraser.errors import LmeraserError
from lmeraser.workspace.workspace import Workspace

_POLL_SECONDS = 0.5  # between two checks for open requests; other processes accept requests, too
_FIRST_BACKOFF = 1.0  # seconds to wait after a failed derivation, doubled up to
_LONGEST_BACKOFF = 60.0
_LONGEST_REST = 60.0  # seconds between two derivations
_TERMINATION_SECONDS = 5.0  # for the process to end before it is killed
_EXPECTED_ERRORS = ("InputError", "LockedError")  # request cancelled meanwhile; another process is writing

log = logging.getLogger("lmeraser.service")


@dataclass(frozen=True)
class DerivationProgress:
    """Progress of a derivation.

    Attributes:
        number: of the derivation, counted from 1 since the service was started.
        step: its current step; '' while no derivation is running.
        done: units of the step that are done.
        total: units of the step; None: unknown.
    """

    number: int = 0
    step: str = ""
    done: int = 0
    total: int | None = None


class DerivationSupervisor:
    """Carries requests out, in a thread that supervises a process.

    Args:
        workspace: holds the requests.
        on_finished: called with the outcome of each derivation.
        compute: overrides of the ``[compute]`` settings.

    Attributes:
        progress: of the derivation that is running.
    """

    def __init__(
        self,
        workspace: Workspace,
        on_finished: Callable[[Mapping[str, Any]], None],
        compute: Mapping[str, Any] | None = None,
    ) -> None:
        self._workspace = workspace
        self._on_finished = on_finished
        self._config = workspace.config.service
        # Lowers the priority of the process's compute threads, not of the process: its database transactions,
        # which others wait for, must not starve.
        self._command = json.dumps({"compute": {"nice": self._config.nice, **(compute or {})}}) + "\n"
        self.progress = DerivationProgress()
        self._process: subprocess.Popen[str] | None = None
        self._check = threading.Event()
        self._stopping = threading.Event()
        self._waiting_since: float | None = None
        self._backoff = 0.0
        self._rest_until = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="derivation-supervisor", daemon=True)

    def start(self) -> None:
        """Start checking for open requests."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and terminate the process; finished parts are kept, and the next service resumes."""
        self._stopping.set()
        self._check.set()
        while self._thread.is_alive():
            self._terminate()
            self._thread.join(0.1)
        self._terminate()
        self._reap()

    def check_now(self) -> None:
        """Check for open requests without waiting for the next poll."""
        self._check.set()

    @property
    def process_id(self) -> int | None:
        """Id of the derivation process, if it is running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait = self._seconds_until_start()
            if wait is None or wait > 0:
                self._check.wait(_POLL_SECONDS if wait is None else min(wait, _POLL_SECONDS))
                self._check.clear()
            else:
                self._derive()

    def _seconds_until_start(self) -> float | None:
        """Seconds until the next derivation starts; None: no request waits for one."""
        try:
            states = self._workspace.requests.states_to_start(self._workspace.clock())
        except LmeraserError as error:
            log.error("cannot read requests: %s", error.message)
            return _POLL_SECONDS
        if not states:
            self._waiting_since = None
            return None
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        waited = now - self._waiting_since
        if "in_progress" in states:
            return self._backoff - waited
        return max(max(self._config.batch_seconds, self._backoff) - waited, self._rest_until - now)

    def _derive(self) -> None:
        began = time.monotonic()
        self.progress = DerivationProgress(self.progress.number + 1, "starting")
        outcome = self._run_derivation()
        self.progress = DerivationProgress(self.progress.number)
        now = time.monotonic()
        spent = outcome.get("seconds", now - began)  # as reported, it excludes starting the process
        self._rest_until = now + min(spent * (1 / self._config.deriving_share - 1), _LONGEST_REST)
        self._waiting_since = None
        if self._stopping.is_set():
            return
        if outcome["outcome"] == "done":
            self._backoff = 0.0
            log.info("derivation %d: %s", self.progress.number, _format_outcome(outcome))
        else:
            expected = outcome.get("error") in _EXPECTED_ERRORS
            longer = min(max(2 * self._backoff, _FIRST_BACKOFF), _LONGEST_BACKOFF)
            self._backoff = _FIRST_BACKOFF if expected else longer
            log.log(logging.INFO if expected else logging.ERROR, "derivation: %s", _format_outcome(outcome))
        self._on_finished(outcome)

    def _run_derivation(self) -> Mapping[str, Any]:
        """Have the process derive a model; its outcome."""
        with contextlib.suppress(BrokenPipeError, OSError):
            process = self._ensure_process()
            assert process.stdin is not None
            process.stdin.write(self._command)
            process.stdin.flush()
            for message in self._read_messages(process):
                if "outcome" in message:
                    return message
                self.progress = DerivationProgress(
                    self.progress.number, message["step"], message["done"], message["total"]
                )
        return {"outcome": "died", "error": f"exit status {self._reap()}"}

    def _ensure_process(self) -> subprocess.Popen[str]:
        if self.process_id is None:
            self._reap()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lmeraser.service.derivation_process", str(self._workspace.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a traceback of a library may name a record
                text=True,
                # Ctrl-C in the terminal is for the service alone. Not a session of its own: with autogrouping,
                # Linux divides processors among sessions, and niceness has no effect between them.
                process_group=0,
            )
        assert self._process is not None
        return self._process

    @staticmethod
    def _read_messages(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # a line truncated by a kill
                yield json.loads(line)

    def _terminate(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_TERMINATION_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _reap(self) -> int | None:
        """Close the pipes of a process that has ended; its exit status."""
        process = self._process
        self._process = None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        return process.wait()


def _format_outcome(outcome: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in outcome.items())
