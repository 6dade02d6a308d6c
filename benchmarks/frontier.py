"""Accuracy against the cost of a deletion: every way of dividing, tuning and combining, on the same records.

    python benchmarks/frontier.py --data PATH/TO/DATA --out frontier             # run what is missing, report
    python benchmarks/frontier.py --data PATH/TO/DATA --out frontier --report    # report what is there
    python benchmarks/frontier.py --data PATH/TO/DATA --out frontier --seeds 1 \
        --only "instant-(0|.-)|linear-(clean|0.1|.-layers)"                      # heads from sums, one draw

``PATH/TO/DATA`` holds ``cifar10``, ``cifar100``, ``gtsrb`` and ``orl_faces``, ``banking77``, ``clinc150`` and
``tv_dialogue``, each with ``train.parquet`` and ``test.parquet``, and ``weights/vit-small-saliency``. Every trial
leaves one JSON file in ``--out``; an interrupted run continues from there, and an interrupted training from its
workspace. A seed selects other training records and other random choices; the test records stay the same. (Of ORL
and of tv_dialogue all training records are taken, so only the random choices differ.)

Rows that tune nothing need no workspace: their heads come from the package's own functions on embeddings that
`embedded.py` keeps in files, so that all of them share one pass over each record. The model is the one of a
workspace with the same settings, as ``--check`` shows. C of a linear classifier is chosen on a fifth of the
training records.

``share`` is the expected share of the records that one uniform request tunes again, sample hits included (for
GTSRB also of a request that names a physical sign, all of its pictures). ``ms`` is processor time of embedding one
record, all views and layers together; ``head s`` that of subtracting one record and solving for the head, or of
fitting the linear classifier for all values of C; ``bytes`` what is kept of a record to subtract it; ``upper`` the
accuracy of the linear classifier with the C that is best on the test records. Of several seeds the least times
are reported, and means of everything else.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Image, NamedSplit
from numpy.typing import NDArray

from embedded import TEXTS, EmbeddedData, modality_of, training_rows
from lmeraser import Columns, Eraser
from lmeraser.config.schema import Config, parse, preset
from lmeraser.config.toml_file import to_toml
from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.lda import probabilities
from lmeraser.core.sufficient_statistics import QuantizedEmbeddings, SufficientStatistics, dequantize
from lmeraser.core.tensors import Array, to_bytes
from lmeraser.inference.evaluate import calibration_error
from lmeraser.models.global_head import global_head

SCALES = ("clean", "whole", "near")
VIEWS: dict[str, tuple[str, ...]] = {
    "clean": ("clean",),
    "scales": SCALES,
    "scales+frame": (*SCALES, "frame"),
}
GROUPS = ("linear", "instant", "one", "tree", "random", "ViT", "nearest", "Ward")  # one colour each
_ABREAST = 3  # panels of the picture
WEIGHT = 0.8  # of the global head beside constituents
REGULARISATION = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # scikit-learn's C
NEIGHBOURS = 10
COSTS = {"width": ".0f", "bytes": ".0f", "embedding_ms": ".1f", "head_seconds": ".2f", "best_on_test": ".4f"}
TIMES = ("embedding_ms", "head_seconds")  # what else the machine does can only lengthen them

Comparison = Literal["", "linear", "nearest"]
Rows = Iterator[tuple[str, dict[str, Any], Comparison]]


@dataclass(frozen=True)
class Trial:
    """One cell of the table."""

    data: str
    row: str
    seed: int
    records: int
    test: int
    settings: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison = ""  # another classifier, on the embedding of the settings

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.data}_{self.records}_{self.row.replace(' ', '-')}_{self.seed}"

    @property
    def workspace(self) -> str:
        """Trials that tune the same constituents share a workspace, so these are tuned once."""
        tuned = {key: value for key, value in self.settings.items() if key not in ("global_head", "embedding")}
        if self.settings.get("constituent"):
            tuned = {"tuned": False}
        return f"{self.data}_{self.records}_{self.seed}_{zlib.crc32(json.dumps(tuned).encode()):08x}"

    @property
    def config(self) -> Config:
        """All settings."""
        return parse({"seed": self.seed, **modality_of(self.data), **self.settings})

    @property
    def from_sums(self) -> bool:
        """Whether the row needs nothing but embeddings."""
        return bool(self.comparison) or self.config.constituent.kind == "none"


def tree(limit: int) -> dict[str, Any]:
    return {"method": "class_tree", "max_records": limit}


def embedded(views: str, weight: float) -> dict[str, Any]:
    return {"embedding": {"views": VIEWS[views]}, "global_head": {"weight": weight}}


def instant(views: str) -> dict[str, Any]:
    return {"partition": {"method": "single"}, "constituent": {"kind": "none"}, **embedded(views, 1.0)}


def heads(views: str, partition: dict[str, Any], weight: float) -> dict[str, Any]:
    return {"partition": partition, "constituent": {"kind": "head"}, **embedded(views, weight)}


def core(records: int) -> Rows:
    """Prompts and clusters, alone and beside a global head of 0.1."""
    yield "instant scales", instant("scales"), ""
    yield "one prompt", {"partition": {"method": "single"}}, ""
    part = {"partition": tree(records // 28)}
    yield "tree 50", part, ""
    yield "tree 50 + scales", {**part, **embedded("scales", WEIGHT)}, ""


def beside(data: str, records: int) -> Rows:
    """What tuned prompts are for: alone, and beside the global head of `instant` as it is now."""
    usual = parse(modality_of(data), base="instant")
    head = {
        "embedding": usual.embedding.model_dump(mode="json"),
        "global_head": {**usual.global_head.model_dump(mode="json", exclude={"penalty"}), "weight": WEIGHT},
    }
    ways: dict[str, dict[str, Any]] = {"one prompt": {"method": "single"}}
    if data in TEXTS:
        ways["Ward 10"] = {"clusters": 10}
    else:
        ways |= {"tree 10": tree(records // 6), "tree 50": tree(records // 28)}
    for name, partition in ways.items():
        yield name, {"partition": partition}, ""
        yield f"{name} + all", {"partition": partition, **head}, ""


def ablations(records: int) -> Rows:
    """The rows that explain."""
    yield "one prompt + scales", {"partition": {"method": "single"}, **embedded("scales", WEIGHT)}, ""
    part = {"partition": tree(records // 28)}
    yield "tree 50 + scales+frame", {**part, **embedded("scales+frame", WEIGHT)}, ""
    yield "tree 50 from class means", {**part, "head": {"init": "class_means"}}, ""
    for decay in (0.1, 1.0):
        yield f"tree 50 decay {decay}", {**part, "tuning": {"head_weight_decay": decay}}, ""
    yield "tree 50 heads scales + global", heads("scales", tree(records // 28), WEIGHT), ""
    for clusters, fewer in ((20, 11), (100, 56), (200, 112)):
        yield f"tree {clusters} + scales", {"partition": tree(records // fewer), **embedded("scales", WEIGHT)}, ""
    random = {"partition": {"method": "random", "clusters": 50}}
    yield "random 50 + scales", {**random, **embedded("scales", WEIGHT)}, ""


def transformer(network: str, size: int) -> Rows:
    """Rows with a ViT, whose checkpoint need not have public classes."""
    backbone = {"backbone": {"name": network, "image_size": size, "pooling": "cls"}}
    yield "ViT linear", {**backbone, "partition": {"method": "single"}, **embedded("clean", 0.0)}, "linear"
    usual = preset("instant")
    head = {"embedding": usual.embedding.model_dump(mode="json")}
    own = usual.global_head.model_dump(mode="json", exclude={"penalty"})
    yield "ViT instant + all", {**backbone, **instant("scales"), **head, "global_head": own}, ""
    head["global_head"] = {**own, "weight": WEIGHT}
    for name, partition in (("one prompt", {"method": "single"}), ("Ward 10", {"clusters": 10})):
        yield f"ViT {name} + all", {**backbone, "partition": partition, **head}, ""
    yield "ViT Ward 50 + all", {**backbone, "partition": {"clusters": 50}, **head}, ""
    yield "ViT one prompt", {**backbone, "partition": {"method": "single"}}, ""
    yield "ViT Ward 50", {**backbone, "partition": {"clusters": 50}}, ""


def sums(data: str) -> Rows:
    """Heads from sums: what each ingredient adds to `instant` of 0.1, all together, and alternatives."""
    now = parse(modality_of(data), base="instant")
    usual = now.embedding
    views = {"views": list(usual.views)}
    layers = {**views, "layers": ["auto"]}
    random = {"random_features": usual.random_features}
    chosen = {**layers, **random}
    penalty = {"weight": 1.0, "penalty_rule": "cross_validated"}
    angle = {"weight": 1.0, "score": "cosine"}
    base = {**instant("clean"), "embedding": views}
    yield "instant 0.1", base, ""
    yield "instant + penalty", {**base, "global_head": penalty}, ""
    yield "instant + angle", {**base, "global_head": angle}, ""
    yield "instant + layers", {**base, "embedding": layers}, ""
    if usual.random_features:
        yield "instant + random", {**base, "embedding": {**views, **random}}, ""
        yield "instant + layers + random", {**base, "embedding": chosen}, ""
    yield "instant + all but angle", {**base, "embedding": chosen, "global_head": penalty}, ""
    yield "instant 0.2", {**base, "embedding": chosen, "global_head": {**penalty, **angle}}, ""
    blend = {**penalty, "score": now.global_head.score}
    yield "instant + all", {**base, "embedding": chosen, "global_head": blend}, ""
    single = {"partition": {"method": "single"}, "global_head": {"weight": 0.0}}
    if len(usual.views) > 1:
        yield "linear clean", {**single, "embedding": {"views": VIEWS["clean"]}}, "linear"
    yield "linear 0.1", {**single, "embedding": views}, "linear"
    yield "linear + layers", {**single, "embedding": layers}, "linear"
    if usual.random_features:
        yield "linear + layers + random", {**single, "embedding": chosen}, "linear"
    yield "nearest 0.1", {**single, "embedding": views}, "nearest"
    yield "nearest + layers", {**single, "embedding": layers}, "nearest"


def inputs(network: str, size: int) -> Rows:
    """`instant` with larger inputs, and with a ViT: what a user pays in embedding, and what it gains."""
    usual = {**instant("clean"), **preset("instant").model_dump(mode="json", include={"embedding"})}
    own = preset("instant").global_head.model_dump(mode="json", exclude={"penalty"})
    for side in (96, 160, 224):
        yield f"instant + all {side} px", {**usual, "backbone": {"image_size": side}, "global_head": own}, ""
    backbone = {"name": network, "image_size": size, "pooling": "cls"}
    yield f"ViT instant + all {size} px", {**usual, "backbone": backbone, "global_head": own}, ""


def trials(seeds: int, network: str, size: int) -> list[Trial]:
    """All cells, the most telling first."""
    found = [trial for seed in range(seeds) for trial in _from_sums(seed)]
    for seed in range(seeds):
        for data in ("cifar10", "cifar100", "gtsrb"):
            found += _trials(data, core(5000), seed, 5000, 2000)
    for data in ("gtsrb", "cifar100", "cifar10", "banking77"):
        found += _trials(data, beside(data, 5000), 0, 5000, 2000)
    for data in ("cifar100", "banking77"):
        found += _trials(data, beside(data, 1000), 0, 1000, 1000)
    found += _trials("cifar100", inputs(network, size), 0, 1000, 1000)
    found += _trials("cifar10", ablations(5000), 0, 5000, 2000)
    found += _trials("cifar10", transformer(network, size), 0, 5000, 2000)
    for seed in range(seeds):
        found += _trials("cifar100", transformer(network, size), seed, 20000, 10000)
        found += _trials("gtsrb", transformer(network, size), seed, 5000, 2000)
    for data, records, test in (
        *(("banking77", 10003, 3080), ("clinc150", 15000, 4500)),  # all of them
        *(("cifar10", 20000, 10000), ("cifar100", 20000, 10000)),
    ):
        found += _trials(data, sums(data), 0, records, test)
    for data in ("cifar10", "cifar100"):
        found += _trials(data, beside(data, 20000), 0, 20000, 10000)
    large = _trials("cifar10", core(20000), 0, 20000, 10000)
    found += [trial for trial in large if trial.row in ("instant scales", "tree 50 + scales")]
    return list({trial.name: trial for trial in reversed(found)}.values())[::-1]  # each once


def _from_sums(seed: int) -> list[Trial]:
    """The cells of one draw that tune nothing."""
    found = []
    for data in ("cifar10", "cifar100", "gtsrb"):
        found += _trials(data, sums(data), seed, 5000, 2000)
    found += _trials("orl_faces", sums("orl_faces"), seed, 280, 120)
    for data in ("banking77", "clinc150"):
        found += _trials(data, sums(data), seed, 5000, 2000)
    found += _trials("tv_dialogue", sums("tv_dialogue"), seed, 1344, 1328)
    return found


def _trials(data: str, rows: Rows, seed: int, records: int, test: int) -> list[Trial]:
    """A trial for each row."""
    return [Trial(data, row, seed, records, test, settings, comparison) for row, settings, comparison in rows]


def records_of(source: EmbeddedData, trial: Trial, split: str) -> Dataset:
    """Training records of the trial's seed, or the test records."""
    rows = rows_of(source, trial, split)
    table = pq.read_table(source.root / trial.data / f"{split}.parquet").take(rows)
    found = Dataset(table, split=NamedSplit(split))
    return found if trial.data in TEXTS else found.cast_column("image", Image(decode=False))


def rows_of(source: EmbeddedData, trial: Trial, split: str) -> NDArray[np.int64]:
    """Rows of the file."""
    return (
        np.arange(trial.test) if split == "test" else training_rows(source, trial.data, trial.records, trial.seed)
    )


def sign(row: dict[str, Any]) -> str:
    return f"{row['label']}-{row['track']}"


def opened(source: EmbeddedData, out: Path, trial: Trial) -> Eraser:
    """The trial's workspace with its records, made or continued."""
    config = trial.config.computed({"workers": source.workers, "device": source.device})
    folder = out / "workspaces" / trial.workspace
    eraser = Eraser(folder) if folder.exists() else Eraser.create(folder, config)
    if not eraser.workspace.records.count():
        eraser.add(records_of(source, trial, "train"), columns=Columns(positions=True))
    eraser.close()
    (folder / "lmeraser.toml").write_text(to_toml(config))
    return Eraser(folder)


def run(source: EmbeddedData, out: Path, trial: Trial) -> dict[str, Any]:
    """Measure one cell."""
    if trial.from_sums:
        return from_embeddings(source, trial)
    with opened(source, out, trial) as eraser:
        eraser.train()
        cost = eraser.cost(hits=4)
        evaluation = eraser.evaluate(records_of(source, trial, "test"), linear=False)
        found: dict[str, Any] = {"accuracy": evaluation.accuracy}
        found["calibration_error"] = evaluation.calibration_error
        found["parts"] = dict(evaluation.part_accuracy)
        found |= {"clusters": cost.clusters, "share": cost.simulated_share, "p95": cost.p95}
        return found | ({"share_of_a_sign": by_sign(source, eraser, trial)} if trial.data == "gtsrb" else {})


def from_embeddings(source: EmbeddedData, trial: Trial) -> dict[str, Any]:
    """Measure one cell that tunes nothing."""
    config = trial.config
    rows = rows_of(source, trial, "train")
    labels = source.column(trial.data, "train", "label")[rows]
    train = source.quantized(trial.data, "train", rows, config)
    test = source.quantized(trial.data, "test", rows_of(source, trial, "test"), config)
    truth = source.column(trial.data, "test", "label")[: trial.test]
    classes = int(max(source.column(trial.data, "train", "label").max(), truth.max())) + 1
    used = time.process_time()
    more: dict[str, Any] = {}
    if trial.comparison:
        compare = linear if trial.comparison == "linear" else nearest
        found, more = compare(dequantize(train)[:, :-1], labels, dequantize(test)[:, :-1], truth, classes)
        seconds = time.process_time() - used
    else:
        statistics = SufficientStatistics.zero(train.shape[1], classes).plus(train, labels.tolist())
        used = time.process_time()
        global_head(statistics.plus(train[:1], labels[:1].tolist(), -1), config.global_head)
        seconds = time.process_time() - used
        found = probabilities_of(global_head(statistics, config.global_head), test, config)
    right = float((found.argmax(axis=1) == truth).mean())
    return {
        "accuracy": right,
        "calibration_error": calibration_error(found, truth),
        "clusters": 1,
        "share": 1.0 if trial.comparison else 0.0,
        "p95": len(rows) if trial.comparison else 0,
        "width": train.shape[1] - 1,
        "bytes": train.shape[1] * 2,
        "embedding_ms": 1000 * source.seconds_a_record(trial.data, "train", config),
        "head_seconds": seconds,
        **more,
    }


def probabilities_of(head: dict[str, Array], test: QuantizedEmbeddings, config: Config) -> NDArray[np.float32]:
    """Probabilities as predictions have them, float32 [n, classes]."""
    inputs = dequantize(test)[:, :-1]
    weights = head["weight"][None]
    sharpness = config.global_head.sharpness
    parts = [probabilities(weights, inputs[start : start + 16], sharpness) for start in range(0, len(inputs), 16)]
    return np.concatenate(parts)


def linear(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    test: NDArray[np.float32],
    truth: NDArray[np.int64],
    classes: int,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Probabilities of a logistic regression; of the values of C the best on a fifth of the training records.

    Beside it the accuracy of the best C on the test records, which nobody could have chosen.
    """
    from sklearn.model_selection import ShuffleSplit
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        kept, held = next(ShuffleSplit(n_splits=1, test_size=0.2, random_state=0).split(train))
        scores = [fitted.score(train[held], labels[held]) for fitted in _regressions(train[kept], labels[kept])]
        best = int(np.argmax(scores))
        upper = 0.0
        found = np.zeros((len(test), classes), np.float32)
        for number, fitted in enumerate(_regressions(train, labels)):
            upper = max(upper, float(fitted.score(test, truth)))
            if number == best:
                found[:, fitted.classes_] = fitted.predict_proba(test)
    return found, {"C": REGULARISATION[best], "best_on_test": upper}


def _regressions(train: NDArray[np.float32], labels: NDArray[np.int64]) -> Iterator[Any]:
    """Logistic regressions for all values of C, each from the solution for the C before."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(tol=1e-3, max_iter=2000, warm_start=True)
    for c in REGULARISATION:
        yield fitted.set_params(C=c).fit(train, labels)


def nearest(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    test: NDArray[np.float32],
    truth: NDArray[np.int64],
    classes: int,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Shares of classes among the nearest records by cosine."""
    train = train / np.linalg.norm(train, axis=1, keepdims=True)
    found = np.zeros((len(test), classes), np.float32)
    for start in range(0, len(test), 500):
        order = np.argsort(-(test[start : start + 500] @ train.T), axis=1)[:, :NEIGHBOURS]
        for column in order.T:
            found[np.arange(start, start + len(order)), labels[column]] += 1 / NEIGHBOURS
    return found, {"neighbours": NEIGHBOURS}


def check(source: EmbeddedData, out: Path, trial: Trial) -> str:
    """Whether a workspace has the same head and the same accuracy as the row from files."""
    expected = from_embeddings(source, trial)
    config = trial.config
    rows = rows_of(source, trial, "train")
    labels = source.column(trial.data, "train", "label")[rows]
    train = source.quantized(trial.data, "train", rows, config)
    with opened(source, out, trial) as eraser:
        eraser.train()
        workspace = eraser.workspace
        model = workspace.generations.require()
        statistics = SufficientStatistics.zero(train.shape[1], len(model.classes)).plus(train, labels.tolist())
        head = to_bytes(global_head(statistics, config.global_head))
        assert model.global_head is not None
        equal = workspace.store.read(model.global_head.artifact) == head
        found = eraser.evaluate(records_of(source, trial, "test"), linear=False)
    same = found.accuracy == expected["accuracy"]
    return (
        f"{trial.name}: head {'identical' if equal else 'DIFFERENT'}, accuracy {'equal' if same else 'DIFFERENT'}"
    )


def by_sign(source: EmbeddedData, eraser: Eraser, trial: Trial) -> float:
    """Mean share tuned again by a request that names one sign; hits of a sample not included."""
    model = eraser.workspace.generations.require()
    if not model.tuned:
        return 0.0
    numbers = model.cluster_numbers(eraser.workspace.records.derived.trie_keys(model.partition.key))
    sizes = {cluster.number: cluster.records for cluster in model.clusters}
    touched: dict[str, set[int]] = {}
    for position, row in enumerate(records_of(source, trial, "train").remove_columns("image")):
        touched.setdefault(sign(row), set()).add(numbers[f"train-{position:08d}"])
    return statistics.mean(sum(sizes[n] for n in found) for found in touched.values()) / model.records


def report(out: Path) -> None:
    """Table of what was measured, as text and Markdown, and a picture."""
    cells: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for file in sorted(out.glob("*.json")):
        cell = json.loads(file.read_text())
        cells.setdefault((cell["data"], cell["records"], cell["row"]), []).append(cell)
    names = ["data", "records", "row", "K", "share", "p95", "accuracy", "calibration error"]
    names += ["width", "bytes", "ms", "head s", "upper", "seeds"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for (data, records, row), found in cells.items():
        right = [cell["accuracy"] for cell in found]
        spread = f" ± {statistics.stdev(right):.4f}" if len(right) > 1 else ""
        share, clusters, p95 = (
            statistics.mean(cell[name] for cell in found) for name in ("share", "clusters", "p95")
        )
        mean = f"{statistics.mean(right):.4f}{spread}"
        error = _over(statistics.mean, found, "calibration_error", ".3f")
        costs = [
            _over(min if name in TIMES else statistics.mean, found, name, form) for name, form in COSTS.items()
        ]
        values = (
            data,
            records,
            row,
            f"{clusters:.0f}",
            f"{share:.4f}",
            f"{p95:.0f}",
            mean,
            error,
            *costs,
            len(right),
        )
        lines.append(f"| {' | '.join(map(str, values))} |")
    text = "\n".join([*matrix(cells), "", *lines]) + "\n"
    write_atomic(out / "frontier.md", text.encode())
    print(text)
    draw(cells, out / "frontier.png")


def matrix(cells: dict[tuple[str, int, str], list[dict[str, Any]]]) -> list[str]:
    """Rows that tune nothing, with a column for each data set: accuracy, its deviation, calibration error.

    Behind a stroke the accuracy of a linear classifier with the C that is best on the test records.
    """
    panels = list(dict.fromkeys((trial.data, trial.records) for trial in _from_sums(0)))
    rows = list(dict.fromkeys(trial.row for trial in _from_sums(0)))
    lines = [f"| | {' | '.join(f'{data} ({records:,})' for data, records in panels)} |"]
    lines.append("|---" * (len(panels) + 1) + "|")
    for row in rows:
        values = []
        for panel in panels:
            found = cells.get((*panel, row), [])
            right = [cell["accuracy"] for cell in found]
            upper = _over(statistics.mean, found, "best_on_test", ".4f")
            mean = f"{statistics.mean(right):.4f}" if right else ""
            spread = f" ± {statistics.stdev(right):.4f}" if len(right) > 1 else ""
            error = f" ({_over(statistics.mean, found, 'calibration_error', '.2f')})" if right else ""
            values.append(mean + (f" / {upper}" if upper else "") + spread + error)
        lines.append(f"| {row} | {' | '.join(values)} |")
    return lines


def _over(average: Callable[[list[float]], float], found: list[dict[str, Any]], name: str, form: str) -> str:
    values = [cell[name] for cell in found if name in cell]
    return f"{average(values):{form}}" if values else ""


def draw(cells: dict[tuple[str, int, str], list[dict[str, Any]]], file: Path) -> None:
    """Accuracy over share, one panel for each data set; what needs no tuning stands at the left edge."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({key[:2] for key in cells})
    lines = -(-len(panels) // _ABREAST)
    size = (6 * _ABREAST, 9 * lines)
    figure, every = plt.subplots(lines, _ABREAST, figsize=size, squeeze=False, layout="constrained")
    for axes in every.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(every.flat, panels, strict=False):
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
    parser.add_argument("--seeds", type=int, default=3, help="draws of training records")
    parser.add_argument("--embeddings", type=Path, help="where embeddings are kept (default: embeddings in --out)")
    parser.add_argument("--workers", type=int, default=1, help="threads that embed and tune")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--vit", default="", help="network of the rows with a ViT (default: the small one in --data)"
    )
    parser.add_argument("--vit-size", type=int, default=98, help="side of its input, px")
    parser.add_argument("--check", action="store_true", help="compare with workspaces, instead of measuring")
    options = parser.parse_args()
    embeddings = options.embeddings or options.out / "embeddings"
    source = EmbeddedData(options.data, embeddings, options.workers, options.device)
    network = options.vit or str(options.data / "weights" / "vit-small-saliency")
    every = trials(options.seeds, network, options.vit_size)
    todo = [trial for trial in every if re.search(options.only, trial.name)]
    if options.check:
        for trial in todo:
            if trial.from_sums and not trial.comparison:
                print(check(source, options.out, trial), flush=True)
        return
    for number, trial in enumerate(todo):
        file = options.out / f"{trial.name}.json"
        if not options.report and not file.exists():
            print(f"{number + 1} of {len(todo)}: {trial.name}", flush=True)
            result = run(source, options.out, trial)
            cell = {key: value for key, value in asdict(trial).items() if key != "settings"}
            write_atomic(file, json.dumps({**cell, **result}, indent=1).encode())
    report(options.out)


if __name__ == "__main__":
    main()
