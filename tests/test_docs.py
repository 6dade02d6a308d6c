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
    for places in reference.public_names():
        homes = {place.rpartition(".")[0] for place in places}
        assert (places | homes) & described or homes & whole_modules, (
            f"{places} are not in docs/reference/python.md"
        )


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


# --- numbers ----------------------------------------------------------------------------------------------------

# A measured number: decimals, a percentage, or a number with a unit of time or memory; not inside of code.
MEASURED = re.compile(
    r"(?<![\w.])\d+\.\d+(?![\w.])|\d ?%"
    r"|\b\d[\d,.]* (?:ms|s|min|h|microseconds|milliseconds|seconds?|minutes?|hours?|MiB|GiB|GB|TB)\b"
)
COMMAND = re.compile(
    r"\b(?:python (?:benchmarks|examples|scripts)/|lmeraser [a-z-]|make [a-z]|benchmarks/\w+\.py)|cross_val_score"
)
# What a decision says of numbers that were tried once, on its day.
NO_COMMAND = re.compile(r"no command\s+was\s+kept|[Tt]rials outside the package|The same trials")
# Tables of numbers that nobody measured.
OTHER_NUMBERS = {("backbones.md", "The four backbones of the paper"): "the publishers' constants"}


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Titles and texts of a page's sections; what stands before the first one has the title of the page."""
    inside = False
    title = ""
    lines = list[str]()
    for line in text.splitlines():
        inside ^= line.startswith("```")
        if line.startswith("#") and not inside:
            yield title, "\n".join(lines)
            title = line.lstrip("# ")
            lines = []
        lines.append(line)
    yield title, "\n".join(lines)


def without_command(text: str) -> list[str]:
    """Titles of the sections that have a table or a paragraph of measured numbers, and no command.

    Two rows of a table, or three numbers of a paragraph, count as a measurement. The command, or the words that
    there is none any more, may also stand before the page's first section, for all of them.
    """
    parts = list(sections(text))
    if any(explained(body) for title, body in parts[:2]):
        return []
    return [title for title, body in parts if is_measurement(body) and not explained(body)]


def explained(body: str) -> bool:
    """Whether a section says what gave its numbers."""
    return bool(COMMAND.search(body) or NO_COMMAND.search(body))


def is_measurement(body: str) -> bool:
    """Whether a section has a table or a paragraph of measured numbers."""
    prose = re.sub(r"`[^`]*`|^ {4}.*$", "", body, flags=re.MULTILINE)
    rows = [line for line in prose.splitlines() if line.startswith("|") and MEASURED.search(line)]
    paragraphs = (paragraph for paragraph in prose.split("\n\n") if not paragraph.startswith("|"))
    return len(rows) >= 2 or any(len(MEASURED.findall(paragraph)) >= 3 for paragraph in paragraphs)


def test_numbers_stand_beside_the_command_that_gave_them() -> None:
    pages = {
        path.relative_to(DOCS).as_posix(): path for path in DOCS.rglob("*.md") if "generated" not in path.parts
    }
    found = {(name, title) for name, path in pages.items() for title in without_command(path.read_text())}
    found |= {("README.md", title) for title in without_command((DOCS.parent / "README.md").read_text())}
    assert found <= OTHER_NUMBERS.keys(), found - OTHER_NUMBERS.keys()


def test_numbers_without_a_command_are_found() -> None:
    table = "# Page\n\n## Speed\n\n| a | 0.91 |\n| b | 12 ms |\n"
    assert without_command(table) == ["Speed"]
    assert without_command(table.replace("0.91", "0.91 (`make bench`)")) == []
    assert without_command(table.replace("## Speed", "By `python benchmarks/tuning.py`.\n\n## Speed")) == []
    assert without_command("# Page\n\nIt has 3 parts, as section 4.3.1 and version 0.1.2 say.\n") == []
    assert without_command("# Page\n\nFrom 0.12 to 0.34 in 5 minutes.\n") == ["Page"]
    assert without_command("# Page\n\nFrom 0.12 to 0.34 in 5 minutes; no command\nwas kept.\n") == []
