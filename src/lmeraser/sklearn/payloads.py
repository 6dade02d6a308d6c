"""Texts and images as vectors: what workspaces with the preset `instant` use, before their random layer.

Imports torch, but only when something is embedded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmeraser.config.modalities import MODALITIES
from lmeraser.config.schema import merge, parse
from lmeraser.core.digests import Digest
from lmeraser.core.progress import silent
from lmeraser.core.sufficient_statistics import QuantizedEmbeddings
from lmeraser.errors import LmeraserError
from lmeraser.models.backbone_names import ALIASES, BUNDLED, BUNDLED_TEXT
from lmeraser.sklearn.errors import VectorError

if TYPE_CHECKING:
    from lmeraser.pipeline.executors.local import LocalExecutor

_KNOWN = {BUNDLED_TEXT: "text", **dict.fromkeys((BUNDLED, *ALIASES), "image")}


class Embedder:
    """Computes quantized embeddings of texts or images with a frozen backbone.

    Args:
        backbone: its name, as of the setting ``backbone.name``.
        modality: "text" or "image"; None: as is known of the backbone.

    Raises:
        VectorError: nothing tells the modality, or it has no payloads that need a backbone.
    """

    def __init__(self, backbone: str, modality: str | None) -> None:
        # Without the random layer: its square would be 134 MB of sums, and a second for each change of the model.
        settings = merge(payload_settings(backbone, modality), {"embedding": {"random_features": 0}})
        self.config = parse(settings, base="instant")

    @cached_property
    def _executor(self) -> LocalExecutor:
        from lmeraser.pipeline.executors.local import LocalExecutor

        return LocalExecutor(self.config)

    @cached_property
    def digest(self) -> Digest:
        """Digest of the backbone and of all settings that the vectors depend on."""
        settings = self.config.model_settings()
        return Digest.of_json([str(self._executor.backbone), settings])

    def __call__(self, X: Any) -> QuantizedEmbeddings:
        """Quantized embeddings, int16 [n, d + 1]; a row depends on its text or image alone.

        Args:
            X: texts; or images as paths, bytes of files, images of Pillow or arrays. A list, a Series, a DataFrame
                of one column, or an array of them.

        Raises:
            VectorError: this is no such list, or one of them cannot be read.
        """
        from lmeraser.models.embeddings import quantized_embeddings

        rows = rows_of(X)
        load = self._executor.encoder.load

        def fetch(names: Sequence[str]) -> list[Any]:
            return [_loaded(load, rows[int(name)], name) for name in names]

        views = self.config.embedding.views
        names = [str(number) for number in range(len(rows))]
        vectors = np.stack([vector for _, vector in self._executor.embed(names, fetch, silent, views)])
        return quantized_embeddings(vectors.reshape(len(rows), len(views), -1), self.config)


def with_payloads(tags: Any, backbone: str | None) -> Any:
    """scikit-learn's tags of an estimator, whose rows are texts or images if it names a backbone."""
    if backbone is not None:
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
    return tags


@lru_cache(maxsize=4)
def embedder(backbone: str, modality: str | None) -> Embedder:
    """The embedder of a backbone; clones of an estimator share it, because loading a network takes a second."""
    return Embedder(backbone, modality)


def payload_settings(backbone: str, modality: str | None) -> dict[str, Any]:
    """The settings of a workspace of texts or images with a backbone.

    Raises:
        VectorError: nothing tells the modality, or its records are vectors already.
    """
    found = modality or _KNOWN.get(backbone)
    possible = [name for name, rules in MODALITIES.items() if rules.prompt is not None]
    if found not in possible:
        raise VectorError(
            "What the backbone takes is not known",
            got=f"modality={modality!r} with backbone={backbone!r} (possible: {', '.join(possible)})",
            next_step="pass modality, or leave backbone out where X holds vectors",
        )
    return {"data": {"modality": found}, "backbone": {"name": backbone}}


def rows_of(X: Any) -> list[Any]:
    """Texts or images one by one, from a list, a Series, a DataFrame of one column, or an array.

    Raises:
        VectorError: it is none of these, or empty.
    """
    if isinstance(X, (str, bytes, Path, Mapping)) or not isinstance(X, Iterable):
        raise VectorError(
            "Texts or images are not a list", got=type(X).__name__, next_step="give a list, even of one"
        )
    array = getattr(X, "to_numpy", None)
    values = array() if array is not None else X
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    rows = list(values)
    if not rows:
        raise VectorError(
            "Found array with 0 sample(s)", got="an empty list", next_step="give at least one record"
        )
    return rows


def _loaded(load: Any, value: Any, row: str) -> Any:
    try:
        return load(value)
    except (LmeraserError, ValueError, TypeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise VectorError(
            "A text or an image cannot be read", got=f"row {row}: {reason}", next_step="leave it out or correct it"
        ) from error
