"""An exported model as a model of MLflow: saved or logged with its files, loaded as a Python function, and served.

    from lmeraser.inference.export.mlflow_model import log_model

    log_model("exported", name="digits")          # a folder that 'lmeraser export' wrote

MLflow copies the folder as it is and names this module as its loader, so nothing is pickled, and loading verifies
the export as `load_predictor` does. A recall concerns the copy in MLflow as well: it has the same id.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmeraser._version import __version__
from lmeraser.errors import InputError
from lmeraser.inference.export.manifest import ExportManifest, read_export

if TYPE_CHECKING:
    from pandas import DataFrame

    from lmeraser.inference.export.loading import ExportedPredictor

_EXTRAS = {"image": "", "text": "[text]", "vector": ""}


def save_model(folder: str | os.PathLike[str], path: str | os.PathLike[str], **options: Any) -> None:
    """Save an export as a model of MLflow.

    Args:
        folder: an export of the format "folder".
        path: the model's folder, to be created.
        options: of ``mlflow.pyfunc.save_model``.

    Raises:
        InputError: the folder is no such export, or the extra is missing.
        VerificationError: the export is incomplete or was changed.
    """
    pyfunc, arguments = _arguments(Path(folder))
    pyfunc.save_model(path=os.fspath(path), **{**arguments, **options})


def log_model(folder: str | os.PathLike[str], name: str = "model", **options: Any) -> Any:
    """Log an export as a model of MLflow in the active run, or a new one.

    Args:
        folder: an export of the format "folder".
        name: of the model.
        options: of ``mlflow.pyfunc.log_model``.

    Returns:
        MLflow's description of the logged model.

    Raises:
        InputError: the folder is no such export, or the extra is missing.
        VerificationError: the export is incomplete or was changed.
    """
    pyfunc, arguments = _arguments(Path(folder))
    return pyfunc.log_model(name=name, **{**arguments, **options})


class PyfuncModel:
    """What MLflow calls.

    Args:
        predictor: the loaded export.
    """

    def __init__(self, predictor: ExportedPredictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: Any, params: object = None) -> DataFrame:
        """Probabilities of queries: a DataFrame with a row for each and a column for each class.

        Args:
            model_input: a DataFrame whose first column has images (bytes or paths) or texts; an array of vectors;
                or a list of any of them.
            params: ignored.
        """
        from pandas import DataFrame

        probabilities = self._predictor.predict_proba(_queries(model_input))
        return DataFrame(probabilities, columns=list(self._predictor.classes))


def _load_pyfunc(path: str) -> PyfuncModel:
    """What MLflow calls to load the model; the name is MLflow's."""
    from lmeraser.inference.export.loading import load_predictor

    return PyfuncModel(load_predictor(path))


def _queries(model_input: Any) -> Iterable[Any]:
    if hasattr(model_input, "iloc"):
        return list(model_input.iloc[:, 0])
    queries: Iterable[Any] = model_input
    return queries


def _arguments(folder: Path) -> tuple[Any, dict[str, Any]]:
    """MLflow's module for Python functions, and its arguments for an export."""
    try:
        from mlflow import pyfunc
    except ImportError as error:
        raise InputError(
            "MLflow is not installed", got=str(error), next_step="pip install 'lmeraser[mlflow]'"
        ) from error
    manifest = read_export(folder)
    manifest.model("")  # refuses a graph
    modality = str(manifest.settings.get("data", {}).get("modality", "image"))
    return pyfunc, {
        "loader_module": __name__,
        "data_path": os.fspath(folder),
        "signature": _signature(manifest, modality),
        "pip_requirements": [f"lmeraser{_EXTRAS[modality]}=={__version__}"],
        "metadata": {"lmeraser_export": manifest.export, "generation": manifest.generation},
    }


def _signature(manifest: ExportManifest, modality: str) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    inputs = {
        "image": ColSpec(DataType.binary, modality),
        "text": ColSpec(DataType.string, modality),
        "vector": TensorSpec(np.dtype(np.float32), (-1, manifest.settings.get("data", {}).get("length") or -1)),
    }
    outputs = [ColSpec(DataType.float, name) for name in manifest.classes]
    return ModelSignature(Schema([inputs[modality]]), Schema(outputs))
