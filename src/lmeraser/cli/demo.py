"""End-to-end demo with two presets: train, evaluate, unlearn, and audit every deletion.

The records are handwritten digits or, if a table of them is given, texts of the user's own. The digits ship with
scikit-learn and the backbones' weights with packages, so nothing is downloaded. The time of each request is
compared with that of its audit, which derives the model from scratch on the same retained records.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lmeraser.config.presets import PresetName
from lmeraser.config.schema import Config, parse
from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.digests import Digest, canonical_json
from lmeraser.core.progress import Progress, silent
from lmeraser.data.modalities import payload_format
from lmeraser.data.rows import describe_fault
from lmeraser.data.sources import Columns, check_row, open_source
from lmeraser.eraser import Eraser
from lmeraser.errors import InputError, SourceError
from lmeraser.workspace.figures import draw_clusters, draw_sizes

if TYPE_CHECKING:
    from datasets import Dataset

    Rows: TypeAlias = Dataset | Sequence[Mapping[str, str]]

_COLUMNS = Columns(id="id")
_TEST_EVERY = 6  # every sixth digit is held out for evaluation
_BATCH = 20
_MARKER = "lmeraser-demo.json"
_MOST_TEXTS = (
    600  # soft tokens take a network's backward pass for every text, and every audit tunes them all again
)
_FEWEST_TEXTS = 48  # so that a batch leaves records of several classes


@dataclass(frozen=True)
class DemoRequest:
    """One deletion of the demo.

    Attributes:
        request: description of the request.
        records: number of deleted records.
        sample_hit: whether one of them was in the clustering sample.
        clusters_tuned: number of clusters tuned again.
        records_tuned: number of records in those clusters.
        seconds: time from the request to the new generation.
        seconds_from_scratch: time to derive the same model from scratch.
        ratio: ``seconds_from_scratch / seconds``.
        identical: whether the audit found every digest equal.
        accuracy: accuracy on the held-out records after the deletion.
    """

    request: str
    records: int
    sample_hit: bool
    clusters_tuned: int
    records_tuned: int
    seconds: float
    seconds_from_scratch: float
    ratio: float
    identical: bool
    accuracy: float


@dataclass(frozen=True)
class DemoMode:
    """Measurements with one preset.

    Attributes:
        preset: 'instant' or 'prompts'.
        clusters: number of clusters of the first model.
        expected_share: expected share of the records that a uniform request tunes again.
        train_seconds: duration of the first training.
        accuracy: accuracy on the held-out records before any deletion.
        linear_accuracy: accuracy of a linear classifier on the clean features of all records, for comparison.
        requests: the deletions.
        model_digest: digest of the last model.
    """

    preset: PresetName
    clusters: int
    expected_share: float
    train_seconds: float
    accuracy: float
    linear_accuracy: float | None
    requests: tuple[DemoRequest, ...]
    model_digest: Digest


@dataclass(frozen=True)
class DemoReport:
    """Measurements of the demo.

    Attributes:
        data: what the records are.
        records: number of records trained on.
        modes: measurements with each preset.
        pictures: paths of the pictures.
    """

    data: str
    records: int
    modes: tuple[DemoMode, ...]
    pictures: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether every audit found identical digests."""
        return all(request.identical for mode in self.modes for request in mode.requests)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "identical": self.identical}


def demo_config(preset: PresetName) -> Config:
    """Settings of the demo: a small input; for prompts a small sample, half the epochs, twice the rates."""
    values: dict[str, Any] = {"backbone": {"image_size": 48, "micro_batch": 16}}
    if preset == "prompts":
        values["partition"] = {"clusters": 18, "sample_size": 300}
        values["tuning"] = {"epochs": 5, "prompt_learning_rate": 0.06, "head_learning_rate": 0.006}
    return parse(values, base=preset)


def text_demo_config(preset: PresetName) -> Config:
    """Settings of the demo on texts: for prompts a small sample and few epochs."""
    values: dict[str, Any] = {"data": {"modality": "text"}}
    if preset == "prompts":
        values["partition"] = {"clusters": 8, "sample_size": 100}
        values["tuning"] = {"epochs": 3}
    return parse(values, base=preset)


def run_demo(out: Path, *, progress: Progress = silent) -> DemoReport:
    """Run the demo and write its workspaces, report and pictures to ``out``.

    Raises:
        InputError: ``out`` holds files that are not of an earlier demo.
    """
    title = "handwritten digits, EfficientNet-Lite0"
    return _run(out, title, *handwritten_digits(), demo_config, progress)


def run_text_demo(
    out: Path, source: Path, *, text: str | None = None, label: str = "label", progress: Progress = silent
) -> DemoReport:
    """Run the demo on the first texts of a table; arguments and output as of `run_demo`.

    Args:
        out: the output folder.
        source: the table, as `add` reads it.
        text: column of the text; None: the usual names are tried.
        label: column of the class.
        progress: receives progress reports.

    Raises:
        InputError: the table cannot be read or is too small; or as of `run_demo`.
        SourceError: rows are faulty; all of them are listed.
    """
    private, held_out = read_texts(source, Columns(payload=text, label=label))
    title = f"texts of {source.name}, {text_demo_config('instant').backbone.name}"
    return _run(out, title, private, held_out, text_demo_config, progress)


def _run(
    out: Path,
    title: str,
    private: Rows,
    held_out: Rows,
    config: Callable[[PresetName], Config],
    progress: Progress,
) -> DemoReport:
    _clear(out)
    with Eraser.create(out / "instant", config("instant"), progress=progress) as eraser:
        instant = _run_mode(eraser, "instant", private, held_out)
    with Eraser.create(out / "prompts", config("prompts"), progress=progress) as eraser:
        prompts = _run_mode(eraser, "prompts", private, held_out)
        pictures = _draw(eraser, out)
    report = DemoReport(title, len(private), (instant, prompts), pictures)
    write_atomic(out / _MARKER, canonical_json(report.to_json()))
    return report


def _run_mode(eraser: Eraser, preset: PresetName, private: Rows, held_out: Rows) -> DemoMode:
    eraser.add(private, columns=_COLUMNS)
    started = time.perf_counter()
    eraser.train()
    train_seconds = time.perf_counter() - started
    first = eraser.status()
    evaluation = eraser.evaluate(held_out, columns=_COLUMNS, on_embedding=False)
    sampled, ordinary = _split_by_sample(eraser)
    batch = _batch(ordinary, sampled)
    batches = {"ordinary": ordinary[:1], "sampled": sampled[:1], f"{len(batch)} at once": batch}
    return DemoMode(
        preset=preset,
        clusters=first.clusters,
        expected_share=first.expected_share,
        train_seconds=round(train_seconds, 2),
        accuracy=evaluation.accuracy,
        linear_accuracy=evaluation.linear_accuracy,
        requests=tuple(_unlearn(eraser, name, ids, held_out) for name, ids in batches.items() if ids),
        model_digest=eraser.model_digest,
    )


def print_demo(report: DemoReport) -> None:
    """Print the report as tables."""
    from lmeraser.core.console import print_facts, print_rows

    header = ["preset", "request", "clusters", "records", "seconds", "scratch", "accuracy", "same"]
    rows = [
        [
            mode.preset,
            request.request,
            request.clusters_tuned,
            request.records_tuned,
            request.seconds,
            request.seconds_from_scratch,
            request.accuracy,
            request.identical,
        ]
        for mode in report.modes
        for request in mode.requests
    ]
    print_rows("forgotten; clusters and records tuned again; seconds; same digest as retraining", header, rows)
    facts: dict[str, Any] = {"records": report.records}
    for mode in report.modes:
        facts |= {
            f"{mode.preset}: accuracy before": mode.accuracy,
            f"{mode.preset}: accuracy after": mode.requests[-1].accuracy,
            f"{mode.preset}: seconds of training": mode.train_seconds,
            f"{mode.preset}: share re-tuned by a request": mode.expected_share,
        }
    facts |= {
        "linear classifier, all records": report.modes[0].linear_accuracy,
        "identical to retraining": report.identical,
        "pictures": report.pictures,
    }
    print_facts(f"lmeraser demo: {report.data}", facts)


def _clear(out: Path) -> None:
    """Remove the output of an earlier demo in ``out``; reject any other content."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / _MARKER).exists()):
        raise InputError(
            "Output folder is not empty",
            got=f"{out} holds files that are not of an earlier demo",
            next_step="choose another folder with --out",
        )
    shutil.rmtree(out)


def handwritten_digits() -> tuple[Dataset, Dataset]:
    """Scikit-learn's handwritten digits as private and held-out records."""
    from datasets import ClassLabel, Dataset, Features, Image, Value
    from sklearn.datasets import load_digits

    loaded = load_digits()
    features = Features(
        {"id": Value("string"), "image": Image(), "label": ClassLabel(names=[str(d) for d in range(10)])}
    )
    rows = [
        {"id": f"digit-{number:04d}", "image": {"bytes": _png(pixels), "path": None}, "label": int(label)}
        for number, (pixels, label) in enumerate(zip(loaded.images, loaded.target, strict=True))
    ]
    private = [row for number, row in enumerate(rows) if number % _TEST_EVERY]
    return Dataset.from_list(private, features=features), Dataset.from_list(rows[::_TEST_EVERY], features=features)


def read_texts(source: Path, columns: Columns) -> tuple[Rows, Rows]:
    """The first texts of a table as private and held-out records; every class of the latter is one of the former.

    Raises:
        InputError: the table cannot be read, or has too few rows.
        SourceError: rows are faulty; all of them are listed.
    """
    opened = open_source(source, columns=columns, payloads=payload_format(text_demo_config("instant")))
    texts: list[dict[str, str]] = []
    faults: list[str] = []
    for row in islice(opened.rows, _MOST_TEXTS):
        checked = check_row(row, opened.classes, opened.classes, opened.check)
        if isinstance(checked, str):
            faults.append(describe_fault(row, checked))
        else:
            label = opened.classes[checked.label]
            texts.append({"id": row.id, "text": checked.payload.decode(), "label": label})
    if faults:
        raise SourceError("Source has invalid rows", faults=faults, next_step="correct the source")
    if len(texts) < _FEWEST_TEXTS:
        raise InputError(
            "Too few texts for the demo",
            got=f"{source} has {len(texts)}",
            next_step=f"give a table of at least {_FEWEST_TEXTS} rows",
        )
    private = [text for number, text in enumerate(texts) if number % _TEST_EVERY]
    known = {text["label"] for text in private}
    return private, [text for text in texts[::_TEST_EVERY] if text["label"] in known]


def _png(pixels: Any) -> bytes:
    """Encode a digit, values 0 to 16 in [8, 8], as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def _split_by_sample(eraser: Eraser) -> tuple[list[str], list[str]]:
    """Record ids inside and outside the clustering sample."""
    sample = eraser.sampled_ids()
    return sample, sorted(set(eraser.record_ids()) - set(sample))


def _batch(ordinary: Sequence[str], sampled: Sequence[str]) -> list[str]:
    """A batch of records spread over the data, two of them sampled if possible; omits the first of each list."""
    chosen = sampled[1:3]
    step = max(1, len(ordinary) // _BATCH)
    return [*ordinary[1::step][: _BATCH - len(chosen)], *chosen]


def _unlearn(eraser: Eraser, request: str, ids: Sequence[str], held_out: Rows) -> DemoRequest:
    plan = eraser.plan(ids=ids)
    report = eraser.unlearn(ids=ids)
    started = time.perf_counter()
    audit = eraser.audit()
    from_scratch = time.perf_counter() - started
    accuracy = eraser.evaluate(held_out, columns=_COLUMNS, linear=False).accuracy
    assert report.training is not None
    return DemoRequest(
        request=request,
        records=len(report.selection.ids),
        sample_hit=plan.sample_hit,
        clusters_tuned=report.training.stage_counts["tuned"],
        records_tuned=report.training.stage_counts["tuned_records"],
        seconds=round(report.seconds, 3),
        seconds_from_scratch=round(from_scratch, 3),
        ratio=round(from_scratch / report.seconds, 2),
        identical=audit.identical,
        accuracy=accuracy,
    )


def _draw(eraser: Eraser, out: Path) -> tuple[str, ...]:
    """Draw the last model; after the deletions, so that the pictures show no forgotten record."""
    model = eraser.workspace.generations.require()
    sizes = out / "sizes.png"
    draw_sizes(model, sizes)
    if not eraser.payload_format.has_pictures:
        return (str(sizes),)
    clusters = out / "clusters.png"
    draw_clusters(eraser.workspace, model, clusters)
    return str(clusters), str(sizes)
