"""Keys are found by their text and nothing else, whatever is presented costs the same, and revoking is at once."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import NOW, Run
from lmeraser import Eraser
from lmeraser.errors import InputError
from lmeraser.storage.database import Database
from lmeraser.workspace import api_keys
from lmeraser.workspace.api_keys import SCOPES, ApiKey, ApiKeys

SECRET = b"s" * 32


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = Database(tmp_path_factory.mktemp("keys") / "records.db")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def keys(database: Database) -> ApiKeys:
    return ApiKeys(database, secret=SECRET)


def test_a_key_is_found_by_its_text(keys: ApiKeys) -> None:
    key, text = keys.create("somebody", ["read", "predict"], now=NOW)
    assert (key.name, key.scopes, key.made) == ("somebody", ("predict", "read"), "2026-01-31T12:00:00Z")
    assert keys.find(text) == key
    assert key in keys.all()
    assert keys.any_active()
    other, text_of_other = keys.create("somebody else", ["admin"], now=NOW)
    assert keys.find(text_of_other) == other != key
    swapped = text.replace(key.id, other.id)
    assert keys.find(swapped) is None


@given(st.text(max_size=80) | st.from_regex(api_keys._PATTERN, fullmatch=True))
@example("")
@example("lme__")
@example("lme_\udcff")
def test_nothing_else_is_a_key(keys: ApiKeys, text: str) -> None:
    assert keys.find(text) is None


def test_a_changed_character_makes_another_key(keys: ApiKeys) -> None:
    _, text = keys.create("x", ["read"], now=NOW)
    for place in range(len(text)):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert keys.find(changed) is None
    assert keys.find(text + "A") is None
    assert keys.find(text[:-1]) is None


def test_a_revoked_key_is_none_any_more(keys: ApiKeys) -> None:
    key, text = keys.create("x", ["read"], now=NOW)
    assert keys.revoke(key.id, now=NOW).revoked == "2026-01-31T12:00:00Z"
    assert keys.find(text) is None
    assert keys.revoke(key.id, now=NOW).revoked
    with pytest.raises(InputError, match="lmeraser keys"):
        keys.revoke("nothing", now=NOW)


def test_whatever_is_presented_costs_one_digest_and_one_comparison(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, right = keys.create("x", ["read"], now=NOW)
    revoked, gone = keys.create("y", ["read"], now=NOW)
    keys.revoke(revoked.id, now=NOW)
    done: list[str] = []

    def counted(name: str) -> Any:
        real = getattr(hmac, name)

        def call(*arguments: Any) -> Any:
            done.append(name)
            return real(*arguments)

        return call

    for name in ("digest", "compare_digest"):
        monkeypatch.setattr(f"lmeraser.workspace.api_keys.hmac.{name}", counted(name))
    unknown = f"lme_{'0' * 12}_{'x' * 43}"
    wrong = right[:-3] + ("AAA" if not right.endswith("AAA") else "BBB")
    for text in (right, wrong, gone, unknown, "", "password", f"lme_{key.id}_"):
        done.clear()
        assert (keys.find(text) is not None) == (text == right)
        assert done == ["digest", "compare_digest"]


def test_the_database_tells_no_key_and_the_secret_is_needed_to_test_one(database: Database, keys: ApiKeys) -> None:
    _, text = keys.create("x", ["read"], now=NOW)
    with database.reading() as connection:
        stored = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    secret = text.split("_", 2)[2]  # which may hold underscores
    assert secret not in repr(stored)
    assert ApiKeys(database, secret=b"t" * 32).find(text) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [("", "empty"), ("x" * 101, "longer than 100"), ("a\nb", "control"), ("a\u202eb", "bidirectional")],
)
def test_what_cannot_be_a_name_is_refused(keys: ApiKeys, name: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        keys.create(name, ["read"], now=NOW)


def test_names_are_kept_in_their_canonical_form(keys: ApiKeys) -> None:
    key, _ = keys.create(" Rene\u0301e\u202f2 ", ["read"], now=NOW)
    assert key.name == "Ren\u00e9e\u202f2"


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "write"]])
def test_scopes_are_known(keys: ApiKeys, scopes: list[str]) -> None:
    with pytest.raises(InputError, match=", ".join(SCOPES)):
        keys.create("x", scopes, now=NOW)


def test_admin_may_do_everything_and_others_their_own() -> None:
    for scope in SCOPES:
        key = ApiKey("i", "n", (scope,), "t")
        assert [wanted for wanted in SCOPES if key.may([wanted])] == (
            list(SCOPES) if scope == "admin" else [scope]
        )
    assert ApiKey("i", "n", ("read",), "t").may(["request", "read"])


def test_keys_are_made_listed_and_revoked_on_the_command_line(tmp_path: Path, run: Run) -> None:
    root = tmp_path / "w"
    Eraser.create(root).close()
    made = run(
        "-w", root, "keys", "create", "--name", "shop", "--scope", "request", "--scope", "read", "--json"
    ).json
    with Eraser(root) as eraser:
        key = eraser.workspace.api_keys.find(made["key"])
        assert key is not None
        assert (key.id, key.scopes) == (made["id"], ("request", "read"))
    (listed,) = run("-w", root, "keys", "--json").json
    assert (listed["name"], listed["revoked"]) == ("shop", None)
    assert made["key"] not in run("-w", root, "keys").out
    assert run("-w", root, "keys", "revoke", made["id"]).code == 0
    assert run("-w", root, "keys", "--json").json[0]["revoked"]
    assert run("-w", root, "keys", "revoke", "x").code == 2
    shown = run("-w", root, "keys", "create", "--name", "desk", "--scope", "find").out
    assert "key id" in shown
    assert "request" not in shown
    refused = run("-w", root, "keys", "create", "--name", "shop")
    assert (refused.code, "--scope" in refused.err) == (2, True)
