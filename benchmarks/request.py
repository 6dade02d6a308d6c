"""Cost of a deletion request, compared with training from scratch on the retained records in the same run.

    python benchmarks/request.py --out bench --records 600 --pairs 5

Alternates the two, and prints the ratio of their medians with the quartiles of the paired ratios. Both start with
the backbone loaded. A request includes the derivation, the new generation and the purge with its rewriting of the
database; training from scratch includes importing, embedding, clustering and tuning into an empty workspace.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from datasets import Dataset

from lmeraser import Columns, Eraser
from lmeraser.cli.demo import handwritten_digits
from lmeraser.config.schema import Config, parse
from measuring import comparison, keep, parser_of, seconds

COLUMNS = Columns(id="id")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--sample", type=int, default=100, help="records that shape the partition")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    return parser.parse_args()


def from_scratch(config: Config, folder: Path, records: Dataset) -> tuple[float, str]:
    """Seconds to train on the records in an empty workspace, and the model's digest."""
    with Eraser.create(folder, config) as eraser:
        eraser.executor()

        def train() -> None:
            eraser.add(records, columns=COLUMNS)
            eraser.train()

        return seconds(train), eraser.model_digest


def main() -> None:
    options = arguments()
    config = parse(
        {
            "backbone": {"image_size": options.image_size},
            "partition": {"clusters": options.clusters, "sample_size": options.sample},
            "tuning": {"epochs": options.epochs},
        }
    )
    digits = handwritten_digits()[0].select(range(options.records))
    requests, trainings = [], []
    with tempfile.TemporaryDirectory() as folder, Eraser.create(Path(folder) / "w", config) as eraser:
        eraser.add(digits, columns=COLUMNS)
        eraser.train()
        sampled = set(eraser.sampled_ids())
        ordinary = [record_id for record_id in eraser.record_ids() if record_id not in sampled]
        for pair in range(options.pairs):
            gone = ordinary[pair * len(ordinary) // options.pairs]
            digits = digits.filter(lambda row, gone=gone: row["id"] != gone)
            requests.append(seconds(lambda gone=gone: eraser.unlearn(ids=[gone])))  # type: ignore[misc]
            scratch, digest = from_scratch(config, Path(folder) / str(pair), digits)
            trainings.append(scratch)
            assert digest == eraser.model_digest, "unlearned and retrained models differ"
        share = eraser.workspace.generations.require().cost.ordinary_share  # no request hits the sample
    found = comparison(requests, trainings)
    rows = {"request against training anew": found, "1 / expected share": 1 / share}
    keep(options, "request", rows)


if __name__ == "__main__":
    main()
