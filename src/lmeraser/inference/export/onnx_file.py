"""A model with one head as an ONNX file: pixels, token ids or vectors in, probabilities out.

The graph (`graph`) is traced by torch's exporter; the extra ``onnx`` has the libraries for that. Whoever runs the
file needs none of them, only a runtime for ONNX, for instance onnxruntime.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.extras import require_extra
from lmeraser.core.tensors import Array
from lmeraser.errors import BackboneError
from lmeraser.inference.export.graph import INPUTS, Graph, Inputs, check_one_head, heads_of, plain_backbone
from lmeraser.models.manifest import Model

OPSET = 18
_OUTPUT = "probabilities"


def onnx_file(
    model: Model,
    config: Config,
    tensors: Callable[[Digest], Mapping[str, Array]],
    *,
    facts: Mapping[str, str],
) -> bytes:
    """The content of ``model.onnx``.

    Args:
        model: the generation.
        config: its settings, with a backbone that can be loaded here.
        tensors: returns the tensors of an artifact.
        facts: written into the file's metadata.

    Raises:
        InputError: the model has several heads, or the extra is missing.
        BackboneError: the backbone is another one, or cannot be written as a graph of plain operations.
    """
    check_one_head(model)
    require_extra("onnx", "ONNX", "onnx", "onnxscript")
    backbone = plain_backbone(model, config)
    inputs = INPUTS[config.data.modality](backbone, config)
    graph = Graph(inputs, heads_of(model, tensors), config).eval()
    try:
        exported = _trace(graph, inputs)
    except Exception as error:  # torch's exporter raises anything
        raise BackboneError(
            "The backbone cannot be written as a graph of ONNX operations",
            got=f"{config.backbone.name}: {str(error).strip().splitlines()[0][:200] if str(error) else error!r}",
            next_step="export with --format folder",
        ) from error
    return _finished(exported, inputs, model, facts)


def _trace(graph: Graph, inputs: Inputs) -> Any:
    """The graph as a protocol buffer."""
    example = inputs.example
    axes = {name: dict.fromkeys(inputs.dynamic[name], torch.export.Dim.DYNAMIC) for name in example}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph,
            tuple(example.values()),
            dynamo=True,
            input_names=list(example),
            output_names=[_OUTPUT],
            dynamic_shapes=(tuple(axes.values()),),  # of the arguments, which the graph takes as one tuple
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def _finished(exported: Any, inputs: Inputs, model: Model, facts: Mapping[str, str]) -> bytes:
    """The file with names for its axes and with metadata."""
    import onnx

    names = {}
    for value in exported.graph.input:
        for axis, name in inputs.dynamic[value.name].items():
            names[value.type.tensor_type.shape.dim[axis].dim_param] = name
    for value in (*exported.graph.input, *exported.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]
    del exported.graph.value_info[:]  # shapes in between, in the exporter's own names
    onnx.helper.set_model_props(exported, {**facts, "classes": json.dumps(model.classes, ensure_ascii=False)})
    onnx.checker.check_model(exported)
    data: bytes = exported.SerializeToString(deterministic=True)
    return data
