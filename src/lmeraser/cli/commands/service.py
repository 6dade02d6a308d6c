"""Commands for the HTTP service: run it, and manage its API keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmeraser.cli.commands.base import (
    Address,
    AsJson,
    ExecutorName,
    Processes,
    compute_settings,
    open_eraser,
    print_report,
)
from lmeraser.core.atomic_files import read_file
from lmeraser.core.terminal import echo, print_json
from lmeraser.errors import InputError, VerificationError

if TYPE_CHECKING:
    from lmeraser.eraser import Eraser


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free port.", min=0, max=65535)] = 8080,
    certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="PEM file with the TLS certificate chain.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--tls-key", help="PEM file with the private key of the TLS certificate.")
    ] = None,
    behind_proxy: Annotated[bool, typer.Option("--behind-proxy", help="A reverse proxy terminates TLS.")] = False,
    trusted_proxies: Annotated[
        list[str] | None,
        typer.Option("--trusted-proxy", help="Address or network of a proxy whose X-Forwarded-For is believed."),
    ] = None,
    head: Annotated[
        Path | None, typer.Option(help="The head exported last; an older state of the workspace is not served.")
    ] = None,
    executor: ExecutorName = None,
    address: Address = None,
    processes: Processes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it listens as JSON.")] = False,
) -> None:
    """Serve predictions and deletion requests over HTTP until stopped; a second process carries requests out."""
    try:
        from lmeraser.service.app import make_app
        from lmeraser.service.dashboard.dashboard import add_dashboard
        from lmeraser.service.server import check_exposure, check_proxies, listen, run
        from lmeraser.service.service import Service
    except ImportError as error:
        raise InputError(
            "The extra 'service' is not installed",
            got=f"no module {error.name}",
            next_step="pip install 'lmeraser[service]'",
        ) from error
    _check_tls(certificate, key)
    with open_eraser(quiet=True) as eraser:
        if head is not None:
            _check_not_set_back(eraser, head)
        service = Service(eraser, compute=compute_settings(executor, address, processes))
        check_proxies(trusted_proxies or ())
        check_exposure(service, host, tls=certificate is not None, behind_proxy=behind_proxy)
        socket = listen(host, port)
        if not eraser.workspace.api_keys.any_active():
            echo(
                "there is no API key yet: all calls are rejected until 'lmeraser keys create' makes one", err=True
            )

        def ready(url: str) -> None:
            if as_json:
                print_json({"workspace": str(eraser.workspace.root), "url": url})
            else:
                echo(f"serving {eraser.workspace.root} on {url}")

        app = make_app(service)
        add_dashboard(app)
        run(
            app,
            service,
            socket,
            certificate=certificate,
            key=key,
            trusted_proxies=trusted_proxies or (),
            ready=ready,
        )


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    """Refuse a certificate and a key that no connection could use, before anything is served."""
    import ssl

    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise InputError(
            "Incomplete TLS options",
            got="only --tls-certificate" if key is None else "only --tls-key",
            next_step="give both --tls-certificate and --tls-key",
        )
    for file in (certificate, key):
        read_file(file)
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise InputError(
            "TLS certificate and key cannot be used",
            got=f"{certificate} and {key}: {error}",
            next_step="give a chain in PEM, and its private key without a password",
        ) from error


def _check_not_set_back(eraser: Eraser, path: Path) -> None:
    """Reject a workspace whose ledger does not contain the head: it may hold records deleted since."""
    from lmeraser.evidence.hash_chain import LedgerHead

    try:
        eraser.workspace.ledger.entries(head=LedgerHead.read(path))
    except VerificationError as error:
        raise VerificationError(
            "Workspace is older than the given head",
            got=error.got,
            next_step="'lmeraser replay --ledger FILE' replays the deletions of the newest ledger",
        ) from error


def keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List the API keys of the service."""
    if context.invoked_subcommand is not None:
        return
    with open_eraser(quiet=True) as eraser:
        found = [key.__dict__ for key in eraser.workspace.api_keys.all()]
    if as_json:
        print_json(found)
        return
    from lmeraser.core.console import print_rows

    header = ["id", "name", "scopes", "made", "revoked"]
    print_rows("keys", header, [[key[name] for name in header] for key in found], unfolded=["id"])


def create(
    name: Annotated[str, typer.Option(help="Name of the holder.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="Scope: predict, submit, request, find, records, read, confirm or admin; may be repeated.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it, once: it cannot be shown again."""
    with open_eraser(quiet=True) as eraser:
        workspace = eraser.workspace
        key, text = workspace.api_keys.create(name, scopes or [], now=workspace.clock())
    own_id = {"id" if as_json else "key id": key.id}  # the word for an id in other reports is "request"
    values = {**own_id, "name": key.name, "scopes": list(key.scopes), "key": text}
    print_report("key created; it cannot be shown again", values, as_json=as_json)


def revoke(key: Annotated[str, typer.Argument(help="Id of the key.")], as_json: AsJson = False) -> None:
    """Revoke a key with immediate effect, also on a running service."""
    with open_eraser(quiet=True) as eraser:
        revoked = eraser.workspace.api_keys.revoke(key, now=eraser.workspace.clock())
    print_report("revoked", revoked.__dict__, as_json=as_json)
