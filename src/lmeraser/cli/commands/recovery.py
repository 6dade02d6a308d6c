"""Commands for backups: make one, restore it, and replay deletions that are newer than it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmeraser.cli.commands.base import AsJson, global_options, open_eraser, print_report
from lmeraser.core.terminal import echo
from lmeraser.errors import InputError

if TYPE_CHECKING:
    from lmeraser.evidence.hash_chain import LedgerHead
    from lmeraser.workspace.replay import ReplayReport

Newest = Annotated[Path | None, typer.Option("--ledger", help="The newest copy of the workspace's ledger.")]
ExportedHead = Annotated[
    Path | None, typer.Option("--head", help="The head exported last; the ledger must contain it.")
]


def backup(
    target: Annotated[Path, typer.Argument(help="The new file; as secret as the workspace.")],
    as_json: AsJson = False,
) -> None:
    """Write everything that cannot be derived to one file; replace it after deletions."""
    from lmeraser.workspace.backup import backup as make

    with _stopped_by_sigterm(), open_eraser(quiet=True) as eraser:
        report = make(eraser.workspace, target)
    print_report("backup made", report.to_json(), as_json=as_json)


def restore(
    archive: Annotated[Path, typer.Argument(help="A file that 'lmeraser backup' wrote.")],
    ledger: Newest = None,
    head: ExportedHead = None,
    no_newer_ledger: Annotated[
        bool, typer.Option("--no-newer-ledger", help="Nothing was deleted since, or no newer ledger is left.")
    ] = False,
    key: Annotated[
        Path | None, typer.Option(help="Public key of the workspace (signing.pub), kept elsewhere.")
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Accept a backup of version 0.1, which has no signature.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the workspace of -w from a backup: without what was deleted since, and with the model derived again."""
    from lmeraser.core.atomic_files import read_file
    from lmeraser.evidence.dsse import PublicKey
    from lmeraser.workspace.restore import restore as unpack

    if ledger is None and not no_newer_ledger:
        raise InputError(
            "Newest ledger not given",
            got="the backup may hold records that were deleted after it was made",
            next_step="give --ledger with its newest copy; --no-newer-ledger only if there is none",
        )
    if ledger is not None and no_newer_ledger:
        raise InputError("Conflicting options: --ledger and --no-newer-ledger", next_step="give one of them")
    newest = read_file(ledger) if ledger else None
    root = global_options.workspace
    wait = global_options.wait
    public = PublicKey.read(key) if key else None
    with _stopped_by_sigterm():
        report = unpack(archive, root, newest=newest, head=_head(head), key=public, unsigned=unsigned, wait=wait)
    _finish("restored", report, as_json=as_json)


def replay(
    ledger: Annotated[Path, typer.Option("--ledger", help="The newest copy of the workspace's ledger.")],
    head: ExportedHead = None,
    as_json: AsJson = False,
) -> None:
    """Replay the deletions of a newer ledger in a workspace that was set back to an older state."""
    from lmeraser.core.atomic_files import read_file
    from lmeraser.workspace.replay import replay as replay_ledger

    newest = read_file(ledger)
    with open_eraser(quiet=True) as eraser:
        report = replay_ledger(eraser.workspace, newest, head=_head(head))
    _finish("replayed", report, as_json=as_json)


def reapply(
    ledger: Annotated[Path, typer.Option("--ledger", help="The newest copy of the workspace's ledger.")],
    head: ExportedHead = None,
    as_json: AsJson = False,
) -> None:
    """Deprecated name of 'lmeraser replay'."""
    echo("lmeraser: 'reapply' is deprecated and will be removed; use 'lmeraser replay'", err=True)
    replay(ledger, head, as_json)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM stop the body as Ctrl-C does, so that temporary copies of keys are removed."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _finish(title: str, report: ReplayReport, *, as_json: bool) -> None:
    """Derive the model where there was one, and print what happened."""
    from lmeraser.evidence.entries import GenerationPublished, events_of
    from lmeraser.unlearning.completion import complete_pending

    with open_eraser() as eraser:
        trained = any(events_of(eraser.workspace.ledger.entries(), GenerationPublished))
        settled = complete_pending(eraser.session, full=trained)
    model = settled.training.to_json() if settled.training else {}
    print_report(title, {**report.to_json(), **model}, as_json=as_json)


def _head(path: Path | None) -> LedgerHead | None:
    from lmeraser.evidence.hash_chain import LedgerHead

    return LedgerHead.read(path) if path else None
