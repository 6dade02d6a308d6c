"""Deletion requests over HTTP: accepted once, durable and quarantined when answered, taken back, listed."""

from __future__ import annotations

import base64
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import respell
from lmeraser import Eraser
from lmeraser.core.time import to_text
from lmeraser.evidence.certificate import verify
from lmeraser.evidence.certificate_pdf import to_pdf
from lmeraser.evidence.presentation import render
from lmeraser.inference.quarantine import QuarantineScope
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service.model_holder import ModelHolder, ServedModel
from serving import Running, erasure, fixtures, problem

GONE, OTHER = "digit-0003", "digit-0004"


network, trained, root, api = fixtures("instant")


def head_of(served: ServedModel) -> bytes:
    head = served.predictor._head
    assert head is not None
    return head["weight"].tobytes()


def status_of(api: Running, request: str) -> str:
    return str(api.get(f"/requests/{request}").json()["request_status"])


# --- filing --------------------------------------------------------------------------------------------------


def test_a_request_is_accepted_with_a_receipt(api: Running) -> None:
    wanted = erasure(GONE)
    answer = api.call("POST", "/requests", "request", json=wanted)
    assert answer.status_code == 201
    receipt = answer.json()
    assert receipt["subject_request_id"] == wanted["subject_request_id"]
    assert json.loads(base64.b64decode(receipt["encoded_request"])) == wanted
    assert base64.b64decode(receipt["encoded_request"]) == answer.request.content
    assert receipt["expected_completion_time"] == "2026-02-28T12:00:00Z", "the period began when the person asked"
    assert datetime.fromisoformat(receipt["received_time"]) > datetime.fromisoformat(wanted["submitted_time"])
    with Eraser(api.service.workspace.root) as other:
        (request,) = other.requests()
    assert (request.id, request.state, request.regulation) == (receipt["subject_request_id"], "pending", "gdpr")


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00Z", "2200-01-01T00:00:00+02:00"]
)
def test_a_time_at_which_nobody_can_have_asked_is_refused(api: Running, moment: str) -> None:
    wanted = erasure(GONE, submitted_time=moment)
    planned = {name: wanted[name] for name in ("subject_identities", "submitted_time")}
    for path, body in (("/requests", wanted), ("/plan", planned)):
        refused = problem(api.call("POST", path, json=body), 422, "submitted-time")
        assert refused["faults"][0]["where"] == "submitted_time"
    assert api.service.workspace.requests.all() == []


@pytest.mark.parametrize(
    "moment", [1_769_860_800, 1_769_860_800_000, "1769860800", -1, True, "2026-01-31", "2026-01-31T12:00:00"]
)
def test_a_time_is_a_text_with_a_time_zone(api: Running, moment: object) -> None:
    """Of a number, whether it counts seconds or milliseconds would be guessed."""
    wanted = erasure(GONE, submitted_time=moment)
    planned = {name: wanted[name] for name in ("subject_identities", "submitted_time")}
    for path, body in (("/requests", wanted), ("/plan", planned)):
        (fault,) = problem(api.call("POST", path, json=body), 400, "invalid")["faults"]
        assert fault["where"] == "submitted_time"
        assert "2026-01-31T12:00:00Z" in fault["message"]


def test_null_is_left_out_everywhere(api: Running) -> None:
    wanted = erasure(GONE) | {"api_version": None, "status_callback_urls": None}
    wanted["extensions"] = {"lmeraser": {"audit": None, "with_duplicates": None}, "other": None}
    assert api.call("POST", "/requests", json=wanted).status_code == 201
    identities = erasure(OTHER)["subject_identities"]
    nulls = {"regulation": None, "submitted_time": None, "extensions": None}
    assert api.call("POST", "/plan", json={"subject_identities": identities, **nulls}).status_code == 200
    missing = api.call("POST", "/requests", json=erasure(GONE) | {"submitted_time": None})
    assert missing.status_code == 400
    assert missing.json()["faults"][0]["where"] == "submitted_time"


def test_the_day_on_which_the_person_asked_is_kept(api: Running) -> None:
    answer = api.file(GONE, submitted_time="2026-01-20T10:00:00+02:00", regulation="ccpa").json()
    (request,) = api.service.workspace.requests.all()
    assert request.asked == "2026-01-20T08:00:00Z"
    assert answer["expected_completion_time"] == "2026-03-06T08:00:00Z"


def test_the_period_begins_with_its_arrival_if_the_clock_of_the_caller_is_ahead(api: Running) -> None:
    ahead = to_text(api.service.workspace.clock() + timedelta(hours=20))
    answer = api.file(GONE, submitted_time=ahead, regulation="ccpa").json()
    period = datetime.fromisoformat(answer["expected_completion_time"]) - datetime.fromisoformat(
        answer["received_time"]
    )
    assert period.days == 45


@pytest.mark.parametrize("names", [(GONE, OTHER), ()])
def test_subjects_and_records_may_be_named_together(api: Running, names: tuple[str, ...]) -> None:
    wanted = erasure(*names, subjects=["w1"])
    assert api.call("POST", "/requests", json=wanted).status_code == 201
    chosen = api.service.workspace.requests.pending_selection().ids
    assert set(names) < set(chosen)
    assert len(chosen) == 5 + len({name for name in names if int(name[-1]) % 5 != 1})


def test_a_repeated_request_is_the_same_one(api: Running) -> None:
    wanted = erasure(GONE, subjects=["w1"])
    first, again = (api.call("POST", "/requests", json=wanted) for _ in range(2))
    wanted["subject_identities"].reverse()
    turned = api.call("POST", "/requests", json=wanted)
    assert [answer.status_code for answer in (first, again, turned)] == [201, 200, 200]
    same = ("subject_request_id", "received_time", "expected_completion_time")
    assert len({tuple(answer.json()[name] for name in same) for answer in (first, again, turned)}) == 1
    assert len(api.get("/requests").json()["requests"]) == 1
    wanted["subject_identities"].pop()
    problem(api.call("POST", "/requests", json=wanted), 409, "request-conflict")


def test_a_repeated_id_with_anything_else_is_refused_without_a_receipt(api: Running) -> None:
    api.service.config = api.service.config.model_copy(update={"callback_hosts": ("one.example",)})
    wanted = erasure(GONE)
    assert api.call("POST", "/requests", json=wanted).status_code == 201
    changes: list[dict[str, Any]] = [
        {"regulation": "ccpa"},
        {"submitted_time": "2026-01-30T12:00:00Z"},
        {"extensions": {"lmeraser": {"audit": True}}},
        {"status_callback_urls": ["https://one.example/"]},
        {"subject_identities": erasure(OTHER)["subject_identities"]},
    ]
    for change in changes:
        refused = api.call("POST", "/requests", json={**wanted, **change})
        problem(refused, 409, "request-conflict")
        assert "X-OpenDSR-Signature" not in refused.headers
    assert api.call("POST", "/requests", json={**wanted, "api_version": "2.0"}).status_code == 200
    (request,) = api.service.workspace.requests.all()
    assert (request.regulation, request.audit, request.names) == ("gdpr", False, 1)
    wanted = erasure(GONE, status_callback_urls=["https://one.example/a", "https://one.example/b"])
    assert api.call("POST", "/requests", json=wanted).status_code == 201
    wanted["status_callback_urls"].reverse()
    assert api.call("POST", "/requests", json=wanted).status_code == 200
    wanted["status_callback_urls"].pop()
    problem(api.call("POST", "/requests", json=wanted), 409, "request-conflict")
    wanted = erasure(GONE)
    api.call("POST", "/requests", json=wanted)
    api.call("DELETE", f"/requests/{wanted['subject_request_id']}")
    detail = problem(api.call("POST", "/requests", json=wanted), 409, "request-conflict")["detail"]
    assert "cancelled" in detail


# --- what a key may learn ------------------------------------------------------------------------------------


def test_a_key_that_only_submits_is_answered_alike_whatever_is_held(api: Running, network: LocalExecutor) -> None:
    completed = str(uuid.uuid4())
    with Eraser(api.service.workspace.root) as beside:
        beside.session.executors.use(network)
        beside.unlearn(ids=[OTHER], request=completed)
    for name in (GONE, OTHER, "nobody"):
        problem(
            api.call("POST", "/requests", "submit", json=erasure(name, request=completed)), 409, "request-conflict"
        )
    filed = {name: erasure(name) for name in (GONE, OTHER, "nobody")}
    answers = [api.call("POST", "/requests", "submit", json=wanted) for wanted in filed.values()]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    for answer in answers:
        receipt = answer.json()
        assert len(base64.b64decode(receipt.pop("encoded_request"))) > 100
        assert receipt.keys() == {
            "controller_id", "subject_request_id", "received_time", "expected_completion_time", "api_version"
        }  # fmt: skip
    paths = [f"/requests/{wanted['subject_request_id']}" for wanted in filed.values()]
    for path in (*paths, f"{paths[0]}/certificate", f"{paths[0]}/events", "/requests", "/model"):
        problem(api.get(path, "submit"), 403, "scope")
    wanted = erasure(GONE, status_callback_urls=["https://one.example/"])
    api.service.config = api.service.config.model_copy(update={"callback_hosts": ("one.example",)})
    problem(api.call("POST", "/requests", "submit", json=wanted), 403, "scope")
    at_once = erasure(GONE, extensions={"lmeraser": {"now": True}})
    problem(api.call("POST", "/requests", "submit", json=at_once), 403, "scope")
    requests = api.service.workspace.requests
    found = [requests.selection(requests.require(path.rpartition("/")[2])) for path in paths]
    assert [(one.ids, one.already_deleted) for one in found] == [((GONE,), ()), ((), (OTHER,)), ((), ())]
    problem(api.file("nobody"), 422, "unknown-identity")


def test_a_request_is_extended_started_and_taken_back_with_a_reason(api: Running) -> None:
    api.service.config = api.service.config.model_copy(update={"grace_period": 3600.0})
    options = {"lmeraser": {"reference": "ticket 4711"}}
    wanted = erasure(GONE, extensions=options) | {"submitted_time": to_text(api.service.workspace.clock())}
    path = f"/requests/{wanted['subject_request_id']}"
    assert api.call("POST", "/requests", "request", json=wanted).status_code == 201
    status = api.get(path, "request").json()["extensions"]["lmeraser"]
    assert 3500 < status["seconds_to_start"] <= 3600
    assert (status["days_late"], status["extended"]) == (0, None)
    assert api.service.workspace.requests.references() == {wanted["subject_request_id"]: "ticket 4711"}
    before = api.get(path, "request").json()["expected_completion_time"]
    unlawful = api.call("POST", f"{path}/extension", "request", params={"reason": "other"})
    problem(unlawful, 409, "not-extended")
    extended = api.call("POST", f"{path}/extension", "request", params={"reason": "complexity"}).json()
    assert extended["expected_completion_time"] > before
    problem(api.call("POST", f"{path}/extension", "request", params={"reason": "complexity"}), 409, "not-extended")
    started = api.call("POST", f"{path}/start", "request").json()
    assert started["extensions"]["lmeraser"]["seconds_to_start"] == 0
    assert api.call("DELETE", path, "request", params={"reason": "withdrawn"}).status_code == 202
    problem(api.call("POST", f"{path}/start", "request"), 409, "not-pending")
    bodies = [entry.body for entry in api.service.workspace.ledger.entries()[-3:]]
    assert len({body["by"] for body in bodies}) == 1
    assert [body.get("reason") for body in bodies] == [None, "complexity", "withdrawn"]
    too_long = erasure(OTHER, extensions={"lmeraser": {"reference": "a\nb"}})
    problem(api.call("POST", "/requests", "request", json=too_long), 422, "reference")


def test_many_callers_at_once_and_some_of_them_wrong(api: Running) -> None:
    wanted = [erasure(f"digit-{n:04d}") for n in range(12)] + [erasure(f"nobody-{n}") for n in range(12)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: api.call("POST", "/requests", json=one).status_code, wanted))
    assert answers == [201] * 12 + [422] * 12
    assert len(api.service.workspace.requests.all("pending")) == 12


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"regulation": "hipaa"}, "regulation"),
        ({"subject_request_id": "7"}, "subject_request_id"),
        ({"subject_request_id": str(uuid.uuid1())}, "subject_request_id"),
        ({"subject_request_type": "oblivion"}, "subject_request_type"),
        ({"submitted_time": "yesterday"}, "submitted_time"),
        ({"submitted_time": "2026-01-31T12:00:00"}, "submitted_time"),
        ({"subject_identities": []}, "subject_identities"),
        ({"status_callback_urls": "x"}, "status_callback_urls"),
        ({"extensions": {"lmeraser": {"audit": "perhaps"}}}, "extensions.lmeraser.audit"),
    ],
)
def test_a_field_that_is_wrong_is_named(api: Running, change: dict[str, Any], where: str) -> None:
    values = problem(api.file(GONE, **change), 400, "invalid")
    assert [fault["where"] for fault in values["faults"]] == [where]
    assert api.service.workspace.requests.all() == []


def test_a_name_is_taken_in_every_spelling_and_names_that_look_alike_are_told_before(api: Running) -> None:
    records = api.service.workspace.records
    respell(records, OTHER, subject="Ren\u00e9e")
    respell(records, "digit-0005", subject="renee")
    wanted = erasure(subjects=["Rene\u0301e "])
    plan = api.call("POST", "/plan", json={"subject_identities": wanted["subject_identities"]}).json()
    assert plan["records"] == 1
    assert plan["near_misses"] == [{"kind": "subject", "given": "Rene\u0301e ", "held": "renee"}]
    assert api.call("POST", "/requests", json=wanted).status_code == 201
    assert api.service.workspace.requests.pending_selection().ids == (OTHER,)


def test_names_that_mean_several_are_refused(api: Running) -> None:
    records = api.service.workspace.records
    respell(records, OTHER, subject="x", before=True)
    respell(records, "digit-0005", subject="x ", before=True)
    problem(api.file(subjects=["x"]), 422, "ambiguous-identity")
    assert api.service.workspace.requests.all() == []
    assert api.file(subjects=["x", "x "]).status_code == 201


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"identity_type": "email"}, "Must be 'controller_customer_id' or 'lmeraser_record_id'"),
        ({"identity_format": "sha256"}, "Must be 'raw'"),
        ({"identity_value": ""}, "String too short (at least 1)"),
    ],
)
def test_identities_that_are_not_taken(api: Running, identity: dict[str, str], message: str) -> None:
    wanted = erasure(GONE)
    wanted["subject_identities"][0] |= identity
    (fault,) = problem(api.call("POST", "/requests", json=wanted), 400, "invalid")["faults"]
    assert (fault["where"], fault["message"]) == (f"subject_identities.0.{next(iter(identity))}", message)
    assert fault["rule"] == fault["message"], "its name in 0.1, kept for one release"


@pytest.mark.parametrize("kind", ["access", "portability"])
def test_other_types_of_request_are_refused_with_the_reason(api: Running, kind: str) -> None:
    values = problem(api.file(GONE, subject_request_type=kind), 422, "request-type")
    assert "POST /find" in values["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000])
def test_bodies_that_are_no_request(api: Running, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {api.keys['request']}", "Content-Type": "application/json"}
    problem(api.http.post("/requests", content=body, headers=headers), 400, "invalid")


def test_names_that_were_never_here_and_too_many_names(api: Running) -> None:
    problem(api.file("nobody"), 422, "unknown-identity")
    problem(api.file(*[f"digit-{n}" for n in range(1001)]), 422, "too-many")
    assert api.service.workspace.requests.all() == []


# --- quarantine ----------------------------------------------------------------------------------------------


def test_from_the_answer_on_predictions_are_those_without_the_record(api: Running) -> None:
    before = api.service.model_holder.current
    assert api.file(GONE).status_code == 201
    after = api.service.model_holder.current
    assert after.model is before.model
    assert after.quarantined == QuarantineScope(frozenset([0]), (GONE,))
    assert head_of(after) != head_of(before)
    assert api.get("/model").json()["quarantined"] == [0]


def test_a_cancelled_request_is_not_quarantined_any_more(api: Running) -> None:
    wanted = erasure(GONE)
    api.call("POST", "/requests", json=wanted)
    answer = api.call("DELETE", f"/requests/{wanted['subject_request_id']}", "request")
    assert (answer.status_code, answer.json()["subject_request_id"]) == (202, wanted["subject_request_id"])
    assert api.service.model_holder.current.quarantined == QuarantineScope()
    assert status_of(api, wanted["subject_request_id"]) == "cancelled"
    problem(api.call("DELETE", f"/requests/{wanted['subject_request_id']}", "request"), 409, "not-pending")
    problem(api.call("DELETE", f"/requests/{uuid.uuid4()}", "request"), 404, "unknown-request")


def test_if_it_is_not_known_what_to_leave_out_requests_are_accepted_and_nothing_predicts(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(served: ModelHolder) -> None:
        raise OSError("patient 17")

    image = api.service.workspace.records.payloads([OTHER])[0]
    with monkeypatch.context() as patch:
        patch.setattr(ModelHolder, "_read_current", broken)
        wanted = erasure(GONE)
        assert api.call("POST", "/requests", json=wanted).status_code == 201
        assert "patient" not in api.predict(image).text
        problem(api.predict(image), 503, "no-model")
        problem(api.http.get("/readyz"), 503, "not-ready")
        assert status_of(api, wanted["subject_request_id"]) == "pending"
    api.service.model_holder.load_published()
    assert api.predict(image).status_code == 200


# --- following -----------------------------------------------------------------------------------------------


def test_a_completed_request_has_a_certificate_that_verifies(api: Running, network: LocalExecutor) -> None:
    wanted = erasure(GONE, subjects=["w1"])
    api.call("POST", "/requests", json=wanted)
    path = f"/requests/{wanted['subject_request_id']}"
    problem(api.get(f"{path}/certificate"), 404, "no-certificate")
    receipts = [{"system": "vector store", "digest": "sha256:" + "1" * 64}]
    assert api.call("POST", f"{path}/receipts", json={"receipts": receipts}).json() == {"receipts": receipts}
    for wrong in (
        [],
        [{**receipts[0], "digest": "sha256:1"}],
        [{**receipts[0], "system": ""}],
        [{**receipts[0], "more": "1"}],
        [{**receipts[0], "system": "x" * 101}],
        [{**receipts[0], "digest": f"sha256:{number:064x}"} for number in range(51)],
    ):
        problem(api.call("POST", f"{path}/receipts", json={"receipts": wrong}), 400, "invalid")
    unprintable = {"system": "a\u202eb", "digest": "sha256:" + "2" * 64}
    problem(api.call("POST", f"{path}/receipts", json={"receipts": [unprintable]}), 409, "not-attached")
    with Eraser(api.service.workspace.root) as beside:
        beside.session.executors.use(network)
        beside.unlearn()
    api.service.model_holder.load_published()
    status = api.get(path).json()
    assert (status["request_status"], status["results_count"]) == ("completed", 6)
    envelope = api.get(f"{path}/certificate", "read").content
    facts = verify(envelope, api.service.workspace.signing_key.public)
    assert facts["request"]["id"] == wanted["subject_request_id"]
    assert facts["receipts"] == receipts
    text = api.get(f"{path}/certificate?format=text")
    assert (text.text, text.headers["content-type"]) == (render(facts), "text/plain; charset=utf-8")
    pdf = api.get(f"{path}/certificate?format=pdf")
    assert (pdf.content, pdf.headers["content-type"]) == (to_pdf(facts), "application/pdf")
    problem(api.get(f"{path}/certificate?format=docx"), 400, "invalid")
    problem(api.call("POST", f"{path}/receipts", json={"receipts": receipts}), 409, "not-attached")
    assert facts["model"]["generation"] == api.get("/model").json()["generation"]


def test_a_request_whose_audit_failed_is_still_in_progress_for_callers(
    api: Running, network: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lmeraser.unlearning.completion

    wanted = erasure(GONE, extensions={"lmeraser": {"audit": True}, "elsewhere.example": {"x": 1}})
    api.call("POST", "/requests", json=wanted)
    assert api.service.workspace.requests.require(wanted["subject_request_id"]).audit
    with Eraser(api.service.workspace.root) as beside, monkeypatch.context() as patch:
        beside.session.executors.use(network)
        patch.setattr(lmeraser.unlearning.completion, "_audit", lambda *_: {"identical": False})
        beside.unlearn()
    status = api.get(f"/requests/{wanted['subject_request_id']}").json()
    assert (status["request_status"], status["extensions"]["lmeraser"]["state"]) == ("in_progress", "failed")


# --- evidence ------------------------------------------------------------------------------------------------


def test_answers_are_signed(api: Running, tmp_path: Path) -> None:
    from lmeraser.errors import VerificationError
    from lmeraser.evidence.dsse import PublicKey

    (tmp_path / "key.pem").write_bytes(api.http.get("/signing.pub").content)
    key = PublicKey.read(tmp_path / "key.pem")
    assert key.key_id == api.service.workspace.signing_key.public.key_id
    wanted = erasure(GONE)
    path = f"/requests/{wanted['subject_request_id']}"
    answers = [
        api.call("POST", "/requests", json=wanted),
        *(api.get(one) for one in (path, "/requests", "/discovery")),
        api.call("DELETE", path),
    ]
    for answer in answers:
        assert answer.is_success
        assert answer.headers["X-OpenDSR-Processor-Domain"] == "localhost"
        assert answer.headers["cache-control"] == "no-store"
        signature = base64.b64decode(answer.headers["X-OpenDSR-Signature"])
        key.verify_body(answer.content, signature)
        with pytest.raises(VerificationError):
            key.verify_body(answer.content + b" ", signature)


def test_discovery_says_what_is_supported(api: Running) -> None:
    found = api.http.get("/discovery").json()
    assert found["supported_subject_request_types"] == ["erasure"]
    kinds = {(one["identity_type"], one["identity_format"]) for one in found["supported_identities"]}
    assert kinds == {("controller_customer_id", "raw"), ("lmeraser_record_id", "raw")}
    assert found["processor_certificate"] == "https://localhost/signing.pub"
    assert "Ed25519" in found["signature_algorithm"]
