"""Methods and data sets of files and of installed packages are found by name, and faults are explained."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import lmeraser.experiments.catalog as catalogs
from lmeraser.errors import InputError
from lmeraser.experiments.catalog import BUILT_IN, DATA_SETS_GROUP, METHODS_GROUP, load_catalog

FILE = """
from lmeraser.experiments.datasets import DATA_SETS, DataSet
from lmeraser.experiments.methods import METHODS, Method

KNOWN = METHODS["instant"]
MINE = Method("mine", "Mine", "instant", {"global_head": {"penalty": 0.1}})
SAME = MINE
DATA = DataSet("letters", "Letters", (10, 5), modality="text")
"""


def test_a_file_adds_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    found = load_catalog([tmp_path / "mine.py"])
    assert found.added == {"mine", "letters"}
    assert found.method("mine").settings == {"global_head": {"penalty": 0.1}}
    assert found.data_set("letters").modality == "text"
    assert found.methods.keys() - {"mine"} == BUILT_IN.methods.keys()
    assert list(found.files or ()) == ["mine.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no method and no data set"),
        ("raise ValueError('no')", "ValueError: no"),
        ("import a_package_that_nobody_has", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        (FILE.replace('"mine"', '"sisa"'), "Two methods or data sets have one name"),
    ],
)
def test_faults_of_a_file_are_explained(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_catalog([tmp_path / "mine.py"])


def test_other_files_and_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path / "notes.txt", tmp_path / "absent.py", tmp_path):
        with pytest.raises(InputError, match="Not a Python file"):
            load_catalog([path])
    with pytest.raises(InputError, match="lmeraser-paper"):
        BUILT_IN.method("magic")
    with pytest.raises(InputError, match="clinc150"):
        BUILT_IN.data_set("mnist")


def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """As if a package with this module had entry points."""
    (tmp_path / "package_of_others.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = EntryPoints(
        [
            EntryPoint("mine", "package_of_others:MINE", METHODS_GROUP),
            EntryPoint("letters", "package_of_others:DATA", DATA_SETS_GROUP),
        ]
    )
    monkeypatch.setattr(catalogs, "entry_points", lambda group: entries.select(group=group))
    monkeypatch.delitem(__import__("sys").modules, "package_of_others", raising=False)


def test_entry_points_are_found_and_used_only_when_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, tmp_path, FILE)
    found = load_catalog()
    assert found.method("mine").title == "Mine"
    assert found.data_set("letters").title == "Letters"
    assert found.added == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace("MINE =", "OTHER =").replace("SAME = MINE", ""), "AttributeError"),
        (FILE + "\nMINE = 3", "The entry point is no Method"),
    ],
)
def test_a_broken_package_is_named(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed(monkeypatch, tmp_path, text)
    with pytest.raises(InputError, match=message):
        load_catalog()
