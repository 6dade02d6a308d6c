"""The reference pages, written from the code whenever the site is built; nobody edits them.

The templates in ``pages/`` have the prose; this module gives them the facts. Pages go to ``generated/reference/``,
with the OpenAPI description and the JSON schemas. `reference/python.md` has the Python API; whether it has every
public name is checked here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import jinja2
import typer.cli
import typer.main
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from lmeraser import Config, Eraser, errors
from lmeraser.cli.main import app as command_line
from lmeraser.config.presets import PRESETS
from lmeraser.evidence import certificate, dsse, entries, hash_chain
from lmeraser.experiments.metrics.registry import METRICS
from lmeraser.service import problems
from lmeraser.service.app import make_app
from lmeraser.service.service import Service

logger = logging.getLogger(__name__)

PUBLIC_MODULES = ("lmeraser", "lmeraser.sklearn", "lmeraser.errors")
PUBLIC_CLASSES = (Eraser,)  # whose methods are all documented
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_EVENTS = {event.model_fields["kind"].default: event for event in get_args(get_args(entries.LedgerEvent)[0])}


def write_pages(app: Sphinx) -> None:
    """Write all pages; one that has not changed is left alone, so that Sphinx does not read it again."""
    folder = Path(app.srcdir) / "generated" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    openapi = openapi_description()
    pages = {
        "cli.md": {"commands": commands()},
        "settings.md": {"schema": Config.model_json_schema(), "presets": PRESETS},
        "http.md": {"openapi": openapi, "problems": sorted(kinds_of_problems().items())},
        "formats.md": {
            "certificate": certificate,
            "schema": certificate.Statement.model_json_schema(),
            "modules": {
                module.__name__.split(".")[-1]: module for module in (certificate, dsse, hash_chain, entries)
            },
            "events": _EVENTS,
        },
        "errors.md": {"errors": list(tree(errors.LmeraserError))},
        "metrics.md": {"metrics": METRICS.values()},
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Markdown
    )
    environment.filters |= {
        "cell": cell,
        "doc": doc,
        "prose": prose,
        "type": type_in_words,
        "value": value_in_words,
    }
    for name, facts in pages.items():
        _write(folder / name, environment.get_template(f"{name}.jinja").render(facts))
    for name, schema in {"openapi.json": openapi, **schemas()}.items():
        _write(folder / name, json.dumps(schema, indent=2, sort_keys=True) + "\n")


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


# --- facts ------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments and options, as Typer describes them."""
    command = typer.main.get_command(command_line)
    context = typer.Context(command)
    text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="lmeraser", title="Command line")
    return text.partition("\n")[2]


def openapi_description() -> dict[str, Any]:
    """What ``/openapi.json`` answers, of a service with default settings."""
    with tempfile.TemporaryDirectory() as folder, Eraser.create(Path(folder) / "workspace") as eraser:
        return dict(make_app(Service(eraser)).openapi())


def kinds_of_problems() -> dict[tuple[str, int], str]:
    """Kind and status of every problem that the service's modules make, with an example."""
    found = {(kind, status): doc(error, summary=True) for error, status, kind in problems._PROBLEMS_OF_ERRORS}
    for path in sorted(Path(problems.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name("Problem"),
                    args=[ast.Constant(int(status)), ast.Constant(str(kind)), detail, *_],
                ):
                    example = detail.value if isinstance(detail, ast.Constant) else ""
                    found[kind, status] = found.get((kind, status)) or str(example)
    return found


def schemas() -> dict[str, dict[str, Any]]:
    """JSON schemas of what is handed out: certificates of both formats, and the entries of the ledger."""
    return {
        "certificate.schema.json": certificate.Statement.model_json_schema(),
        "certificate-format-1.schema.json": certificate.Statement1.model_json_schema(),
        **{f"ledger-{kind}.schema.json": event.model_json_schema() for kind, event in _EVENTS.items()},
    }


def tree(error: type[errors.LmeraserError], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """An error and those below it, with what the service answers."""
    answers = ((status, kind) for known, status, kind in problems._PROBLEMS_OF_ERRORS if issubclass(error, known))
    status, kind = next(answers, (500, "internal"))
    yield {"error": error, "depth": depth, "status": status, "kind": kind}
    for below in error.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below, depth + 1)


# --- public names -----------------------------------------------------------------------------------------------


def check_public_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page documents; where warnings are errors, that fails the build."""
    documented = set(env.get_domain("py").data["objects"])
    for places in public_names():
        if not places & documented:
            logger.warning("public name without documentation: %s (docs/reference/python.md)", min(places))


def public_names() -> Iterator[set[str]]:
    """For each name that users may rely on, the places under which it may be documented."""
    for module in map(importlib.import_module, PUBLIC_MODULES):
        for value in _public_values(module):
            yield {f"{value.__module__}.{value.__qualname__}", f"{module.__name__}.{value.__qualname__}"}
    for kind in PUBLIC_CLASSES:
        for name, member in vars(kind).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
                yield {f"{kind.__module__}.{kind.__qualname__}.{name}"}


def _public_values(module: ModuleType) -> list[Any]:
    """The classes and functions that a module lists in ``__all__``, or else the classes that it defines."""
    if hasattr(module, "__all__"):
        return [value for name in module.__all__ if callable(value := getattr(module, name))]
    return [
        value
        for value in vars(module).values()
        if getattr(value, "__module__", "") == module.__name__ and isinstance(value, type)
    ]


# --- Markdown ---------------------------------------------------------------------------------------------------


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def doc(value: object, summary: bool = False) -> str:
    """The docstring of an object, or its first sentence."""
    text = inspect.getdoc(value) or ""
    return " ".join(text.partition("\n\n")[0].split()) if summary else prose(text)


def prose(text: str) -> str:
    """A docstring as Markdown: the attributes that it describes become a list."""
    return "\n".join(_lines(text.strip()))


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        words = line.strip()
        if line == "Attributes:":
            yield ""
        elif line.startswith("    ") and not line.startswith("     ") and ": " in line:
            name, _, meaning = words.partition(": ")
            yield f"- `{name}`: {meaning}"
        else:
            yield line if not line.startswith("        ") else f"  {words}"


def type_in_words(field: Mapping[str, Any]) -> str:
    """The type of a JSON schema, with its limits."""
    if "anyOf" in field:
        return " or ".join(type_in_words(kind) for kind in field["anyOf"] if kind.get("type") != "null")
    if "enum" in field or "const" in field:
        return ", ".join(value_in_words(value) for value in field.get("enum", [field.get("const")]))
    if "$ref" in field:
        return f"`{field['$ref'].rsplit('/', 1)[1]}`"
    if field.get("type") == "array":
        return f"list of {type_in_words(field['items'])}" if field.get("items") else "list"
    limits = [f"{sign} {field[name]}" for name, sign in _LIMITS.items() if name in field]
    return ", ".join([str(field.get("type", "any")), *limits])


def value_in_words(value: object) -> str:
    """A value of the settings, as code; nothing for None."""
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def setup(app: Sphinx) -> dict[str, object]:
    """Write the pages before Sphinx looks for them, and check the names when it has read all of them."""
    app.connect("builder-inited", write_pages, priority=100)
    app.connect("env-check-consistency", check_public_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
