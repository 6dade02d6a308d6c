"""The served model in memory: which generation answers, what is quarantined, and how both change at once.

Rules:
1. a prediction takes `ModelHolder.current` when it begins and keeps it to its end; nothing blocks;
2. the quarantine is always read anew from the database, never updated step by step, so that whoever reads last has
   seen every acceptance committed before;
3. it is read for the generation that is published both before and after reading: once a generation is superseded,
   its clusters may be gone from the database;
4. it is read when a prediction begins, so that no prediction that begins after an acceptance was committed uses
   what that quarantines, whichever process accepted it; as long as the ledger's head is unchanged, the last result
   holds;
5. if it cannot be read, no prediction is made;
6. loading a generation, and solving its head without the quarantined records, is left to the first prediction that
   needs it, so that no acceptance waits for it.

The process uses one intra-operation thread and deterministic kernels, so that predictions equal those of `lmeraser
predict` bit for bit. Knows nothing about HTTP.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from lmeraser.core.blas import one_blas_thread
from lmeraser.core.digests import Digest
from lmeraser.data.canvases import CanvasSize
from lmeraser.eraser import Eraser
from lmeraser.errors import CorruptError, LmeraserError, NoModelError, StorageError
from lmeraser.inference.predictor import Predictor
from lmeraser.inference.quarantine import QuarantineScope, current_scope, quarantine
from lmeraser.models.environment import deterministic
from lmeraser.models.manifest import Model
from lmeraser.models.modalities import InputEncoder
from lmeraser.models.modalities.image import canvas_sizes

_ATTEMPTS = 5  # at reading a state that other processes may change meanwhile


@dataclass(frozen=True, eq=False)
class _Generation:
    """One generation, loaded on first use."""

    model: Model
    eraser: Eraser

    @cached_property
    def model_digest(self) -> Digest:
        return self.model.model_digest

    @cached_property
    def predictor(self) -> Predictor:
        session = self.eraser.session
        return Predictor(self.model, session.workspace.store, session.executors.local_for_model(self.model))

    @cached_property
    def canvas_sizes(self) -> frozenset[CanvasSize]:
        return canvas_sizes(self.model.config())


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A generation together with its quarantine.

    Attributes:
        generation: the generation.
        quarantined: what is excluded from predictions.
    """

    generation: _Generation
    quarantined: QuarantineScope

    @property
    def model(self) -> Model:
        """The generation's manifest."""
        return self.generation.model

    @property
    def model_digest(self) -> Digest:
        """The model's digest, computed once."""
        return self.generation.model_digest

    @property
    def canvas_sizes(self) -> frozenset[CanvasSize]:
        """Sizes of the canvases that its predictions are made from."""
        return self.generation.canvas_sizes

    @property
    def encoder(self) -> InputEncoder[Any, Any]:
        """Makes queries ready for its predictions."""
        return self.generation.predictor.encoder

    @cached_property
    def predictor(self) -> Predictor:
        """The model without what is quarantined (rule 6).

        Raises:
            NoModelError: nothing is left to predict with.
            FileNotFoundError: the generation was superseded and purged.
        """
        workspace = self.generation.eraser.workspace
        return self.generation.predictor.without(quarantine(workspace, self.model, self.quarantined))


class ModelHolder:
    """The served model of one workspace; a context manager.

    Args:
        eraser: the workspace, with the backbone.
    """

    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser
        self._lock = threading.Lock()
        self._published: _Generation | None = None
        self._read_at: tuple[str, Model | None] | None = None
        self._current: ServedModel | LmeraserError = NoModelError("No model has been loaded yet")
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._entered.enter_context(deterministic())
        self._entered.enter_context(one_blas_thread())
        return self

    def __exit__(self, *exception: object) -> None:
        self._entered.close()

    @property
    def current(self) -> ServedModel:
        """The model for a prediction that begins now.

        Raises:
            LmeraserError: there is none, or its quarantine is unknown.
        """
        with contextlib.suppress(Exception):  # `refresh` stores the reason, without what may be personal
            self.refresh()
        if isinstance(self._current, LmeraserError):
            raise self._current.with_traceback(None)  # otherwise each raise would extend its traceback
        return self._current

    @property
    def canvas_sizes(self) -> frozenset[CanvasSize]:
        """Sizes of the canvases of the generation that was last read, whatever is quarantined meanwhile.

        Reading the quarantine costs more than most images, and only a prediction needs it (rule 4).

        Raises:
            LmeraserError: there is no generation.
        """
        published = self._published
        return self.current.canvas_sizes if published is None else published.canvas_sizes

    @property
    def encoder(self) -> InputEncoder[Any, Any]:
        """Makes queries ready for the generation that was last read, whatever is quarantined meanwhile.

        Raises:
            LmeraserError: there is no generation.
        """
        published = self._published
        if published is not None:
            with contextlib.suppress(FileNotFoundError):  # superseded and purged
                return published.predictor.encoder
        return self.ready().encoder

    def ready(self) -> ServedModel:
        """The model for a prediction that begins now, loaded and solved.

        Raises:
            NoModelError: nothing is left to predict with.
            CorruptError: an artifact is missing.
            LmeraserError: the quarantine is unknown.
        """
        failure: LmeraserError
        for _ in range(_ATTEMPTS):
            current = self.current
            try:
                _ = current.predictor
                return current
            except NoModelError as error:
                failure = error
                if self._current is current:  # otherwise its statistics may have been purged with it
                    break
            except FileNotFoundError as error:
                failure = CorruptError(
                    "An artifact of the served model is missing",
                    got=f"{error.filename or error}",
                    next_step="run 'lmeraser train' to derive it again",
                )
        raise failure

    def check(self) -> None:
        """Check that predictions can be made now, without solving a head for those to come (rule 6).

        Raises:
            LmeraserError: as `ready`.
        """
        current = self.current
        model = current.model
        statistics = self._eraser.workspace.records.statistics
        with contextlib.suppress(FileNotFoundError):  # superseded and purged
            if (
                model.global_head is not None
                and model.embedding_key is not None
                and statistics.exceeds(len(current.quarantined.records), key=model.embedding_key)
            ):
                _ = current.generation.predictor
                return  # records are left to solve a head from
        self.ready()

    def load_published(self) -> None:
        """Load a generation that another process published, before a prediction needs it.

        What is quarantined in it is left to the next prediction (rule 4), unless the generation is a new one.
        """
        model = self._eraser.workspace.generations.current()
        if model is not None and (self._published is None or self._published.model is not model):
            with contextlib.suppress(NoModelError, FileNotFoundError):  # reported by `ready`
                loaded = self._generation(model)
                _ = loaded.predictor  # outside the lock, so that nothing waits for it
                with self._lock:
                    self._published = loaded
            self._eraser.workspace.records.statistics.release_memory()
            self.refresh()

    def refresh(self) -> None:
        """Read the published generation and its quarantine, unless both are unchanged since the last time."""
        with self._lock:
            try:
                now_at = (self._ledger_head(), self._eraser.workspace.generations.current())
                if now_at == self._read_at:
                    return
                self._read_at = now_at
                self._current = self._read_current()
            except NoModelError as error:
                self._current = error
            except BaseException:
                self._read_at = None  # so that the next call tries again
                self._current = NoModelError("Predictions are suspended until their quarantine can be read")
                raise

    def _read_current(self) -> ServedModel:
        workspace = self._eraser.workspace
        for _ in range(_ATTEMPTS):
            model = workspace.generations.require()
            scope = current_scope(workspace, model)
            if workspace.generations.current() is model:  # rule 3
                return self._served(model, scope)
        raise StorageError(
            "Generations are published faster than they can be read",
            got=f"{_ATTEMPTS} attempts",
            next_step="let only one process derive models",
        )

    def _served(self, model: Model, scope: QuarantineScope) -> ServedModel:
        known = self._current
        self._published = self._generation(model)
        if isinstance(known, ServedModel) and known.generation is self._published and known.quarantined == scope:
            return known
        return ServedModel(self._published, scope)

    def _generation(self, model: Model) -> _Generation:
        known = self._published
        return known if known is not None and known.model is model else _Generation(model, self._eraser)

    def _ledger_head(self) -> str:
        """The ledger's head, which every acceptance moves."""
        return str(self._eraser.workspace.ledger.head)
