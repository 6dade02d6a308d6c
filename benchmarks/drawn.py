"""What random numbers of records cost an import: rows of a SQLite table in the order of drawn and counted numbers.

    python benchmarks/drawn.py --out bench

A workspace draws the number of each record, so that it does not tell where in an import the record stood; rows are
stored in the order of their numbers. Prints the processor time of inserting a row of random bytes in either order,
median of the pairs, and the size of the file before and after it is rewritten. Page size and log are those of a
workspace's database.
"""

from __future__ import annotations

import secrets
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import keep, parser_of

_CHUNK = 500  # rows inserted by one call, as an import does


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=2600, help="of each row")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    ways: dict[str, Callable[[], Sequence[int]]] = {
        "counted": lambda: range(options.records),
        "drawn": lambda: secrets.SystemRandom().sample(range(2 * options.records), options.records),
    }
    found: dict[str, list[tuple[float, int, int]]] = {name: [] for name in ways}
    for _ in range(options.pairs):
        for name, numbers in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(insert(Path(folder) / "file", numbers(), options.bytes))
    rows: dict[str, Any] = {}
    for name, runs in found.items():
        seconds, before, after = (statistics.median(values) for values in zip(*runs, strict=True))
        rows[name] = {
            "microseconds_a_record": 1e6 * seconds / options.records,
            "bytes_a_record": before / options.records,
            "bytes_a_record_rewritten": after / options.records,
        }
    keep(options, "drawn", rows)


def insert(file: Path, numbers: Sequence[int], length: int) -> tuple[float, int, int]:
    """Processor seconds of an import, and the size of the file before and after its rewriting."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA page_size = 16384")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE records (number INTEGER PRIMARY KEY, content BLOB)")
    rows = [(number, secrets.token_bytes(length)) for number in numbers]
    started = time.process_time()
    database.execute("BEGIN IMMEDIATE")
    for start in range(0, len(rows), _CHUNK):
        database.executemany("INSERT INTO records VALUES (?, ?)", rows[start : start + _CHUNK])
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    seconds = time.process_time() - started
    before = file.stat().st_size
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return seconds, before, file.stat().st_size


if __name__ == "__main__":
    main()
