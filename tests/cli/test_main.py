"""Every command does its verb, every error is one message with its exit code, and quick commands load no torch."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from datasets import Image

import lmeraser
from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, Result, Run, Template, digits, listing, tiny_config
from lmeraser import Eraser
from lmeraser.cli import main as cli
from lmeraser.config.schema import parse
from lmeraser.config.toml_file import to_toml
from lmeraser.core.digests import Digest
from lmeraser.inference.summary import load_summary

COMMANDS = ["demo", "init", "add", "classes", "train", "status", "config", "doctor", "predict", "evaluate"]
COMMANDS += [
    "draw",
    "cost",
    "subjects",
    "records",
    "plan",
    "unlearn",
    "relabel",
    "audit",
    "ledger",
    "certificate",
    "verify",
    "timestamp",
    "residue",
    "purge",
    "upgrade",
    "pretrain",
    "convert",
    "serve",
    "backup",
    "restore",
    "replay",
    "export",
]
DEPRECATED = ["reapply"]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    digits(range(40, 52)).to_parquet(tmp_path / "digits.parquet")
    return tmp_path / "digits.parquet"


def pictures(folder: Path, numbers: range) -> Path:
    """Digits as files in one folder per class."""
    for row in digits(numbers).cast_column("image", Image(decode=False)):
        path = folder / str(row["label"]) / f"{row['id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"]["bytes"])
    return folder


def refused(result: Result, *parts: str, code: int = 2) -> None:
    """One message on standard error that holds these parts, nothing on standard output, no traceback."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("lmeraser: ")
    assert "Traceback" not in result.err
    assert all(part in result.err for part in parts), result.err


# --- help --------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_explains_it(run: Run) -> None:
    shown = run("--help")
    assert shown.code == 0
    registered = {
        command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands
    }
    assert registered == {*COMMANDS, *DEPRECATED}
    for command in cli.app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        assert command.hidden == (name in DEPRECATED)
        if command.hidden:
            continue
        first_words = " ".join((getattr(command.callback, "__doc__", "") or "").split()[:3])
        line = next(line for line in shown.out.splitlines() if line.strip("│ ").startswith(f"{name} "))
        assert first_words in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    shown = run(command, "--help")
    assert shown.code == 0
    assert "Usage" in shown.out


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version") == Result(0, f"{lmeraser.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["train", "--no-such-option"], ["add"], ["audit", "--clusters", "x"]]
)
def test_usage_errors_explain_themselves(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("arguments", [["add", ""], ["-w", "", "status"], ["predict", "--json", ""]])
def test_an_empty_argument_is_not_the_working_directory(run: Run, arguments: list[str]) -> None:
    refused(run(*arguments), "An argument is empty", "argument")


def test_what_the_system_refuses_is_one_message(run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(run("-w", trained, "predict", "x" * 5000), "Cannot read or write: xxx", "File name too long")

    def denied(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", denied)  # of a workspace of another user
    refused(run("-w", trained, "status"), "workspace.json: Permission denied", "permissions")
    with pytest.raises(PermissionError):
        run("-w", trained, "--debug", "status")
    refused(run("add", ""), "An argument is empty", "argument")  # the debugging was the other call's


@pytest.mark.parametrize("full", [True, False])
def test_a_report_that_cannot_be_printed(trained: Path, full: bool) -> None:
    """The disk of standard output is full, or it is closed, as some schedulers start processes."""
    command = f"{sys.executable} -m lmeraser -w {trained} classes {'> /dev/full' if full else '>&-'}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)

    assert done.returncode == (2 if full else 0), done.stderr
    assert ("No space left on device" in done.stderr) == full
    assert "Traceback" not in done.stderr


def _commands(group: Any, *names: str) -> Iterator[tuple[str, set[str]]]:
    """Every command that does something by itself, with its options."""
    inner = getattr(group, "commands", {})
    if not inner or group.invoke_without_command:
        yield " ".join(names), {option for parameter in group.params for option in parameter.opts}
    for name, command in inner.items():
        yield from _commands(command, *names, name)


def test_every_command_can_report_as_json() -> None:
    found = dict(_commands(typer.main.get_command(cli.app)))
    assert {"requests", "requests accept", "experiments run", "serve", "certificate"} <= found.keys()
    assert [name for name, options in found.items() if "--json" not in options] == []


_ENDING = """
import atexit, gc
from lmeraser.__main__ import main
atexit.register(lambda: print(gc.get_freeze_count() > 1000))
main()
"""


def test_the_last_collections_of_the_program_do_not_go_over_what_was_imported() -> None:
    command = [sys.executable, "-c", _ENDING, "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [lmeraser.__version__, "True"]


_QUICK = """
import json, sys
from lmeraser.cli.main import main
workspace, commands = sys.argv[1], json.loads(sys.argv[2])
done = []
for arguments in commands:
    sys.argv = ["lmeraser", "-w", workspace, *arguments]
    try:
        main()
    except SystemExit as stop:
        heavy = {"torch", "datasets", "transformers", "sklearn", "matplotlib", "numpy", "scipy"} & set(sys.modules)
        done.append([stop.code, sorted(heavy)])
print(json.dumps(done), file=sys.stderr)
"""


def test_quick_commands_load_no_torch_and_the_quickest_no_numpy(work: Path) -> None:
    """All in one process, because what a command has loaded stays loaded: nothing is loaded after the last."""
    with Eraser(work) as eraser:
        ordinary = sorted(set(eraser.record_ids()) - set(eraser.sampled_ids()))[0]
    without_numpy = [["status"], ["status", "--json"], ["plan", "--id", ordinary, "--json"], ["requests"]]
    without_numpy += [["ledger"], ["requests", "accept", "--id", ordinary], ["residue", "--id", "nobody-here"]]
    quick = [["config"], ["classes"], ["plan", "--id", "digit-0001"], ["plan", "--subject", "w1"]]
    quick += [["purge"], ["upgrade"], ["--help"]]
    command = [sys.executable, "-c", _QUICK, str(work), json.dumps(without_numpy + quick)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    done = json.loads(result.stderr.splitlines()[-1])
    assert done[: len(without_numpy)] == [[0, []]] * len(without_numpy)
    fitting = {"numpy", "scipy"}  # one of the planned records is one that the partition was fitted on
    assert [(code, set(heavy) - fitting) for code, heavy in done[len(without_numpy) :]] == [(0, set())] * len(
        quick
    )


INSTANT = {"backbone": {"image_size": 32, "micro_batch": 4}}


def _train_instant(root: Path) -> None:
    with Eraser.create(root, parse(INSTANT, base="instant")) as eraser:
        eraser.add(digits(range(12)), columns=DIGIT_COLUMNS)
        eraser.train()


def test_deletions_where_nothing_is_tuned_load_no_torch(template: Template, tmp_path: Path) -> None:
    """The backbone and its environment are known from the training, and nothing is computed with them."""
    root = shutil.copytree(template("instant", _train_instant), tmp_path / "w")
    with Eraser(root) as eraser:
        eraser.executor()  # the template may have been trained by another process, whose files were other ones
    vectors = tmp_path / "vectors"
    numbers = np.random.default_rng(0).standard_normal((12, 5))
    with Eraser.create(vectors, {"data": {"modality": "vector", "length": 5}}) as eraser:
        eraser.executor()
        eraser.add((numbers, ["even", "odd"] * 6))
        first = eraser.record_ids()[0]
    pending, carried_out = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    commands = [
        ["plan", "--id", "digit-0003"],
        ["unlearn", "--id", "digit-0003", "--request", carried_out],
        ["verify", f"{root}/certificates/{carried_out}.json", "--key", f"{root}/signing.pub"],
        ["requests", "accept", "--id", "digit-0004", "--request", pending],
        *(["requests"], ["status"], ["unlearn"], ["ledger"], ["residue", "--id", "digit-0003-is-gone"]),
        *(["train"], ["config"], ["classes"], ["purge"], ["keys"]),
        *(["-w", str(vectors), *words] for words in (["train"], ["unlearn", "--id", first])),
    ]
    command = [sys.executable, "-c", _QUICK, str(root), json.dumps(commands)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    done = json.loads(result.stderr.splitlines()[-1])
    assert [(code, set(heavy) - {"numpy"}) for code, heavy in done] == [(0, set())] * len(commands), result.stderr
    with Eraser(vectors) as eraser:
        assert eraser.audit().identical, "with what the network computes"
    with Eraser(root) as eraser, Eraser.create(tmp_path / "again", parse(INSTANT, base="instant")) as again:
        again.add(digits([number for number in range(12) if number not in (3, 4)]), columns=DIGIT_COLUMNS)
        again.train()
        assert eraser.model_digest == again.model_digest
        envelope = json.loads((root / "certificates" / f"{carried_out}.json").read_bytes())
        assert again.executor().describe()["canary"].encode() in base64.b64decode(envelope["payload"])


# --- reports -----------------------------------------------------------------------------------------------

TRAINING = {"generation", "model_digest", "changed", "records", "clusters", "tuning_seconds", "purged"}
TRAINING |= {"stage_counts", "ran"}  # the latter is the name of 0.1


def test_every_report_is_json_with_its_documented_keys(run: Run, tmp_path: Path, parquet: Path) -> None:
    """A whole life of a workspace through the command line."""
    (tmp_path / "mine.toml").write_text(to_toml(tiny_config()))
    w = ("-w", tmp_path / "w")
    assert run(*w, "init", "--config", tmp_path / "mine.toml").code == 0
    columns = ("--id-column", "id", "--subject-column", "writer")
    added = run(*w, "add", parquet, *columns, "--json").json
    zeros = dict.fromkeys(("present", "suppressed", "skipped", "duplicates"), 0)
    assert added == {
        **zeros,
        "added": 12,
        "public": None,
        "faults": [],
        "spellings": [],
        "passed_over": {},
        "hints": [],
    }
    assert run(*w, "classes", "--json").json == DIGIT_CLASSES
    empty = run(*w, "status", "--json").json
    assert (empty["records"], empty["generation"], empty["up_to_date"]) == (12, None, False)
    training = run(*w, "train", "--json").json
    assert training.keys() == TRAINING
    assert (training["changed"], training["records"]) == (True, 12)
    status = run(*w, "status", "--json").json
    assert status.keys() == {
        "records", "subjects", "classes", "generation", "model_digest", "manifest_digest", "parent",
        "up_to_date", "clusters", "largest_cluster", "expected_share", "p50", "p95", "max",
        "sample_hit_probability", "unfinished", "fitted_on", "constituents", "global_head", "backbone",
        "fingerprint", "fingerprints",
        "open_requests", "next_due", "compaction_due", "rewriting_due",
    }  # fmt: skip
    assert (status["model_digest"], status["up_to_date"]) == (training["model_digest"], True)
    image = next(pictures(tmp_path / "new", range(60, 62)).rglob("*.png"))
    (predicted,) = run(*w, "predict", image, "--json").json
    assert predicted.keys() == {"image", "label", "class_name", "probability", "clusters", "rerouted"}
    assert predicted["image"] == str(image)
    evaluated = run(*w, "evaluate", parquet, "--no-linear", "--json").json
    assert evaluated.keys() == {
        "images", "accuracy", "linear_accuracy", "embedding_accuracy", "calibration_error", "part_accuracy",
        "per_class", "clusters", "expected_share", "passed_over",
    }  # fmt: skip
    assert {entry["name"] for entry in evaluated["per_class"]} <= set(DIGIT_CLASSES)
    digest = status["model_digest"]
    found = load_summary(tmp_path / "w" / "reports", Digest(digest))
    assert found is not None
    assert (found.accuracy, found.images) == (evaluated["accuracy"], evaluated["images"])
    assert load_summary(tmp_path / "w" / "reports", Digest.of(b"another model")) is None
    planned = run(*w, "plan", "--id", "digit-0041", "--json").json
    assert planned.keys() == {
        "records", "already_deleted", "sample_hit", "affected", "clusters_to_tune", "records_to_tune",
        "share_to_tune", "estimated_seconds", "expected_share", "near_misses", "open_requests", "emptied_classes",
        "duplicates", "near_duplicates", "duplicates_selected", "due", "urgency",
    }  # fmt: skip
    forgotten = run(*w, "unlearn", "--id", "digit-0041", "--json").json
    assert forgotten.keys() == TRAINING | {
        "requests", "records_deleted", "already_deleted", "model_digest_before", "certificates", "seconds",
        "duplicates", "near_duplicates", "late",
    }  # fmt: skip
    assert (forgotten["records_deleted"], forgotten["model_digest_before"]) == (1, status["model_digest"])
    audited = run(*w, "audit", "--json")
    assert audited.code == 0
    assert audited.json.keys() == {
        "identical", "differences", "same_environment", "model_digest", "records", "clusters_checked", "clusters",
        "ran_on",
    }  # fmt: skip
    assert (audited.json["identical"], audited.json["records"]) == (True, 11)
    assert run(*w, "purge", "--json").json == []
    again = run(*w, "add", parquet, *columns, "--json").json
    assert (again["added"], again["present"], again["suppressed"]) == (0, 11, 1)


def test_the_doctor_reports_in_json(run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmeraser.pipeline.self_test.MIN_SECONDS", 0.05)
    report = run("-w", trained, "doctor", "--json")
    assert report.code == (0 if all(check["passed"] for check in report.json["checks"]) else 1)
    assert {"environment", "checks"} <= report.json.keys()


def test_the_doctor_says_what_a_gpu_needs(run: Run, trained: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    answer = run("-w", trained, "doctor", "--device", "cuda")
    assert answer.code == 2
    assert "no GPU" in answer.err
    assert "torch build for CUDA" in answer.err


def test_reports_for_people_hold_the_same_facts(
    run: Run, work: Path, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = ("-w", work)
    status = run(*w, "status", "--json").json
    shown = run(*w, "status").out
    assert status["model_digest"][:20] in shown
    assert "identical: " in run(*w, "audit", "--clusters", "1").out
    assert run(*w, "classes").out.split() == DIGIT_CLASSES
    assert run(*w, "config").out == to_toml(tiny_config())
    assert (
        "12 added, 0 already present"
        in run(*w, "add", parquet, "--id-column", "id", "--subject-column", "writer").out
    )
    drawn = tmp_path / "evaluation"
    assert "accuracy" in run(*w, "evaluate", parquet, "--no-linear", "--out", drawn).out
    assert {path.name for path in drawn.iterdir()} == {"confusion.png", "confusion.csv", "reliability.png"}
    pictures(tmp_path / "new", range(60, 61))
    monkeypatch.chdir(tmp_path)  # a short path stays on one line
    assert "digit-0060" in run(*w, "predict", "new").out
    assert run(*w, "train").code == 0
    assert "clusters to tune again" in run(*w, "plan", "--subject", "w1").out
    assert "records deleted" in run(*w, "unlearn", "--id", "digit-0001").out
    assert "0 files would be removed" in run(*w, "purge", "--dry-run").out


def test_skipped_rows_are_told(run: Run, work: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "new", range(60, 63))
    next(folder.rglob("*.png")).write_bytes(b"not an image")
    refused(run("-w", work, "add", folder), "Not an image file", "--skip-bad")
    result = run("-w", work, "add", folder, "--skip-bad")
    assert result.code == 0
    assert "2 added" in result.out
    assert "skipped: row" in result.err


# --- the workspace -----------------------------------------------------------------------------------------


def test_records_that_are_public_are_told_or_refused(run: Run, tmp_path: Path, parquet: Path) -> None:
    rows = digits(range(40, 43)).cast_column("image", Image(decode=False))
    backbone = listing(tmp_path / "backbone", [row["image"]["bytes"] for row in rows])
    settings = parse({"backbone": {"name": str(backbone), "image_size": 32}})
    (tmp_path / "mine.toml").write_text(to_toml(settings))
    w = ("-w", tmp_path / "w")
    run(*w, "init", "--config", tmp_path / "mine.toml")
    source = (parquet, "--id-column", "id")
    refusal = run(*w, "add", *source, "--refuse-public")
    refused(refusal, "faulty rows: 3\n", "digit-0040", "digit-0042", "trained on this file")
    assert run(*w, "status", "--json").json["records"] == 0
    assert run(*w, "add", *source, "--refuse-public", "--skip-bad", "--json").json["public"] == 0
    told = run(*w, "add", *source)
    assert told.out.splitlines()[:1] == ["3 added, 9 already present"]
    assert "public images among the added records: 3" in told.out
    digits(range(52, 55)).to_parquet(parquet)
    assert "no added record" in run(*w, "add", *source).out


def test_public_records_cannot_be_refused_without_a_list(run: Run, work: Path, parquet: Path) -> None:
    refused(run("-w", work, "add", parquet, "--id-column", "id", "--refuse-public"), "lmeraser pretrain")


def test_the_workspace_may_come_from_the_environment(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LMERASER_WORKSPACE", str(trained))
    assert run("status", "--json").json["records"] == 40
    refused(run("-w", tmp_path, "status"), "init")
    monkeypatch.delenv("LMERASER_WORKSPACE")
    monkeypatch.chdir(trained)
    assert run("status", "--json").json["records"] == 40


@pytest.mark.parametrize(
    "command", [["status"], ["train"], ["audit"], ["plan", "--id", "a"], ["unlearn", "--id", "a"]]
)
def test_without_a_workspace_every_command_says_how_to_make_one(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    refused(run("-w", tmp_path / "none", *command), "init")


def test_making_it_twice_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("-w", tmp_path / "w", "init", "--classes", "a, b").code == 0
    assert run("-w", tmp_path / "w", "classes", "--json").json == ["a", "b"]
    assert run("-w", tmp_path / "w", "classes", "--add", "c").out == "a\nb\nc\n"
    refused(run("-w", tmp_path / "w", "classes", "--add", "a"), "repeated")
    refused(run("-w", tmp_path / "w", "init"), "a workspace")


def test_settings_with_faults_make_no_workspace(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("sed = 1\n[tuning]\nepochs = 0\nrate = 1\n")
    result = run("-w", tmp_path / "w", "init", "--config", tmp_path / "mine.toml")
    refused(result, "mine.toml", "sed: unknown key", "tuning.rate: unknown key", "tuning.epochs", "mine.toml: 3\n")
    refused(run("-w", tmp_path / "w", "init", "--config", tmp_path / "none.toml"), "none.toml")
    refused(run("-w", tmp_path / "w", "init", "--preset", "best"), "'best'", "paper")
    assert not (tmp_path / "w").exists()


def test_the_papers_preset_is_made(run: Run, tmp_path: Path) -> None:
    assert run("-w", tmp_path / "w", "init", "--preset", "paper").code == 0
    assert "threshold = 10.0" in run("-w", tmp_path / "w", "config").out


# --- errors ------------------------------------------------------------------------------------------------


def test_with_the_instant_preset_nothing_is_tuned_and_everything_is_attested(
    run: Run, parquet: Path, tmp_path: Path
) -> None:
    work = tmp_path / "instant"
    settings = tmp_path / "small.toml"
    settings.write_text("[backbone]\nimage_size = 32\n")
    assert run("-w", work, "init", "--preset", "instant", "--config", settings).code == 0
    assert run("-w", work, "add", parquet, "--id-column", "id").code == 0
    trained = run("-w", work, "train", "--json").json
    counts = trained["stage_counts"]
    assert (counts["counted"], counts["solved"], counts["tuned"]) == (12, 1, 0)
    assert trained["ran"] == counts, "the name of 0.1"
    status = run("-w", work, "status", "--json").json
    assert (status["constituents"], status["global_head"], status["expected_share"]) == ("none", 1.0, 0.0)
    assert run("-w", work, "cost", "--json").json["max"] == 0
    assert run("-w", work, "plan", "--id", "digit-0041", "--json").json["records_to_tune"] == 0
    assert run("-w", work, "unlearn", "--id", "digit-0041").code == 0
    (certificate,) = (work / "certificates").glob("*.txt")
    assert "Global head        solved again" in certificate.read_text()
    assert run("-w", work, "audit").out.startswith("identical: the global head and 1 of 1 clusters")


def test_a_preset_that_does_not_exist_is_refused(run: Run, tmp_path: Path) -> None:
    refused(run("-w", tmp_path / "none", "init", "--preset", "nonsense"), "instant, ", "'nonsense'")
    assert not (tmp_path / "none").exists()


def test_sources_that_cannot_be_used_are_refused(run: Run, work: Path, parquet: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(run("-w", work, "add", tmp_path / "empty"), "No images in class folders")
    refused(run("-w", work, "add", tmp_path / "none" / "such"), "Source not found")
    refused(run("-w", work, "add", parquet, "--label-column", "digit"), "no digit in ", "(there are: id, writer")
    assert run("-w", work, "status", "--json").json["up_to_date"]


def test_unknown_names_are_all_listed(run: Run, work: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("nobody\n#1001\ndigit-0001\nno-one \n")
    for command in ("plan", "unlearn"):
        result = run("-w", work, command, "--ids-file", tmp_path / "ids.txt", "--subject", "w9", "--id", "none")
        refused(result, "nothing was deleted: 5\n", "'nobody'", "'#1001'", "'no-one '", "'none'", "'w9'")
        refused(run("-w", work, command), "--ids-file")
        refused(run("-w", work, command, "--ids-file", tmp_path / "none.txt"), "none.txt")
        (tmp_path / "empty.txt").write_text("\n")
        refused(run("-w", work, command, "--ids-file", tmp_path / "empty.txt"), "No record id", "empty.txt")
    assert run("-w", work, "status", "--json").json["records"] == 40


def test_unlearning_the_same_id_twice_is_unlearning_it_once(run: Run, work: Path) -> None:
    first = run("-w", work, "unlearn", "--id", "digit-0001", "--json").json
    second = run("-w", work, "unlearn", "--id", "digit-0001", "--id", "digit-0001", "--json").json
    assert (first["records_deleted"], second["records_deleted"]) == (1, 0)
    assert second["already_deleted"] == 1
    assert not second["changed"]
    assert second["model_digest"] == first["model_digest"]
    assert run("-w", work, "plan", "--id", "digit-0001", "--json").json["clusters_to_tune"] == 0


def test_images_that_cannot_be_predicted_are_named(run: Run, trained: Path, tmp_path: Path) -> None:
    good = next(pictures(tmp_path / "new", range(60, 61)).rglob("*.png"))
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:40])
    refused(run("-w", trained, "predict", good, tmp_path / "bad.png"), "bad.png")
    refused(run("-w", trained, "predict", good, tmp_path / "none.png"), "none.png")
    (tmp_path / "empty").mkdir()
    refused(run("-w", trained, "predict", tmp_path / "empty"), "without image files")


def test_labels_outside_the_known_classes_are_listed_at_evaluation(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "new", range(60, 63))
    first = next(folder.rglob("*.png"))
    for name in ("letter a", "letter b"):
        (folder / name).mkdir()
        (folder / name / "x.png").write_bytes(first.read_bytes())
    refused(run("-w", trained, "evaluate", folder), "unknown label 'letter a'", "'letter b'", "0, 1, 2")


def test_before_the_first_training_there_is_nothing_to_predict_or_audit(run: Run, tmp_path: Path) -> None:
    run("-w", tmp_path / "w", "init")
    refused(run("-w", tmp_path / "w", "train"), "lmeraser add")
    refused(run("-w", tmp_path / "w", "audit"), "lmeraser train")
    image = next(pictures(tmp_path / "new", range(60, 61)).rglob("*.png"))
    refused(run("-w", tmp_path / "w", "predict", image), "lmeraser train")


def artifacts(root: Path) -> list[Path]:
    return sorted((root / "artifacts").rglob("*.safetensors"))


def test_an_audit_finds_an_altered_artifact_and_lists_it(run: Run, work: Path) -> None:
    path = artifacts(work)[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = run("-w", work, "audit")
    assert result.code == 1
    assert "NOT identical" in result.out
    assert path.stem[:12] in result.out
    report = run("-w", work, "audit", "--json")
    assert report.code == 1
    assert len(report.json["differences"]) == 1
    assert not report.json["identical"]


def test_a_damaged_workspace_is_a_message(run: Run, work: Path, tmp_path: Path) -> None:
    image = next(pictures(tmp_path / "new", range(60, 61)).rglob("*.png"))
    contents = {path: path.read_bytes() for path in artifacts(work)}
    for path in contents:
        path.write_bytes(b"\x00")
    refused(run("-w", work, "predict", image), "does not match its digest")
    for path in contents:
        path.unlink()
    refused(run("-w", work, "predict", image), "are missing", "lmeraser train")
    for path, data in contents.items():
        path.write_bytes(data)
    for path in (work / "generations").glob("*.json"):
        path.write_bytes(b"{")
    refused(run("-w", work, "status"), "delete the folder generations")
    shutil.rmtree(work / "generations")
    digest = run("-w", work, "train", "--json").json
    assert digest["stage_counts"]["tuned"] == 0, "following the advice finds the finished parts"
    (work / "records.db").write_bytes(b"garbage" * 1000)
    refused(run("-w", work, "status"), "records.db", "backup")


def test_another_writer_is_named(run: Run, trained: Path, parquet: Path) -> None:
    with Eraser(trained).workspace.writing("train"):
        refused(
            run("-w", trained, "--wait", "0.1", "add", parquet), "'train', process", str(os.getpid()), "--wait"
        )


def test_a_name_that_is_not_utf_8_is_a_message(trained: Path) -> None:
    command = [
        sys.executable.encode(),
        b"-m",
        b"lmeraser",
        b"-w",
        os.fsencode(trained),
        b"plan",
        b"--id",
        b"\xff\xfe",
    ]
    result = subprocess.run(command, capture_output=True, check=False)
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    assert b"nothing was deleted: 1\n" in result.stderr


def test_tracebacks_are_shown_only_on_request(run: Run, tmp_path: Path) -> None:
    refused(run("-w", tmp_path, "status"))
    command = [sys.executable, "-m", "lmeraser", "-w", str(tmp_path)]
    long = subprocess.run([*command, "--debug", "status"], capture_output=True, text=True, check=False)
    assert "Traceback" in long.stderr


# --- interruption ------------------------------------------------------------------------------------------


def test_an_interrupted_command_says_that_it_can_be_run_again(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Eraser) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Eraser, "status", interrupt)
    result = run("-w", trained, "status")
    assert result.code == 130
    assert "Interrupted" in result.err
    assert "run the same command again" in result.err
    assert "Traceback" not in result.err


def test_control_c_stops_a_training_and_lets_go_of_the_workspace(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "w"
    with Eraser.create(root, tiny_config(tuning={"epochs": 100})) as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
    command = [sys.executable, "-m", "lmeraser", "-w", str(root), "train"]
    # A shell's background job, and all that it starts, ignores Ctrl-C; so may this suite.
    heeds = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeds) as process:
        limit = time.monotonic() + 120
        while not artifacts(root) and time.monotonic() < limit:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "run the same command again" in error
    assert "Traceback" not in error
    assert not (root / "lock.holder").exists()
    assert run("-w", root, "status", "--json").json["generation"] is None
