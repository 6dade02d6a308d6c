"""The examples run, on real data or on what scikit-learn brings."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.long
def test_cifar10_with_prompts_is_identical_to_retraining(data: Path, tmp_path: Path) -> None:
    options = [
        "--records",
        "120",
        "--test",
        "60",
        "--prompts",
        "--clusters",
        "4",
        "--epochs",
        "1",
        "--image-size",
        "32",
    ]
    output = run("cifar10.py", "--data", str(data / "cifar10"), "--workspace", str(tmp_path), *options)
    assert "identical to retraining: yes" in output
    assert "linear classifier on the same features" in output


@pytest.mark.long
def test_one_of_forty_people_is_forgotten_with_prompts(data: Path) -> None:
    options = ["--person", "7", "--prompts", "--clusters", "4", "--epochs", "2", "--image-size", "32"]
    output = run("forget_a_person.py", "--data", str(data / "orl_faces"), *options)
    assert "identical to retraining without person 7: yes" in output
    assert "7 pictures deleted" in output


@pytest.mark.long
def test_one_of_forty_people_is_forgotten_and_nothing_tuned_again(data: Path) -> None:
    faces = run("forget_a_person.py", "--data", str(data / "orl_faces"), "--image-size", "32")
    assert "7 pictures deleted, nothing tuned again" in faces
    assert "identical to retraining without person 7: yes" in faces


@pytest.mark.long
def test_by_default_nothing_is_tuned(data: Path, tmp_path: Path) -> None:
    options = ["--records", "40", "--test", "10", "--image-size", "32"]
    output = run("cifar10.py", "--data", str(data / "cifar10"), "--workspace", str(tmp_path), *options)
    assert "forgot 20 records at once: nothing tuned again" in output
    assert "identical to retraining: yes" in output


@pytest.mark.long
def test_a_customer_is_forgotten_from_a_table_of_either_kind(data: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(data / "banking77" / "train.parquet").head(60)
    table.drop(columns="id").to_csv(tmp_path / "tickets.csv", index=False)
    for source in (data / "banking77" / "train.parquet", tmp_path / "tickets.csv"):
        output = run("forget_a_customer.py", "--data", str(source), "--rows", "60", "--forget", "2")
        assert "45 tickets" in output
        assert "2 tickets forgotten" in output
        assert "identical to retraining without them: yes" in output


@pytest.mark.long
def test_a_speaker_is_forgotten(data: Path) -> None:
    options = ["--rows", "60", "--speaker", "Monica Geller"]
    output = run("forget_a_speaker.py", "--data", str(data / "tv_dialogue"), *options)
    assert "before: 60 lines" in output
    assert "Monica Geller is forgotten" in output
    assert "identical to retraining without Monica Geller: yes" in output


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(path.name for path in TUTORIALS.glob("*.py")))
def test_a_tutorial_runs(name: str) -> None:
    """They compare what they claim themselves; `make docs` runs them, too."""
    assert run(str(TUTORIALS / name))


def test_embeddings_are_unlearned_in_any_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:  # in this process, which has loaded scikit-learn
        runpy.run_path(str(EXAMPLES / "embeddings.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "1470 records are left" in output
    assert "identical to training without them, in another order: yes" in output
    assert "- subject 'person 7'" in output
