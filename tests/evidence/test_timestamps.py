"""Time stamps of an authority on this machine, whose answers another implementation makes."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from conftest import Run, needs
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.timestamps import request_timestamp, verify_timestamp

pytestmark = [
    needs("rfc3161_client"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl answers as an authority"),
]

DATA = b"a certificate"
_SETTINGS = """
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
default_policy = 1.2.3.4.1
digests = sha256
signer_digest = sha256
"""


class Authority:
    """A time stamping authority in a folder: a root, a certificate below it, and openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "serial").write_text("01\n")
        (folder / "settings").write_text(_SETTINGS.format(folder=folder))
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = _certificate("root", root_key, None, "root", root_key)
        own = _certificate("authority", key, root, "root", root_key)
        self.root = root.public_bytes(serialization.Encoding.PEM)
        (folder / "root.pem").write_bytes(self.root)
        (folder / "signer.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (folder / "key.pem").write_bytes(private)

    def answer(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        command = [
            "openssl",
            "ts",
            "-reply",
            "-config",
            "settings",
            "-queryfile",
            "query",
            "-signer",
            "signer.pem",
        ]
        finished = subprocess.run(
            [*command, "-inkey", "key.pem"], cwd=self.folder, capture_output=True, check=True
        )
        return finished.stdout


def _certificate(name: str, key: Any, issuer: Any, issuer_name: str, issuer_key: Any) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name)]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=1),
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    if issuer is not None:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("time") / "authority")


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    """Of the authority, as a server."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/timestamp-query"
            query = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(404 if self.path == "/missing" else 200)
            self.end_headers()
            if self.path == "/old":
                query = (authority.folder / "query").read_bytes()
            self.wfile.write(b"no answer" if self.path == "/other" else authority.answer(query))

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_time_stamp_verifies_here_and_with_openssl(authority: Authority, url: str, tmp_path: Path) -> None:
    answer = request_timestamp(DATA, url)
    found = verify_timestamp(DATA, answer, authority.root)
    assert found.authority == "CN=root"
    assert abs(found.time - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)
    assert verify_timestamp(DATA, answer).authority is None
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "answer").write_bytes(answer)
    files: list[str | Path] = [
        "-data",
        tmp_path / "data",
        "-in",
        tmp_path / "answer",
        "-CAfile",
        authority.folder / "root.pem",
    ]
    subprocess.run(["openssl", "ts", "-verify", *files], check=True, capture_output=True)


def test_of_several_authorities_the_one_that_signed_is_named(authority: Authority, url: str) -> None:
    answer = request_timestamp(DATA, url)
    key = ec.generate_private_key(ec.SECP256R1())
    other = _certificate("other", key, None, "other", key).public_bytes(serialization.Encoding.PEM)
    for roots in (other + authority.root, authority.root + other):
        assert verify_timestamp(DATA, answer, roots).authority == "CN=root"
    with pytest.raises(VerificationError, match="does not verify"):
        verify_timestamp(DATA, answer, other)


def test_a_time_stamp_of_other_data_or_by_others_is_refused(
    authority: Authority, url: str, tmp_path: Path
) -> None:
    answer = request_timestamp(DATA, url)
    with pytest.raises(VerificationError, match="stamps other data"):
        verify_timestamp(DATA + b"!", answer, authority.root)
    with pytest.raises(VerificationError, match="does not verify"):
        verify_timestamp(DATA, answer, Authority(tmp_path / "another").root)
    with pytest.raises(VerificationError, match="cannot be read"):
        verify_timestamp(DATA, answer[:-20], authority.root)
    with pytest.raises(VerificationError, match="cannot be read"):
        request_timestamp(DATA, f"{url}/other")
    with pytest.raises(VerificationError, match="answers another request"):
        request_timestamp(DATA, f"{url}/old")
    with pytest.raises(InputError, match="does not answer"):
        request_timestamp(DATA, f"{url}/missing")
    with pytest.raises(InputError, match="Not the URL"):
        request_timestamp(DATA, "file:///etc/hostname")
    with pytest.raises(InputError, match="Not certificates"):
        verify_timestamp(DATA, answer, b"none")


def test_the_command_asks_once_and_verifies(authority: Authority, url: str, tmp_path: Path, run: Run) -> None:
    file = tmp_path / "certificate.json"
    file.write_bytes(DATA)
    root = authority.folder / "root.pem"
    asked = run("timestamp", file, "--url", url)
    assert asked.code == 0
    assert "nobody's signature was verified" in asked.out
    assert "There is a time stamp already" in run("timestamp", file, "--url", url).err
    unverified = run("timestamp", file)
    assert unverified.code == 3
    assert unverified.out.startswith(f"{file}.tsr says that {file} existed at")
    assert run("timestamp", file, "--json").json["verified"] is False
    assert run("timestamp", file, "--authority", root, "--json").json["verified"] is True
    verified = run("timestamp", file, "--authority", root)
    assert verified.code == 0
    assert "signed by CN=root" in verified.out
    file.write_bytes(DATA + b" changed")
    assert run("timestamp", file, "--authority", root).code == 1
