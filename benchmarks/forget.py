"""Excluding a record from the sufficient statistics, against adding up all other records again, in the same run.

    python benchmarks/forget.py --out bench --records 5000 --features 1280 --classes 100

Simulated embeddings, no images. ``subtract``: read the statistics from the database, subtract the record's
quantized embedding and write them, in the transaction that deletes it. ``add up again``: the statistics of the
embeddings that are left, which is what unlearning would take without subtraction. ``solve``: the global head from
the statistics. Prints medians and the ratio of the first two.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from lmeraser.core.lda import solve
from lmeraser.core.sufficient_statistics import SufficientStatistics, quantize
from lmeraser.data.records import Record, Records
from lmeraser.storage.database import Database
from measuring import comparison, keep, parser_of, seconds


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--requests", type=int, default=11)
    options = parser.parse_args()
    coins = np.random.default_rng(0)
    quantized = quantize(coins.standard_normal((options.records, options.features)).astype(np.float32))
    labels = coins.integers(options.classes, size=options.records).tolist()
    ids = [f"{number:08d}" for number in range(options.records)]
    rows = [Record(i, None, label, b"") for i, label in zip(ids, labels, strict=True)]
    subtract, again = [], []
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Database(Path(folder) / "records.db"), secret=b"benchmark")
        with records.database.transaction() as connection:
            records.insert(connection, rows, entry=0)
        records.statistics.include(
            dict(zip(ids, quantized, strict=True)), labels, options.classes, key="benchmark"
        )

        def forget(record_id: str) -> None:
            with records.database.transaction() as connection:
                records.delete(connection, [record_id])

        for gone in range(options.requests):
            subtract.append(seconds(lambda gone=gone: forget(ids[gone])))  # type: ignore[misc]
            zero = SufficientStatistics.zero(options.features + 1, options.classes)
            left: list[SufficientStatistics] = []
            again.append(
                seconds(lambda z=zero, g=gone + 1, kept=left: kept.append(z.plus(quantized[g:], labels[g:])))  # type: ignore[misc]
            )
            found = records.statistics.current()
            assert found is not None
            assert found.digest == left[0].digest, "a benchmark of something that is not exact is worth nothing"
        last = left[0]
        solved = [seconds(lambda: solve(last, 1000.0)) for _ in range(options.requests)]
        records.database.close()
    measured = {
        "subtract against adding up again": comparison(subtract, again),
        "solve, s": statistics.median(solved),
    }
    keep(options, "forget", measured)


if __name__ == "__main__":
    main()
