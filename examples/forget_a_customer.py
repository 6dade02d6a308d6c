"""Sort customers' tickets by their topic, then forget some of them.

    python examples/forget_a_customer.py --data tickets.csv --forget 3

``--data`` is a table (.csv, .tsv, .jsonl or .parquet) with the columns ``text`` and ``label`` and, optionally,
``id``. ``--rows`` takes the first ones only. A quarter of the rows is held out to measure accuracy with. After the
deletions the model is the one that never saw these tickets.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from lmeraser import Columns, Eraser

QUESTIONS = ["My card has not arrived yet.", "Why was I charged twice?"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="table with the columns text and label")
    parser.add_argument("--rows", type=int, help="take the first rows only")
    parser.add_argument("--forget", type=int, default=3, help="how many tickets are forgotten")
    return parser.parse_args()


def load(path: Path, rows: int | None) -> pd.DataFrame:
    """The table, with ids."""
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
    elif path.suffix == ".jsonl":
        table = pd.read_json(path, lines=True)
    else:  # every cell literally: "NA" is a text like any other
        separator = "\t" if path.suffix == ".tsv" else ","
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    if "id" not in table:
        table["id"] = [f"ticket {number}" for number in range(len(table))]
    return table.head(rows) if rows is not None else table


def run(options: argparse.Namespace, folder: Path) -> bool:
    table = load(options.data, options.rows)
    held_out, private = table.iloc[::4], table.drop(table.index[::4])
    columns = Columns(id="id")
    with Eraser.create(folder / "workspace", {"data": {"modality": "text"}}) as eraser:
        eraser.add(private, columns=columns)
        started = time.perf_counter()
        eraser.train()
        seconds = time.perf_counter() - started
        print(f"{len(private)} tickets, {len(eraser.classes)} topics: trained in {seconds:.1f} s")
        known = held_out[held_out["label"].astype(str).isin(eraser.classes)]
        accuracy = eraser.evaluate(known, columns=columns, linear=False).accuracy
        print(f"accuracy on {len(known)} others: {accuracy:.3f}")
        for question, best in zip(QUESTIONS, eraser.predict_top_k(QUESTIONS, 2), strict=True):
            print(f"  {question} -> {', '.join(f'{topic} ({share:.2f})' for topic, share in best)}")

        forgotten = [str(name) for name in private["id"].head(options.forget)]
        report = eraser.unlearn(ids=forgotten)
        print(f"{len(report.selection.ids)} tickets forgotten in {report.seconds:.1f} s")
        print(eraser.predict(QUESTIONS).to_frame()[["class_name", "probability"]])
        identical = eraser.audit().identical
        print(f"identical to retraining without them: {'yes' if identical else 'NO'}")
        return identical


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run(options, Path(folder)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
