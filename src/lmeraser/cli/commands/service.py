"""Commands about the HTTP service: run it, and keys for those who use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmeraser.cli.commands.base import (
    Address,
    AsJson,
    ExecutorName,
    Processes,
    opened,
    print_json,
    print_report,
    workers,
)
from lmeraser.errors import InputError, VerificationError

if TYPE_CHECKING:
    from lmeraser.eraser import Eraser


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.", min=0, max=65535)] = 8080,
    certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="PEM file with the chain of TLS certificates.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file with their private key.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front of this one has TLS.")
    ] = False,
    head: Annotated[
        Path | None, typer.Option(help="Newest exported head; refuse to serve an older state of the workspace.")
    ] = None,
    executor: ExecutorName = None,
    address: Address = None,
    processes: Processes = None,
) -> None:
    """Serve predictions and deletion requests over HTTP until stopped; requests are carried out beside it."""
    try:
        from lmeraser.service.app import make_app
        from lmeraser.service.dashboard.dashboard import add_dashboard
        from lmeraser.service.server import check_exposure, listen, run
        from lmeraser.service.service import Service
    except ImportError as error:
        raise InputError(
            "The service needs the extra 'service'.",
            got=f"no module {error.name}",
            next_step="pip install 'lmeraser[service]'",
        ) from error
    if (certificate is None) != (key is None):
        raise InputError("TLS needs a certificate and its key.", got="one of them", next_step="give both")
    with opened(quiet=True) as eraser:
        if head is not None:
            _check_not_set_back(eraser, head)
        service = Service(eraser, compute=workers(executor, address, processes))
        check_exposure(service, host, tls=certificate is not None, behind_proxy=behind_proxy)
        socket = listen(host, port)
        if not eraser.workspace.api_keys.active():
            typer.echo(
                "there is no key yet: every call is refused until 'lmeraser keys create' makes one", err=True
            )

        def ready(url: str) -> None:
            typer.echo(f"serving {eraser.workspace.root} on {url}")

        app = make_app(service)
        add_dashboard(app)
        run(app, service, socket, certificate=certificate, key=key, ready=ready)


def _check_not_set_back(eraser: Eraser, path: Path) -> None:
    """Refuse a workspace whose ledger does not contain a head: it may serve what was deleted since."""
    from lmeraser.evidence.hash_chain import LedgerHead

    try:
        eraser.workspace.ledger.entries(head=LedgerHead.read(path))
    except VerificationError as error:
        raise VerificationError(
            "A workspace is served in its newest state.",
            got=error.got,
            next_step="'lmeraser replay --ledger FILE' replays the deletions of the newest ledger",
        ) from error


def keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List the keys of the service."""
    if context.invoked_subcommand is not None:
        return
    with opened(quiet=True) as eraser:
        found = [key.__dict__ for key in eraser.workspace.api_keys.all()]
    if as_json:
        print_json(found)
        return
    from lmeraser.core.console import print_rows

    header = ["id", "name", "scopes", "made", "revoked"]
    print_rows("keys", header, [[key[name] for name in header] for key in found], whole=["id"])


def create(
    name: Annotated[str, typer.Option(help="Whose key it is, for people.")],
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="predict, request, read or admin; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for the service and print it; it cannot be printed again."""
    with opened(quiet=True) as eraser:
        workspace = eraser.workspace
        key, text = workspace.api_keys.make(name, scopes or [], now=workspace.clock())
    values = {"id": key.id, "name": key.name, "scopes": list(key.scopes), "key": text}
    print_report("key made; it is not shown again", values, as_json=as_json)


def revoke(key: Annotated[str, typer.Argument(help="The key's id.")], as_json: AsJson = False) -> None:
    """End a key at once, also for a service that is running."""
    with opened(quiet=True) as eraser:
        revoked = eraser.workspace.api_keys.revoke(key, now=eraser.workspace.clock())
    print_report("revoked", revoked.__dict__, as_json=as_json)
