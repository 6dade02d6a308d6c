"""Pictures of clusters."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lmeraser import Eraser
from lmeraser.workspace.figures import draw_clusters, draw_sizes


def test_one_row_of_images_per_cluster_and_a_bar_for_each(eraser: Eraser, tmp_path: Path) -> None:
    model = eraser.workspace.generations.require()
    draw_clusters(eraser.workspace, model, tmp_path / "new" / "clusters.png")
    draw_sizes(model, tmp_path / "sizes.png")
    with Image.open(tmp_path / "new" / "clusters.png") as clusters, Image.open(tmp_path / "sizes.png") as sizes:
        assert clusters.height >= len(model.clusters) * 50
        assert sizes.width == 840
        assert len(set(clusters.convert("L").tobytes())) > 50, "images, not an empty page"


def test_an_empty_model_is_drawn_too(eraser: Eraser, tmp_path: Path) -> None:
    eraser.unlearn(subjects=[f"w{number}" for number in range(5)])
    model = eraser.workspace.generations.require()
    draw_clusters(eraser.workspace, model, tmp_path / "clusters.png")
    draw_sizes(model, tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").exists()
