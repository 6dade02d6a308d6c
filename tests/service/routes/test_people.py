"""People and records over HTTP: found in any spelling, listed in pages; their content has a scope of its own."""

from __future__ import annotations

from serving import Running, fixtures, problem

network, trained, root, api = fixtures("instant")


def test_a_person_is_found_listed_and_nothing_is_cached(api: Running) -> None:
    wanted = {"identity_type": "lmeraser_record_id", "identity_value": " digit-0003 "}
    filed = api.file("digit-0003").json()["subject_request_id"]
    answer = api.call("POST", "/find", "find", json=wanted)
    found = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert (found["names"], found["requests"]) == (["digit-0003"], [filed])
    assert [line["requests"] for line in found["records"]] == [[filed]]
    looked_for = {**wanted, "identity_value": "DIGIT-0003"}
    (miss,) = api.call("POST", "/find", "find", json=looked_for).json()["near_misses"]
    assert miss == {"kind": "id", "given": "DIGIT-0003", "held": "digit-0003"}
    listed = api.call("POST", "/records", "find", json={"search": "0003", "limit": 1}).json()
    assert listed["total"] == len(listed["records"]) == 1
    page = api.call("POST", "/records", "find", json={"offset": 20, "limit": 3}).json()
    assert (page["total"], len(page["records"])) == (24, 3)
    assert api.call("POST", "/subjects", "find", json={}).status_code == 200


def test_the_content_of_a_record_has_a_scope_of_its_own(api: Running) -> None:
    (payload,) = api.service.workspace.records.payloads(["digit-0003"])
    answer = api.call("POST", "/records/payload", "records", json={"id": "digit-0003"})
    assert answer.content == payload
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    problem(api.call("POST", "/records/payload", "find", json={"id": "digit-0003"}), 403, "scope")
    problem(api.call("POST", "/records/payload", "records", json={"id": "nobody"}), 404, "unknown-record")
