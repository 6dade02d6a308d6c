"""The README's example runs, and its commands exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Image
from PIL import Image as PillowImage
from sklearn.base import clone
from sklearn.datasets import load_digits

from conftest import Run, digits
from lmeraser.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ROOT / "docs"
DOCS = {
    path.relative_to(PAGES).as_posix(): path.read_text()
    for path in PAGES.rglob("*.md")
    if not {"adr", "generated"} & set(path.parts)
}
COMMANDS = DOCS["start/commands.md"]
LINES_OF_THE_README = 150
DEPLOYED = Path(__file__).parents[1] / "deploy"


def test_the_readme_fits_on_a_page() -> None:
    assert len(README.splitlines()) <= LINES_OF_THE_README


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(digits(range(12)).cast_column("image", Image(decode=False)))
    for number, row in enumerate(rows):
        path = tmp_path / "photos" / str(row["label"]) / ("ann" if number == 7 else "bob") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"]["bytes"])
        (tmp_path / "new.png").write_bytes(row["image"]["bytes"])
    monkeypatch.chdir(tmp_path)
    code = README.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 12
    exec(compile(code, "README.md", "exec"), {})
    assert "'records_deleted': 1" in capsys.readouterr().out


def commands(section: str) -> list[str]:
    """The command lines in the first code block of a section."""
    block = COMMANDS.split(f"## {section}\n")[1].split("\n\n")[0]
    return [re.split(r"\s+#", line)[0].strip() for line in block.strip("\n").splitlines()]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands are typed."""
    rng = np.random.default_rng(0)

    def save(name: str, channel: int) -> None:
        pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[..., channel] += 150
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(pixels).save(path)

    for channel, name in enumerate(("cat", "dog")):
        for number in range(10):
            save(f"photos/{name}/{number:04d}.jpg", channel)
        save(f"held_out/{name}/0000.jpg", channel)
    save("new.jpg", 0)
    save("photo.jpg", 1)
    (tmp_path / "people.csv").write_text("id,subject\ncat/0004.jpg,patient 17\ndog/0004.jpg,patient 17\n")
    (tmp_path / "more.txt").write_text("dog/0003.jpg\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_find_the_records_that_they_name(photos: Path, run: Run) -> None:
    lines = commands("From the command line")
    for line in (*lines[:2], *(line for line in commands("Requests and evidence") if " requests accept " in line)):
        assert run(*shlex.split(line)[1:]).code == 0, line
    waiting = run(*shlex.split("lmeraser -w ws requests --json")[1:]).json
    assert len(waiting) == 1
    plan = next(line for line in lines if " plan " in line)
    assert shlex.split(plan)[-1] == "cat/0001.jpg"
    assert (photos / "photos" / "cat" / "0001.jpg").is_file()


@pytest.mark.long
def test_the_commands_run_as_they_are_written(photos: Path, run: Run) -> None:
    for line in (*commands("From the command line"), *commands("Requests and evidence")):
        if "https://AUTHORITY" in line:  # tests/evidence/test_timestamps.py has an authority of its own
            continue
        certificates = sorted((photos / "ws" / "certificates").glob("*.json"))
        words = [str(certificates[0]) if word == "CERTIFICATE" else word for word in shlex.split(line)[1:]]
        result = run(*words)
        assert result.code == 0, (line, result)


def test_the_scikit_learn_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    vectors, labels = load_digits(return_X_y=True)
    names: dict[str, Any] = {
        "ids": [f"ticket {number}" for number in range(100)],
        "subjects": [f"customer {number // 5}" for number in range(100)],
        "X": vectors[:100],
        "y": labels[:100],
        "X_new": vectors[100:103],
        "y_new": labels[100:103],
    }
    code = README.split("```python\n")[2].split("```")[0]
    assert len(code.strip().splitlines()) <= 6
    exec(compile(code, "README.md", "exec"), names)
    classifier = names["classifier"]
    assert classifier.class_count_.sum() == 100 - 5 - 1
    left = [number for number in range(100) if number != 17 and number // 5 != 4]
    anew = clone(classifier).fit(vectors[left], labels[left])
    assert classifier.coef_.tobytes() == anew.coef_.tobytes()
    assert capsys.readouterr().out.startswith("[[")


def test_every_command_is_documented() -> None:
    commands = [command for command in app.registered_commands if not command.hidden]  # hidden: deprecated names
    names = {command.name or command.callback.__name__ for command in commands if command.callback}
    documented = set(re.findall(r"lmeraser (?:-w ws )?([a-z]+)", COMMANDS))
    assert names <= documented | set(re.findall(r"`([a-z]+)`", COMMANDS))
    names |= {group.name for group in app.registered_groups if group.name}
    assert set(re.findall(r"lmeraser -w ws ([a-z]+)", README + COMMANDS)) <= names


def test_commands_in_the_docs_exist() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    names |= {group.name for group in app.registered_groups if group.name}
    for text in (*DOCS.values(), *(path.read_text() for path in DEPLOYED.iterdir())):
        assert set(re.findall(r"lmeraser -w \S+ ([a-z]+)", text)) <= names


def test_alerts_are_on_metrics_that_are_documented_and_are_explained() -> None:
    alerts = (DEPLOYED / "alerts.yml").read_text()
    known = set(re.findall(r"lmeraser_[a-z_]+", DOCS["service.md"]))
    assert {name.removesuffix("_count") for name in re.findall(r"lmeraser_[a-z_]+", alerts)} <= known
    assert set(re.findall(r"alert: (\w+)", alerts)) == set(re.findall(r"`(Erasure\w+)`", DOCS["deploy.md"]))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_alerts_go_off_when_they_should_and_only_then() -> None:
    file = str(Path(__file__).with_name("alerts.test.yml"))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_to_files_are_alive() -> None:
    root = Path(__file__).parents[1]
    places = r"`((?:docs|tests|examples|deploy|scripts|benchmarks|src)/[\w./]*)`"
    contributing = (root / "CONTRIBUTING.md").read_text()
    decisions = [path.read_text() for path in (root / "docs" / "adr").glob("*.md")]
    for text in (README, contributing, *DOCS.values(), *decisions):
        for name in re.findall(places, text):
            if name.startswith("docs/generated/"):  # written when the site is built, which checks such links
                continue
            assert list(root.glob(f"{name.rstrip('./')}*")), name
        for name in re.findall(r"!\[[^]]*\]\((\S+)\)", text):
            assert any((root / place / name).exists() for place in ("docs", "docs/start", ".")), name


@pytest.mark.long
@pytest.mark.parametrize("page", ["README.md", "docs/start/tour.md"])
def test_transcripts_show_what_is_printed(page: str) -> None:
    """`make docs` does the same, in the same way."""
    command = [sys.executable, str(ROOT / "scripts" / "transcripts.py"), str(ROOT / page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
