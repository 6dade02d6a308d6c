"""Runs of experiments: everything in miniature on real images, resumed, and refused where they make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import lmeraser.experiments.run as running
from conftest import Run, digits
from lmeraser.config.deployment import ComputeConfig
from lmeraser.errors import InputError
from lmeraser.experiments.catalog import load_catalog
from lmeraser.experiments.run import Choice
from lmeraser.experiments.run import run as run_experiments
from lmeraser.experiments.studies import STUDIES


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Digits in the place of CIFAR-10."""
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    digits(range(60)).to_parquet(folder / "train.parquet")
    digits(range(60, 90)).to_parquet(folder / "test.parquet")
    return tmp_path / "data"


def check_removal(out: Path, least: int = 4) -> None:
    """Unlearned models of exact methods are the retrained ones."""
    removal = json.loads((out / "results" / "removal.json").read_text())
    (models, *_) = removal["tables"]
    rows = [dict(zip(models["columns"], row, strict=True)) for row in models["rows"]]
    exact = [row for row in rows if "approximate" not in row["method"]]
    unlearned = [row for row in exact if row["model"] == "unlearned"]
    assert len(unlearned) >= least
    assert all(row["digest of the retrained model"] and row["average gap"] == 0 for row in unlearned)
    assert all(row["ToW"] == 1 and row["JS divergence"] == 0 for row in unlearned)


@pytest.mark.long
def test_removal_in_miniature(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run_experiments(["removal"], out, profile="tiny", root=pictures)
    assert set(ran.seconds) == {"removal"}
    assert not (out / "workspaces").exists()  # they hold the records
    check_removal(out)
    assert run_experiments(["removal"], out, profile="tiny", root=pictures).seconds == {}  # all of it is kept


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everything_in_miniature_on_real_images(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run_experiments(["all"], out, profile="tiny", root=data)
    assert set(ran.seconds) == {study.name for study in STUDIES}
    page = ran.report.read_text()
    assert all(study.title in page for study in STUDIES)
    assert not (out / "workspaces").exists()  # they hold the records
    check_removal(out)
    assert run_experiments(["all"], out, profile="tiny", root=data).seconds == {}  # all of it is kept


@pytest.mark.long  # what a run keeps of its steps is tested in test_step_cache and test_runner, too
def test_an_interrupted_run_goes_on(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "write_result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_experiments(["table1"], tmp_path / "out", profile="tiny", root=pictures)
    kept = sorted((tmp_path / "out" / "steps").iterdir())
    assert kept
    times = [file.stat().st_mtime_ns for file in kept]
    ran = run_experiments(["table1", "figure9"], tmp_path / "out", profile="tiny", root=pictures)
    assert set(ran.seconds) == {"table1", "figure9"}
    assert [file.stat().st_mtime_ns for file in kept] == times  # no step ran twice
    assert "Figure 9" in ran.report.read_text()


@pytest.mark.long
def test_workers_make_the_same_models(pictures: Path, tmp_path: Path) -> None:
    digests = []
    for place in ("local", "processes"):
        out = tmp_path / place
        compute = ComputeConfig(executor=place, processes=2)
        run_experiments(["figure8"], out, profile="tiny", root=pictures, compute=compute)
        steps = [json.loads(file.read_text()) for file in sorted((out / "steps").glob("*.json"))]
        digests.append([digest for step in steps if (digest := step["facts"].get("digest"))])
    assert digests[0] == digests[1]
    assert len(digests[0]) >= 3


EXAMPLE = Path(__file__).parents[2] / "examples" / "add_a_method.py"


def test_a_file_of_40_lines_adds_a_method_and_a_data_set(run: Run, tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    out = tmp_path / "out"
    chosen = ("--profile", "tiny", "--data", "digits8x8", "--methods", "linear,fine-tuning", "--seeds", 1)
    command = ("experiments", "run", "removal", *chosen, "--methods", "random-labels", "--with", EXAMPLE)
    assert set(run(*command, "--out", out, "--json").json["seconds"]) == {"removal"}
    check_removal(out, least=1)
    measured = pd.read_parquet(out / "measurements.parquet")
    assert measured.equals(pd.read_csv(out / "measurements.csv", dtype=str).fillna("").astype({"value": float}))
    unlearned = measured[(measured.table == "models") & (measured.model == "unlearned")]
    same = unlearned[unlearned.metric == "digest of the retrained model"].set_index("method").value
    assert same.to_dict() == {
        "Linear classifier": 1.0,
        "Fine-tuning (approximate)": 0.0,
        "Random labels (approximate)": 0.0,
    }
    page = (out / "report.html").read_text()
    assert "With Linear classifier: yes. In 1 of 1 deletions" in page
    assert "Its numbers mean nothing." in page
    assert {"random-labels"} <= set(run("experiments", "list", "--with", EXAMPLE, "--json").json["methods"])
    compared = run("experiments", "compare", out, out, "--json").json
    assert (compared["equal"], compared["different"]["rows"]) == (len(measured), [])
    assert "different" in run("experiments", "compare", out, out).out
    with pytest.raises(InputError, match="seeds: 1"):  # a folder holds one run
        run_experiments(
            ["removal"], out, profile="tiny", choice=Choice(data=("digits8x8",)), catalog=load_catalog([EXAMPLE])
        )


@pytest.mark.long
def test_removal_of_texts_in_miniature(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    choice = Choice(("lmeraser", "instant", "shared-head", "dam-vp", "gradient-ascent"), ("tv_dialogue",))
    run_experiments(["table1", "removal", "figure9"], out, profile="tiny", choice=choice, root=data)
    check_removal(out)
    assert json.loads((out / "results" / "figure9.json").read_text())["figures"] == []


def test_what_cannot_run_is_refused_and_leaves_nothing(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for names, options, message in (
        (["table9"], {}, "Experiment not found"),
        (["all"], {"profile": "huge"}, "Profile not found"),
        (["all"], {"root": tmp_path / "nothing"}, "No data set of the profile found"),
        (["all"], {"root": None}, "no folder was given"),
        (["all"], {"choice": Choice(methods=("magic",))}, "Method not found"),
        (["all"], {"choice": Choice(data=("mnist",))}, "Data set not found"),
        (["all"], {"choice": Choice(data=(str(tmp_path),))}, "pass it with --folder"),
        (["all"], {"choice": Choice(data=("clinc150",))}, "none of clinc150"),
        (["all"], {"choice": Choice(seeds=0)}, "Number of seeds is out of range"),
    ):
        with pytest.raises(InputError, match=message):
            run_experiments(names, out, **{"profile": "tiny", "root": pictures, **options})  # type: ignore[arg-type]
        assert not out.exists()


def test_a_folder_with_other_files_is_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("text")
    with pytest.raises(InputError, match="Output folder is not empty"):
        run_experiments(["clustering"], tmp_path / "other", profile="tiny", root=pictures)


def test_the_command_line_runs_and_lists_them(run: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("experiments", "run", "clustering", "--profile", "tiny", "--folder", pictures, "--out", out)
    assert set(run(*command, "--json").json["seconds"]) == {"clustering"}
    assert "report" in run(*command).out
    with pytest.raises(InputError, match="profile: tiny"):  # a folder holds one run
        run_experiments(["clustering"], out, profile="small", root=pictures)
    listed = run("experiments", "list", "--json").json
    assert set(listed["experiments"]) == {study.name for study in STUDIES}
    assert {"lmeraser", "sisa", "retrain"} <= set(listed["methods"])
    assert "Table II" in run("experiments", "list").out
    failed = run("experiments", "run", "table9", "--folder", pictures, "--out", out)
    assert failed.code == 2
    assert "next:" in failed.err
