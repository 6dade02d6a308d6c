"""The command line: one command per verb, assembled from `commands`.

Every command that prints a report takes ``--json``. An `LmeraserError` is printed as one message (what is wrong,
the value, the next step) with exit status 2, or 1 if evidence does not verify. An audit, residue scan or self-test
that fails exits with 1, a residue scan for an id that is too short to tell with 3. An interrupted command exits
with 130 and can be run again. Heavy modules are imported inside the commands, so that ``--help`` is fast.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lmeraser._version import __version__
from lmeraser.cli.commands import (
    deletion,
    evidence,
    experiments,
    exports,
    model,
    public,
    recovery,
    service,
    workspace,
)
from lmeraser.cli.commands.base import global_options
from lmeraser.core.terminal import echo, printable
from lmeraser.errors import LmeraserError, StoppedError

app = typer.Typer(
    help="Exact unlearning for image classifiers built on large frozen backbones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (
    *(model.demo, workspace.init, workspace.add, workspace.classes, workspace.config, workspace.status),
    *(model.train, model.predict, model.evaluate, model.draw, model.doctor),
    *(model.cost, deletion.plan, deletion.unlearn, workspace.relabel, model.audit),
    *(public.pretrain, public.convert, service.serve),
    *(evidence.ledger, evidence.verify, evidence.residue, workspace.purge, workspace.upgrade),
    *(recovery.backup, recovery.restore, recovery.replay, exports.export),
):
    app.command()(_command)
app.command(hidden=True)(recovery.reapply)  # the name of 0.1

_requests = typer.Typer(help="List, accept and cancel deletion requests.", invoke_without_command=True)
_requests.callback()(deletion.requests)
_requests.command()(deletion.accept)
_requests.command()(deletion.cancel)
app.add_typer(_requests, name="requests")

_exports = typer.Typer(help="List copies of the model outside; note recalls.", invoke_without_command=True)
_exports.callback()(exports.exports)
_exports.command()(exports.tell)
_exports.command()(exports.confirm)
app.add_typer(_exports, name="exports")

_experiments = typer.Typer(help="Reproduce the paper's comparison of methods.", no_args_is_help=True)
_experiments.command()(experiments.run)
_experiments.command("list")(experiments.list_experiments)
app.add_typer(_experiments, name="experiments")

_keys = typer.Typer(help="List, create and revoke API keys of the HTTP service.", invoke_without_command=True)
_keys.callback()(service.keys)
_keys.command()(service.create)
_keys.command()(service.revoke)
app.add_typer(_keys, name="keys")


def main() -> None:
    """Run the command line; the only place where errors are turned into messages."""
    try:
        status = app(standalone_mode=False)
        if status == StoppedError.exit_code:  # typer turns an interruption into this status without a message
            raise KeyboardInterrupt
    except LmeraserError as error:
        if global_options.debug:
            raise
        echo(*f"lmeraser: {error.diagnostics()}".split("\n"), err=True)
        status = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        stopped = StoppedError("Interrupted", next_step="run the same command again; completed stages are kept")
        echo(*f"lmeraser: {stopped.diagnostics()}".split("\n"), err=True)
        status = stopped.exit_code
    except Exception as error:
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):  # not one of click's usage errors
            raise
        if isinstance(message := getattr(error, "message", None), str):
            setattr(error, "message", printable(message))  # noqa: B010
        error.show()
        status = error.exit_code
    sys.exit(status or 0)


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
