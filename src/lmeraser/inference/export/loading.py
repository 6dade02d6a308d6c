"""Use of an exported model without its workspace.

    predictor = lmeraser.load_predictor("exported")
    predictor.predict(["photo.jpg"])

The predictor is that of a workspace (`inference.predictor`), over the tensors of the export: in an environment
with the workspace's fingerprint its probabilities have the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.deployment import ComputeConfig
from lmeraser.core.arguments import listed
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError
from lmeraser.evidence.dsse import PublicKey
from lmeraser.inference import queries
from lmeraser.inference.export.manifest import ARTIFACTS, BACKBONE, ExportManifest, read_export
from lmeraser.inference.predictor import Predictions, Predictor, Query
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.storage.artifacts import BlobStore
from lmeraser.storage.blobs import Folder

if TYPE_CHECKING:
    from lmeraser.models.backbones import Backbone


class ExportedPredictor:
    """An exported model in memory.

    Args:
        manifest: of the export, verified.
        predictor: over its tensors.
        executor: computes its passes.
    """

    def __init__(self, manifest: ExportManifest, predictor: Predictor, executor: LocalExecutor) -> None:
        self.manifest = manifest
        self.predictor = predictor
        self._executor = executor

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.manifest.classes

    @property
    def model_digest(self) -> Digest:
        """Digest of the generation that was exported, as the ledger and certificates name it."""
        return self.manifest.model_digest

    @property
    def same_environment(self) -> bool:
        """Whether all parts were computed in the environment of this process, so that bits are the workspace's."""
        return self.manifest.fingerprints == (self._executor.fingerprint,)

    def predict(self, queries_: Iterable[Query]) -> Predictions:
        """Class, probability and clusters of each query; arguments and errors as of `Eraser.predict`."""
        return queries.predict(self.predictor, listed(queries_, "queries"))

    def predict_proba(self, queries_: Iterable[Query]) -> NDArray[np.float32]:
        """Probabilities of all classes, float32 [n, classes], in the order of `classes`."""
        return queries.predict_proba(self.predictor, listed(queries_, "queries"), len(self.classes))

    def predict_top_k(self, queries_: Iterable[Query], k: int = 5) -> list[list[tuple[str, float]]]:
        """The most probable classes of each query with their probabilities, the most probable first."""
        queries.check_k(k)
        return queries.top_k(self.predict_proba(queries_), self.classes, k)

    def __repr__(self) -> str:
        """Generation and classes."""
        return f"{type(self).__name__}(generation {self.manifest.generation}, {len(self.classes)} classes)"


def load_predictor(
    folder: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] | None = None,
    backbone: str | os.PathLike[str] | Backbone | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    workers: int = 0,
) -> ExportedPredictor:
    """Load a folder that `lmeraser export` wrote.

    Args:
        folder: the export.
        key: file with the public key of the workspace (``signing.pub``), obtained from elsewhere; None: the one in
            the folder, which shows that the files belong together, not who made them.
        backbone: folder of the backbone, or the loaded backbone, where the export does not include it and its name
            is not public.
        device: where passes are computed.
        workers: parallel tasks; 0: one per core.

    Raises:
        InputError: the folder is no export.
        FormatError: a newer version wrote it.
        VerificationError: the export is incomplete or was changed, or another key signed it.
        BackboneError: the backbone cannot be found, or is another one.
    """
    root = Path(folder)
    manifest = read_export(root, key=PublicKey.read(Path(key)) if key is not None else None)
    if isinstance(backbone, str | os.PathLike):
        name = str(Path(backbone).resolve())
        loaded = None
    else:
        name = _backbone_name(manifest, root, given=backbone is not None)
        loaded = backbone
    model = manifest.model(name)
    executor = LocalExecutor(model.config(ComputeConfig(device=device, workers=workers)), loaded)
    artifacts = Folder(root / ARTIFACTS)
    return ExportedPredictor(manifest, Predictor(model, BlobStore(artifacts, artifacts), executor), executor)


def _backbone_name(manifest: ExportManifest, root: Path, *, given: bool) -> str:
    """From where the backbone's weights are loaded; only a name for errors if the caller has loaded it.

    Raises:
        BackboneError: nobody says.
    """
    if manifest.backbone.included:
        return str((root / BACKBONE).resolve())
    if manifest.backbone.name is None and given:
        return "the given backbone"
    if manifest.backbone.name is None:
        raise BackboneError(
            "The export does not include its backbone, whose name is not public",
            got=f"backbone {manifest.backbone.digest.short}",
            next_step="give its folder: load_predictor(..., backbone=...); or export with --with-backbone",
        )
    return manifest.backbone.name
