"""Growth of times: training and planning with the number of records, a request with the records it affects.

    python benchmarks/growth.py --out bench                 # up to 16,000 records
    python benchmarks/growth.py --out bench --most 60000    # up to 60,000

Real embedding and tuning of small pictures (32 px, one epoch), so that counts dominate constants. Prints
the exponent of a power law fitted to each curve (1: linear, 0: flat), and draws them. A request's curve has a
constant part, its bookkeeping, which makes its exponent smaller than 1; beside it stands the exponent of what
exceeds the request with the fewest affected records.
"""

from __future__ import annotations

import functools
import io
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.data.importing import import_records
from lmeraser.data.sources import Row, Source
from measuring import keep, parser_of, seconds

CLASSES = tuple("0123456789")
Curve = dict[int, float]  # seconds by number


def rows(count: int) -> Iterator[Row]:
    """Pictures of 8 x 8 random pixels."""
    coins = np.random.default_rng(0)
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(coins.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(buffer, "png")
        yield Row(number, f"record-{number:06d}", None, number % 10, buffer.getvalue())


def filled(folder: Path, count: int, partition: dict[str, Any]) -> Eraser:
    """A workspace with this many records, not trained."""
    config = parse({"backbone": {"image_size": 32}, "partition": partition, "tuning": {"epochs": 1}})
    eraser = Eraser.create(folder, config)
    workspace = eraser.workspace
    with workspace.writing("add"):
        source = Source("pictures", CLASSES, count, rows(count))
        import_records(workspace.records, source, ledger=workspace.ledger, now=workspace.clock())
    eraser.executor()
    return eraser


def over_records(folder: Path, counts: list[int]) -> tuple[Curve, Curve]:
    """Training and planning by the number of records."""
    training, planning = {}, {}
    for count in counts:
        with filled(folder / f"n{count}", count, {"method": "random", "clusters": count // 50}) as eraser:
            training[count] = seconds(eraser.train)
            ask = functools.partial(eraser.plan, ids=eraser.record_ids()[:1])
            planning[count] = statistics.median(seconds(ask) for _ in range(5))
        print(f"{count:8} records: training {training[count]:.2f} s, plan {planning[count]:.4f} s", flush=True)
    return training, planning


def over_affected(folder: Path, count: int, clusters: list[int]) -> Curve:
    """Requests by the number of affected records: the same records in fewer and fewer clusters."""
    found = {}
    for number in clusters:
        with filled(folder / f"k{number}", count, {"method": "random", "clusters": number}) as eraser:
            eraser.train()
            names = eraser.record_ids()[:3]
            times = [seconds(functools.partial(eraser.unlearn, ids=[name])) for name in names]
            found[count // number] = statistics.median(times)
        print(f"{count // number:8} affected: request {found[count // number]:.2f} s", flush=True)
    return dict(sorted(found.items()))


def exponent(curve: Curve) -> float:
    """Of the power law that fits best."""
    return float(np.polyfit(np.log(list(curve)), np.log(list(curve.values())), 1)[0])


def draw(curves: dict[str, Curve], file: Path) -> None:
    """One panel for each curve."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, every = plt.subplots(1, len(curves), figsize=(5 * len(curves), 4), layout="constrained")
    for axes, (name, curve) in zip(every, curves.items(), strict=True):
        axes.plot(list(curve), list(curve.values()), "o-")
        counted = "affected records" if name == "request" else "records"
        axes.set(xscale="log", yscale="log", ylabel="s", xlabel=counted)
        axes.set_aspect("equal", adjustable="datalim")  # a linear curve rises at 45 degrees
        axes.set_title(f"{name}: exponent {exponent(curve):.2f}")
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--most", type=int, default=16000, help="records")
    options = parser.parse_args()
    counts = [count for count in (1000, 4000, 16000, 60000) if count <= options.most]
    with tempfile.TemporaryDirectory() as folder:
        training, planning = over_records(Path(folder), counts)
        request = over_affected(Path(folder), 4000, [256, 64, 16, 4])
    least = min(request.values())
    beyond = {count: spent - least for count, spent in request.items() if spent > least}
    curves = {"training": training, "plan": planning, "request": request}
    found: dict[str, Any] = {f"{name}: exponent": exponent(curve) for name, curve in curves.items()}
    found["request beyond the smallest: exponent"] = exponent(beyond)
    for name, curve in curves.items():
        found[f"{name}: seconds"] = {str(count): round(spent, 4) for count, spent in curve.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    draw(curves, options.out / "growth.png")
    keep(options, "growth", found)


if __name__ == "__main__":
    main()
