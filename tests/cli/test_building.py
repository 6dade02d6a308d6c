"""Commands are built when they are named, and the workspace may be named before the verb and after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.models import CommandInfo, TyperInfo

from conftest import Run
from lmeraser.cli import building
from lmeraser.cli.building import LazyCommands
from lmeraser.cli.main import app


def test_every_registered_command_is_there_and_only_the_named_one_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = list[str]()
    real = building._build

    def build(name: str, registered: CommandInfo | TyperInfo) -> Any:
        built.append(name)
        return real(name, registered)

    monkeypatch.setattr(building, "_build", build)
    commands = LazyCommands(app)
    assert len(commands) == len(app.registered_commands) + len(app.registered_groups)
    assert {"status", "requests"} <= set(commands)
    assert commands["status"] is commands["status"]
    assert built == ["status"]
    assert commands["requests"].name == "requests"
    assert set(commands["requests"].commands) >= {"accept", "cancel"}
    with pytest.raises(KeyError):
        commands["no such command"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-w", "W", "status", "--json"],
        ["status", "-w", "W", "--json"],
        ["-w", "elsewhere", "status", "--json", "--workspace", "W"],
        ["requests", "-w", "W", "--json"],
        ["requests", "cancel", "11111111-1111-4111-8111-111111111111", "-w", "W"],
    ],
)
def test_the_workspace_may_stand_before_the_verb_and_after_it(
    run: Run, trained: Path, arguments: list[str]
) -> None:
    result = run(*[str(trained) if each == "W" else each for each in arguments])
    assert result.code == 0 or "11111111" in result.err, result.err


def test_the_workspace_of_one_run_is_not_that_of_the_next(
    run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("status", "-w", trained).code == 0
    monkeypatch.chdir(tmp_path)
    assert run("status").code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_their_options(run: Run, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """What the script that --show-completion prints asks of the command line."""

    def complete(line: str) -> str:
        monkeypatch.setenv("_LMERASER_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        return run().out

    assert "status" in complete("lmeraser stat")
    assert "--id" in complete("lmeraser unlearn --i")
