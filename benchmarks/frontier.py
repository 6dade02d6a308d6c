"""Accuracy against the cost of a deletion: every way of dividing, tuning and combining, on the same records.

    python benchmarks/frontier.py --data PATH/TO/DATA --out frontier             # run what is missing, report
    python benchmarks/frontier.py --data PATH/TO/DATA --out frontier --report    # report what is there

``PATH/TO/DATA`` holds ``cifar10``, ``cifar100``, ``gtsrb`` and ``orl_faces``, each with ``train.parquet`` and
``test.parquet``, and ``weights/vit-small-saliency``. Every trial leaves one JSON file in ``--out``; an interrupted
run continues from there, and an interrupted training from its workspace. A seed selects other training records and
other random choices; the test images stay the same. ``share`` is the expected share of the records that one
uniform request tunes again, sample hits included (for GTSRB also of a request that names a physical sign, all of
its pictures).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Image, IterableDataset, load_dataset

from lmeraser import Columns, Eraser
from lmeraser.config.schema import parse, to_toml
from lmeraser.core.atomic_files import write_atomic
from lmeraser.inference.evaluate import TrainingSet, linear_accuracy_of

SCALES = ("clean", "whole", "near")
VIEWS: dict[str, tuple[str, ...]] = {
    "clean": ("clean",),
    "mirror": ("clean", "mirror"),
    "frame": ("clean", "frame"),
    "scales": SCALES,
    "scales+frame": (*SCALES, "frame"),
}
GROUPS = ("linear", "instant", "one", "tree", "Ward", "average", "random", "ViT")  # one colour each
WEIGHT = 0.8  # of the global head beside constituents


@dataclass(frozen=True)
class Trial:
    """One cell of the table."""

    data: str
    row: str
    seed: int
    records: int
    test: int
    settings: dict[str, Any] = field(default_factory=dict)
    linear: bool = False  # the classifier to compare with, on the embedding

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.data}_{self.records}_{self.row.replace(' ', '-')}_{self.seed}"

    @property
    def workspace(self) -> str:
        """Trials that tune the same constituents share a workspace, so these are tuned once."""
        tuned = {key: value for key, value in self.settings.items() if key not in ("global_head", "embedding")}
        if self.settings.get("constituent") or self.linear:
            tuned = {"tuned": False}
        return f"{self.data}_{self.records}_{self.seed}_{zlib.crc32(json.dumps(tuned).encode()):08x}"


def tree(limit: int) -> dict[str, Any]:
    return {"method": "class_tree", "max_records": limit}


def embedded(views: str, weight: float) -> dict[str, Any]:
    return {"embedding": {"views": VIEWS[views]}, "global_head": {"weight": weight}}


def instant(views: str) -> dict[str, Any]:
    return {"partition": {"method": "single"}, "constituent": {"kind": "none"}, **embedded(views, 1.0)}


def heads(views: str, partition: dict[str, Any], weight: float) -> dict[str, Any]:
    return {"partition": partition, "constituent": {"kind": "head"}, **embedded(views, weight)}


def core(records: int) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The rows that decide."""
    for views in ("clean", "scales"):
        yield f"linear {views}", {"partition": {"method": "single"}, **embedded(views, 0.0)}, True
    for views in ("clean", "scales", "scales+frame"):
        yield f"instant {views}", instant(views), False
    yield "one prompt", {"partition": {"method": "single"}}, False
    part = {"partition": tree(records // 28)}
    yield "tree 50", part, False
    yield "tree 50 + scales", {**part, **embedded("scales", WEIGHT)}, False


def ablations(records: int) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The rows that explain."""
    for views in ("mirror", "frame"):
        yield f"instant {views}", instant(views), False
    yield "linear scales+frame", {"partition": {"method": "single"}, **embedded("scales+frame", 0.0)}, True
    yield "one prompt + scales", {"partition": {"method": "single"}, **embedded("scales", WEIGHT)}, False
    part = {"partition": tree(records // 28)}
    yield "tree 50 + scales+frame", {**part, **embedded("scales+frame", WEIGHT)}, False
    yield "tree 50 from class means", {**part, "head": {"init": "class_means"}}, False
    for decay in (0.1, 1.0):
        yield f"tree 50 decay {decay}", {**part, "tuning": {"head_weight_decay": decay}}, False
    for views in ("clean", "frame", "scales"):
        yield f"tree 50 heads {views}", heads(views, tree(records // 28), 0.0), False
        yield f"tree 50 heads {views} + global", heads(views, tree(records // 28), WEIGHT), False
    for clusters, fewer in ((20, 11), (100, 56), (200, 112)):
        part = {"partition": tree(records // fewer)}
        yield f"tree {clusters}", part, False
        yield f"tree {clusters} + scales", {**part, **embedded("scales", WEIGHT)}, False
    for name, partition in (
        ("average linkage 50", {"clusters": 50, "linkage": "average", "metric": "euclidean"}),
        ("Ward 50", {"clusters": 50}),
        ("random 50", {"method": "random", "clusters": 50}),
    ):
        yield name, {"partition": partition}, False
        yield f"{name} + scales", {"partition": partition, **embedded("scales", WEIGHT)}, False


def transformer(root: Path) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Rows with a small ViT, whose checkpoint has no public classes."""
    backbone = {
        "backbone": {"name": str(root / "weights" / "vit-small-saliency"), "image_size": 98, "pooling": "cls"}
    }
    for views in ("clean", "scales"):
        yield (
            f"ViT linear {views}",
            {**backbone, "partition": {"method": "single"}, **embedded(views, 0.0)},
            True,
        )
        yield f"ViT instant {views}", {**backbone, **instant(views)}, False
    yield "ViT one prompt", {**backbone, "partition": {"method": "single"}}, False
    yield "ViT Ward 50", {**backbone, "partition": {"clusters": 50}}, False
    yield (
        "ViT Ward 50 + scales",
        {**backbone, "partition": {"clusters": 50}, **embedded("scales", WEIGHT)},
        False,
    )


def sums() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The rows of heads from sums: what each ingredient adds to `instant` of 0.1, and all together."""
    base = instant("scales+frame")
    layers = {"views": VIEWS["scales+frame"], "layers": ["auto"]}
    penalty = {"weight": 1.0, "penalty_rule": "cross_validated"}
    yield "instant 0.1", base, False
    yield "instant + penalty", {**base, "global_head": penalty}, False
    yield "instant + layers", {**base, "embedding": layers}, False
    yield "instant + random", {**base, "embedding": {**base["embedding"], "random_features": 4096}}, False
    yield "instant + layers + penalty", {**base, "embedding": layers, "global_head": penalty}, False
    single = {"partition": {"method": "single"}, "global_head": {"weight": 0.0}}
    yield "linear clean", {**single, "embedding": {"views": VIEWS["clean"]}}, True
    yield "linear 0.1", {**single, "embedding": {"views": VIEWS["scales+frame"]}}, True
    yield "linear + layers", {**single, "embedding": layers}, True


def trials(root: Path) -> list[Trial]:
    """All cells, the most telling first."""
    found = []
    for seed in range(3):
        for data in ("cifar10", "cifar100", "gtsrb"):
            found += [Trial(data, row, seed, 5000, 2000, given, flag) for row, given, flag in core(5000)]
        for data, records in (("cifar10", 5000), ("cifar100", 5000), ("gtsrb", 5000), ("orl_faces", 280)):
            if data != "orl_faces" or seed == 0:  # which has one draw of the training pictures
                found += [Trial(data, row, seed, records, 2000, given, flag) for row, given, flag in sums()]
        if seed == 0:
            found += [Trial("cifar10", row, seed, 5000, 2000, g, flag) for row, g, flag in ablations(5000)]
    found += [Trial("cifar10", row, 0, 5000, 2000, given, flag) for row, given, flag in transformer(root)]
    left_out = ("instant clean", "one prompt")
    large = [cell for cell in core(20000) if cell[0] not in left_out]
    found += [Trial("cifar10", row, 0, 20000, 10000, given, flag) for row, given, flag in large]
    return found


def stream(root: Path, trial: Trial, split: str) -> IterableDataset:
    """Training records of the trial's seed, or the test images."""
    file = str(root / trial.data / f"{split}.parquet")
    rows = load_dataset("parquet", data_files={split: file}, split=split, streaming=True)
    rows = rows.cast_column("image", Image(decode=False))
    if split == "test":
        return rows.take(trial.test)
    if trial.data != "gtsrb":
        return rows.skip(trial.seed * trial.records).take(trial.records)
    # All pictures of a fifth of the signs: near-duplicates stay together.
    return rows.filter(lambda row: zlib.crc32(sign(row).encode()) % 5 == trial.seed)


def sign(row: dict[str, Any]) -> str:
    return f"{row['label']}-{row['track']}"


def opened(root: Path, out: Path, trial: Trial) -> Eraser:
    """The trial's workspace with its records, made or continued."""
    config = parse({"seed": trial.seed, **trial.settings})
    folder = out / "workspaces" / trial.workspace
    eraser = Eraser(folder) if folder.exists() else Eraser.create(folder, config)
    if not eraser.workspace.records.count():
        eraser.add(stream(root, trial, "train"), columns=Columns(positions=True))
    eraser.close()
    (folder / "lmeraser.toml").write_text(to_toml(config))
    return Eraser(folder)


def run(root: Path, out: Path, trial: Trial) -> dict[str, Any]:
    """Measure one cell."""
    with opened(root, out, trial) as eraser:
        if trial.linear:
            return {"accuracy": linear(root, eraser, trial), "clusters": 1, "share": 1.0, "p95": trial.records}
        eraser.train()
        cost = eraser.cost(hits=4)
        evaluation = eraser.evaluate(stream(root, trial, "test"), linear=False)
        found: dict[str, Any] = {"accuracy": evaluation.accuracy}
        found["calibration_error"] = evaluation.calibration_error
        found |= {"clusters": cost.clusters, "share": cost.simulated_share, "p95": cost.p95}
        return found | ({"share_of_a_sign": by_sign(root, eraser, trial)} if trial.data == "gtsrb" else {})


def linear(root: Path, eraser: Eraser, trial: Trial) -> float:
    """Accuracy of a linear classifier on the embedding of the settings' views."""
    from lmeraser.core.sufficient_statistics import embedding

    config = eraser.workspace.config
    records = eraser.workspace.records
    executor = eraser.executor()
    views = config.embedding.views
    images = [row["image"]["bytes"] for row in stream(root, trial, "test")]
    truth = np.array([row["label"] for row in stream(root, trial, "test")])
    index = records.index()

    def vectors(ids: list[Any], fetch: Any) -> Any:
        found = np.stack([vector for _, vector in executor.embed(ids, fetch, lambda *_: None, views)])
        return embedding(found.reshape(len(found), len(views), -1))

    train = vectors([record.id for record in index], records.payloads)
    test = vectors(list(range(len(images))), lambda ids: [images[i] for i in ids])
    labels = np.array([record.label for record in index])
    accuracy = linear_accuracy_of(TrainingSet(train, labels), test, truth)
    assert accuracy is not None
    return accuracy


def by_sign(root: Path, eraser: Eraser, trial: Trial) -> float:
    """Mean share tuned again by a request that names one sign; hits of a sample not included."""
    model = eraser.workspace.generations.require()
    if not model.tuned:
        return 0.0
    numbers = model.cluster_numbers(eraser.workspace.records.derived.trie_keys(model.partition.key))
    sizes = {cluster.number: cluster.records for cluster in model.clusters}
    touched: dict[str, set[int]] = {}
    for position, row in enumerate(stream(root, trial, "train").remove_columns("image")):
        touched.setdefault(sign(row), set()).add(numbers[f"train-{position:08d}"])
    return statistics.mean(sum(sizes[n] for n in found) for found in touched.values()) / model.records


def report(out: Path) -> None:
    """Table of what was measured, as text and Markdown, and a picture."""
    cells: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for file in sorted(out.glob("*.json")):
        cell = json.loads(file.read_text())
        cells.setdefault((cell["data"], cell["records"], cell["row"]), []).append(cell)
    names = ["data", "records", "row", "K", "share", "p95", "accuracy", "calibration error", "seeds"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for (data, records, row), found in cells.items():
        right = [cell["accuracy"] for cell in found]
        spread = f" ± {statistics.stdev(right):.4f}" if len(right) > 1 else ""
        share, clusters, p95 = (
            statistics.mean(cell[name] for cell in found) for name in ("share", "clusters", "p95")
        )
        mean = f"{statistics.mean(right):.4f}{spread}"
        errors = [cell["calibration_error"] for cell in found if "calibration_error" in cell]
        error = f"{statistics.mean(errors):.3f}" if errors else ""
        values = (data, records, row, f"{clusters:.0f}", f"{share:.4f}", f"{p95:.0f}", mean, error, len(right))
        lines.append(f"| {' | '.join(map(str, values))} |")
    text = "\n".join(lines) + "\n"
    write_atomic(out / "frontier.md", text.encode())
    print(text)
    draw(cells, out / "frontier.png")


def draw(cells: dict[tuple[str, int, str], list[dict[str, Any]]], file: Path) -> None:
    """Accuracy over share, one panel for each data set; what needs no tuning stands at the left edge."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({key[:2] for key in cells})
    figure, every = plt.subplots(1, len(panels), figsize=(6 * len(panels), 9), squeeze=False, layout="constrained")
    for axes, panel in zip(every[0], panels, strict=True):
        rows = [(row, found) for (data, records, row), found in cells.items() if (data, records) == panel]
        rows.sort(key=lambda item: -statistics.mean(cell["accuracy"] for cell in item[1]))
        for number, (row, found) in enumerate(rows, 1):
            share = statistics.mean(max(cell["share"], 1e-3) for cell in found)
            right = [cell["accuracy"] for cell in found]
            error = statistics.stdev(right) if len(right) > 1 else 0
            colour = f"C{GROUPS.index(row.split()[0])}"
            mean = statistics.mean(right)
            axes.errorbar(share, mean, yerr=error, fmt="o", color=colour, label=f"{number} {row}")
            aside = (5, -2) if number % 2 else (-11, -2)  # neighbours of the same cost stand close together
            axes.annotate(str(number), (share, mean), fontsize=7, xytext=aside, textcoords="offset points")
        axes.set(
            xscale="log",
            xlim=(5e-4, 2),
            xlabel="expected share tuned again by one request (1e-3: none)",
            ylabel="accuracy",
        )
        axes.set_title(f"{panel[0]}, {panel[1]} records")
        axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--report", action="store_true", help="only report what is there")
    parser.add_argument("--only", default="", help="trials whose name this regular expression is found in")
    options = parser.parse_args()
    todo = [trial for trial in trials(options.data) if re.search(options.only, trial.name)]
    for number, trial in enumerate(todo):
        file = options.out / f"{trial.name}.json"
        if not options.report and not file.exists():
            print(f"{number + 1} of {len(todo)}: {trial.name}", flush=True)
            result = run(options.data, options.out, trial)
            cell = {key: value for key, value in asdict(trial).items() if key != "settings"}
            write_atomic(file, json.dumps({**cell, **result}, indent=1).encode())
    report(options.out)


if __name__ == "__main__":
    main()
