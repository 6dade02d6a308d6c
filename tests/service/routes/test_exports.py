"""Copies over HTTP: whoever may read lists them, and a key for confirmations alone does nothing else."""

from __future__ import annotations

from pathlib import Path

from faults import REQUEST
from lmeraser.config.deployment import ServiceConfig
from lmeraser.service.export_responses import ExportRecall
from serving import Running, fixtures, problem

network, trained, root, api = fixtures("prompts")


def test_a_copy_is_listed_recalled_and_confirmed(api: Running, tmp_path: Path) -> None:
    eraser = api.service.eraser
    made = eraser.export(tmp_path / "out", holder_contact="a person")
    assert api.get("/exports", "read").json()["exports"][0]["state"] == "clear"
    eraser.unlearn(ids=["digit-0003"])
    (listed,) = api.get("/exports", "read").json()["exports"]
    assert (listed["id"], listed["state"], listed["records_erased"]) == (made.export, "recalled", 1)
    assert listed["holder_contact"] == "a person"
    recall = ExportRecall.of(eraser.exports()[0].copy, ServiceConfig())
    for scope in ("predict", "submit", "request", "read"):
        problem(api.call("POST", recall.confirm, scope), 403, "scope")
    for _ in range(2):
        confirmed = api.call("POST", recall.confirm, "confirm")
        assert (confirmed.status_code, confirmed.json()["state"]) == (200, "confirmed")
        assert confirmed.json()["holder_contact"] is None
        assert confirmed.headers["X-OpenDSR-Signature"]
    assert eraser.exports()[0].copy.state == "confirmed"
    assert eraser.check_ledger().sound


def test_what_is_refused(api: Running) -> None:
    problem(api.call("POST", f"/exports/{REQUEST}/confirm", "confirm"), 404, "unknown-export")
    problem(api.call("POST", "/exports/nonsense/confirm", "confirm"), 400, "invalid")
    problem(api.get("/exports", "confirm"), 403, "scope")
    assert api.get("/exports", "read").json() == {"exports": []}
