"""How far answers of exports agree with those of the workspace, for handwritten digits and the preset `instant`.

    python benchmarks/exports.py --out bench

For each format: the share of queries whose probabilities are all within 1e-5 of the workspace's, the largest
difference, the share with the same class and, where the format tells, the share with the same whole numbers in the
embedding. ``same kernels`` is the graph of the ONNX export run by torch with the workspace's own convolutions and
batch shape: it shows that differences come from the convolutions' rounding alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lmeraser import Columns, Eraser
from lmeraser.cli.demo import handwritten_digits
from lmeraser.core.tensors import from_bytes
from lmeraser.inference.export.graph import INPUTS, Graph, heads_of
from lmeraser.models.modalities import load_backbone
from measuring import keep, parser_of

WITHIN = 1e-5


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--queries", type=int, default=897)
    parser.add_argument("--image-size", type=int, default=32)
    options = parser.parse_args()
    digits = handwritten_digits()[0]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings: dict[str, Any] = {"backbone": {"image_size": options.image_size}}
        with Eraser.create(root / "w", settings, preset="instant") as eraser:
            eraser.add(digits.select(range(options.records)), columns=Columns(id="id"))
            eraser.train()
            last = min(len(digits), options.records + options.queries)
            images = [row["image"].convert("RGB") for row in digits.select(range(options.records, last))]
            batch = eraser.predictor().batch(images)
            expected = batch.probabilities
            assert batch.embeddings is not None
            pixels = np.stack([np.asarray(image) for image in images])
            runs: dict[str, Callable[[], tuple[Any, Any]]] = {
                "onnx": lambda: (with_onnxruntime(eraser, root / "onnx", pixels), None),
                "transformers": lambda: with_transformers(eraser, root / "transformers", images),
                "same kernels": lambda: (with_same_kernels(eraser, pixels), None),
            }
            for name, run in runs.items():
                probabilities, embedded = run()
                rows[name] = agreement(probabilities, expected)
                if embedded is not None:
                    same = (embedded == batch.embeddings).all(axis=1)
                    rows[name]["same_embedding"] = float(same.mean())
                print(name, rows[name])
    keep(options, "exports", rows)


def agreement(found: Any, expected: Any) -> dict[str, Any]:
    """How far probabilities, float32 [n, classes], agree."""
    difference = np.abs(found - expected).max(axis=1)
    return {
        "queries": len(expected),
        "within_1e-5": int((difference <= WITHIN).sum()),
        "largest_difference": float(difference.max()),
        "same_class": int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
    }


def with_onnxruntime(eraser: Eraser, out: Path, pixels: Any) -> Any:
    import onnxruntime

    eraser.export(out, format="onnx")
    session = onnxruntime.InferenceSession(out / "model.onnx")
    parts = [session.run(["probabilities"], {"images": part})[0] for part in batches(pixels, 50)]
    return np.concatenate(parts)


def with_transformers(eraser: Eraser, out: Path, images: Sequence[Image.Image]) -> tuple[Any, Any]:
    """Probabilities and embeddings."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    eraser.export(out, format="transformers")
    processor = AutoImageProcessor.from_pretrained(out, trust_remote_code=True)
    model = AutoModelForImageClassification.from_pretrained(out, trust_remote_code=True)
    kept: list[Any] = []
    whole = model.embed

    def embed(vectors: torch.Tensor) -> Any:
        kept.append(whole(vectors))
        return kept[-1]

    model.embed = embed
    with torch.no_grad():
        parts = [
            model(**processor(part, return_tensors="pt")).logits.softmax(dim=1) for part in batches(images, 50)
        ]
    return torch.cat(parts).numpy(), torch.cat(kept).numpy() / np.float32(model.config.scale)


def with_same_kernels(eraser: Eraser, pixels: Any) -> Any:
    """The graph with the backbone as predictions use it, one view and one micro-batch at a time."""
    model = eraser.workspace.generations.require()
    config = model.config()
    backbone = load_backbone(config)
    heads = heads_of(model, lambda digest: from_bytes(eraser.workspace.store.read(digest)))
    inputs = INPUTS["image"](backbone, config)
    whole = inputs.vectors
    size = config.backbone.micro_batch
    setattr(  # noqa: B010 - a method, in parts of one shape
        inputs, "vectors", lambda views: torch.cat([whole(part) for part in torch.split(views, size)])
    )
    graph = Graph(inputs, heads, config).eval()
    parts = []
    for part in batches(pixels, size):
        missing = size - len(part)
        padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
        with torch.no_grad():
            parts.append(graph(torch.from_numpy(padded)).numpy()[: len(part)])
    return np.concatenate(parts)


def batches(items: Any, size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]


if __name__ == "__main__":
    main()
