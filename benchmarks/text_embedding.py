"""Texts to features by the bundled network, compared with a plain loop over batches sorted by length.

    python benchmarks/text_embedding.py --out bench tickets.csv

``ours``: passes of a fixed number of rows and a padded length that each text's own length decides, as a training
makes them: in portions, several passes at once with one thread each. ``sorted batches``: the same
texts sorted by their length, in batches of 32 padded to the longest one, with the network as transformers builds
it, on the same number of threads within each operation; then pooled and normalised. Both tokenize first.
"""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmeraser.config.schema import parse
from lmeraser.models.backbones.text_model import TextBackbone
from lmeraser.models.environment import deterministic
from measuring import compare, keep, parser_of

_BATCH = 32  # texts, the default of sentence-transformers


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("texts", type=Path, help="CSV file with a header")
    parser.add_argument("--column", default="text")
    parser.add_argument("--limit", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--portion", type=int, default=512, help="texts that are divided into passes together")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with options.texts.open(encoding="utf-8", newline="") as file:
        texts = [row[options.column] for row in csv.DictReader(file)][: options.limit]
    given = {"micro_batch": options.micro_batch, "name": "all-MiniLM-L6-v2"}
    config = parse(
        {
            "data": {"modality": "text"},
            "backbone": given,
            "embedding": {"views": ["whole"]},
            "constituent": {"kind": "tokens"},
            "prompt": {"kind": "none"},
        }
    )
    backbone = TextBackbone(config, torch.device("cpu"))
    plain = Plain(backbone)
    torch.set_num_threads(options.threads)
    with ThreadPoolExecutor(options.threads) as pool:
        difference = np.abs(ours(backbone, texts, pool, options.portion) - plain(texts)).max()
        found = compare(
            lambda: ours(backbone, texts, pool, options.portion),
            {"sorted batches": lambda: plain(texts)},
            options.pairs,
        )
    rows: dict[str, Any] = {f"text embedding, rate against {name}": cell for name, cell in found.items()}
    rows["text embedding, texts per second"] = len(texts) / found["sorted batches"].seconds
    rows["sorted batches, texts per second"] = len(texts) / found["sorted batches"].baseline_seconds
    rows["largest difference of features"] = float(difference)
    keep(options, "text embedding", rows)


def ours(backbone: TextBackbone, texts: list[str], pool: ThreadPoolExecutor, portion: int) -> np.ndarray[Any, Any]:
    """Features of the first windows, float32 [n, d]."""
    result = np.empty((len(texts), backbone.feature_dim), dtype=np.float32)
    with deterministic():
        windows = list(pool.map(lambda text: backbone.encode(text)[0], texts))

        def run(part: list[int]) -> None:
            length = backbone.bucket(len(windows[part[0]]))
            ids = np.full((backbone.micro_batch, length), -1, dtype=np.int64)
            for row, place in enumerate(part):
                ids[row, : len(windows[place])] = windows[place]
            ids[len(part) :] = ids[0]
            with torch.inference_mode():
                result[part] = backbone.features(torch.from_numpy(ids)).numpy()[: len(part)]

        parts: list[list[int]] = []
        size = backbone.micro_batch
        for start in range(0, len(texts), portion):
            buckets: dict[int, list[int]] = {}
            for place in range(start, min(start + portion, len(texts))):
                buckets.setdefault(backbone.bucket(len(windows[place])), []).append(place)
            for places in buckets.values():
                parts += [places[first : first + size] for first in range(0, len(places), size)]
        list(pool.map(run, parts))
    return result


class Plain:
    """A plain loop over batches of texts that are sorted by length."""

    def __init__(self, backbone: TextBackbone) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = backbone._location.name
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).eval()

    def __call__(self, texts: list[str]) -> np.ndarray[Any, Any]:
        """Features, float32 [n, d]."""
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        result = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                inputs = self._tokenizer(
                    [texts[place] for place in part],
                    padding=True,
                    truncation=True,
                    max_length=256,
                    return_tensors="pt",
                )
                hidden = self._model(**inputs).last_hidden_state
                mask = inputs["attention_mask"][:, :, None]
                mean = (hidden * mask).sum(1) / mask.sum(1)
                result[part] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return result


if __name__ == "__main__":
    main()
