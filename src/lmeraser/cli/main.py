"""The command line: one command per verb, assembled from `commands`.

``-w`` may stand before the verb and after it. An `LmeraserError` is printed as one message (what is wrong, the
value, the next step) with exit status 2, or 1 if evidence does not verify. An audit, residue scan or self-test
that fails exits with 1, a residue scan for an id that is too short to tell with 3. An interrupted command exits
with 130 and can be run again. Heavy modules are imported inside the commands, and a command is built when it is
named.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lmeraser._version import __version__
from lmeraser.cli.building import LazyCommands, WorkspaceCommand, WorkspaceGroup
from lmeraser.cli.commands import (
    deletion,
    evidence,
    experiments,
    exports,
    model,
    people,
    public,
    recovery,
    service,
    workspace,
)
from lmeraser.cli.commands.base import global_options
from lmeraser.core.terminal import echo, printable
from lmeraser.errors import InputError, LmeraserError, StoppedError, StorageError

# Imports make this many objects, none of them garbage: looking for some takes a tenth of a short command's time.
_OBJECTS_UNTIL_COLLECTION = 200_000
_HELP = "Exact unlearning for classifiers built on large frozen backbones."
_WITHOUT_WORKSPACE = {model.demo, public.pretrain, public.convert, evidence.verify, evidence.timestamp}

app = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)
for _command in (
    *(model.demo, workspace.init, workspace.add, workspace.classes, workspace.config, workspace.status),
    *(model.train, model.predict, model.evaluate, model.draw, model.doctor),
    *(people.subjects, people.records, model.cost),
    *(deletion.plan, deletion.unlearn, workspace.relabel, model.audit),
    *(public.pretrain, public.convert, service.serve),
    *(evidence.ledger, evidence.certificate, evidence.verify, evidence.timestamp, evidence.residue),
    *(workspace.purge, workspace.upgrade),
    *(recovery.backup, recovery.restore, recovery.replay, exports.export),
):
    app.command(cls=None if _command in _WITHOUT_WORKSPACE else WorkspaceCommand)(_command)
app.command(hidden=True, cls=WorkspaceCommand)(recovery.reapply)  # the name of 0.1

_requests = typer.Typer(
    cls=WorkspaceGroup, invoke_without_command=True, help="List, accept, extend and cancel deletion requests."
)
_requests.callback()(deletion.requests)
_requests.command(cls=WorkspaceCommand)(deletion.accept)
_requests.command(cls=WorkspaceCommand)(deletion.cancel)
_requests.command(cls=WorkspaceCommand)(people.extend)
_requests.command(cls=WorkspaceCommand)(people.start)
_requests.command(cls=WorkspaceCommand)(evidence.attach)
app.add_typer(_requests, name="requests")

_exports = typer.Typer(
    cls=WorkspaceGroup, invoke_without_command=True, help="List copies of the model outside; note recalls."
)
_exports.callback()(exports.exports)
_exports.command(cls=WorkspaceCommand)(exports.tell)
_exports.command(cls=WorkspaceCommand)(exports.confirm)
app.add_typer(_exports, name="exports")

_experiments = typer.Typer(help="Reproduce the paper's comparison of methods.", no_args_is_help=True)
_experiments.command()(experiments.run)
_experiments.command("list")(experiments.list_experiments)
_experiments.command()(experiments.compare)
app.add_typer(_experiments, name="experiments")

_keys = typer.Typer(
    cls=WorkspaceGroup, invoke_without_command=True, help="List, create and revoke API keys of the HTTP service."
)
_keys.callback()(service.keys)
_keys.command(cls=WorkspaceCommand)(service.create)
_keys.command(cls=WorkspaceCommand)(service.revoke)
app.add_typer(_keys, name="keys")


def main() -> None:
    """Run the command line; the only place where errors are turned into messages."""
    for name in ("stdout", "stderr"):  # None where it is closed, as some schedulers start processes
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - until the process ends
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it reads what every package announces
    thresholds = gc.get_threshold()
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTION, *thresholds[1:])
    try:
        _run()
    finally:
        gc.set_threshold(*thresholds)


def _run() -> None:
    try:
        global_options.debug = False  # until the options are read; this process may have had an earlier call
        _refuse_empty(sys.argv[1:])
        status = _command_line()(prog_name="lmeraser", standalone_mode=False)
        if status == StoppedError.exit_code:  # typer turns an interruption into this status without a message
            raise KeyboardInterrupt
    except (LmeraserError, OSError) as error:
        if global_options.debug:
            raise
        status = _report(error if isinstance(error, LmeraserError) else _refused_by_system(error))
    except (KeyboardInterrupt, typer.Abort):
        status = _report(
            StoppedError("Interrupted", next_step="run the same command again; completed stages are kept")
        )
    except Exception as error:
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):  # not one of click's usage errors
            raise
        if isinstance(message := getattr(error, "message", None), str):
            setattr(error, "message", printable(message))  # noqa: B010
        error.show()
        status = error.exit_code
    sys.exit(status or 0)


def _report(error: LmeraserError) -> int:
    """Print an error on standard error; returns the exit status."""
    echo(*f"lmeraser: {error.diagnostics()}".split("\n"), err=True)
    return error.exit_code


def _refused_by_system(error: OSError) -> StorageError:
    """The message of an error of the operating system that no command turned into one of its own."""
    return StorageError(
        "Cannot read or write",
        got=": ".join(str(part) for part in (error.filename, error.strerror or error) if part),
        next_step="check the path, its permissions and the free space, then run the same command again",
    )


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty argument, which a shell makes of a variable that is not set.

    As a path it would be the working directory.

    Raises:
        InputError: there is one.
    """
    if "" in arguments:
        place = arguments.index("")
        before = f", after {arguments[place - 1]}" if place else ""
        raise InputError(
            "An argument is empty", got=f"argument {place + 1}{before}", next_step="give a value, or leave it out"
        )


def _command_line() -> Any:
    """The command line of ``app``, which builds only the command that is named."""
    shell = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)
    shell.callback()(_options)
    group: Any = typer.main.get_command(shell)
    group.commands = LazyCommands(app)
    return group


def _print_version(requested: bool) -> None:
    if requested:
        echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", envvar="LMERASER_WORKSPACE", help="Folder of the workspace.")
    ] = Path(),
    wait: Annotated[float, typer.Option(help="Seconds to wait for the writer lock.", min=0)] = 10.0,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    global_options.workspace = workspace
    global_options.wait = wait
    global_options.debug = debug
