"""How commands are built: when they are named, and with the option ``-w`` after the verb.

Building all commands takes longer than most verbs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandInfo, TyperInfo

from lmeraser.cli.commands.base import global_options


class LazyCommands(Mapping[str, Any]):
    """The commands of an application by their names, for the ``commands`` of a group.

    Args:
        application: in which commands and groups of commands are registered.
    """

    def __init__(self, application: typer.Typer) -> None:
        self._registered: dict[str, CommandInfo | TyperInfo] = {}
        for command in application.registered_commands:
            self._registered[str(command.name or getattr(command.callback, "__name__", ""))] = command
        for group in application.registered_groups:
            self._registered[str(group.name)] = group
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = _build(name, self._registered[name])
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._registered)

    def __len__(self) -> int:
        return len(self._registered)


def _build(name: str, registered: CommandInfo | TyperInfo) -> Any:
    if isinstance(registered, CommandInfo):
        alone = typer.Typer(add_completion=False)
        alone.registered_commands.append(registered)
    else:
        assert registered.typer_instance is not None
        alone = registered.typer_instance
    command = typer.main.get_command(alone)
    command.name = name
    return command


class WorkspaceCommand(TyperCommand):
    """A command that takes ``-w`` after its name as well."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(_workspace_option())


class WorkspaceGroup(TyperGroup):
    """A group of commands that takes ``-w`` after its name as well."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(_workspace_option())


def _use_workspace(workspace: Path | None) -> Path | None:
    if workspace is not None:
        global_options.workspace = workspace
    return workspace


def _takes_workspace(
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            "-w",
            callback=_use_workspace,
            expose_value=False,
            help="Folder of the workspace; may stand before the verb, too.",
        ),
    ] = None,
) -> None:
    """Stands for any command, so that typer makes the option."""


@functools.cache
def _workspace_option() -> Any:
    alone = typer.Typer(add_completion=False)
    alone.command()(_takes_workspace)
    return typer.main.get_command(alone).params[0]
