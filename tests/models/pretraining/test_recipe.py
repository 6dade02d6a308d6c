"""A recipe is checked before anything is read."""

from __future__ import annotations

import pytest

from lmeraser.errors import ConfigError
from lmeraser.models.pretraining.recipe import ARCHITECTURES, Recipe, parse_recipe


def test_the_canvas_is_that_of_a_workspace() -> None:
    from lmeraser.config.inputs import BackboneConfig

    for size in (32, 96, 224):
        given = parse_recipe(image_size=size, patch_size=8)
        assert given.canvas_size == BackboneConfig(image_size=size).canvas_size


def test_all_values_out_of_range_are_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(epochs=0, learning_rate=0.0, batch_size=-1)
    assert all(name in str(caught.value) for name in ("epochs", "learning_rate", "batch_size", "pretrain --help"))


def test_patches_fill_the_image_and_the_architecture_is_known() -> None:
    with pytest.raises(ConfigError, match="multiple of patch_size"):
        parse_recipe(image_size=30, patch_size=4)
    with pytest.raises(ConfigError, match="vit-tiny, vit-small, vit-base"):
        parse_recipe(arch="resnet")


def test_heads_divide_the_width() -> None:
    assert all(width == 64 * heads for width, _, heads in ARCHITECTURES.values())


def test_the_command_has_the_defaults_of_the_recipe() -> None:
    """They stand there as well, because the command line starts without pydantic."""
    import inspect

    from lmeraser.cli.commands.public import pretrain

    parameters = inspect.signature(pretrain).parameters
    defaults = Recipe().model_dump()
    assert {name: parameters[name].default for name in defaults if name in parameters} == defaults
