"""Blobs in a bucket of a local S3 server: all there or not at all, and gone with every version when swept."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from conftest import DIGIT_COLUMNS, digits, needs, tiny_config
from fake import Fake
from lmeraser import Eraser
from lmeraser.errors import ConfigError, CorruptError, StorageError
from lmeraser.storage.blobs import Blobs, Folder

pytestmark = [
    needs("s3fs", "moto"),
    # Of s3fs's event loop and the server's sockets, when the process ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:(botocore|moto)"),
]

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A real server on a free port; the only way in is the library."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(params=["plain", "versioned"])
def url(server: str, request: pytest.FixtureRequest) -> str:
    """A new bucket."""
    name = f"bucket-{next(_numbers)}"
    library().mkdir(name)
    if request.param == "versioned":
        library().make_bucket_versioned(name)
    return f"s3://{name}/some/folder"


def library() -> Any:
    from s3fs import S3FileSystem

    return S3FileSystem(use_listings_cache=False)


def bucket(url: str, part: str = "w") -> Any:
    from lmeraser.storage.s3 import Bucket

    return Bucket(url, part)


def versions(url: str) -> int:
    """Everything that the bucket still holds, markers too."""
    page = library().call_s3("list_object_versions", Bucket=url.split("/")[2])
    return len(page.get("Versions", ())) + len(page.get("DeleteMarkers", ()))


def test_what_is_written_is_read(url: str) -> None:
    blobs: Blobs = bucket(url)
    assert not blobs.exists("ab/one")
    blobs.write({"ab/one": b"1"})
    blobs.write({"ab/two": b"2" * 1000})
    assert blobs.exists("ab/one")
    assert blobs.read(["ab/two", "ab/one"]) == [b"2" * 1000, b"1"]
    assert blobs.read(["ab/one"]) == [b"1"]
    assert blobs.read([]) == []
    assert blobs.location("ab/one") == f"{url}/w/ab/one"
    for missing in (["zz"], ["ab/one", "zz"]):
        with pytest.raises(FileNotFoundError):
            blobs.read(missing)


def test_looking_for_many_lists_them_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = bucket(url)
    blobs.write({"before": b"x"})
    monkeypatch.setattr("lmeraser.storage.s3._LIST_AFTER", 2)
    assert [blobs.exists(name) for name in ("before", "after", "before", "after")] == [True, False, True, False]
    blobs.write({"after": b"y"})
    assert blobs.exists("after")
    library().rm(f"{url}/w/after")
    assert blobs.exists("after"), "it is not asked for again"
    blobs.sweep({"before"})
    assert [blobs.exists(name) for name in ("before", "after")] == [True, False]


def test_sweeping_deletes_every_version_and_nothing_else(url: str) -> None:
    one, other = bucket(url), bucket(url, "other")
    other.write({"a": b"another workspace's"})
    for data in (b"old", b"new"):
        one.write({"kept": data})
        one.write({"gone": data})
    library().rm(f"{url}/w/gone")
    one.write({"late": b"x"})
    assert one.sweep({"kept"}, dry_run=True) == one.sweep({"kept"})
    assert versions(url) == 2
    assert one.read(["kept"]) == [b"new"]
    assert [data for _, data in one.all_versions()] == [b"new"]
    assert other.read(["a"]) == [b"another workspace's"]
    assert one.sweep({"kept"}) == []


def test_removing_deletes_every_version_of_what_is_named(url: str) -> None:
    blobs = bucket(url)
    for data in (b"1", b"2"):
        for name in ("a", "ab", "b"):
            blobs.write({name: data})
    assert blobs.remove(["b", "a", "never there"]) == [blobs.location("a"), blobs.location("b")]
    assert {name for name, _ in blobs.all_versions()} == {blobs.location("ab")}
    assert not blobs.exists("a")
    assert blobs.remove(["a"]) == []


def test_every_version_is_searched_for_residue(url: str) -> None:
    blobs = bucket(url)
    blobs.write({"a": b"first"})
    blobs.write({"a": b"second"})
    library().rm(f"{url}/w/a")
    found = sorted(data for _, data in blobs.all_versions())
    assert found == ([b"first", b"second"] if versions(url) else [])


def test_more_objects_than_one_page_holds_are_swept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, real = bucket(url), library().call_s3
    for number in range(7):
        blobs.write({f"{number}": b"x"})

    def small(method: str, **arguments: Any) -> Any:
        more = {"MaxKeys": 3} if method == "list_object_versions" else {}
        return real(method, **arguments, **more)

    monkeypatch.setattr("lmeraser.storage.s3._DELETE_BATCH", 2)
    monkeypatch.setattr(blobs._files, "call_s3", small)
    assert len(blobs.sweep({"5"})) == 6
    assert blobs.read(["5"]) == [b"x"]
    assert versions(url) == 1


def test_what_cannot_be_deleted_is_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = bucket(url)
    blobs.write({"a": b"x"})
    real = library().call_s3

    def locked(method: str, **arguments: Any) -> Any:
        if method == "delete_objects":
            return {"Errors": [{"Key": "a", "VersionId": "1", "Message": "object is locked"}]}
        return real(method, **arguments)

    monkeypatch.setattr(blobs._files, "call_s3", locked)
    with pytest.raises(StorageError, match="object is locked"):
        blobs.sweep(set())


def test_a_bucket_that_is_not_there_is_an_error(server: str) -> None:
    blobs = bucket("s3://no-such-bucket")
    for call in (lambda: blobs.write({"a": b"x"}), lambda: blobs.sweep(set()), lambda: list(blobs.all_versions())):
        with pytest.raises(StorageError, match="s3://no-such-bucket/w/") as error:
            call()
        assert "AWS_ENDPOINT_URL" in str(error.value)


@pytest.mark.parametrize("place", ["/tmp/folder", "gs://bucket", "s3://", "s3:///x", "s3://b/with space"])
def test_another_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="artifacts"):
        tiny_config(storage={"artifacts": place})


# --- workspaces -------------------------------------------------------------------------------------------


def workspace(path: Path, url: str | None) -> Eraser:
    eraser = Eraser.create(path, tiny_config(storage={"artifacts": url} if url else {}))
    eraser.session.executors.use(Fake())
    return eraser


def test_a_workspace_with_a_bucket_gives_the_same_model_and_leaves_nothing_of_the_old_one(
    url: str, tmp_path: Path
) -> None:
    digests = []
    for name, place in (("folder", None), ("bucket", url)):
        with workspace(tmp_path / name, place) as eraser:
            eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
            eraser.train()
            eraser.unlearn(ids=["digit-0003"])
            digests.append(eraser.model_digest)
            kept = {stage.artifact for stage in eraser.workspace.generations.require().stages.values()}
            assert eraser.audit().identical
            eraser.add(digits([3]), columns=DIGIT_COLUMNS)
            eraser.train()
            eraser.unlearn(ids=["digit-0003"])
            assert eraser.model_digest == digests[0]
            assert (tmp_path / name / "artifacts").exists() is (place is None)
    assert digests[0] == digests[1]
    assert versions(url) == len(kept)


def test_a_damaged_object_is_found(url: str, tmp_path: Path) -> None:
    with workspace(tmp_path / "w", url) as eraser:
        eraser.add(digits(range(12)), columns=DIGIT_COLUMNS)
        eraser.train()
        artifact = eraser.workspace.generations.require().partition.artifact
        (path,) = [p for p in library().find(url.removeprefix("s3://")) if artifact.hex in p]
        library().pipe_file(path, b"something else")
        with pytest.raises(CorruptError, match=f"s3://.*{artifact.hex}"):
            eraser.workspace.store.read(artifact)
        assert not eraser.audit().identical
        library().rm(path)
        with pytest.raises(FileNotFoundError):
            eraser.workspace.store.read(artifact)
        eraser.train()
        assert eraser.audit().identical


def test_workspaces_may_share_a_folder(url: str, tmp_path: Path) -> None:
    with workspace(tmp_path / "one", url) as one, workspace(tmp_path / "two", url) as two:
        for eraser in (one, two):
            eraser.add(digits(range(12)), columns=DIGIT_COLUMNS)
            eraser.train()
        two.purge()
        assert one.audit().identical
        assert one.model_digest == two.model_digest


def test_artifacts_stay_where_they_were_put(url: str, tmp_path: Path) -> None:
    path = tmp_path / "w"
    with workspace(path, url) as eraser:
        eraser.add(digits(range(12)), columns=DIGIT_COLUMNS)
        eraser.train()
    text = (path / "lmeraser.toml").read_text()
    for other in (text.replace(url, "s3://elsewhere"), text.replace(f'artifacts = "{url}"', "")):
        assert other != text
        (path / "lmeraser.toml").write_text(other)
        with Eraser(path) as eraser:
            eraser.session.executors.use(Fake())
            with pytest.raises(ConfigError, match="set it back"):
                eraser.train()
    (path / "lmeraser.toml").write_text(text)
    with Eraser(path) as eraser:
        eraser.session.executors.use(Fake())
        assert not eraser.train().changed


def test_a_place_where_nothing_could_be_put_can_be_corrected(server: str, url: str, tmp_path: Path) -> None:
    with workspace(tmp_path / "w", "s3://no-such-bucket") as eraser:
        eraser.add(digits(range(12)), columns=DIGIT_COLUMNS)
        with pytest.raises(StorageError, match="no-such-bucket"):
            eraser.train()
    settings = tmp_path / "w" / "lmeraser.toml"
    settings.write_text(settings.read_text().replace("s3://no-such-bucket", url))
    with Eraser(tmp_path / "w") as eraser:
        eraser.session.executors.use(Fake())
        eraser.train()
        assert eraser.audit().identical
    assert versions(url) == len(eraser.workspace.generations.require().stages)


def test_a_server_that_refuses_for_a_while_is_asked_again() -> None:
    """Load and lost connections: two refusals, then an answer."""
    seen: list[str] = []

    class Busy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.path)
            if len(seen) == 2:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(200 if len(seen) > 2 else 503)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    busy = HTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=busy.serve_forever, daemon=True).start()
    blobs = bucket("s3://b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        from s3fs import S3FileSystem

        endpoint = f"http://127.0.0.1:{busy.server_port}"
        blobs._files = S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)
        blobs.write({"a": b"x"})
    busy.shutdown()
    busy.server_close()
    assert len(seen) == 3


def test_a_folder_is_the_same(tmp_path: Path) -> None:
    blobs: Blobs = Folder(tmp_path / "f")
    blobs.write({"ab/one": b"1"})
    blobs.write({"ab/two": b"2"})
    assert blobs.read(["ab/two", "ab/one"]) == [b"2", b"1"]
    with pytest.raises(FileNotFoundError):
        blobs.read(["zz"])
    assert blobs.sweep({"ab/one"}, dry_run=True) == blobs.sweep({"ab/one"}) == [str(tmp_path / "f" / "ab" / "two")]
    assert blobs.exists("ab/one")
    assert not blobs.exists("ab/two")
