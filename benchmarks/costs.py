"""What 10^6, 10^8 and 10^9 records cost, and 10^3 to 10^6 deletion requests a day: a model, not a measurement.

    python benchmarks/costs.py --out bench

Its constants are measurements of the machine whose results are in ``--out`` (`scale.py` with
1,000,000 records, with and without ``--heads``; `tuning.py`; `prediction.py`), multiplied. The rest is assumed,
set by options and printed with the result: the size of an image, and prices. Requests name one record each, drawn
uniformly; those of a day are carried out in a number of batches.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from measuring import device, parser_of

RECORDS = (10**6, 10**8, 10**9)
REQUESTS = (10**3, 10**4, 10**5, 10**6)
HOUR, DAY = 3600, 86400
MEASURED = 10**6  # records in the runs of scale.py
VIEWS = 4  # of the preset 'instant'


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--image-kb", type=float, default=100.0, help="size of an image file")
    parser.add_argument("--epochs", type=int, default=10, help="of a cluster's tuning")
    parser.add_argument("--cluster", type=int, default=100, help="records of a cluster")
    parser.add_argument("--batches", type=int, default=24, help="derivations a day")
    parser.add_argument("--core-hour", type=float, default=0.04, help="price of an hour of a core")
    parser.add_argument("--gb-month", type=float, default=0.1, help="price of a GB for a month")
    options = parser.parse_args()
    known = json.loads((options.out / f"{device()}.json").read_text())
    print(f"assumed: {', '.join(f'{k} {v}' for k, v in vars(options).items() if k != 'out')}\n")
    constants = measured(known)
    print("\n".join(f"{name:58} {value:12.6g}" for name, value in constants.items()))
    holding(constants, options)
    requests(constants, options)


def measured(known: dict[str, Any]) -> dict[str, float]:
    """Constants for one record, one cluster or one request; seconds are those of one core."""
    plain, heads = (known[f"scale {MEASURED}{more}"]["rows"] for more in ("", ", heads"))
    cores = known["tuning"]["settings"]["cores"]
    return {
        "database without images, bytes a record": 1e9 * heads["records.db, GB"] / MEASURED,
        "keys, bytes a record": 1e9 * heads["records.keys, GB"] / MEASURED,
        "manifest and memo, bytes a cluster": 1e9
        * (heads["generations, GB"] + heads["memo, GB"])
        / heads["clusters"],
        "memory of a first training, bytes a record": 1e9 * heads["memory, GB"] / MEASURED,
        "bookkeeping of a first training, s a record": plain["train"] / MEASURED,
        "embedding a view, s": cores / known["prediction"]["rows"]["embedding, images per second"],
        "tuning a record for an epoch, s": cores
        / known["tuning"]["rows"]["EfficientNet-Lite0, 96 px: images per second"],
        "a request beside tuning, s": plain["unlearn, median"],
        f"the same with {heads['clusters']:,} clusters and heads, s": heads["unlearn, median"],
    }


def holding(known: dict[str, float], options: argparse.Namespace) -> None:
    """Print what it takes to hold records and to train once."""
    table = [("", *(f"{count:,} records" for count in RECORDS))]

    def line(name: str, unit: str, one: Callable[[int], float]) -> None:
        table.append((name, *(f"{figures(one(count))} {unit}".strip() for count in RECORDS)))

    def files(count: int) -> float:
        small = known["database without images, bytes a record"] + known["keys, bytes a record"]
        return float(count * (small + options.image_kb * 1e3) / 1e9)

    def hours(count: int, views: float, epochs: float) -> float:
        tuning = epochs * known["tuning a record for an epoch, s"]
        return float(count * (views * known["embedding a view, s"] + tuning) / HOUR)

    line("database and keys, images included", "GB", files)
    clusters = known["manifest and memo, bytes a cluster"] / options.cluster / 1e9
    line("manifest and memo", "GB", lambda count: count * clusters)
    memory = known["memory of a first training, bytes a record"] / 1e9
    line("memory of a first training", "GB", lambda count: count * memory)
    bookkeeping = known["bookkeeping of a first training, s a record"] / HOUR
    line("bookkeeping of a first training", "h", lambda count: count * bookkeeping)
    line("`instant`: a first training", "core-hours", lambda n: hours(n, VIEWS, 0))
    line("prompts: a first training", "core-hours", lambda n: hours(n, 1, options.epochs))
    line("`instant`: price of it", "", lambda n: hours(n, VIEWS, 0) * options.core_hour)
    line("prompts: price of it", "", lambda n: hours(n, 1, options.epochs) * options.core_hour)
    line("price of a month's storage", "", lambda n: files(n) * options.gb_month)
    show(table)


def requests(known: dict[str, float], options: argparse.Namespace) -> None:
    """Print what the requests of a day take."""
    table = [("requests a day", "one by one, the writer is busy", *(f"tuning, {n:,} records" for n in RECORDS))]
    record = options.epochs * known["tuning a record for an epoch, s"] / HOUR
    for wanted in REQUESTS:
        busy = wanted * known["a request beside tuning, s"] / DAY
        tuning = []
        for count in RECORDS:
            clusters = options.batches * touched(wanted / options.batches, count / options.cluster)
            hours = clusters * options.cluster * record
            tuning.append(f"{clusters:,.0f} clusters, {figures(hours)} core-hours")
        table.append((f"{wanted:,}", f"{busy:,.1%} of the day", *tuning))
    show(table)


def show(table: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    head, *rows = table
    print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def figures(value: float) -> str:
    """A number with three significant digits, or all of its whole ones."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def touched(drawn: float, clusters: float) -> float:
    """Expected number of different clusters among uniform draws."""
    return float(clusters * (1 - (1 - 1 / clusters) ** drawn))


if __name__ == "__main__":
    main()
