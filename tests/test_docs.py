"""The site of the documentation: nothing public is left out, and no link leads nowhere.

``make docs`` builds all of it, and fails where a reference is missing; here is what can be said without that.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from sphinx.application import Sphinx

from lmeraser.cli.main import app
from lmeraser.config.schema import Config
from lmeraser.errors import LmeraserError

DOCS = Path(__file__).parents[1] / "docs"
sys.path.append(str(DOCS / "extensions"))

import reference  # noqa: E402


def test_every_public_name_is_on_the_page_of_the_python_api() -> None:
    page = (DOCS / "reference" / "python.md").read_text()
    described = set(re.findall(r"auto(?:class|exception|function):: ([\w.]+)", page))
    whole_modules = set(re.findall(r"automodule:: ([\w.]+)", page))
    for name in reference.public_names():
        home, _, member = name.rpartition(".")
        assert {name, home} & described or home in whole_modules, f"{member} is not in docs/reference/python.md"


def test_every_setting_says_what_it_means() -> None:
    schema = Config.model_json_schema()
    sections = [
        schema["$defs"][field["$ref"].rsplit("/")[-1]]
        for field in schema["properties"].values()
        if "$ref" in field
    ]
    silent = [
        name for section in sections for name, field in section["properties"].items() if "description" not in field
    ]
    assert not silent


def test_every_command_and_option_says_what_it_does() -> None:
    def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from commands(inner, f"{path} {name}")

    silent = list[str]()
    for path, command in commands(typer.main.get_command(app), "lmeraser"):
        silent += [] if command.help else [path]
        silent += [f"{path} {each.name}" for each in command.params if not getattr(each, "help", None)]
    assert not silent


def test_problems_of_the_service_are_found_in_its_code() -> None:
    found = reference.kinds_of_problems()
    assert ("unknown-identity", 422) in found  # from an error of lmeraser's
    assert found["rate", 429] == "Too many requests; see Retry-After"  # made by the service itself


def test_an_error_below_another_has_its_answer() -> None:
    statuses = {each["error"].__name__: each["status"] for each in reference.tree(LmeraserError)}
    assert statuses["ConfigError"] == statuses["InputError"] == 400
    assert statuses["LmeraserError"] == 500


@pytest.mark.parametrize(
    ("text", "warning"), [("`docs/page.md`", ""), ("`docs/nowhere.md`", "nowhere"), ("`docs/`", "")]
)
def test_pages_named_in_the_text_are_links(tmp_path: Path, text: str, warning: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text(f"# Title\n\nSee {text}.\n\n```{{toctree}}\npage\n```\n")
    (source / "page.md").write_text("# Another page\n")
    said = io.StringIO()
    settings = {"extensions": ["myst_parser", "page_links"], "html_theme": "basic"}
    out = tmp_path / "out"
    site = Sphinx(source, None, out, tmp_path / "trees", "html", settings, status=None, warning=said)
    site.build()
    assert re.findall(r"unknown document: '/(\w+)'", said.getvalue()) == ([warning] if warning else [])
    linked = 'href="page.html"><span' in (out / "index.html").read_text()
    assert linked == (text == "`docs/page.md`")
