"""Embeddings of records of shared data, computed once and kept in files: rows of a table share their passes.

Written for `frontier.py` and `ablations.py`. The passes are the package's own, so the quantized embeddings are
those of a workspace with the same settings, to the bit. One pass over a record gives its features in each view and
the layers below; which of them an embedding is made of is decided afterwards. Files belong to one device and one
version of the package: nothing in their names tells either.
"""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lmeraser.config.schema import Config, parse
from lmeraser.core.random_features import random_features
from lmeraser.core.sufficient_statistics import QuantizedEmbeddings, embedding, quantize
from lmeraser.models.backbones.base import FINAL
from lmeraser.pipeline.executors.local import LocalExecutor

TEXTS = ("banking77", "clinc150", "tv_dialogue")
_FLUSHED = 512  # records after which what is finished is noted


def modality_of(data: str) -> dict[str, Any]:
    """The settings that records of a data set need."""
    return {"data": {"modality": "text"}} if data in TEXTS else {}


@dataclass
class EmbeddedData:
    """Embeddings and labels of records.

    Attributes:
        root: folder with a folder for each data set.
        folder: where embeddings are kept.
        workers: threads that embed.
        device: 'cpu' or 'cuda'.
    """

    root: Path
    folder: Path
    workers: int = 1
    device: str = "cpu"
    _executors: dict[str, LocalExecutor] = field(default_factory=dict)
    _tables: dict[tuple[str, str], Any] = field(default_factory=dict)

    def column(self, data: str, split: str, name: str) -> NDArray[np.int64]:
        """A column of integers, of all rows of a file."""
        return np.asarray(pq.read_table(self._file(data, split), columns=[name])[name])

    def quantized(self, data: str, split: str, rows: NDArray[np.int64], config: Config) -> QuantizedEmbeddings:
        """Quantized embeddings of rows of a file, int16 [n, width + 1], as `models.embeddings` makes them."""
        passed = self._passed(data, config)
        files = self._complete(data, split, rows, passed)
        if config.embedding.layers == ("final",):
            columns = [passed.embedding.views.index(view) for view in config.embedding.views]
            features = np.load(files / "features.npy", mmap_mode="r")[rows]
            found = quantize(embedding(np.ascontiguousarray(features[:, columns])))
        else:
            found = np.asarray(np.load(files / "layers.npy", mmap_mode="r")[rows])
        width = config.embedding.random_features
        return random_features(found, width, config.seed) if width else found

    def lengths(self, data: str, config: Config) -> dict[str, int]:
        """The lengths of the vectors of all layers that the backbone of these settings offers, by their names."""
        backbone = self._executor(self._passed(data, config)).encoder.backbone
        return {FINAL: backbone.feature_dim, **backbone.layers}

    def seconds_a_record(self, data: str, split: str, config: Config) -> float:
        """Processor seconds that embedding a record took, all views and layers together."""
        files = self._files(data, split, self._passed(data, config))
        costs = json.loads((files / "cost.json").read_text())
        return float(costs["seconds"] / costs["records"])

    def _passed(self, data: str, config: Config) -> Config:
        """The settings of the passes that the embedding of these settings is found in."""
        settings = {
            **modality_of(data),
            "seed": config.seed if "frame" in config.embedding.views else 0,
            "backbone": config.backbone.model_dump(exclude_none=True),
            "compute": {"workers": self.workers, "device": self.device},
        }
        usual = parse(settings, base="instant")
        if config.embedding.layers == ("final",):
            if set(config.embedding.views) <= set(usual.embedding.views):
                return usual
            return parse(
                {**settings, "embedding": {"views": config.embedding.views, "layers": ["final"]}}, base="instant"
            )
        asked = {"views": config.embedding.views, "layers": config.embedding.layers}
        return parse({**settings, "embedding": asked}, base="instant")

    def _file(self, data: str, split: str) -> Path:
        return self.root / data / f"{split}.parquet"

    def _files(self, data: str, split: str, passed: Config) -> Path:
        """The folder of the embeddings of a file."""
        read = passed.model_dump(mode="json", include={"seed", "backbone", "text"})
        read["embedding"] = [passed.embedding.views, passed.embedding.layers]
        name = zlib.crc32(json.dumps(read, sort_keys=True).encode())
        return self.folder / f"{data}_{split}_{passed.seed}_{name:08x}"

    def _complete(self, data: str, split: str, rows: NDArray[np.int64], passed: Config) -> Path:
        """Embed those of the rows that are missing; returns the folder of the file's embeddings."""
        files = self._files(data, split, passed)
        done = np.load(files / "done.npy") if (files / "done.npy").exists() else None
        missing = rows if done is None else rows[~done[rows]]
        if not len(missing):
            return files
        executor = self._executor(passed)
        encoder = executor.encoder
        views = passed.embedding.views
        column = "text" if data in TEXTS else "image"
        payloads = pq.read_table(self._file(data, split), columns=[column])[column]
        if done is None:
            done = np.zeros(len(payloads), bool)
            files.mkdir(parents=True, exist_ok=True)
        step = encoder.chunk
        chunks = [missing[start : start + step] for start in range(0, len(missing), step)]

        def vectors(chunk: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            found = payloads.take(chunk).to_pylist()
            data_of = [item.encode() if isinstance(item, str) else item["bytes"] for item in found]
            return encoder.embeddable([encoder.load(item) for item in data_of], views)

        costs = {"seconds": 0.0, "records": 0}
        if (files / "cost.json").exists():
            costs = json.loads((files / "cost.json").read_text())
        used = time.process_time()
        waiting = 0
        for chunk, (features, layers) in zip(chunks, executor.stream(vectors, chunks), strict=True):
            codes = quantize(embedding(layers))
            for name, part in (("features", features), ("layers", codes)):
                file = files / f"{name}.npy"
                mode = "r+" if file.exists() else "w+"
                stored = np.lib.format.open_memmap(
                    file, mode=mode, dtype=part.dtype, shape=(len(payloads), *part.shape[1:])
                )
                stored[chunk] = part
            done[chunk] = True
            waiting += len(chunk)
            if waiting > _FLUSHED:
                np.save(files / "done.npy", done)
                waiting = 0
        np.save(files / "done.npy", done)
        costs = {
            "seconds": costs["seconds"] + time.process_time() - used,
            "records": costs["records"] + len(missing),
        }
        (files / "cost.json").write_text(json.dumps(costs))
        return files

    def _executor(self, passed: Config) -> LocalExecutor:
        key = json.dumps(passed.model_dump(mode="json"), sort_keys=True)
        if key not in self._executors:
            self._executors = {key: LocalExecutor(passed)}  # one network in memory
        return self._executors[key]


def training_rows(source: EmbeddedData, data: str, records: int, draw: int) -> NDArray[np.int64]:
    """Rows of a draw of training records; of GTSRB all pictures of a fifth of the signs.

    Draws are disjoint where the file is large enough for three, and evenly spaced and cyclic otherwise.
    """
    if data == "gtsrb":
        return np.flatnonzero(_fifths(source) == draw)
    total = len(source.column(data, "train", "label"))
    start = draw * records if 3 * records <= total else draw * (total // 3)
    return (start + np.arange(min(records, total))) % total


def development_rows(source: EmbeddedData, data: str, records: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the training file to fit on and to choose by, for the first draw: no test record is among them."""
    if data == "gtsrb":  # signs of another fifth
        return np.flatnonzero(_fifths(source) == 0), np.flatnonzero(_fifths(source) == 3)[:2000]
    total = len(source.column(data, "train", "label"))
    kept = min(records, total * 3 // 4)
    return np.arange(kept), np.arange(kept, min(kept + 2000, total))


def _fifths(source: EmbeddedData) -> NDArray[np.int64]:
    """For each picture of GTSRB which fifth its sign is in: pictures of one sign are near-duplicates."""
    columns = (source.column("gtsrb", "train", name).tolist() for name in ("label", "track"))
    return np.array([zlib.crc32(f"{label}-{track}".encode()) % 5 for label, track in zip(*columns, strict=True)])
