"""The model card of an export: Markdown with the metadata that the Hugging Face hub reads.

The card renders the manifest for people. Class names may hold anything, so they appear as JSON in a code span.
"""

from __future__ import annotations

import json
from typing import Any

from lmeraser.core.terminal import printable
from lmeraser.inference.export.backbone_files import hub_name
from lmeraser.inference.export.manifest import ExportManifest

_TASKS = {"image": "image-classification", "text": "text-classification", "vector": "tabular-classification"}
_LISTED = 50  # class names on the card
_FOLDER_USE = {
    modality: (
        "import lmeraser",
        "",
        'predictor = lmeraser.load_predictor("this folder")',
        f"predictor.predict({queries})",
    )
    for modality, queries in {"image": '["photo.jpg"]', "text": '["a text"]', "vector": "[vector]"}.items()
}
_GRAPH_USE = {
    modality: (
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        f'(probabilities,) = session.run(["probabilities"], {{{inputs}}})',
    )
    for modality, inputs in {
        "image": '"images": uint8_rgb',
        "text": '"input_ids": ids, "attention_mask": mask',
        "vector": '"vectors": float32',
    }.items()
}


_TRANSFORMERS_USE = {
    modality: (
        "from transformers import pipeline",
        "",
        f'classify = pipeline("{task}", model="this folder", trust_remote_code=True)',
        f"classify({query})",
    )
    for modality, (task, query) in {
        "image": ("image-classification", '"photo.jpg"'),
        "text": ("text-classification", '"a text"'),
    }.items()
}


def card(manifest: ExportManifest, *, license: str | None = None) -> str:  # noqa: A002 - the hub's word
    """The content of ``README.md``.

    Args:
        manifest: of the export.
        license: SPDX identifier of the licence under which the exported model is given away.
    """
    modality = manifest.settings.get("data", {}).get("modality", "image")
    return "\n".join([*_metadata(manifest, modality, license), *_text(manifest, modality, license)]) + "\n"


def _metadata(manifest: ExportManifest, modality: str, license: str | None) -> list[str]:  # noqa: A002
    """YAML, whose values are written as JSON."""
    base = hub_name(manifest.backbone.name)
    values: dict[str, Any] = {
        "library_name": "transformers" if manifest.content == "transformers" else "lmeraser",
        "pipeline_tag": _TASKS[modality],
        "tags": ["lmeraser", "machine-unlearning"],
    }
    if license is not None:
        values["license"] = license
    if base is not None:
        values["base_model"] = base
    return ["---", *(f"{name}: {json.dumps(value)}" for name, value in values.items()), "---", ""]


def _text(manifest: ExportManifest, modality: str, license: str | None) -> list[str]:  # noqa: A002
    backbone, evaluation = manifest.backbone, manifest.evaluation
    measured = "not evaluated before the export"
    if evaluation is not None:
        measured = f"{evaluation.accuracy:.4f} of {evaluation.images} labelled {modality}s of its maker's choice"
        if evaluation.linear_accuracy is not None:
            measured += f" (a linear classifier on the same features: {evaluation.linear_accuracy:.4f})"
    verified = "; loading verifies it and the digest of every file" if manifest.content == "folder" else ""
    uses = {"folder": _FOLDER_USE, "onnx": _GRAPH_USE, "transformers": _TRANSFORMERS_USE}
    where = "in the folder `backbone`" if manifest.content == "folder" else "included"
    if not backbone.included:
        where = "not included"
    facts = {
        "Export": f"`{manifest.export}`, made {manifest.created} by {manifest.software}",
        "Generation": f"{manifest.generation}, model `{manifest.model_digest}`",
        "Derived from": f"{manifest.records} private records, none of which is included",
        "Classes": f"{len(manifest.classes)}: {_names(manifest.classes)}",
        "Accuracy": measured,
        "Backbone": f"{_code(backbone.name or 'a local folder of its maker')}, `{backbone.digest}`, {where}; "
        f"licence: {backbone.license or 'not known'}",
        "Licence": license or "not stated",
    }
    return [
        "# Exported model",
        "",
        *(f"- **{name}**: {value}" for name, value in facts.items()),
        "",
        "## Use",
        "",
        "```python",
        *uses[manifest.content][modality],
        "```",
        "",
        f"`export.json` is the manifest, signed in `export.sig`{verified}.",
        "",
        "## Recall",
        "",
        "People may ask the maker of this model to forget their data. This copy stays as it is when that happens. "
        f"When its maker recalls export `{manifest.export}`: delete it and all of its copies, take the next "
        "generation, and confirm.",
    ]


def _names(classes: tuple[str, ...]) -> str:
    more = f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
    return _code(json.dumps(classes[:_LISTED], ensure_ascii=False)) + more


def _code(text: str) -> str:
    return f"`{printable(text).replace('`', chr(39))}`"
