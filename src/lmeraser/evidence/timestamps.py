"""Time stamps of files by an authority outside (RFC 3161): that a certificate or a head existed at a time.

The clock of a certificate is its issuer's. A time stamp is a third party's word that bytes with this digest were
shown to it by then; the digest is all that it gets. The answer of the authority is kept as it came, so that other
tools read it, too (``openssl ts -verify``). The extra ``timestamp`` has the library, which does no networking.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from lmeraser.core.extras import require_extra
from lmeraser.core.time import to_text
from lmeraser.errors import InputError, VerificationError

_LONGEST = 1 << 20  # bytes of an answer; usual ones have a few thousand
_HASHES = {  # by their object identifiers
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_PATIENCE = 30  # seconds for an answer


@dataclass(frozen=True)
class Timestamp:
    """A time stamp.

    Attributes:
        time: when the authority saw the digest, by its own clock.
        digest: SHA-256 of the file, in hexadecimal digits.
        authority: distinguished name in the root certificate to which its signature leads; None: not verified.
    """

    time: datetime
    digest: str
    authority: str | None

    def to_json(self) -> dict[str, object]:
        """The time stamp as JSON values."""
        return {"time": to_text(self.time), "digest": f"sha256:{self.digest}", "authority": self.authority}


def request_timestamp(data: bytes, url: str) -> bytes:
    """Ask an authority for a time stamp of data.

    Args:
        data: the file; only its SHA-256 is sent.
        url: of the authority.

    Returns:
        The answer, DER; it stamps this data and answers this request.

    Raises:
        InputError: the extra is missing, the URL is none, or the authority does not answer.
        VerificationError: it answers something else.
    """
    require_extra("timestamp", "time stamps", "rfc3161_client")
    from rfc3161_client import TimestampRequestBuilder
    from rfc3161_client.base import HashAlgorithm

    asked = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256)
    request = asked.cert_request(cert_request=True).nonce(nonce=True).build()
    answer = _post(url, request.as_bytes())
    response = _decoded(answer)
    _check_same_data(response, data)
    if response.tst_info.nonce != request.nonce:
        raise _wrong("it answers another request")
    return answer


def verify_timestamp(data: bytes, answer: bytes, authority: bytes | None = None) -> Timestamp:
    """Verify a time stamp of data.

    Args:
        data: the file.
        answer: of the authority, DER.
        authority: its certificates, PEM: the root, and those between if the answer lacks them; None: the time is
            read, and nobody's signature is verified.

    Raises:
        InputError: the extra is missing, or these are no certificates.
        VerificationError: the answer stamps other data, or nobody of these signed it.
    """
    require_extra("timestamp", "time stamps", "rfc3161_client")
    response = _decoded(answer)
    _check_same_data(response, data)
    name = None if authority is None else _verify_signature(response, data, authority)
    return Timestamp(response.tst_info.gen_time, hashlib.sha256(data).hexdigest(), name)


def _post(url: str, body: bytes) -> bytes:
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(
            "Not the URL of a time stamping authority",
            got=repr(url),
            next_step="give one that begins with https:// or http://",
        )
    headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    try:
        request = urllib.request.Request(url, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            data: bytes = answer.read(_LONGEST + 1)
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise InputError(
            "The time stamping authority does not answer",
            got=f"{url}: {getattr(error, 'reason', error)}",
            next_step="check the URL and the network, or try later",
        ) from error
    if len(data) > _LONGEST:
        raise _wrong(f"it has more than {_LONGEST} bytes")
    return data


def _decoded(answer: bytes) -> Any:
    from rfc3161_client import PKIStatus, decode_timestamp_response

    try:
        response = decode_timestamp_response(answer)
        granted = PKIStatus(response.status) in (PKIStatus.GRANTED, PKIStatus.GRANTED_WITH_MODS)
        if granted:
            response.tst_info.gen_time  # noqa: B018 - parsed here
    except ValueError as error:
        raise _wrong(f"it cannot be read: {error}") from error
    if not granted:
        raise _wrong("the authority refused: " + "; ".join(response.status_string))
    return response


def _check_same_data(response: Any, data: bytes) -> None:
    imprint = response.tst_info.message_imprint
    name = _HASHES.get(imprint.hash_algorithm.dotted_string)
    if name is None or hashlib.new(name, data).digest() != imprint.message:
        raise _wrong("it stamps other data than this file")


def _verify_signature(response: Any, data: bytes, authority: bytes) -> str:
    """Verify who signed; returns the name in the root certificate."""
    from rfc3161_client import VerificationError as NotVerified
    from rfc3161_client import VerifierBuilder

    try:
        certificates = x509.load_pem_x509_certificates(authority)
    except ValueError as error:
        raise InputError(
            "Not certificates of a time stamping authority",
            got=str(error),
            next_step="give its root certificate as PEM",
        ) from error
    roots = [each for each in certificates if each.issuer == each.subject] or certificates[-1:]
    fault: Exception | None = None
    for root in roots:  # one at a time: only so it is known which of them it is
        builder = VerifierBuilder().add_root_certificate(root)
        for each in certificates:
            builder = builder if each in roots else builder.add_intermediate_certificate(each)
        try:
            builder.build().verify_message(response, data)
        except (NotVerified, ValueError) as error:
            fault = error
        else:
            return root.subject.rfc4514_string()
    raise _wrong(str(fault)) from fault


def _wrong(got: str) -> VerificationError:
    return VerificationError(
        "The time stamp does not verify", got=got, next_step="ask the authority for another one"
    )
