"""The facade: every verb, from Python, on the workspace of a fixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from datasets import Image
from PIL import Image as PillowImage

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, digits, tiny_config
from fake import Fake
from lmeraser import Eraser
from lmeraser.config.toml_file import to_toml
from lmeraser.data.images import load_image
from lmeraser.errors import CorruptError, ImageError, InputError, NoModelError, SourceError, WorkspaceError


def test_settings_may_be_a_dictionary_on_top_of_a_preset(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", {"tuning": {"epochs": 3}}, preset="paper") as eraser:
        assert eraser.workspace.config.tuning.epochs == 3
        assert eraser.workspace.config.partition.linkage == "average"


def test_a_missing_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="lmeraser -w DIR init"):
        Eraser(tmp_path)


@pytest.mark.parametrize("root", ["", None, 5])
def test_what_is_no_path_makes_and_opens_nothing(
    root: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty text would be the working directory."""
    monkeypatch.chdir(tmp_path)
    for use in (Eraser.create, Eraser):
        with pytest.raises(InputError, match="Not a path"):
            use(root)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("classes", [[0, 1], "ab", ["a", "a\x1b[2J"]])
def test_names_of_classes_are_texts_that_can_be_shown(classes: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Eraser.create(tmp_path / "w", classes=classes)
    assert list(tmp_path.iterdir()) == []


def test_arguments_of_another_type_are_refused_before_anything_is_done(eraser: Eraser, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: eraser.request(ids=["digit-0002"], reference=17),  # type: ignore[arg-type]
        lambda: eraser.relabel(1, ids=["digit-0002"]),  # type: ignore[arg-type]
        lambda: eraser.predict_top_k([], 1.5),  # type: ignore[arg-type]
        lambda: eraser.export(tmp_path / "out", format="zip"),  # type: ignore[arg-type]
        lambda: eraser.export(""),
        lambda: eraser.extend_classes([10]),  # type: ignore[list-item]
        lambda: eraser.residue(),  # nothing is left of nothing, which is no evidence
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()
    assert eraser.requests() == []
    assert eraser.exports() == []
    assert not (tmp_path / "out").exists()


def test_predictions_name_class_probability_and_cluster(eraser: Eraser, tmp_path: Path) -> None:
    data = eraser.workspace.records.payloads(["digit-0003"])[0]
    (tmp_path / "three.png").write_bytes(data)
    by_path, by_bytes = eraser.predict([tmp_path / "three.png"])[0], eraser.predict([data])[0]
    assert by_path == by_bytes
    assert by_path.class_name in DIGIT_CLASSES
    assert 0.1 <= by_path.probability <= 1
    assert set(by_path.clusters) <= {cluster.number for cluster in eraser.workspace.generations.require().clusters}


def test_predicting_nothing_is_an_empty_list(eraser: Eraser) -> None:
    assert eraser.predict([]) == []


def test_an_image_that_does_not_decode_is_named(eraser: Eraser, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and nothing else")
    with pytest.raises(ImageError, match=r"broken\.png"):
        eraser.predict([tmp_path / "broken.png"])
    with pytest.raises(InputError, match=r"missing\.png"):
        eraser.predict([tmp_path / "missing.png"])


def test_evaluation_with_the_linear_classifier_beside_it(eraser: Eraser) -> None:
    report = eraser.evaluate(digits(range(100, 140)), columns=DIGIT_COLUMNS)
    assert report.embedding_accuracy is None  # the features of the clean view are the embedding
    assert 0 <= report.calibration_error <= 1
    assert report.images == 40
    assert report.linear_accuracy is not None
    assert 0.2 < report.linear_accuracy <= 1
    assert sum(entry.images for entry in report.per_class) == 40
    weighted = sum(entry.images * entry.accuracy for entry in report.per_class) / 40
    assert weighted == pytest.approx(report.accuracy)
    assert eraser.evaluate(digits(range(5)), columns=DIGIT_COLUMNS, linear=False).linear_accuracy is None


def test_evaluation_learns_on_what_it_was_tuned_on(tmp_path: Path) -> None:
    config = tiny_config(tuning={"epochs": 15, "head_learning_rate": 0.01}, partition={"clusters": 2})
    with Eraser.create(tmp_path / "w", config) as eraser:
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
        assert eraser.evaluate(digits(range(20)), columns=DIGIT_COLUMNS, linear=False).accuracy > 0.9


def test_every_fault_of_an_evaluation_is_listed(eraser: Eraser) -> None:
    rows = list(digits([1, 2, 3]).cast_column("image", Image(decode=False)))
    rows[1]["label"] = 17
    rows[2]["image"] = {"bytes": b"broken", "path": None}
    from datasets import Dataset, Features, Value

    features = Features(
        {"id": Value("string"), "writer": Value("string"), "image": Image(), "label": Value("int64")}
    )
    with pytest.raises(SourceError) as caught:
        eraser.evaluate(Dataset.from_list(rows, features=features), columns=DIGIT_COLUMNS)
    assert len(caught.value.faults) == 2
    assert "unknown label '17'" in str(caught.value)  # the classes are named by numbers


def test_an_empty_model_refuses_to_predict(eraser: Eraser) -> None:
    data = eraser.workspace.records.payloads(["digit-0003"])
    eraser.unlearn(subjects=[f"w{number}" for number in range(5)])
    assert eraser.status().records == 0
    assert eraser.status().up_to_date
    with pytest.raises(NoModelError, match="no record is left"):
        eraser.predict(data)


def test_a_model_of_one_class_predicts_it(tmp_path: Path) -> None:
    ones = [number for number in range(60) if digits([number])[0]["label"] == 1]
    with Eraser.create(tmp_path / "w", tiny_config()) as eraser:
        eraser.add(digits(ones), columns=DIGIT_COLUMNS)
        eraser.train()
        report = eraser.evaluate(digits(ones), columns=DIGIT_COLUMNS)
        assert report.accuracy == 1
        assert report.linear_accuracy is None


def test_progress_is_told_of_every_long_step(tmp_path: Path) -> None:
    told: dict[str, tuple[int, int | None]] = {}

    def note(step: str, done: int, total: int | None) -> None:
        told[step] = (done, total)

    with Eraser.create(tmp_path / "w", tiny_config(), progress=note) as eraser:
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
    assert told["importing records"] == (20, 20)
    assert told["tuning clusters"] == (40, 40)
    assert {"embedding records", "assigning records", "loading the backbone", "purging"} <= told.keys()


def test_the_served_model_predicts_with_its_own_settings(eraser: Eraser) -> None:
    data = eraser.workspace.records.payloads(["digit-0003"])
    expected = eraser.predict(data)
    settings = tiny_config(backbone={"image_size": 48, "micro_batch": 6})
    (eraser.workspace.root / "lmeraser.toml").write_text(to_toml(settings))
    with Eraser(eraser.workspace.root) as other:
        assert not other.status().up_to_date
        assert other.predict(data) == expected
        assert other.evaluate(digits(range(20)), columns=DIGIT_COLUMNS).linear_accuracy is not None


def test_a_missing_artifact_is_said_and_derived_again(eraser: Eraser) -> None:
    data = eraser.workspace.records.payloads(["digit-0003"])
    expected = eraser.predict(data)
    for path in (eraser.workspace.root / "artifacts").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(CorruptError, match="lmeraser train"):
        eraser.predict(data)
    eraser.train()
    assert eraser.predict(data) == expected


def test_sampled_ids_are_those_whose_plan_hits_the_sample(eraser: Eraser) -> None:
    sampled = set(eraser.sampled_ids())
    assert len(sampled) == 12
    for record_id in eraser.record_ids()[:10]:
        assert eraser.plan(ids=[record_id]).sample_hit == (record_id in sampled)


def test_a_list_that_happens_to_be_empty_carries_nothing_out(eraser: Eraser) -> None:
    accepted = eraser.request(ids=["digit-0001"])
    given: list[dict[str, list[str]]] = [{"ids": []}, {"subjects": []}, {"ids": [], "subjects": []}]
    for names in given:
        with pytest.raises(InputError, match="No record or subject named"):
            eraser.unlearn(ids=names.get("ids"), subjects=names.get("subjects"))
        with pytest.raises(InputError, match="No record or subject named"):
            eraser.request(ids=names.get("ids"), subjects=names.get("subjects"))
    assert [(request.id, request.state) for request in eraser.requests()] == [(accepted.id, "pending")]
    assert [request.state for request in eraser.unlearn().requests] == ["completed"]


# --- what people hand in ------------------------------------------------------------------------------------


def test_an_image_is_the_same_in_a_file_and_in_memory(eraser: Eraser, tmp_path: Path) -> None:
    data = eraser.workspace.records.payloads(["digit-0003"])[0]
    path = tmp_path / "three.png"
    path.write_bytes(data)
    opened = PillowImage.open(path)
    grey = np.asarray(PillowImage.open(path))
    rgb = np.asarray(PillowImage.open(path).convert("RGB"))
    given: list[Any] = [
        str(path),
        path,
        data,
        bytearray(data),
        opened,
        PillowImage.open(path).convert("RGB"),
        grey,
        rgb,
    ]
    assert len(set(eraser.predict(given))) == 1
    assert eraser.predict(rgb[None]) == eraser.predict([path]), "an array of images is a list of them"


def test_a_photo_that_pillow_has_opened_is_turned_upright_as_its_file_is(tmp_path: Path) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    PillowImage.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path, exif=exif, quality=100)
    assert load_image(PillowImage.open(path)).tobytes() == load_image(path).tobytes()
    assert load_image(load_image(path)).tobytes() == load_image(path).tobytes()


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ("one.png", "list is expected"),
        (b"bytes", "list is expected"),
        (Path("one.png"), "list is expected"),
        (PillowImage.new("L", (4, 4)), "list is expected"),
        (np.zeros((4, 4, 3), np.uint8), "list is expected"),
        (7, "list is expected"),
        ([7], "Not an image"),
        ([None], "Not an image"),
        (["zero\0byte.png"], "Cannot read the image"),
        ([np.zeros((4, 4, 3), np.float32)], "Unsupported array"),
        ([np.zeros((4, 4, 5), np.uint8)], "Unsupported array"),
        ([np.zeros(4, np.uint8)], "Unsupported array"),
        ([np.zeros((0, 4, 3), np.uint8)], "no pixels"),
    ],
)
def test_what_is_no_list_of_images_is_refused(eraser: Eraser, images: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        eraser.predict(images)


@pytest.mark.parametrize("ids", [["5"], [5], [np.int64(5)], [np.float64(5)], np.array([5]), (5, "5")])
def test_a_number_is_the_name_that_it_is_written_as(numbered: Eraser, ids: Any) -> None:
    assert numbered.plan(ids=ids).records == 1
    assert numbered.plan(subjects=ids).records == 1


@pytest.mark.parametrize("names", ["5", 5, b"5", [5.5], [None], [b"5"], [["5"]], [True], np.array(5)])
def test_what_is_no_list_of_names_is_refused_and_deletes_nothing(numbered: Eraser, names: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: numbered.plan(ids=names),
        lambda: numbered.unlearn(subjects=names),
        lambda: numbered.request(ids=names),
        lambda: numbered.relabel("1", ids=names),
    ]
    before = numbered.requests()  # tests share the workspace
    for call in calls:
        with pytest.raises(InputError):
            call()
    assert numbered.requests() == before


@pytest.mark.parametrize("moment", [7, b"2026-01-31", "yesterday", "", "1970-01-01", date(9999, 12, 31)])
def test_what_is_no_time_of_a_request_is_refused(numbered: Eraser, moment: Any) -> None:
    before = numbered.requests()  # tests share the workspace
    for option in ("asked", "received"):
        with pytest.raises(InputError):
            numbered.request(ids=[5], **{option: moment})
    assert numbered.requests() == before


def test_times_of_a_request_are_times_days_or_text(numbered: Eraser) -> None:
    now = numbered.workspace.clock()
    day = (now - timedelta(days=3)).date()
    midnight = datetime.combine(day, time(tzinfo=UTC))
    for asked in (day, day.isoformat(), midnight, midnight.replace(tzinfo=None)):
        request = numbered.request(ids=[5], asked=asked, request=uuid4())
        assert request.asked == f"{day}T00:00:00Z"
        assert numbered.cancel(UUID(request.id)).state == "cancelled"
    with pytest.raises(InputError, match="UUID"):
        numbered.request(ids=[5], request="not a uuid")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eraser]:
    """Records whose ids and subjects are numbers; only asked about."""
    rows = digits(range(10, 16)).map(lambda _, n: {"id": str(n), "writer": str(n)}, with_indices=True)
    with Eraser.create(tmp_path_factory.mktemp("numbered") / "w", tiny_config()) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(rows, columns=DIGIT_COLUMNS)
        eraser.train()
        yield eraser


def test_probabilities_are_in_the_order_of_the_classes(eraser: Eraser) -> None:
    queries = eraser.workspace.records.payloads(["digit-0003", "digit-0004", "digit-0005"])
    probabilities = eraser.predict_proba(queries)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (3, len(eraser.classes))
    predictions = eraser.predict(queries)
    assert [eraser.classes[row.argmax()] for row in probabilities] == [one.class_name for one in predictions]
    assert [float(row.max()) for row in probabilities] == [one.probability for one in predictions]
    assert eraser.predict_proba([]).shape == (0, len(eraser.classes))
    best = eraser.predict_top_k(queries, 2)
    assert [pairs[0] for pairs in best] == [(one.class_name, one.probability) for one in predictions]
    assert all(len(pairs) == 2 and pairs[0][1] >= pairs[1][1] for pairs in best)
    assert [len(pairs) for pairs in eraser.predict_top_k(queries, 99)] == 3 * [len(eraser.classes)]
    with pytest.raises(InputError, match="k is 0"):
        eraser.predict_top_k(queries, 0)
    eraser.extend_classes(["eleven"])
    assert eraser.classes[-1] == "eleven"
    assert np.array_equal(eraser.predict_proba(queries), np.pad(probabilities, ((0, 0), (0, 1))))


def test_predictions_are_a_table_on_request(eraser: Eraser) -> None:
    predictions = eraser.predict(eraser.workspace.records.payloads(["digit-0003", "digit-0004"]))
    frame = predictions.to_frame()
    assert list(frame.columns) == ["label", "class_name", "probability", "clusters", "rerouted"]
    assert list(frame["class_name"]) == [one.class_name for one in predictions]
    assert list(eraser.predict([]).to_frame().columns) == list(frame.columns)


def test_notebooks_show_the_state_with_escapes(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "<b>w", tiny_config()) as eraser:
        assert repr(eraser) == f"Eraser({str(tmp_path / '<b>w')!r})"
        shown = eraser._repr_html_()
    assert shown is not None
    assert "&lt;b&gt;w" in shown
    assert "<b>" not in shown
    assert "not trained yet" in shown
