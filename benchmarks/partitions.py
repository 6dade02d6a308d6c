"""Cost of deletions on different partitions of the same records, before anything is tuned.

    python benchmarks/partitions.py --data PATH/TO/train.parquet --records 5000

Prints, for each partition, the number of clusters K, the expected share of the records that one uniform request
tunes again (sample hits included with their probability, some of them actually carried out), the same times K (1
would be as cheap as possible), and percentiles in records. Features are computed once.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from datasets import load_dataset

from lmeraser import Columns, Config, Eraser
from lmeraser.config.schema import parse
from lmeraser.config.toml_file import to_toml
from lmeraser.core.console import print_rows
from lmeraser.pipeline.derive import feature_key

PARTITIONS: dict[str, dict[str, Any]] = {
    "average, Euclidean": {"clusters": 50, "linkage": "average", "metric": "euclidean"},
    "Ward, cosine": {"clusters": 50},
    "  sample of 200": {"clusters": 50, "sample_size": 200},
    "  max_share 0.03": {"clusters": 50, "max_share": 0.03},
    "  of public classes": {"clusters": 50, "fitted": "public"},
    "class tree, N/15": {"method": "class_tree", "max_records": 1 / 15},
    "class tree, N/37": {"method": "class_tree", "max_records": 1 / 37},
    "class tree, N/75": {"method": "class_tree", "max_records": 1 / 75},
    "random": {"method": "random", "clusters": 50},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="parquet file with images and labels")
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--image-column", default="image")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--hits", type=int, default=8, help="hits of the sample to simulate")
    return parser.parse_args()


def config_of(partition: dict[str, Any], records: int) -> Config:
    share = partition.get("max_records")
    limit = {"max_records": round(share * records)} if share else {}
    return parse({"partition": {**partition, **limit}})


def filled(root: Path, options: argparse.Namespace) -> None:
    """A workspace with the records and their features."""
    stream = load_dataset("parquet", data_files={"rows": options.data}, split="rows", streaming=True)
    columns = Columns(image=options.image_column, label=options.label_column, positions=True)
    with Eraser.create(root, config_of({"clusters": 50}, options.records)) as eraser:
        eraser.add(stream.take(options.records), columns=columns)
        executor = eraser.executor()
        records = eraser.workspace.records
        key = feature_key(eraser.workspace.config, executor.backbone, executor.fingerprint)
        found = executor.embed(eraser.record_ids(), records.payloads, lambda *_: None)
        records.derived.store_features(dict(found), key=key)


def main() -> None:
    options = arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        filled(root, options)
        for name, partition in PARTITIONS.items():
            (root / "lmeraser.toml").write_text(to_toml(config_of(partition, options.records)))
            with Eraser(root) as eraser:
                cost = eraser.cost(hits=options.hits)
            hit = cost.sample_hit_share
            share = cost.simulated_share
            times = share * cost.clusters if share is not None else None
            rows.append([name, cost.clusters, share, times, hit, cost.p50, cost.p95, cost.max])
    header = ["partition", "K", "share", "times K", "at a hit", "p50", "p95", "max"]
    print_rows(f"{options.records} records", header, rows, unfolded=header)


if __name__ == "__main__":
    main()
