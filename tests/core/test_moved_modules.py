"""Import paths of 0.1 work for one more release, give the modules of today, and warn."""

from __future__ import annotations

import importlib
import sys
import warnings

import pytest

from lmeraser.core.moved_modules import MOVED


@pytest.mark.parametrize("old", [*MOVED, "backbones.huggingface", "executors.local", "metrics.spread"])
def test_an_old_path_gives_the_module_of_today_and_warns(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == f"lmeraser.{old}"]:
        monkeypatch.delitem(sys.modules, name)
    with warnings.catch_warnings(record=True) as caught:  # of its package as well, where that is not imported yet
        warnings.simplefilter("always")
        module = importlib.import_module(f"lmeraser.{old}")
    text = str(caught[-1].message)
    assert text.startswith(f"lmeraser.{old} is deprecated: it is lmeraser.")
    assert all(warning.category is DeprecationWarning for warning in caught)
    current = text.removesuffix(" now").rpartition(" ")[2]
    assert module is importlib.import_module(current)
    assert module.__name__ == current
    assert module.__spec__ is not None
    assert module.__spec__.name == current


def test_packages_that_were_modules_have_their_names() -> None:
    from lmeraser.config.inputs import BackboneConfig
    from lmeraser.workspace.workspace import Workspace

    with pytest.warns(DeprecationWarning, match=r"lmeraser.config.BackboneConfig"):
        assert importlib.import_module("lmeraser.config").BackboneConfig is BackboneConfig
    with pytest.warns(DeprecationWarning, match=r"lmeraser.workspace.Workspace"):
        assert importlib.import_module("lmeraser.workspace").Workspace is Workspace
    with pytest.raises(AttributeError):
        _ = importlib.import_module("lmeraser.config").nothing_of_the_kind
    # Its package may be imported by its old name just now.
    with warnings.catch_warnings(action="ignore"), pytest.raises(ModuleNotFoundError):
        importlib.import_module("lmeraser.backbones.nothing_of_the_kind")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("lmeraser.nothing_of_the_kind")
