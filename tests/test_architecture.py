"""The package is laid out as the README says: few rooms, imports downwards only, torch only where tensors are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

import lmeraser

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "lmeraser"
TESTS = ROOT / "tests"

# Words that 0.1 had for these things; HOUSE.md and docs/adr/0019-rooms-and-words.md have the field's.
OLD_CLASSES = {
    *(
        "Card",
        "Cards",
        "Counted",
        "Sums",
        "Memory",
        "Forgetful",
        "CountsAnew",
        "Tools",
        "Division",
        "Kind",
        "OnImages",
    ),
    *(
        "Asked",
        "Answers",
        "Desk",
        "Introduction",
        "Engine",
        "Intake",
        "Served",
        "Wish",
        "Names",
        "Before",
        "Waiting",
    ),
    *("Reached", "Head", "Known", "Forgotten", "Used", "Cell", "Bench"),
}
OLD_MODULES = {
    *(
        "cards",
        "counted",
        "sums",
        "memory",
        "tools",
        "touched",
        "desk",
        "intake",
        "wish",
        "names",
        "before",
        "waiting",
    ),
    *(
        "spool",
        "reapply",
        "sections",
        "grouping",
        "discriminant",
        "determinism",
        "bucket",
        "pooled",
        "hier_cluster",
    ),
    *("doctor", "constituents", "descent", "optimizing", "cells", "bench"),
}

# What may load torch: everything that computes with tensors. All other modules answer without it, because loading
# it takes about two seconds.
USES_TORCH = (
    "models.backbones*",
    "models.environment",
    "models.modalities*",
    "models.tuners*",
    "models.pretraining.pretrain",
    "models.pretraining.trainer",
    "pipeline.self_test",
    "pipeline.executors.local",
    "inference.predictor",
    "inference.distributed",
    "inference.evaluate",
    "inference.export.loading",
    "inference.export.graph",
    "inference.export.onnx_file",
    "inference.export.transformers_*",
    "inference.served",
    "experiments.relearn",
    "experiments.run",
    "experiments.runner",
    "experiments.studies*",
    "service*",  # it predicts; its parts that do not are below
)
PLAIN = {
    *(
        "service.problems",
        "service.limits",
        "service.uploads",
        "service.decoding_process",
        "service.opendsr_requests",
        "service.opendsr_responses",
    ),
    *(
        "service.deriver",
        "service.derivation_process",
        "service.supervisor",
        "service.callbacks",
        "service.metrics",
    ),
    *("service.logs", "service.addresses", "service.dashboard.sessions", "service.dashboard.cluster_map"),
}
# Loads scikit-learn, whose estimators it has, but like the plain ones neither torch nor any other heavy library.
ESTIMATOR = "sklearn"
NOT_IMPORTED = {
    "__main__",  # runs the command line
    "storage.migrations.env",  # only Alembic can import it
}

# Test files that belong to no single module.
ACROSS_MODULES = {
    "test_architecture.py": "the package as a whole",
    "test_readme.py": "README and docs",
    "test_docs.py": "the site of the documentation",
    "test_examples.py": "examples/",
    "test_exactness.py": "the oracle: all modules together",
    "test_modalities.py": "the oracle on texts and vectors; nobody else asks for the modality",
    "test_golden_workspaces.py": "workspaces of earlier versions",
    "test_faults.py": "every command, stopped at every durable operation",
    "test_tamper.py": "every kind of file, changed",
    "test_gpu_benchmark.py": "benchmarks/gpu.py",
    "core/test_doctests.py": "the examples in docstrings of this room",
    "service/dashboard/test_browser.py": "the dashboard in a real browser",
}
FAMILY = "test_families.py"  # interchangeable parts of a folder, tested alike


def modules() -> Iterator[str]:
    """Dotted names of all modules, without the package's own."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            yield name


def is_plain(name: str) -> bool:
    """Whether a module must not load torch."""
    if name in PLAIN:
        return True
    if name.split(".")[0] == ESTIMATOR:
        return False  # imported apart from the others
    return name not in NOT_IMPORTED and not any(fnmatchcase(name, pattern) for pattern in USES_TORCH)


@cache
def classes() -> list[tuple[Path, str]]:
    """All classes of the package with their files."""
    return [
        (path, node.name)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]


def test_the_rooms_in_the_readme_are_the_packages() -> None:
    table = (ROOT / "README.md").read_text().split("## Rooms")[1].split("\n## ")[0]
    rooms = re.findall(r"^\| `([\w.]+)/?` \|", table, re.MULTILINE)
    ignored = {"__init__.py", "__main__.py", "_version.py", "py.typed", "__pycache__"}
    entries = {path.name for path in PACKAGE.iterdir()} - ignored
    assert sorted(rooms) == sorted(entries)
    assert len(entries - {ESTIMATOR}) <= 15  # it is a second facade, not another room
    layers = (ROOT / "pyproject.toml").read_text().split("layers = [")[1].split("]")[0]
    assert re.findall(r'"(\w+)"', layers) == [room.removesuffix(".py") for room in reversed(rooms)]


def test_imports_obey_the_contracts() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_only_modules_that_compute_with_tensors_load_torch() -> None:
    assert set(modules()) >= PLAIN
    names = [f"lmeraser.{name}" for name in modules() if is_plain(name)]
    heavy = "{'torch', 'transformers', 'datasets', 'sklearn', 'matplotlib'}"
    check = f"importlib.import_module(n); found = {heavy} & set(sys.modules); assert not found, (n, found)"
    code = f"import importlib, sys\nfor n in {names}: {check}"
    code += (
        f"\nimport lmeraser.{ESTIMATOR}\nfound = {heavy} & set(sys.modules)\nassert found == {{'sklearn'}}, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_test_file_mirrors_a_module() -> None:
    for path in TESTS.rglob("test_*.py"):
        relative = path.relative_to(TESTS)
        if str(relative) in ACROSS_MODULES:
            continue
        if relative.name == FAMILY:
            assert (PACKAGE / relative.parent / "base.py").exists(), relative
            continue
        name = relative.stem.removeprefix("test_")
        mirrored = PACKAGE / relative.parent / name
        assert mirrored.with_suffix(".py").exists() or mirrored.is_dir(), relative


def test_no_word_of_0_1_names_a_class_or_a_module() -> None:
    assert not [f"{path.name}: {name}" for path, name in classes() if name in OLD_CLASSES]
    names = {str(path.relative_to(PACKAGE)): path for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*/")]}
    assert not [name for name, path in names.items() if path.stem in OLD_MODULES]


def test_a_worker_is_one_of_an_executor() -> None:
    """0.1 had two classes named Worker; the other is the service's supervisor of derivations."""
    assert [path.parent.name for path, name in classes() if name == "Worker"] == ["executors"]


def test_public_names() -> None:
    assert sorted(lmeraser.__all__) == [
        *("Columns", "Config", "Eraser", "LmeraserError", "__version__", "load_predictor")
    ]
    assert all(getattr(lmeraser, name) for name in lmeraser.__all__)
    with pytest.raises(AttributeError):
        _ = lmeraser.nothing_of_the_kind
