"""The served model in memory: which generation answers, what it leaves out, and how both change at once.

Rules:
1. a prediction takes `Served.current` when it begins and keeps it to its end; nobody waits for anybody;
2. what is left out is always found out anew from the database, never changed step by step; so whoever looks last
   has seen every acceptance that was committed before;
3. it is found out for the generation that is published, before and after: while an older one is in memory, its
   clusters may not be in the database any more;
4. an acceptance is answered only after `refresh`, so no prediction that begins later uses what it quarantines;
5. if it cannot be found out, nothing answers.

The process stays on one intra-operation thread with deterministic kernels, so predictions are the bits that
`lmeraser predict` gives. Follows `quarantine` and `predict`; knows nothing about HTTP.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import Self

from threadpoolctl import threadpool_limits

from lmeraser.environment import deterministic
from lmeraser.eraser import Eraser
from lmeraser.errors import CorruptError, LmeraserError, NoModelError
from lmeraser.model import Model
from lmeraser.predict import Predictor
from lmeraser.quarantine import Waiting, quarantine, waiting

_TRIES = 5  # at finding a generation that stays published while it is loaded


@dataclass(frozen=True)
class Answering:
    """What answers predictions.

    Attributes:
        predictor: the loaded model, which leaves something out.
        model: its manifest.
        waiting: what it leaves out.
    """

    predictor: Predictor
    model: Model
    waiting: Waiting


class Served:
    """The served model of one workspace; a context manager.

    Args:
        eraser: the workspace, with the backbone.
    """

    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser
        self._lock = threading.Lock()
        self._loaded: Predictor | None = None
        self._seen: tuple[str, Model | None] | None = None
        self._current: Answering | LmeraserError = NoModelError(
            "The service has looked for a model.", got="nothing so far"
        )
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._entered.enter_context(deterministic())
        self._entered.enter_context(threadpool_limits(1, user_api="blas"))
        return self

    def __exit__(self, *exception: object) -> None:
        self._entered.close()

    @property
    def current(self) -> Answering:
        """What answers a prediction that begins now.

        Raises:
            NoModelError: nothing is left to predict with.
            LmeraserError: it is not known what is.
        """
        if isinstance(self._current, LmeraserError):
            raise self._current.with_traceback(None)  # or every caller would add to it
        return self._current

    def follow(self) -> None:
        """Load what another process published, and leave out what it accepted; nothing if it did neither."""
        model = self._eraser.workspace.generations.current()
        if model is not None and (self._loaded is None or self._loaded.model is not model):
            with contextlib.suppress(NoModelError, FileNotFoundError):  # `refresh` tells
                loaded = self._load(model)  # outside the lock, so that no acceptance waits for it
                with self._lock:
                    self._loaded = loaded
        self.refresh()

    def refresh(self) -> None:
        """Find out what answers from now on; at once if somebody did since the last change."""
        with self._lock:
            try:
                seen = self._ledger(), self._eraser.workspace.generations.current()
                if seen == self._seen:
                    return
                self._seen, self._current = seen, self._found()
            except NoModelError as error:
                self._seen, self._current = seen, error
            except BaseException:
                self._seen = None  # so that `follow` tries again
                self._current = NoModelError("Predictions wait until it is known what they leave out.")
                raise

    def _found(self) -> Answering:
        workspace = self._eraser.workspace
        for _ in range(_TRIES):
            model = workspace.generations.require()
            with contextlib.suppress(FileNotFoundError):  # it was superseded and purged meanwhile
                if self._loaded is None or self._loaded.model is not model:
                    self._loaded = self._load(model)
                answering = self._answering(self._loaded, waiting(workspace, model))
                if workspace.generations.current() is model:
                    return answering
        raise CorruptError(
            "The served model's artifacts are in the workspace.",
            got=f"no generation that could be loaded in {_TRIES} tries",
            next_step="run 'lmeraser train'; it will be derived again",
        )

    def _answering(self, loaded: Predictor, found: Waiting) -> Answering:
        known = self._current
        if isinstance(known, Answering) and known.model is loaded.model and known.waiting == found:
            return known
        left_out = quarantine(self._eraser.workspace, loaded.model, found)
        return Answering(loaded.without(left_out), loaded.model, found)

    def _load(self, model: Model) -> Predictor:
        return Predictor(model, self._eraser.workspace.store, self._eraser.executor_of(model))

    def _ledger(self) -> str:
        """Where the ledger ends; every acceptance moves it."""
        return str(self._eraser.workspace.ledger.head)
