"""Make the source of the package ``lmeraser-verify``: what an auditor installs, without torch.

    python scripts/build_verifier.py OUT
    pip install OUT

The package holds the modules that `lmeraser.evidence.verifier` imports, as they are, under the name
``lmeraser_verify``: so it can be installed beside lmeraser, and there is one source of both
(docs/adr/0025-verifier.md).
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lmeraser"
NAME = "lmeraser_verify"
ENTRY = "evidence.verifier"
NEEDED = ("cryptography", "pydantic", "rfc8785")  # of lmeraser's dependencies
_IMPORT = re.compile(r"^(\s*(?:from|import) )lmeraser\b", re.MULTILINE)

PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "lmeraser-verify"
version = "{version}"
description = "Verify lmeraser's certificates of deletion, ledgers and results of audits"
requires-python = "{python}"
license = "MIT"
license-files = ["LICENSE"]
readme = "README.md"
dependencies = [{dependencies}]

[project.scripts]
lmeraser-verify = "{name}.{entry}:main"

[tool.setuptools.packages.find]
where = ["src"]
"""

README = """# lmeraser-verify

Verifies certificates of deletion and results of audits that lmeraser signed:

    lmeraser-verify certificate.json --key signing.pub --ledger ledger --head head.json

It needs these files and nothing else, and ends with 0 (verified), 1 (not verified) or 2 (unusable files). Take
`signing.pub` from where it was published, and keep a head of the ledger (`lmeraser ledger --export-head`).
"""


def modules() -> list[str]:
    """Names of the modules that the verifier imports, below ``lmeraser``, packages included."""
    found: set[str] = set()
    waiting = [ENTRY]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported(_file(module))
    packages = {module.rpartition(".")[0] for module in found} - {""}
    return sorted(found | packages)


def _file(module: str) -> Path:
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lmeraser."):
            base = str(node.module).removeprefix("lmeraser.")
            is_package = SOURCE.joinpath(*base.split(".")).is_dir()
            names += [f"{base}.{each.name}" for each in node.names] if is_package else [base]
    return names


def make(out: Path) -> None:
    """Write the package's source.

    Args:
        out: folder, which must not exist.
    """
    package = out / "src" / NAME
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Verification of lmeraser\'s evidence, without lmeraser."""\n')
    for module in modules():
        source = _file(module)
        target = package / source.relative_to(SOURCE)
        target.parent.mkdir(exist_ok=True)
        target.write_text(_IMPORT.sub(rf"\1{NAME}", source.read_text()))
    main = f"import sys\n\nfrom {NAME}.{ENTRY} import main\n\nsys.exit(main())\n"
    (package / "__main__.py").write_text(f'"""Run the command."""\n\n{main}')
    shutil.copy(ROOT / "LICENSE", out)
    (out / "README.md").write_text(README)
    (out / "pyproject.toml").write_text(_pyproject())


def _pyproject() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version: dict[str, str] = {}
    exec((SOURCE / "_version.py").read_text(), version)
    wanted = [line for line in project["dependencies"] if re.match(r"[\w-]+", line)[0] in NEEDED]  # type: ignore[index]
    return PYPROJECT.format(
        version=version["__version__"],
        python=project["requires-python"],
        dependencies=", ".join(f'"{line}"' for line in wanted),
        name=NAME,
        entry=ENTRY,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make")
    make(parser.parse_args().out)
