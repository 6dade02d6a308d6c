"""Requests are listed in pages by state, law and day, and found by id, reference, person and record."""

from __future__ import annotations

from typing import Any

import pytest

from lmeraser.service.supervisor import DerivationSupervisor
from serving import Running, erasure, fixtures, problem

network, trained, root, api = fixtures("instant")
GONE, OTHER = "digit-0003", "digit-0004"


@pytest.fixture(autouse=True)
def nothing_is_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("start", "stop"):
        monkeypatch.setattr(DerivationSupervisor, part, lambda _: None)


def found(api: Running, scope: str = "admin", **body: Any) -> tuple[int, list[str], dict[str, str]]:
    answer = api.call("POST", "/requests/search", scope, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    values = answer.json()
    return values["total"], [one["subject_request_id"] for one in values["requests"]], values["references"]


def test_requests_are_listed_and_told(api: Running) -> None:
    late, soon = (erasure(GONE, regulation="ccpa"), erasure(OTHER))
    for wanted in (late, soon):
        api.call("POST", "/requests", json=wanted)
    listed = api.get("/requests", "read").json()["requests"]
    assert [one["subject_request_id"] for one in listed] == [w["subject_request_id"] for w in (soon, late)]
    assert api.get(f"/requests/{soon['subject_request_id']}").json().keys() == listed[0].keys()
    assert listed[0]["results_count"] is None
    assert listed[0]["extensions"]["lmeraser"]["state"] == "pending"
    page = api.get("/requests?limit=1&offset=1").json()
    assert ([one["subject_request_id"] for one in page["requests"]], page["total"]) == (
        [late["subject_request_id"]],
        2,
    )
    late_ones = api.get("/requests?view=open&regulation=ccpa&order=received").json()
    assert ([one["subject_request_id"] for one in late_ones["requests"]], late_ones["total"]) == (
        [late["subject_request_id"]],
        1,
    )
    assert api.get("/requests?view=done").json() == {"total": 0, "requests": []}
    assert api.get("/requests?status=completed").json()["requests"] == []
    problem(api.get("/requests?limit=0"), 400, "invalid")
    problem(api.get("/requests?veiw=late"), 400, "invalid")  # not all of them
    problem(api.get("/requests?status=failed"), 400, "invalid")


def test_requests_are_found_by_id_and_reference_in_pages(api: Running) -> None:
    first, second, third = (erasure(GONE), erasure(OTHER, regulation="ccpa"), erasure("digit-0005"))
    first["extensions"] = {"lmeraser": {"reference": "Ticket 4711 (Müller)"}}
    second["extensions"] = {"lmeraser": {"reference": "Ticket 4712"}}
    for wanted in (first, second, third):
        assert api.call("POST", "/requests", json=wanted).status_code == 201
    one, other, last = (wanted["subject_request_id"] for wanted in (first, second, third))
    assert found(api, "read", search="müller") == (1, [one], {one: "Ticket 4711 (Müller)"})
    assert found(api, "read", search=last[:20]) == (1, [last], {})
    total, ids, references = found(api, "read", search="ticket", order="due", limit=1, offset=1)
    assert (total, ids, references) == (2, [other], {other: "Ticket 4712"})
    assert found(api, search="ticket", regulation="ccpa")[1] == [other]
    assert found(api, search="ticket", status="completed") == (0, [], {})
    assert found(api, view="open")[0] == 3
    problem(api.call("POST", "/requests/search", json={"search": "x" * 201}), 400, "invalid")
    problem(api.call("POST", "/requests/search", json={"order": "reference"}), 400, "invalid")
    api.call("DELETE", f"/requests/{one}")
    assert found(api, search="müller") == (0, [], {}), "references are erased with the request"


def test_requests_are_found_by_whom_they_are_about_with_a_scope_of_its_own(api: Running) -> None:
    by_record, by_person = (erasure(GONE), erasure(subjects=["w2"]))
    for wanted in (by_record, by_person):
        assert api.call("POST", "/requests", json=wanted).status_code == 201
    assert found(api, record=f" {GONE} ")[1] == [by_record["subject_request_id"]]
    assert by_person["subject_request_id"] in found(api, subject="w2")[1]
    assert found(api, subject="nobody") == found(api, record=GONE, subject="nobody") == (0, [], {})
    for name in ({"subject": "w2"}, {"record": GONE}):
        problem(api.call("POST", "/requests/search", "read", json=name), 403, "scope")
