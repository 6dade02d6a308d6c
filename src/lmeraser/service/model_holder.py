"""The served model in memory: which generation answers, what it leaves out, and how both change at once.

Rules:
1. a prediction takes `ModelHolder.current` when it begins and keeps it to its end; nobody waits for anybody;
2. what is left out is always found out anew from the database, never changed step by step; so whoever looks last
   has seen every acceptance that was committed before;
3. it is found out for the generation that is published, before and after: while an older one is in memory, its
   clusters may not be in the database any more;
4. it is found out when a prediction begins, so none that begins after an acceptance was committed uses what that
   quarantines, whoever accepted it; while the ledger does not move it is known already;
5. if it cannot be found out, nothing answers;
6. a model that nobody loaded yet, and a head without what was accepted, are made by the first prediction that
   needs them, so no acceptance waits for them.

The process stays on one intra-operation thread with deterministic kernels, so predictions are the bits that
`lmeraser predict` gives. Follows `quarantine` and `predict`; knows nothing about HTTP.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from threadpoolctl import threadpool_limits

from lmeraser.eraser import Eraser
from lmeraser.errors import CorruptError, LmeraserError, NoModelError, StorageError
from lmeraser.inference.predictor import Predictor
from lmeraser.inference.quarantine import QuarantineScope, quarantine, waiting
from lmeraser.models.environment import deterministic
from lmeraser.models.manifest import Model

_TRIES = 5  # at finding a generation that stays published while it is loaded, and what stays while it is solved


@dataclass(frozen=True, eq=False)
class _Generation:
    """One generation, loaded when somebody needs it."""

    model: Model
    eraser: Eraser

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.model, self.eraser.workspace.store, self.eraser.executor_of(self.model))


@dataclass(frozen=True, eq=False)
class Answering:
    """What answers predictions.

    Attributes:
        of: the generation.
        waiting: what is left out of it.
    """

    of: _Generation
    waiting: QuarantineScope

    @property
    def model(self) -> Model:
        """Its manifest."""
        return self.of.model

    @cached_property
    def predictor(self) -> Predictor:
        """The model without what is left out (rule 6).

        Raises:
            NoModelError: nothing is left to predict with.
            FileNotFoundError: the generation was superseded and purged.
        """
        return self.of.predictor.without(quarantine(self.of.eraser.workspace, self.model, self.waiting))


class ModelHolder:
    """The served model of one workspace; a context manager.

    Args:
        eraser: the workspace, with the backbone.
    """

    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser
        self._lock = threading.Lock()
        self._published: _Generation | None = None
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
            LmeraserError: it is not known what does.
        """
        with contextlib.suppress(Exception):  # it has left its reason, without what may be personal
            self.refresh()
        if isinstance(self._current, LmeraserError):
            raise self._current.with_traceback(None)  # or every caller would add to it
        return self._current

    def ready(self) -> Answering:
        """What answers a prediction that begins now, able to.

        Raises:
            NoModelError: nothing is left to predict with.
            CorruptError: an artifact is missing.
            LmeraserError: it is not known what answers.
        """
        failure: LmeraserError
        for _ in range(_TRIES):
            current = self.current
            try:
                _ = current.predictor
                return current
            except NoModelError as error:
                failure = error
                if self._current is current:  # else its sums may have gone with it
                    break
            except FileNotFoundError as error:
                failure = CorruptError(
                    "The served model's artifacts are in the workspace.",
                    got=f"{error.filename or error} is missing",
                    next_step="run 'lmeraser train'; it will be derived again",
                )
        raise failure

    def follow(self) -> None:
        """Load what another process published, before a prediction needs it."""
        model = self._eraser.workspace.generations.current()
        if model is not None and (self._published is None or self._published.model is not model):
            with contextlib.suppress(NoModelError, FileNotFoundError):  # `ready` tells
                loaded = self._generation(model)
                _ = loaded.predictor  # before anybody waits for it
                with self._lock:
                    self._published = loaded
            self._eraser.workspace.records.statistics.release_memory()
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
            found = waiting(workspace, model)
            if workspace.generations.current() is model:
                return self._answering(model, found)
        raise StorageError(
            "A generation stays published for a moment.",
            got=f"{_TRIES} newer ones while it was looked at",
            next_step="let one process derive models",
        )

    def _answering(self, model: Model, found: QuarantineScope) -> Answering:
        known, self._published = self._current, self._generation(model)
        if isinstance(known, Answering) and known.of is self._published and known.waiting == found:
            return known
        return Answering(self._published, found)

    def _generation(self, model: Model) -> _Generation:
        known = self._published
        return known if known is not None and known.model is model else _Generation(model, self._eraser)

    def _ledger(self) -> str:
        """Where the ledger ends; every acceptance moves it."""
        return str(self._eraser.workspace.ledger.head)
