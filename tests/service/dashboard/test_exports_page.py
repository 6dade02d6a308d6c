"""The page of copies: recalled ones first, a button only for those who may confirm."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import FastAPI
from starlette.testclient import TestClient

from lmeraser.service.dashboard.dashboard import add_dashboard
from serving import Running, fixtures

network, trained, root, api = fixtures("prompts")


def logged_in(api: Running, scope: str) -> TestClient:
    http = TestClient(api.http.app, base_url="http://localhost")
    token = re.search(r'name="token" value="([^"]+)"', http.get("/ui/login").text)
    assert token is not None
    page = http.post("/ui/login", data={"token": token[1], "key": api.keys[scope]})
    assert page.status_code == 200
    return http


def test_a_recalled_copy_is_confirmed_on_the_page(api: Running, tmp_path: Path) -> None:
    assert isinstance(api.http.app, FastAPI)
    add_dashboard(api.http.app)
    eraser = api.service.eraser
    reader = logged_in(api, "read")
    assert "No copy of the model has left" in reader.get("/ui/exports").text
    made = eraser.export(tmp_path / "out", holder_contact="<b>a person</b>")
    eraser.unlearn(ids=["digit-0003"])
    later = eraser.export(tmp_path / "later")
    page = reader.get("/ui/exports").text
    assert page.index(made.export) < page.index(later.export), "the recalled one comes first"
    assert "&lt;b&gt;a person" in page
    assert "/confirm" not in page
    officer = logged_in(api, "admin")
    page = officer.get("/ui/exports").text
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    path = f"/ui/exports/{made.export}/confirm"
    assert path in page
    assert officer.post(path, data={"token": "wrong"}).status_code == 403
    done = officer.post(path, data={"token": token[1]})
    assert done.status_code == 200
    assert path not in done.text
    assert "deleted, confirmed on" in " ".join(done.text.split())
    assert eraser.exports()[0].copy.state == "confirmed"
