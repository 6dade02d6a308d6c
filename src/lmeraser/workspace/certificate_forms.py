"""The certificate of a request in three forms of the same facts: signed JSON, text for people, and PDF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lmeraser.core.atomic_files import storage_errors
from lmeraser.core.digests import Digest
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.certificate import verify
from lmeraser.evidence.dsse import Envelope, PublicKey
from lmeraser.evidence.presentation import render
from lmeraser.workspace.requests.state import Request
from lmeraser.workspace.workspace import Workspace

CertificateForm = Literal["json", "text", "pdf"]

MEDIA_TYPES: Mapping[CertificateForm, str] = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "pdf": "application/pdf",
}
SUFFIXES: Mapping[CertificateForm, str] = {"json": ".json", "text": ".txt", "pdf": ".pdf"}


def certificate_path(workspace: Workspace, request: Request) -> Path:
    """The file of a request's certificate; a text version lies beside it."""
    return workspace.certificates / f"{request.id}.json"


def verification_key(workspace: Workspace, data: bytes) -> PublicKey:
    """The earlier key of this workspace that a certificate names as its signer; else the present key."""
    earlier = [PublicKey.read(path) for path in sorted(workspace.root.glob("signing-*.pub"))]
    signer = Envelope.parse(data).key_id
    return next((key for key in earlier if key.key_id == signer), workspace.signing_key.public)


def read_certificate(workspace: Workspace, request: Request, form: CertificateForm = "json") -> bytes:
    """The certificate of a completed request, verified: it is the one that was issued for this request.

    Args:
        workspace: that issued it.
        request: whose certificate it is.
        form: what to return; text and PDF are made from the JSON.

    Raises:
        InputError: the request has no certificate, because it is not completed, or the file is missing.
        VerificationError: the stored certificate was changed, or is another one.
        ConfigError: the library that writes PDF files is not installed.
    """
    path = certificate_path(workspace, request)
    if request.state != "completed":
        raise InputError(
            "Request has no certificate",
            got=f"{request.id} is {request.state}",
            next_step="carry it out with 'lmeraser unlearn'"
            if request.open
            else "a cancelled request deleted nothing, and has none",
        )
    with storage_errors(path):
        data = path.read_bytes() if path.is_file() else None
    if data is None:
        raise InputError(
            "Certificate of the request is missing",
            got=str(path),
            next_step="copy it back from a backup or from whoever it was handed to; it cannot be issued again",
        )
    facts = verify(data, verification_key(workspace, data))
    issued = Digest.of(Envelope.parse(data).payload)
    if request.certificate not in (None, issued):
        raise VerificationError(
            "Not the certificate that was issued for this request",
            got=f"{path}: certificate {issued.short} of request {facts['request']['id']}",
            next_step="copy the right one back from a backup or from whoever it was handed to",
        )
    if form == "json":
        return data
    if form == "pdf":
        from lmeraser.evidence.certificate_pdf import to_pdf

        return to_pdf(facts)
    return render(facts).encode()
