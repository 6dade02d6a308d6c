"""Prediction for a mixed batch, compared with two plain passes through the backbone; start-up of the command line.

    python benchmarks/prediction.py --out bench

``prediction``: images of handwritten digits from their bytes to probabilities, by a model of many clusters, each
with its own prompt. ``two passes``: the same images, once as they are and once with a prompt added, through the
same backbone on the same threads, and nothing else; from the same bytes, and decoded and normalised beforehand.
``embedding``: images per second from bytes to features, as a training reads them. ``over HTTP``: a service over a
model of features alone (preset ``instant``, four views), called with one image at a time by many callers, which
share the cores with it, compared with the embedding of the same images; alternating, medians. ``start``: whole
processes, medians.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import torch

from lmeraser import Columns, Eraser
from lmeraser.cli.demo import handwritten_digits
from lmeraser.config.schema import parse
from lmeraser.data.images import decode
from lmeraser.inference.predictor import Predictor
from lmeraser.models.backbones.base import ImageBackbone
from load import TIMEOUT, Process
from measuring import compare, keep, parser_of, seconds


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--clusters", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--callers", type=int, default=32, help="of the service at once")
    parser.add_argument("--only-http", action="store_true")
    options = parser.parse_args()
    config = parse({"partition": {"clusters": options.clusters, "sample_size": 100}, "tuning": {"epochs": 1}})
    digits = handwritten_digits()[0].select(range(options.images))
    images = [row["image"]["bytes"] for row in digits.cast_column("image", raw())]
    if options.only_http:
        keep(options, "prediction over HTTP", over_http(digits, images, options))
        return
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, Eraser.create(Path(folder) / "w", config) as eraser:
        eraser.add(digits, columns=Columns(id="id"))
        eraser.train()
        predictor = Predictor(eraser.workspace.generations.require(), eraser.workspace.store, eraser.executor())
        network = eraser.executor().network
        assert isinstance(network, ImageBackbone)
        micro = config.backbone.micro_batch
        frame = torch.randn(1, 3, network.image_size, network.image_size)
        parts = [images[start : start + micro] for start in range(0, len(images), micro)]
        executor = eraser.executor()

        def read(part: list[bytes]) -> torch.Tensor:
            return executor.encoder.input([decode(data) for data in part], "clean")

        def passes(batch: torch.Tensor) -> None:
            with torch.inference_mode():
                network.features(batch)
                network.features(batch + frame)

        ready = [read(part) for part in parts]
        plain = {
            "two passes": lambda: list(executor.stream(lambda part: passes(read(part)), parts)),
            "two passes on decoded images": lambda: list(executor.stream(passes, ready)),
        }
        found = compare(lambda: predictor.batch(images), plain, options.pairs)
        rows |= {f"prediction, share of the rate of {name}": cell.ratio for name, cell in found.items()}
        rows["prediction, images per second"] = len(images) / found["two passes"].seconds
        fetch = dict(enumerate(images))
        names = [str(number) for number in fetch]

        def embed() -> None:
            list(eraser.executor().embed(names, lambda ids: [fetch[int(i)] for i in ids], lambda *_: None))

        spent = [seconds(embed) for _ in range(options.pairs)]
        rows["embedding, images per second"] = len(images) / statistics.median(spent)
        sampled = set(eraser.sampled_ids())
        ordinary = next(record_id for record_id in eraser.record_ids() if record_id not in sampled)
        rows |= starts(Path(folder) / "w", ordinary, options.pairs)
    rows |= over_http(digits, images, options)
    keep(options, "prediction", rows)


def raw() -> Any:
    """The feature type that leaves images undecoded."""
    from datasets import Image

    return Image(decode=False)


def over_http(digits: Any, images: list[bytes], options: Any) -> dict[str, Any]:
    """Predictions of a service, one image a call, and the embedding of the same images."""
    limits = {"requests_per_second": 1e6, "burst": 1_000_000}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "w"
        with Eraser.create(root, parse({"service": limits}, base="instant")) as eraser:
            eraser.add(digits, columns=Columns(id="id"))
            eraser.train()
            _, key = eraser.workspace.api_keys.create("bench", ["predict"], now=eraser.workspace.clock())
            names = [str(number) for number in range(len(images))]

            views = eraser.workspace.config.embedding.views

            def embed() -> None:
                fetch = lambda ids: [images[int(number)] for number in ids]  # noqa: E731
                list(eraser.executor().embed(names, fetch, lambda *_: None, views))

            process = Process(root)
            try:
                call = functools.partial(call_with_each, process.url, key, images, options.callers)
                found = compare(lambda: asyncio.run(call()), {"embedding": embed}, options.pairs)["embedding"]
            finally:
                process.end()
    return {
        "over HTTP, one image each, images per second": len(images) / found.seconds,
        "over HTTP, one image each, share of the embedding rate": found.ratio,
    }


async def call_with_each(url: str, key: str, images: list[bytes], callers: int) -> None:
    """Ask for a prediction of each image, so many at once."""
    left = iter(images)
    limits = httpx2.Limits(max_connections=callers)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, limits=limits) as client:

        async def call() -> None:
            for image in left:
                (await client.post("/predict", files={"images": ("digit.png", image)})).raise_for_status()

        await asyncio.gather(*itertools.starmap(call, [()] * callers))


def starts(workspace: Path, record_id: str, repeats: int) -> dict[str, float]:
    """Median seconds of whole commands."""
    command = [sys.executable, "-m", "lmeraser"]
    given = {
        "--help": ["--help"],
        "status": ["-w", str(workspace), "status", "--json"],
        "plan": ["-w", str(workspace), "plan", "--id", record_id, "--json"],
    }
    found = {}
    for name, arguments in given.items():
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        run = functools.partial(subprocess.run, [*command, *arguments], capture_output=True, check=True)
        times = [seconds(run) for _ in range(repeats)]
        found[f"start of {name}, s"] = statistics.median(times)
    return found


if __name__ == "__main__":
    main()
