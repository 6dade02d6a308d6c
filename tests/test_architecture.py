"""The package is laid out as the README says: one order of modules, imports upward only, torch where needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lmeraser

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "lmeraser"


def tree() -> list[tuple[str, bool]]:
    """Modules in the README's reading order, and whether each is marked as free of torch."""
    text = (ROOT / "README.md").read_text()
    block = text.split("    src/lmeraser/\n")[1].split("\n\n")[0]
    lines = [re.fullmatch(r"      (\S+\.py) +(-?) .+", line) for line in block.splitlines()]
    assert all(lines), "every line of the tree names a module and says what it does"
    return [(line[1], line[2] == "-") for line in lines if line]


def imports(module: str) -> set[str]:
    """Files of lmeraser's modules that this one imports, at any place but under TYPE_CHECKING."""
    parsed = ast.parse((PACKAGE / module).read_text())
    skipped = {
        id(inner)
        for node in ast.walk(parsed)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(parsed):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in skipped:
            for alias in node.names:
                found |= {as_file(f"{node.module}.{alias.name}"), as_file(node.module)}
    return {file for file in found if file}


def as_file(name: str) -> str:
    path = name.removeprefix("lmeraser.").replace(".", "/")
    return f"{path}.py" if name.startswith("lmeraser.") and (PACKAGE / f"{path}.py").exists() else ""


def test_the_tree_in_the_readme_is_the_package() -> None:
    ignored = {"__init__.py", "__main__.py", "_version.py"}
    files = {str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py") if p.name not in ignored}
    assert sorted(name for name, _ in tree()) == sorted(files)


def test_imports_go_upward_only() -> None:
    order = [name for name, _ in tree()]
    wrong = [
        f"{module} imports {other}"
        for position, module in enumerate(order)
        for other in sorted(imports(module))
        if other in order and order.index(other) >= position and other != module
    ]
    assert not wrong


def test_modules_marked_as_free_of_torch_do_not_import_it() -> None:
    names = [f"lmeraser.{name.removesuffix('.py').replace('/', '.')}" for name, free in tree() if free]
    check = "importlib.import_module(n); assert 'torch' not in sys.modules, n"
    code = f"import importlib, sys\nfor n in {names}: {check}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_test_file_is_named_after_its_module() -> None:
    modules = {name.removesuffix(".py").split("/")[-1] for name, _ in tree()} | {
        "architecture",  # the package as a whole
        "backbones",  # folders are tested as families
        "browser",  # the pages of the service in a real one
        "exactness",  # the oracle: all modules together
        "examples",
        "executors",
        "faults",  # every command, stopped at every durable operation
        "init",
        "partitions",
        "readme",
        "studies",
        "tamper",  # every kind of file, changed
    }
    assert {p.stem.removeprefix("test_") for p in (ROOT / "tests").glob("test_*.py")} <= modules


def test_no_module_is_long_and_no_function_needs_scrolling() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 450, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                body = node.end_lineno - node.body[0].lineno + 1
                assert body <= 60, f"{path.name}: {node.name} has {body} lines"


def test_public_names() -> None:
    assert sorted(lmeraser.__all__) == ["Columns", "Config", "Eraser", "LmeraserError", "__version__"]
    assert all(getattr(lmeraser, name) for name in lmeraser.__all__)
    with pytest.raises(AttributeError):
        _ = lmeraser.nothing_of_the_kind
