"""Reports for people are in words, show nothing empty, and end with the command that comes next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from lmeraser.cli import words
from lmeraser.cli.commands.base import global_options
from lmeraser.cli.words import after_status, command, in_words

TRAINING = {
    "generation": 3,
    "model_digest": "sha256:ab",
    "changed": True,
    "records": 0,
    "stage_counts": {"tuned": 2, "tuned_records": 9, "solved": 0, "new_stage": 1},
    "ran": {"tuned": 2},
    "tuning_seconds": 0.25,
    "purged": 0,
}


def test_fields_have_words_and_what_is_empty_is_left_out() -> None:
    assert in_words(TRAINING) == {
        "generation": 3,
        "digest of the model": "sha256:ab",
        "new generation": True,
        "records": 0,
        "computed": "clusters tuned: 2, records in these: 9, new_stage: 1",
        "tuning seconds": 0.25,
    }
    assert in_words({"next_due": None, "late": [], "fingerprints": ["one"], "classes": [], "duplicates": 0}) == {}
    assert in_words({**TRAINING, "stage_counts": {"tuned": 0}}).keys().isdisjoint({"computed", "tuning seconds"})
    shown = in_words({"classes": [str(number) for number in range(100)]})["classes"]
    assert shown == [*map(str, range(10)), "and 90 more"]
    assert in_words({"batches": {1: 0.0, 10: 0.25}}) == {"share tuned again by a batch of requests": "10: 0.25"}
    assert in_words({"age_seconds": 7200, "seconds_left": -90}) == {"age": "2 h", "time left": "1 min late"}


def test_no_word_stands_for_two_fields() -> None:
    assert len(set(words._WORDS.values())) == len(words._WORDS)


def test_a_command_names_the_workspace_as_a_shell_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(global_options, "workspace", Path("my workspace"))
    line = command("unlearn", "--id", "cat's")
    assert shlex.split(line) == ["lmeraser", "-w", "my workspace", "unlearn", "--id", "cat's"]
    monkeypatch.setattr(global_options, "workspace", Path())
    assert command("train") == "lmeraser train"


STATUS: dict[str, Any] = {"records": 5, "generation": 0, "up_to_date": True, "open_requests": 0}
STATUS |= {"compaction_due": False, "unfinished": []}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, []),
        ({"records": 0, "generation": None, "up_to_date": False}, ["add SOURCE"]),
        ({"generation": None, "up_to_date": False}, ["train"]),
        ({"up_to_date": False}, ["train"]),
        ({"up_to_date": False, "open_requests": 1}, ["unlearn"]),
        ({"open_requests": 2}, ["unlearn"]),
        ({"compaction_due": True}, ["purge"]),
    ],
)
def test_a_status_says_what_the_workspace_waits_for(
    monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], expected: list[str]
) -> None:
    monkeypatch.setattr(global_options, "workspace", Path())
    assert after_status({**STATUS, **state}) == [f"lmeraser {each}" for each in expected]


def test_every_report_for_people_is_in_words(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No field name of the JSON, no empty row; the suggested commands are commands."""
    monkeypatch.chdir(work.parent)
    w = ("-w", "w")
    request = "11111111-1111-4111-8111-111111111111"
    shown = [
        run(*w, "status"),
        run(*w, "plan", "--id", "digit-0001"),
        run(*w, "cost", "--hits", "0"),
        run(*w, "requests"),
        run(*w, "requests", "accept", "--id", "digit-0002", "--request", request),
        run(*w, "status"),
        run(*w, "unlearn"),
        run(*w, "requests"),
    ]
    for result in shown:
        assert result.code == 0, result.err
        assert "_" not in result.out.replace("hier_cluster", "").replace("prompt_head", ""), result.out
        assert not [line for line in result.out.splitlines() if line.rstrip().endswith((" -", "None"))]
    assert "no deletion requests" in shown[3].out
    assert f"next: lmeraser -w w unlearn --request {request}" in shown[4].out
    assert "next: lmeraser -w w unlearn" in shown[5].out
    assert f"request {request}: completed; certificate: w/certificates/{request}.json" in shown[6].out
    suggested = [line for result in shown for line in result.out.splitlines() if line.startswith("next: ")]
    for line in suggested:
        assert run(*shlex.split(line.removeprefix("next: "))[1:], "--help").code == 0


def test_every_command_prints_json(run: Run, tmp_path: Path) -> None:
    w = ("-w", tmp_path / "w")
    made = run(*w, "init", "--classes", "a,b", "--json").json
    assert (made["workspace"], made["preset"]) == (str(tmp_path / "w"), "instant")
    assert Path(made["settings"]).is_file()
    assert Path(made["public_key"]).is_file()
    assert run(*w, "config", "--json").json["global_head"]["weight"] == 1
