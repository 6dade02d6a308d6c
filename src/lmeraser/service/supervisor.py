"""Carrying out what was accepted: when to derive, and the process that does it (`derivation`).

A derivation begins some seconds after the first request that waits, so that requests which come close together
share one; what was left in progress by a crash is carried on at once. While requests keep coming, derivations rest
in between and take a share of the time only: from its acceptance on, no record is used any more. The process may
die at any moment: it is started again, and the workspace's own journal says what is left to do.

Follows `requests`; knows nothing about HTTP.
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

_LOOK = 0.5  # seconds between two looks at what is open; other processes accept requests, too
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0  # seconds after a derivation that ended badly
_LONGEST_REST = 60.0  # seconds between two derivations
_PATIENCE = 5.0  # seconds in which the process has to end
_HARMLESS = ("InputError", "LockedError")  # cancelled meanwhile; somebody else is writing

log = logging.getLogger("lmeraser.service")


@dataclass(frozen=True)
class Step:
    """How far a derivation is.

    Attributes:
        number: of the derivation, counted from 1 since the service was started.
        step: its name; '' while none is under way.
        done: how much of it is done.
        total: of how much; None: not known.
    """

    number: int = 0
    step: str = ""
    done: int = 0
    total: int | None = None


class DerivationSupervisor:
    """Carries requests out, in a thread of its own that watches a process.

    Args:
        workspace: where the requests are.
        then: called with how a derivation ended.
        compute: settings of ``[compute]`` that differ.
    """

    def __init__(
        self,
        workspace: Workspace,
        then: Callable[[Mapping[str, Any]], None],
        compute: Mapping[str, Any] | None = None,
    ) -> None:
        self._workspace, self._then, self._config = workspace, then, workspace.config.service
        # Its threads give way, not the process: a transaction that others wait for is not to be starved.
        self._order = json.dumps({"compute": {"nice": self._config.nice, **(compute or {})}}) + "\n"
        self.now = Step()
        self._process: subprocess.Popen[str] | None = None
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._since: float | None = None
        self._delay = 0.0
        self._rested = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to look for what is open."""
        self._thread.start()

    def stop(self) -> None:
        """End, and the process with it; finished parts are kept, and the next service goes on."""
        self._stopping.set()
        self._woken.set()
        while self._thread.is_alive():
            self._end()
            self._thread.join(0.1)
        self._end()
        self._forget()

    def wake(self) -> None:
        """Look at once: something was accepted."""
        self._woken.set()

    @property
    def process(self) -> int | None:
        """Id of the process that derives, if it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait = self._wait()
            if wait is None or wait > 0:
                self._woken.wait(_LOOK if wait is None else min(wait, _LOOK))
                self._woken.clear()
            else:
                self._derive()

    def _wait(self) -> float | None:
        """Seconds until a derivation is to begin; None: there is nothing to do."""
        try:
            states = {request.state for request in self._workspace.requests.all("pending", "in_progress")}
        except LmeraserError as error:
            log.error("requests cannot be read: %s", error.message)
            return _LOOK
        if not states:
            self._since = None
            return None
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if "in_progress" in states:
            return self._delay - waited
        return max(max(self._config.batch_seconds, self._delay) - waited, self._rested - now)

    def _derive(self) -> None:
        self.now, began = Step(self.now.number + 1, "starting"), time.monotonic()
        ended = self._ended()
        self.now, now = Step(self.now.number), time.monotonic()
        spent = ended.get("seconds", now - began)  # without the start of the process
        self._rested = now + min(spent * (1 / self._config.deriving_share - 1), _LONGEST_REST)
        self._since = None
        if self._stopping.is_set():
            return
        if ended["outcome"] == "done":
            self._delay = 0.0
            log.info("derivation %d: %s", self.now.number, _words(ended))
        else:
            harmless = ended.get("error") in _HARMLESS
            longer = _FIRST_DELAY if harmless else min(max(2 * self._delay, _FIRST_DELAY), _LONGEST_DELAY)
            self._delay = longer
            log.log(logging.INFO if harmless else logging.ERROR, "derivation: %s", _words(ended))
        self._then(ended)

    def _ended(self) -> Mapping[str, Any]:
        """Have a model derived; how that ended."""
        with contextlib.suppress(BrokenPipeError, OSError):
            process = self._started()
            assert process.stdin is not None
            process.stdin.write(self._order)
            process.stdin.flush()
            for line in self._lines(process):
                if "outcome" in line:
                    return line
                self.now = Step(self.now.number, line["step"], line["done"], line["total"])
        return {"outcome": "died", "error": f"exit status {self._forget()}"}

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            self._forget()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lmeraser.service.derivation", str(self._workspace.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a library's traceback may name a record
                text=True,
                # A Ctrl-C at the terminal is for the service alone. No session of its own: Linux may share out its
                # processors by sessions, and no thread would give way to one of another.
                process_group=0,
            )
        assert self._process is not None
        return self._process

    @staticmethod
    def _lines(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # cut off by a kill
                yield json.loads(line)

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _forget(self) -> int | None:
        """Close what led to a process that has ended; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        return process.wait()


def _words(ended: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in ended.items())
