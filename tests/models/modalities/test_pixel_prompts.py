"""Where a prompt's pixels lie, and that nothing else of the image is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmeraser.config.schema import parse
from lmeraser.models.modalities.pixel_prompts import PromptShape, _gather, _scatter

KINDS = ["padding", "fixed_patch", "random_patch"]


def test_a_frame_of_30_px_around_224_px_has_69840_parameters() -> None:
    assert 3 * len(PromptShape("padding", 30, 224).offsets) == 69_840


@pytest.mark.parametrize(("width", "size"), [(1, 8), (3, 8), (4, 8), (4, 9)])
def test_a_frame_has_4_w_times_s_minus_w_pixels(width: int, size: int) -> None:
    assert len(PromptShape("padding", width, size).offsets) == min(4 * width * (size - width), size * size)


def test_the_default_width_scales_with_the_input() -> None:
    assert PromptShape.of(parse({"backbone": {"image_size": 224}})).width == 30
    assert PromptShape.of(parse({"backbone": {"image_size": 96}})).width == 13


@pytest.mark.parametrize("kind", KINDS)
def test_values_land_on_their_pixels_and_zeros_elsewhere(kind: str) -> None:
    shape = PromptShape(kind, 2, 7)
    values = torch.arange(1.0, 1 + 3 * len(shape.offsets)).reshape(1, 3, -1)
    corner = (3, 1) if kind == "random_patch" else (0, 0)
    painted = shape.paint(values, [corner])[0]
    where = np.zeros((7, 7), dtype=bool)
    if kind == "padding":
        where[:2], where[-2:], where[:, :2], where[:, -2:] = True, True, True, True
    else:
        where[corner[0] : corner[0] + 2, corner[1] : corner[1] + 2] = True
    mask = torch.from_numpy(where)
    assert torch.equal(painted[:, mask], values[0])
    assert (painted[:, ~mask] == 0).all()


def test_the_gradient_is_the_sum_over_the_images_of_the_gradient_at_these_pixels() -> None:
    shape = PromptShape("random_patch", 2, 6)
    values = torch.zeros((1, 3, 4), requires_grad=True)
    corners = [(0, 0), (4, 4), (1, 2)]
    upstream = torch.randn((3, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((shape.paint(values, corners) * upstream).sum(), values)
    expected = sum(upstream[i, :, r : r + 2, c : c + 2].reshape(3, 4) for i, (r, c) in enumerate(corners))
    torch.testing.assert_close(gradient[0], expected)


@pytest.mark.parametrize("kind", [*KINDS, "none"])
@pytest.mark.parametrize("several", [True, False])
def test_a_gpu_paints_the_same_pixels_with_the_same_gradients(kind: str, several: bool) -> None:
    shape = PromptShape(kind, 3, 9)
    coins = torch.Generator().manual_seed(0)
    values = torch.randn((4 if several else 1, 3, len(shape.offsets)), generator=coins).requires_grad_(True)
    upstream = torch.randn((4, 3, 81), generator=coins)
    shifts = shape.shifts([(0, 0), (6, 6), (2, 5), (6, 0)] if kind == "random_patch" else [(0, 0)])
    painted = [way(shape, values, shifts) for way in (_scatter, _gather)]
    assert torch.equal(*painted)
    if values.numel():
        gradients = [torch.autograd.grad((image * upstream).sum(), values)[0] for image in painted]
        assert torch.equal(*gradients)


def test_one_prompt_per_image() -> None:
    shape = PromptShape("padding", 1, 4)
    values = torch.stack([torch.full((3, 12), float(number)) for number in range(5)])
    painted = shape.paint(values, [(0, 0)])
    assert painted.shape == (5, 3, 4, 4)
    assert [float(image.max()) for image in painted] == [0, 1, 2, 3, 4]


def test_corners_of_a_random_patch_stay_inside_and_depend_on_their_names_only() -> None:
    shape = PromptShape("random_patch", 3, 10)
    corners = [shape.training_corner(0, epoch, f"r{number}") for epoch in range(10) for number in range(50)]
    assert {row for row, _ in corners} == {column for _, column in corners} == set(range(8))
    assert shape.training_corner(0, 3, "r7") == corners[3 * 50 + 7]
    assert shape.prediction_corner == (3, 3)


@pytest.mark.parametrize("kind", ["padding", "fixed_patch"])
def test_other_prompts_stay_where_they_are(kind: str) -> None:
    shape = PromptShape(kind, 3, 10)
    assert shape.training_corner(0, 1, "r") == shape.prediction_corner == (0, 0)


def test_no_prompt_is_no_parameter() -> None:
    shape = PromptShape("none", 3, 10)
    values = torch.from_numpy(shape.initial(0, 1.0))
    assert values.shape == (3, 0)
    assert (shape.paint(values[None], [(0, 0)]) == 0).all()


def test_initial_values_are_the_same_for_every_cluster() -> None:
    shape = PromptShape("padding", 2, 8)
    np.testing.assert_array_equal(shape.initial(5, 0.1), shape.initial(5, 0.1))
    assert not np.array_equal(shape.initial(5, 0.1), shape.initial(6, 0.1))
    assert (shape.initial(5, 0.0) == 0).all()
    assert 0.05 < PromptShape("padding", 10, 64).initial(5, 0.1).std() < 0.15
