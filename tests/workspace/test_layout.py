"""Every file of a workspace has its path from the layout."""

from __future__ import annotations

from pathlib import Path

from faults import CLASSES, CONFIG, NOW, name, opened, trained
from lmeraser import Eraser
from lmeraser.workspace.layout import Layout


def test_a_used_workspace_holds_nothing_that_the_layout_does_not_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "w")
    Eraser.create(layout.root, CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(layout.root) as eraser:
        trained(eraser)
        eraser.unlearn(ids=[name(1)])
    names = [value for value in vars(Layout) if isinstance(vars(Layout)[value], property)]
    named = {getattr(layout, value) for value in names}
    found = {path for path in layout.root.iterdir() if not path.name.startswith("records.db-")}
    assert found <= named
    assert len(named) == len(names)
