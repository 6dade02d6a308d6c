"""Train on CIFAR-10 (or any labelled images), unlearn records three times, and audit.

    python examples/cifar10.py --data PATH/TO/cifar10 --records 5000 --test 2000

``--data`` is a folder with ``train.parquet`` and ``test.parquet``, or the name of a data set for
``datasets.load_dataset``. Nothing is cached outside the workspace. The audit derives the whole model again from
scratch; its duration is that of training from scratch.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import IterableDataset, load_dataset

from lmeraser import Eraser
from lmeraser.config.presets import PresetName


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet, or a name")
    parser.add_argument("--records", type=int, default=5000, help="training images")
    parser.add_argument("--test", type=int, default=2000, help="test images")
    parser.add_argument("--prompts", action="store_true", help="tune a prompt and a head for every cluster")
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=96, help="side of the backbone's input, px")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workspace", help="where to keep the workspace; default: a temporary folder")
    return parser.parse_args()


def load(data: str, split: str, count: int) -> IterableDataset:
    """The first images of a split, streamed."""
    if Path(data).is_dir():
        files = {split: str(Path(data) / f"{split}.parquet")}
        return load_dataset("parquet", data_files=files, split=split, streaming=True).take(count)
    return load_dataset(data, split=split, streaming=True).take(count)


def timed(what: str, function: Any, *values: Any, **options: Any) -> Any:
    started = time.perf_counter()
    result = function(*values, **options)
    print(f"{what}: {time.perf_counter() - started:.1f} s", flush=True)
    return result


def forget(eraser: Eraser, what: str, ids: list[str]) -> None:
    plan = eraser.plan(ids=ids)
    report = eraser.unlearn(ids=ids)
    tuned = f"{plan.clusters_to_tune} clusters, {plan.records_to_tune} records"
    print(f"forgot {what}: {tuned if plan.clusters_to_tune else 'nothing'} tuned again, {report.seconds:.1f} s")


def run(options: argparse.Namespace, folder: Path) -> bool:
    settings: dict[str, Any] = {"backbone": {"image_size": options.image_size}}
    if options.prompts:
        settings |= {"partition": {"clusters": options.clusters}, "tuning": {"epochs": options.epochs}}
    preset: PresetName = "prompts" if options.prompts else "instant"
    with Eraser.create(folder / "workspace", settings, preset=preset) as eraser:
        added = eraser.add(load(options.data, "train", options.records))
        print(f"{added.added} records, {len(eraser.classes)} classes")
        timed("training", eraser.train)
        status = eraser.status()
        print(
            f"{status.clusters} clusters, the largest with {status.largest_cluster} records; "
            f"expected share tuned again by one request: {status.expected_share:.4f}"
        )
        first = timed("evaluation", eraser.evaluate, load(options.data, "test", options.test))
        print(f"accuracy {first.accuracy:.4f}, linear classifier on the same features {first.linear_accuracy:.4f}")

        sampled = eraser.sampled_ids()
        ordinary = sorted(set(eraser.record_ids()) - set(sampled))
        if ordinary:
            forget(eraser, "one ordinary record", ordinary[:1])
        if sampled:
            forget(eraser, "one record of the clustering sample", sampled[:1])
        forget(eraser, "20 records at once", random.Random(0).sample(eraser.record_ids(), 20))

        last = eraser.evaluate(load(options.data, "test", options.test), linear=False)
        print(f"accuracy afterwards {last.accuracy:.4f}")
        audit = timed("audit (training from scratch)", eraser.audit)
        print(f"identical to retraining: {'yes' if audit.identical else 'NO'}")
        for difference in audit.differences:
            print(f"  {difference}")
        return bool(audit.identical)


def main() -> int:
    options = arguments()
    if options.workspace:
        return 0 if run(options, Path(options.workspace)) else 1
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run(options, Path(folder)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
