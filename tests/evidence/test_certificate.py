"""A certificate tells what was done, names nobody, and is verified without workspace; golden ones are for ever."""

from __future__ import annotations

import json
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest
from datasets import ClassLabel, Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from make_evidence import FOLDER, KEY, NEW, OLD, REQUEST, make, named
from sqlalchemy import text

from conftest import DIGIT_COLUMNS, NOW, Run, digits, examples
from fake import Fake
from lmeraser import Eraser, __version__
from lmeraser.config.schema import parse
from lmeraser.core.atomic_files import TEMPORARY
from lmeraser.core.digests import Digest, canonical_json
from lmeraser.core.progress import Progress
from lmeraser.core.time import to_text
from lmeraser.errors import InputError, RequestConflictError, VerificationError
from lmeraser.evidence.certificate import (
    CLAIM,
    FORMAT,
    NOT_COVERED,
    PAYLOAD_TYPE_1,
    PREDICATE_TYPE,
    claim,
    issue,
    verify,
    verify_in_ledger,
)
from lmeraser.evidence.dsse import Envelope, PublicKey, SigningKey
from lmeraser.evidence.hash_chain import Entry, check
from lmeraser.evidence.in_toto import InTotoStatement, Subject, verify_statement
from lmeraser.evidence.presentation import render
from lmeraser.evidence.verification_result import IDENTICAL
from lmeraser.models import clusters
from lmeraser.pipeline.executors.base import Fetch, TuneResult, TuneTask
from lmeraser.unlearning import certify, completion

CONFIG = parse({"partition": {"clusters": 4, "sample_size": 12}})
ANIMALS = [f"Felis-{number}" for number in range(10)]
LATER = NOW + timedelta(days=3)


def personal(numbers: Sequence[int]) -> Dataset:
    """Digits under names that no digest and no text of ours contains."""
    named_rows = digits(numbers).cast_column("label", ClassLabel(names=ANIMALS))
    return named_rows.map(
        lambda name, writer: {"id": name.replace("digit", "passport"), "writer": f"Lovelace-{writer}"},
        input_columns=["id", "writer"],
    )


def opened(root: Path, *, executor: Fake | None = None, now: datetime = LATER) -> Eraser:
    eraser = Eraser(root, clock=lambda: now)
    eraser.session.executors.use(executor or Fake())
    return eraser


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace of 40 records; only copied by the tests."""
    root = tmp_path_factory.mktemp("certificate") / "w"
    Eraser.create(root, CONFIG, clock=lambda: NOW).close()
    with opened(root, now=NOW) as eraser:
        eraser.add(personal(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "w"))


@pytest.fixture
def eraser(root: Path) -> Iterator[Eraser]:
    """Trained at `NOW`; it is `LATER` now."""
    with opened(root) as one:
        yield one


class Checked(NamedTuple):
    """A certificate that was verified with the workspace's public key and ledger."""

    path: Path
    data: bytes
    facts: dict[str, Any]


def checked(eraser: Eraser, path: str) -> Checked:
    data, root = Path(path).read_bytes(), eraser.workspace.root
    facts = verify(data, PublicKey.read(root / "signing.pub"))
    verify_in_ledger(data, facts, (root / "ledger").read_bytes())
    return Checked(Path(path), data, facts)


def certified(eraser: Eraser, **wish: Any) -> Checked:
    (path,) = eraser.unlearn(**wish).certificates
    return checked(eraser, path)


def ordinary(eraser: Eraser) -> list[str]:
    """Ids that do not shape the partition."""
    return sorted(set(eraser.record_ids()) - set(eraser.sampled_ids()))


def artifacts(eraser: Eraser) -> dict[str, Digest]:
    model = eraser.workspace.generations.require()
    clusters = {f"cluster {c.number}": c.constituent.artifact for c in model.clusters if c.constituent}
    return {"partition": model.partition.artifact, **clusters}


# --- the facts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampled", "pages"), [(False, False), (True, False), (False, True), (True, True)])
def test_what_a_deletion_writes_verifies_and_tells_what_was_done(
    eraser: Eraser, sampled: bool, pages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pages:  # as for many clusters
        monkeypatch.setattr(clusters, "MOST_IN_A_LIST", 0)
    gone = eraser.sampled_ids()[:2] if sampled else ordinary(eraser)[:2]
    before, old = eraser.workspace.generations.require(), artifacts(eraser)
    facts = certified(eraser, ids=gone, request=REQUEST).facts
    after, new = eraser.workspace.generations.require(), artifacts(eraser)
    assert (facts["format"], facts["software"]) == (FORMAT, f"lmeraser {__version__}")
    assert facts["request"]["id"] == REQUEST
    assert facts["request"]["received"] == facts["request"]["completed"] == to_text(LATER)
    assert facts["counts"] == counts(2, 0, 38)
    again = {name for name, digest in new.items() if digest not in old.values()}
    assert facts["model"] == {
        "digest_before": before.public_digest,
        "digest_after": after.public_digest,
        "generation": 1,
        "clusters": len(after.clusters),
        "partition_derived_again": sampled,
        "clusters_tuned_again": len(again - {"partition"}),
        "global_head_derived_again": False,
        "settings": Digest.of_json(CONFIG.model_settings()),
        "backbone": Fake.backbone,
        "fingerprints": [Fake.fingerprint],
    }
    assert before.model_digest != after.model_digest
    assert again
    assert ("partition" in again) == sampled
    assert facts["environment"] == {"machine": "none"}
    assert facts["audit"] is None
    assert (facts["claim"], facts["not_covered"]) == (CLAIM, list(NOT_COVERED))
    purged = set(old.values()) - set(new.values())
    assert facts["purged"]["artifacts"] == len(purged) > 0
    assert not [digest for digest in purged if digest in json.dumps(facts)], "guesses could be tested with them"
    assert facts["purged"]["records_with_image_features_and_cluster"] == 2
    stored = " ".join(path.name for path in eraser.workspace.root.rglob("*"))
    assert not [digest for digest in purged if digest.hex in stored]
    named = [f"page-{page.digest.hex}.json" for page in after.pages]
    folder = eraser.workspace.layout.generations
    assert {path.name for path in folder.iterdir()} == {"current", "00000001.json", *named}
    assert bool(named) == pages


@pytest.mark.parametrize("lost", [False, True])
def test_in_pages_the_model_before_is_kept_until_the_certificate_is_written(
    eraser: Eraser, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over several generations; where somebody has deleted its manifest, nothing is claimed."""
    monkeypatch.setattr(clusters, "MOST_IN_A_LIST", 0)
    first, second, third = ordinary(eraser)[:3]
    eraser.unlearn(ids=[first])
    old = artifacts(eraser)
    folder = eraser.workspace.layout.generations
    with monkeypatch.context() as patch:
        patch.setattr(completion, "complete_requests", lambda _: ())
        for gone in (second, third):
            eraser.unlearn(ids=[gone])
    assert {path.name for path in folder.glob("0*")} == {f"0000000{number}.json" for number in (1, 2, 3)}
    if lost:
        (folder / "00000001.json").unlink()
    eraser.train()
    new = artifacts(eraser)
    stored = {path: json.loads(path.read_bytes()) for path in eraser.workspace.certificates.glob("*.json")}
    facts = [verify(path.read_bytes(), eraser.workspace.signing_key.public) for path in stored]
    told = {one["model"]["digest_before"]: one for one in facts if one["model"]["generation"] == 3}
    assert len(told) == 2
    counted = sorted((one["model"]["clusters_tuned_again"], one["purged"]["artifacts"]) for one in told.values())
    expected = len(set(new.values()) - set(old.values())), len(set(old.values()) - set(new.values()))
    assert ((0, 0) if lost else expected) in counted
    assert len({path.name for path in folder.glob("0*")}) == 1
    assert eraser.audit().identical


def test_clusters_that_kept_their_members_are_not_said_to_be_tuned_again(root: Path) -> None:
    fake = Fake()
    with opened(root, executor=fake) as eraser:
        gone = ordinary(eraser)[0]
        model = eraser.workspace.generations.require()
        trie_keys = eraser.workspace.records.derived.trie_keys(model.partition.key, [gone])
        number = model.cluster_numbers(trie_keys)[gone]
        one = certified(eraser, ids=[gone])
    assert one.facts["model"]["clusters_tuned_again"] == 1
    said = json.dumps(one.facts) + one.path.with_suffix(".txt").read_text()
    assert f"cluster {number}" not in said, "it may be the cluster of this record alone"
    assert len(fake.tuned) == 1


def test_a_certificate_says_where_the_ledger_ended_before_it(eraser: Eraser) -> None:
    facts = certified(eraser, ids=ordinary(eraser)[:1]).facts
    entries = eraser.check_ledger().entries
    assert [entry.kind for entry in entries[-4:]] == ["request", "deleted", "generation", "completed"]
    assert facts["ledger"] == {"entries": len(entries) - 1, "digest": entries[-2].digest}


@pytest.mark.parametrize(
    ("regulation", "received", "due"),
    [
        ("gdpr", NOW, "2026-02-28T12:00:00Z"),
        ("gdpr", datetime(2024, 1, 30, 23, 59, 59, tzinfo=UTC), "2024-02-29T23:59:59Z"),
        ("gdpr", datetime(2025, 12, 15, tzinfo=UTC), "2026-01-15T00:00:00Z"),
        ("ccpa", NOW, "2026-03-17T12:00:00Z"),
        ("ccpa", datetime(2024, 2, 1, tzinfo=UTC), "2024-03-17T00:00:00Z"),
        ("other", NOW, "2026-03-02T12:00:00Z"),
    ],
)
def test_a_certificate_names_the_law_and_the_day_that_it_sets(
    eraser: Eraser, regulation: str, received: datetime, due: str
) -> None:
    facts = certified(eraser, ids=ordinary(eraser)[:1], regulation=regulation, received=received).facts
    assert facts["request"] == {
        "id": facts["request"]["id"],
        "regulation": regulation,
        "received": to_text(received),
        "due": due,
        "completed": to_text(LATER),
        "asked": to_text(received),
    }


def test_names_that_were_deleted_before_are_counted(eraser: Eraser) -> None:
    first, second = ordinary(eraser)[:2]
    before = certified(eraser, ids=[first]).facts
    facts = certified(eraser, ids=[first, second]).facts
    assert facts["counts"] == counts(1, 1, 38)
    assert facts["model"]["digest_before"] == before["model"]["digest_after"]
    again = certified(eraser, ids=[first, second]).facts
    assert again["counts"] == counts(0, 2, 38, duplicates=None, near=None)
    assert "was not counted" in again["claim"], "what the records held is not known any more"
    assert again["model"]["digest_before"] == again["model"]["digest_after"] == facts["model"]["digest_after"]
    assert again["model"]["clusters_tuned_again"] == 0
    assert not again["model"]["partition_derived_again"]
    assert again["purged"]["artifacts"] == 0


def counts(
    deleted: int, before: int, retained: int | None, *, duplicates: int | None = 0, near: int | None = 0
) -> dict[str, int | None]:
    """The counts of a certificate."""
    return {
        "records_deleted": deleted,
        "names_already_deleted": before,
        "records_retained": retained,
        "duplicates_held": duplicates,
        "near_duplicates_held": near,
    }


def test_a_certificate_says_when_the_person_asked_and_that_it_came_late(eraser: Eraser) -> None:
    asked = NOW - timedelta(days=40)
    one = certified(eraser, ids=ordinary(eraser)[:1], regulation="gdpr", asked=asked)
    assert one.facts["request"]["asked"] == to_text(asked)
    assert one.facts["request"]["received"] == to_text(LATER)
    text = one.path.with_suffix(".txt").read_text()
    assert f"Asked              {to_text(asked)}" in text
    assert "LATE" in text
    in_time = certified(eraser, ids=ordinary(eraser)[:1], regulation="gdpr")
    assert "LATE" not in in_time.path.with_suffix(".txt").read_text()


@pytest.mark.parametrize("count", [1, 7])
def test_the_claim_excepts_duplicates(count: int) -> None:
    assert claim(0) == CLAIM
    assert "Nothing that came from these" not in claim(count)
    assert f"Their number: {count}" in claim(count)


def test_an_audit_that_was_asked_for_is_told(eraser: Eraser) -> None:
    one = certified(eraser, ids=eraser.sampled_ids()[:1], audit=True)
    clusters = len(eraser.workspace.generations.require().clusters)
    audit = one.facts["audit"]
    assert (audit["identical"], audit["differences"], audit["same_environment"]) == (True, [], True)
    assert (audit["clusters_checked"], audit["clusters"], audit["records"]) == (clusters, clusters, 39)
    assert audit["model_digest"] == one.facts["model"]["digest_after"]
    assert f"identical: {clusters} of {clusters} clusters" in one.path.with_suffix(".txt").read_text()


class Moody(Fake):
    """An executor that gives another result each time, so that no audit agrees with it."""

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        for result in super().tune(tasks, fetch, progress):
            yield result if len(self.tuned) < 3 else TuneResult(result.key, result.data + b"!", 0.1)


def test_there_is_no_certificate_if_the_audit_finds_a_difference(root: Path) -> None:
    with opened(root, executor=Moody()) as eraser:
        report = eraser.unlearn(ids=ordinary(eraser)[:1], request=REQUEST, audit=True)
        assert [request.state for request in report.requests] == ["failed"]
        assert report.certificates == ()
        assert not list(root.glob("certificates/*"))
        assert eraser.check_ledger().entries[-1].kind == "failed"
    with opened(root) as eraser:
        assert certified(eraser, request=REQUEST).facts["audit"]["identical"]


def test_before_the_first_training_a_certificate_tells_of_no_model(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", CONFIG, clock=lambda: NOW) as eraser:
        eraser.add(personal(range(6)), columns=DIGIT_COLUMNS)
        one = certified(eraser, ids=["passport-0003"])
        assert one.facts["counts"] == counts(1, 0, None, near=None)
        assert {value for value in one.facts["model"].values() if not isinstance(value, (dict, list))} == {None, 0}
        assert "Model after        none" in one.path.with_suffix(".txt").read_text()


@pytest.mark.parametrize("pages", [False, True])
def test_requests_carried_out_together_have_a_certificate_each(
    eraser: Eraser, pages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models are compared once, however many requests there are: that takes as long as there are clusters."""
    if pages:
        monkeypatch.setattr(clusters, "MOST_IN_A_LIST", 0)
        eraser.unlearn(ids=ordinary(eraser)[-1:])
    compared = Mock(wraps=certify.compare)
    monkeypatch.setattr(completion, "compare", compared)
    ids = ordinary(eraser)[:3]
    before = eraser.workspace.generations.require().public_digest
    wishes = [eraser.request(ids=[record_id], regulation="ccpa") for record_id in ids]
    every = [checked(eraser, path).facts for path in eraser.unlearn().certificates]
    assert compared.call_count == 1
    assert {facts["request"]["id"] for facts in every} == {wish.id for wish in wishes}
    assert {facts["model"]["digest_before"] for facts in every} == {before}
    assert {facts["model"]["digest_after"] for facts in every} == {eraser.status().manifest_digest}
    assert [facts["counts"]["records_deleted"] for facts in every] == [1, 1, 1]
    entries = eraser.workspace.ledger.entries()
    completed = {e.body["request"]: e.position for e in entries if e.kind == "completed"}
    for facts in every:  # the head that each names is one of the ledger's, before the entry about it
        known = facts["ledger"]["entries"]
        assert known <= completed[facts["request"]["id"]]
        assert entries[known - 1].digest == facts["ledger"]["digest"]


def test_the_text_beside_a_certificate_is_its_facts_for_people(eraser: Eraser) -> None:
    one = certified(eraser, subjects=["Lovelace-w2"], regulation="gdpr")
    text = one.path.with_suffix(".txt").read_bytes().decode()
    assert text == render(one.facts)
    model = one.facts["model"]
    named_facts = (one.facts["request"]["id"], model["digest_before"], model["digest_after"])
    for fact in (*named_facts, "GDPR, Article 17", "not run"):
        assert fact in text
    assert not [path for path in one.path.parent.iterdir() if path.name.startswith(TEMPORARY)]


# --- nobody is named ---------------------------------------------------------------------------------------


def test_neither_certificates_nor_ledger_say_anything_personal(eraser: Eraser) -> None:
    records, ledger = eraser.workspace.records, eraser.workspace.root / "ledger"
    images = {record.id: record.payload_digest for record in records.index()}
    eraser.cancel(eraser.request(ids=ordinary(eraser)[5:7]).id)
    eraser.relabel(ANIMALS[3], ids=ordinary(eraser)[7:9])
    eraser.add(personal(range(40, 44)), columns=DIGIT_COLUMNS)
    eraser.train()
    every = [
        certified(eraser, ids=ordinary(eraser)[:2], subjects=["Lovelace-w1"], regulation="gdpr", audit=True),
        certified(eraser, ids=eraser.sampled_ids()[:1]),
    ]
    payloads = [Envelope.parse(one.data).payload for one in every]
    texts = [one.path.with_suffix(".txt").read_bytes() for one in every]
    told = b"\n".join([ledger.read_bytes(), *payloads, *texts, *(one.data for one in every)]).lower()
    assert told.count(b"completed") > 5, "what is searched is there"
    assert not [word for word in (b"passport", b"digit-", b"lovelace", b"felis") if word in told]
    guesses = [*(Digest.of(name.encode()) for name in images), *images.values()]
    guesses += [Digest.of(f"Lovelace-w{number}".encode()) for number in range(5)]
    assert not [guess for guess in guesses if guess.hex.encode() in told]


@pytest.mark.sqlite
@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_a_finished_request_keeps_nothing_with_which_names_or_clusters_could_be_tested(
    eraser: Eraser, end: str
) -> None:
    gone = ordinary(eraser)[:1]
    request = eraser.request(ids=gone, request=REQUEST)
    database = eraser.workspace.root / "records.db"
    with eraser.workspace.database.reading() as connection:
        (digest,) = connection.execute(text("SELECT selector FROM requests")).scalars()
    if end == "completed":
        eraser.unlearn()
        (again,) = eraser.unlearn(ids=gone, request=REQUEST).requests
        assert (again.id, again.state) == (REQUEST, "completed"), "it may be repeated"
        with pytest.raises(RequestConflictError):
            eraser.request(ids=ordinary(eraser)[:1], request=REQUEST)
    else:
        eraser.cancel(request.id)
        eraser.purge()
    with eraser.workspace.database.reading() as connection:
        rows = connection.execute(text("SELECT selector, before FROM requests")).all()
    assert [(row.selector, row.before) for row in rows] in ([("", None)], [("", "null")])
    assert not eraser.workspace.database.compaction_due
    eraser.close()
    assert digest.encode() not in database.read_bytes()


def test_a_thief_of_everything_finds_no_digest_of_a_former_model(eraser: Eraser) -> None:
    """Whoever guesses a deleted record could derive the model before, and compare its digest."""
    old = eraser.workspace.generations.require()
    facts = certified(eraser, ids=ordinary(eraser)[:2], audit=True).facts
    certified(eraser, ids=ordinary(eraser)[:1])
    eraser.purge()
    workspace = eraser.workspace
    new = workspace.generations.require()
    parts = {result.artifact for result in old.stages.values()} - {r.artifact for r in new.stages.values()}
    hidden = [old.model_digest.hex, *(digest.hex for digest in parts), str(old.nonce)]
    files = [path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()]
    files += [Envelope.parse(path.read_bytes()).payload for path in workspace.certificates.glob("*.json")]
    files += [data for _, data in workspace.database.decrypted_values()]
    assert any(old.public_digest.hex.encode() in data for data in files), "by which the ledger names it"
    assert facts["model"]["digest_before"] == old.public_digest
    assert new.nonce is not None
    assert any(new.nonce.encode() in data for data in files), "what is searched is there"
    assert not [text for text in hidden for data in files if text.encode() in data or bytes.fromhex(text) in data]


def test_an_audit_writes_a_statement_that_verifies(run: Run, eraser: Eraser, tmp_path: Path) -> None:
    report, statement = eraser.audit(), tmp_path / "audit.json"
    statement.write_bytes(eraser.sign_audit(report))
    key = eraser.workspace.root / "signing.pub"
    found = verify_statement(statement.read_bytes(), PublicKey.read(key))
    model = eraser.workspace.generations.require()
    assert found.subjects == (Subject("generation 0", model.public_digest),)
    shown = run("verify", statement, "--key", key)
    assert shown.code == 0
    assert f"generation 0 ({model.public_digest})" in shown.out
    assert IDENTICAL in shown.out
    told = run("verify", statement, "--key", key, "--json").json
    assert told["verified"]
    assert told["properties"] == found.predicate["properties"]
    for option in ("--ledger", "--head"):
        assert run("verify", statement, "--key", key, option, eraser.workspace.root / "ledger").code == 2
    eraser.unlearn(ids=ordinary(eraser)[:1])
    with pytest.raises(VerificationError, match="another generation"):
        eraser.sign_audit(report)
    with pytest.raises(VerificationError, match="differences"):
        eraser.sign_audit(replace(report, identical=False))


# --- the ledger --------------------------------------------------------------------------------------------


@pytest.fixture
def one(eraser: Eraser) -> Checked:
    return certified(eraser, ids=ordinary(eraser)[:1])


def chain(entries: Sequence[Entry]) -> bytes:
    """A ledger of what these entries tell, linked anew."""
    lines: list[Entry] = []
    for position, entry in enumerate(entries):
        previous = lines[-1].digest if lines else None
        lines.append(Entry(position, previous, entry.time, entry.kind, entry.body))
    return b"".join(line.line() for line in lines)


def test_the_true_ledger_is_accepted_however_it_goes_on(eraser: Eraser, one: Checked, tmp_path: Path) -> None:
    ledger = eraser.workspace.root / "ledger"
    now = ledger.read_bytes()
    assert verify_in_ledger(one.data, one.facts, now)[-1].kind == "completed"
    certified(eraser, ids=ordinary(eraser)[:1])
    later = verify_in_ledger(one.data, one.facts, ledger.read_bytes())
    assert len(later) > len(check(now))
    eraser.workspace.ledger.export(tmp_path / "exported")
    assert verify_in_ledger(one.data, one.facts, (tmp_path / "exported").read_bytes()) == later


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM requests", "UPDATE requests SET state = 'completed'", "UPDATE requests SET due = '2099'"],
)
def test_what_is_done_to_a_request_behind_the_ledgers_back_is_found(eraser: Eraser, change: str) -> None:
    eraser.request(ids=ordinary(eraser)[:1])
    assert eraser.check_ledger().sound
    with eraser.workspace.database.transaction() as connection:
        connection.execute(text(change))
    assert len(eraser.check_ledger().differences) == 1


def test_entries_that_were_appended_to_a_copy_are_told_by_a_head_kept_elsewhere(
    run: Run, eraser: Eraser, one: Checked, tmp_path: Path
) -> None:
    entries = check((eraser.workspace.root / "ledger").read_bytes())
    end = entries[-1]
    (tmp_path / "head").write_text(json.dumps({"entries": len(entries), "digest": end.digest}))
    forged = [*entries[:-1], Entry(0, None, to_text(LATER), "cancelled", {"request": REQUEST}), end]
    (tmp_path / "true").write_bytes(chain(entries))
    (tmp_path / "forged").write_bytes(chain(forged))
    command = ("verify", one.path, "--key", eraser.workspace.root / "signing.pub")
    for ledger, code in (("true", 0), ("forged", 1)):
        assert run(*command, "--ledger", tmp_path / ledger).code == 0
        assert run(*command, "--ledger", tmp_path / ledger, "--head", tmp_path / "head").code == code
    assert run(*command, "--head", tmp_path / "head").code == 2


def test_another_ledger_is_refused(one: Checked, trained: Path) -> None:
    golden = (FOLDER / "ledger-1").read_bytes()
    for other in (golden, golden * 2, (trained / "ledger").read_bytes(), b"", b"\n", b"{}\n", b"\xff"):
        with pytest.raises(VerificationError):
            verify_in_ledger(one.data, one.facts, other)


def test_a_shortened_ledger_is_refused(eraser: Eraser, one: Checked) -> None:
    ledger = (eraser.workspace.root / "ledger").read_bytes()
    for end in range(len(ledger)):
        with pytest.raises(VerificationError):
            verify_in_ledger(one.data, one.facts, ledger[:end])


def test_a_ledger_without_this_completion_is_refused(eraser: Eraser, one: Checked) -> None:
    entries = check((eraser.workspace.root / "ledger").read_bytes())
    *others, completed = entries
    body = dict(completed.body)
    verify_in_ledger(one.data, one.facts, chain(entries))
    for kind, instead in [
        ("completed", {**body, "certificate": named("another")}),
        ("completed", {**body, "request": REQUEST}),
        ("completed", {**body, "more": 1}),
        ("failed", body),
    ]:
        forged = chain([*others, Entry(0, None, completed.time, kind, instead)])
        check(forged)
        with pytest.raises(VerificationError, match="no entry for certificate"):
            verify_in_ledger(one.data, one.facts, forged)


def test_a_ledger_that_tells_another_story_before_it_is_refused(eraser: Eraser, one: Checked) -> None:
    entries = check((eraser.workspace.root / "ledger").read_bytes())
    for changed in range(len(entries) - 1):
        told = [*entries]
        told[changed] = Entry(0, None, to_text(NOW - timedelta(days=1)), told[changed].kind, told[changed].body)
        forged = chain(told)
        check(forged)
        with pytest.raises(VerificationError, match="is not the last entry of the exported head"):
            verify_in_ledger(one.data, one.facts, forged)


# --- what an operator with the signing key might sign ---------------------------------------------------------


def resigned(one: Checked, key: SigningKey, **changes: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The certificate with other fields, signed again: its bytes and what they say."""
    said = json.loads(json.dumps(one.facts))
    for part, fields in changes.items():
        said[part] = {**said[part], **fields} if isinstance(said[part], dict) else fields
    return signed(said, key).to_bytes(), said


def signed(facts: dict[str, Any], key: SigningKey) -> Envelope:
    """The envelope of a statement in the format that it says it has, well-formed or not."""
    if facts.get("format") == 1:
        return key.sign(canonical_json(facts), payload_type=PAYLOAD_TYPE_1)
    try:
        return issue(facts, key)
    except (KeyError, TypeError, InputError):  # it has no generation or no entry to tell of
        subjects = InTotoStatement.parse(Envelope.parse(GOLDEN_2).payload).subjects
        return InTotoStatement(subjects, PREDICATE_TYPE, facts).sign(key)


@pytest.mark.parametrize(
    ("number", "changes", "told"),
    [
        *(
            (number, changes, told)
            for number in (1, 2)
            for changes, told in [
                ({"audit": {"differences": ["cluster 1"]}}, "lists differences"),
                ({"audit": {"identical": False, "differences": ["cluster 1"]}}, "found differences"),
                ({"audit": {"model_digest": named("another")}}, "another model"),
                ({"audit": {"records": 7}}, "other records"),
                ({"audit": {"clusters": 99}}, "other clusters"),
                ({"counts": {"records_deleted": 500}}, "in two ways"),
                ({"counts": {"records_retained": None}}, "of a model and of none"),
                ({"counts": {"names_already_deleted": -1}}, "negative"),
                ({"model": {"digest_after": None}}, "of a model and of none"),
            ]
        ),
        (1, {"model": {"digest_before": NEW.model_digest}}, "the model is the same"),
        (2, {"model": {"digest_before": NEW.public_digest}}, "the model is the same"),
        (1, {"purged": {"artifacts": [named("new tensors")]}}, "what was purged is served"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_not_verified(
    number: int, changes: dict[str, Any], told: str
) -> None:
    data, _ = resigned(golden_of(number), KEY, **changes)
    with pytest.raises(VerificationError, match=told):
        verify(data, KEY.public)


def golden_of(number: int) -> Checked:
    path = FOLDER / f"certificate-{number}.json"
    return Checked(path, path.read_bytes(), verify(path.read_bytes(), KEY.public))


@pytest.mark.parametrize("subjects", [[], [Subject("generation 1", named("other"))], [Subject("x", named("y"))]])
def test_a_statement_about_other_subjects_is_refused(subjects: list[Subject]) -> None:
    right = InTotoStatement.parse(Envelope.parse(GOLDEN_2).payload)
    for changed in (
        InTotoStatement((*subjects, *right.subjects[1:]), PREDICATE_TYPE, right.predicate),
        InTotoStatement(right.subjects, "urn:lmeraser:predicate:deletion:3", right.predicate),
    ):
        with pytest.raises(VerificationError, match="Unsupported certificate format"):
            verify(changed.sign(KEY).to_bytes(), KEY.public)


def retold(golden: bytes, **bodies: dict[str, Any] | None) -> list[Entry]:
    """The entries of a ledger but the last, some with other bodies; None: without the entry of this kind."""
    entries = [entry for entry in check(golden)[:-1] if bodies.get(entry.kind, {}) is not None]
    return [Entry(0, None, e.time, e.kind, retold_body(e, bodies.get(e.kind) or {})) for e in entries]


def retold_body(entry: Entry, changes: dict[str, Any]) -> dict[str, Any]:
    """The body of an entry with other values for those of these fields that it has."""
    return {**entry.body, **{name: value for name, value in changes.items() if name in entry.body}}


@pytest.mark.parametrize(
    ("bodies", "told"),
    [
        ({"workspace": {"key": named("another key")}}, "does not name the key"),
        ({"workspace": None}, "does not name the key"),
        ({"deleted": None}, "no entry deletes"),
        ({"deleted": {"removed": {"1": [named("one")]}}}, "deletes 1 records"),
        ({"deleted": {"requests": []}}, "no entry deletes"),
        ({"request": None}, "no entry accepts"),
        ({"request": {"due": "2099-01-01T00:00:00Z"}}, "no entry accepts"),
        ({"generation": {"model": named("another"), "manifest": named("another")}}, "another one"),
        ({"generation": {"records": 30}}, "another one"),
        ({"generation": None}, "another one"),
        ({"added": {"records": 520}}, "510 records are held"),
        ({"added": None}, "records are held"),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_certificate_that_contradicts_its_ledger_is_not_verified(
    bodies: dict[str, dict[str, Any] | None], told: str, number: int
) -> None:
    """The certificate names the forged ledger's head, and the ledger the certificate: both are whole."""
    forged = [*check(chain(retold((FOLDER / f"ledger-{number}").read_bytes(), **bodies)))]
    golden = golden_of(number)
    head = {"entries": len(forged), "digest": forged[-1].digest}
    said = {**golden.facts, "ledger": head}
    data = signed(said, KEY).to_bytes()
    assert verify(data, KEY.public) == said
    body = {"request": REQUEST, "certificate": Digest.of(Envelope.parse(data).payload)}
    ledger = chain([*forged, Entry(0, None, to_text(NOW), "completed", body)])
    with pytest.raises(VerificationError, match=told):
        verify_in_ledger(data, said, ledger)


# --- forgery -----------------------------------------------------------------------------------------------


def holds(data: bytes, key: PublicKey, facts: dict[str, Any]) -> bool:
    """Whether the bytes verify; if so, they say exactly the same, and otherwise they are properly refused."""
    try:
        found = verify(data, key)
    except VerificationError:
        return False
    assert found == facts
    assert canonical_json(found) == canonical_json(facts)
    return True


def test_whichever_byte_is_changed_the_facts_are_the_same_or_refused(eraser: Eraser, one: Checked) -> None:
    key = PublicKey.read(eraser.workspace.root / "signing.pub")
    assert len(one.data) > 700
    accepted: set[int] = set()
    refused: set[int] = set()
    for position, byte in enumerate(one.data):
        for other in {byte ^ 1, byte ^ 0x20, byte ^ 0x80, 0x00, 0x09, 0x22} - {byte}:
            changed = one.data[:position] + bytes([other]) + one.data[position + 1 :]
            (accepted if holds(changed, key, one.facts) else refused).add(position)
    assert len(refused) > 700
    assert {one.data[position] for position in accepted} <= set(b" \n"), "only layout may change"


def test_a_certificate_says_whether_the_database_was_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for number, limit in enumerate((64 << 20, 0)):
        monkeypatch.setattr("lmeraser.storage.database._QUICK_TO_COMPACT", limit)
        with Eraser.create(tmp_path / str(number), CONFIG, clock=lambda: NOW) as eraser:
            eraser.session.executors.use(Fake())
            eraser.add(digits(range(12)), columns=DIGIT_COLUMNS)
            eraser.train()
            (path,) = eraser.unlearn(ids=["digit-0001"]).certificates
            told.append(verify(Path(path).read_bytes(), eraser.workspace.signing_key.public)["purged"]["database"])
            assert eraser.status().compaction_due is (limit == 0)
            eraser.purge()
            assert not eraser.status().compaction_due
    assert told[0] == "keys overwritten; rewritten without free pages, log emptied"
    assert told[1].startswith("keys overwritten; rows without content")


def test_there_is_one_way_to_write_a_signature_and_a_payload() -> None:
    """The last letter of base64 holds bits that stand for nothing."""
    values = json.loads(GOLDEN)
    for holder, name in ((values["signatures"][0], "sig"), (values, "payload")):
        text = holder[name]
        padding = "=" * text.count("=")
        assert padding, "without it every bit stands for something"
        start, last = text.removesuffix(padding)[:-1], text.removesuffix(padding)[-1]
        for letter in set(string.ascii_letters + string.digits + "+/=") - {last}:
            holder[name] = start + letter + padding
            with pytest.raises(VerificationError):
                verify(json.dumps(values).encode(), GOLDEN_KEY)
        holder[name] = text
    assert verify(json.dumps(values).encode(), GOLDEN_KEY) == GOLDEN_FACTS


GOLDEN = (FOLDER / "certificate-1.json").read_bytes()
GOLDEN_KEY = PublicKey.read(FOLDER / "signing.pub")
GOLDEN_FACTS = verify(GOLDEN, GOLDEN_KEY)
GOLDEN_2 = (FOLDER / "certificate-2.json").read_bytes()
GOLDEN_FACTS_2 = verify(GOLDEN_2, GOLDEN_KEY)
PLACES = st.integers(0, len(GOLDEN))


@given(
    PLACES, PLACES, st.one_of(st.binary(max_size=40), st.sampled_from([GOLDEN[5:90], b'"', b"}", b"[", b"1e9"]))
)
@settings(examples(fast=66, explore=200))
def test_whatever_is_cut_out_or_put_in_the_facts_are_the_same_or_refused(start: int, end: int, new: bytes) -> None:
    holds(GOLDEN[: min(start, end)] + new + GOLDEN[max(start, end) :], GOLDEN_KEY, GOLDEN_FACTS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig"]), JSON)
@settings(examples(fast=66, explore=200))
def test_an_envelope_with_anything_in_a_field_is_refused(name: str, value: Any) -> None:
    values = json.loads(GOLDEN)
    (values if name in values else values["signatures"][0])[name] = value
    with pytest.raises(VerificationError):
        verify(json.dumps(values).encode(), GOLDEN_KEY)


@given(st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
@settings(deadline=None)
def test_bytes_that_are_no_envelope_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        verify(data, GOLDEN_KEY)


def test_an_envelope_nested_too_deep_is_refused() -> None:
    with pytest.raises(VerificationError):
        verify(b"[" * 100_000, GOLDEN_KEY)


def test_another_key_another_type_and_another_format_are_refused() -> None:
    stranger, payload = SigningKey.new(), canonical_json(GOLDEN_FACTS)
    for envelope in (
        stranger.sign(payload, payload_type=PAYLOAD_TYPE_1),
        KEY.sign(payload, payload_type="application/json"),
        KEY.sign(canonical_json({**GOLDEN_FACTS, "format": FORMAT + 1}), payload_type=PAYLOAD_TYPE_1),
        KEY.sign(canonical_json({}), payload_type=PAYLOAD_TYPE_1),
    ):
        with pytest.raises(VerificationError):
            verify(envelope.to_bytes(), GOLDEN_KEY)
    with pytest.raises(VerificationError):
        verify(GOLDEN, stranger.public)


def test_the_signature_of_one_certificate_does_not_fit_another() -> None:
    other = signed({**GOLDEN_FACTS, "counts": {}}, KEY)
    mine = Envelope.parse(GOLDEN)
    for mixed in (
        Envelope(other.payload, mine.payload_type, mine.key_id, mine.signature),
        Envelope(mine.payload, mine.payload_type, mine.key_id, other.signature),
        Envelope(mine.payload, mine.payload_type, mine.key_id, b""),
        Envelope(mine.payload, mine.payload_type, mine.key_id, mine.signature * 2),
    ):
        with pytest.raises(VerificationError, match="does not cover"):
            verify(mixed.to_bytes(), GOLDEN_KEY)


# --- golden files ------------------------------------------------------------------------------------------


def test_the_golden_certificate_verifies_for_ever() -> None:
    facts = verify((FOLDER / "certificate-1.json").read_bytes(), PublicKey.read(FOLDER / "signing.pub"))
    assert facts["format"] == 1
    assert facts["request"] == {
        "id": "00000000-0000-4000-8000-000000000001",
        "regulation": "gdpr",
        "received": "2026-01-31T12:00:00Z",
        "due": "2026-02-28T12:00:00Z",
        "completed": "2026-01-31T12:00:00Z",
    }
    assert facts["counts"] == {"records_deleted": 10, "names_already_deleted": 1, "records_retained": 20}
    model = facts["model"]
    assert model["digest_before"] == OLD.model_digest == f"sha256:{_OLD}"
    assert model["digest_after"] == NEW.model_digest == f"sha256:{_NEW}"
    assert (model["generation"], model["clusters"], model["partition_derived_again"]) == (1, 2, True)
    tuned_again = {"partition": named("new partition"), "cluster 1": named("new tensors")}
    assert model["artifacts_tuned_again"] == tuned_again
    assert facts["purged"]["artifacts"] == sorted(map(named, ["old partition", "old tensors", "older tensors"]))
    audit = {"identical": True, "clusters_checked": 2, "clusters": 2}
    assert audit.items() <= facts["audit"].items()
    assert facts["environment"] == {"machine": "golden", "threads": 1}
    assert facts["ledger"]["entries"] == 6


_OLD = "781b93ec30319f175ae396faa28733c1bc6dd29585fdd2e65a9bfec2512de35e"
_NEW = "8d721aa864a0f66af7b108ee09a83ecf90fbf1ed429903444742e48285ddbd09"


def test_the_golden_certificate_is_found_in_the_golden_ledger_for_ever() -> None:
    entries = verify_in_ledger(GOLDEN, GOLDEN_FACTS, (FOLDER / "ledger-1").read_bytes())
    kinds = ["workspace", "added", "generation", "request", "deleted", "generation", "completed"]
    assert [entry.kind for entry in entries] == kinds
    assert entries[0].body == {"format": 1, "key": GOLDEN_KEY.key_id}


@pytest.mark.parametrize("number", [1, 2])
def test_golden_certificates_verify_and_are_rendered_as_they_were(number: int) -> None:
    data = (FOLDER / f"certificate-{number}.json").read_bytes()
    facts = verify(data, GOLDEN_KEY)
    assert facts["format"] == number
    assert verify_in_ledger(data, facts, (FOLDER / f"ledger-{number}").read_bytes())
    assert render(facts).encode() == (FOLDER / f"certificate-{number}.txt").read_bytes()


def test_making_the_golden_files_again_gives_the_same_bytes() -> None:
    made = make()
    assert made == make()
    assert made == {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.name in made}


# --- the command line --------------------------------------------------------------------------------------

GOOD = (FOLDER / "certificate-1.json", "--key", FOLDER / "signing.pub")


def test_verify_prints_the_certificate_and_ends_with_0(run: Run, eraser: Eraser, one: Checked) -> None:
    root = eraser.workspace.root
    good = (one.path, "--key", root / "signing.pub")
    text = one.path.with_suffix(".txt").read_text()
    signer = PublicKey.read(root / "signing.pub").key_id
    key = f"whose key this is, {signer}: compare it with the one that was published"
    alone, rewritten = "whether the ledger has it: give --ledger", "whether the ledger was rewritten since: "
    rewritten += "give --head, a head of it that somebody else kept"
    ends = f"not checked: {key}\nverified: signature"
    assert run("verify", *good) == (0, f"{text}\nnot checked: {alone}\n{ends}\n", "")
    shown = f"{text}\nnot checked: {rewritten}\n{ends} and entry in the ledger\n"
    assert run("verify", *good, "--ledger", root / "ledger") == (0, shown, "")
    told = run("verify", *good, "--ledger", root / "ledger", "--json").json
    checked = {"verified": True, "kind": "certificate", "in_ledger": True, "contains_head": False}
    checked |= {"key": signer, "standard_wording": True}
    assert told == {**checked, "not_checked": [rewritten, key], **one.facts}
    told = run("verify", *good, "--json").json
    assert (told["in_ledger"], told["not_checked"]) == (False, [alone, key])


def test_evidence_that_does_not_hold_ends_with_1(run: Run, tmp_path: Path) -> None:
    values = json.loads(GOLDEN)
    values["payload"] = json.loads(signed({**GOLDEN_FACTS, "counts": {}}, KEY).to_bytes())["payload"]
    (tmp_path / "tampered.json").write_text(json.dumps(values))
    (tmp_path / "cut.json").write_bytes(GOLDEN[:-9])
    (tmp_path / "other.pub").write_bytes(SigningKey.new().public.pem)
    *lines, _ = (FOLDER / "ledger-1").read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger").write_bytes(b"".join(lines))
    for arguments in (
        (tmp_path / "tampered.json", *GOOD[1:]),
        (tmp_path / "cut.json", *GOOD[1:]),
        (GOOD[0], "--key", tmp_path / "other.pub"),
        (*GOOD, "--ledger", tmp_path / "ledger"),
        (*GOOD, "--ledger", FOLDER / "signing.pub"),
    ):
        code, out, err = run("verify", *arguments)
        assert (code, out) == (1, ""), arguments
        code, out, _ = run("verify", *arguments, "--json")
        assert (code, json.loads(out)["verified"]) == (1, False)
        assert err.startswith("lmeraser: ")
        assert "Traceback" not in err


def test_files_that_cannot_be_used_end_with_2(run: Run, tmp_path: Path) -> None:
    for arguments in (
        (tmp_path / "none.json", *GOOD[1:]),
        (tmp_path, *GOOD[1:]),
        (GOOD[0], "--key", tmp_path / "none.pub"),
        (GOOD[0], "--key", GOOD[0]),
        (*GOOD, "--ledger", tmp_path / "none"),
    ):
        code, out, err = run("verify", *arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("lmeraser: ")
    assert run("verify", GOOD[0])[0] == 2


_LOADED = """
import sys
sys.argv = ["lmeraser", *sys.argv[1:]]
from lmeraser.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "numpy", "sqlalchemy", "datasets", "PIL"}
    print("LOADED", *sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def test_verifying_loads_neither_torch_nor_numpy_nor_sqlalchemy_and_needs_no_workspace(tmp_path: Path) -> None:
    arguments = [*map(str, GOOD), "--ledger", str(FOLDER / "ledger-1")]
    command = [sys.executable, "-c", _LOADED, "verify", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "LOADED\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "payload",
    [b"", b"x", b"[]", b"null", b'"format"', b'{"format":1}', b'{"format":"1"}', b'{"format":2}', b"[" * 100_000],
)
def test_signed_nonsense_is_refused(payload: bytes) -> None:
    key = SigningKey.new()
    data = key.sign(payload, payload_type=PAYLOAD_TYPE_1).to_bytes()
    with pytest.raises(VerificationError, match=r"Unsupported certificate format: .*format 1"):
        verify(data, key.public)


@pytest.mark.parametrize("name", sorted(GOLDEN_FACTS))
def test_a_signed_statement_that_lacks_a_part_or_holds_it_wrong_is_refused(name: str) -> None:
    key = SigningKey.new()
    without = {other: value for other, value in GOLDEN_FACTS.items() if other != name}
    for facts in (without, {**GOLDEN_FACTS, name: [[]]}, {**GOLDEN_FACTS, "more": 1}):
        with pytest.raises(VerificationError):
            verify(signed(facts, key).to_bytes(), key.public)
