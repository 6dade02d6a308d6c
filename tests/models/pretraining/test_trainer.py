"""Training is torch's AdamW on hashed batches, and stopping it changes no bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, digits
from lmeraser.core.progress import silent
from lmeraser.core.seeding import below, order
from lmeraser.data.images import decode
from lmeraser.data.sources import open_source
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.environment import deterministic
from lmeraser.models.pretraining.arrow_dataset import ArrowDataset, write_arrow_dataset
from lmeraser.models.pretraining.recipe import ARCHITECTURES, Recipe, parse_recipe
from lmeraser.models.pretraining.trainer import Trainer, build_network, network_input


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "vit-tiny", (16, 2, 2))


@pytest.fixture
def images(tmp_path: Path) -> ArrowDataset:
    return write_arrow_dataset(
        open_source(digits(range(20)), columns=DIGIT_COLUMNS), tmp_path, skip_bad=False, progress=silent
    )


def how(**changes: Any) -> Recipe:
    base: dict[str, Any] = {"arch": "vit-tiny", "image_size": 16, "patch_size": 4, "epochs": 3, "batch_size": 6}
    return parse_recipe(**{**base, "learning_rate": 0.01, "warmup_epochs": 1.0, **changes})


def trained(images: ArrowDataset, given: Recipe, checkpoint: Path, *, every: int = 100, stop: int = 10**9) -> Any:
    """A network after a training, which is interrupted after ``stop`` steps."""

    def progress(step: str, done: int, total: int | None) -> None:
        if step == "pre-training" and done >= stop * given.batch_size:
            raise KeyboardInterrupt

    with deterministic():
        network = build_network(given, DIGIT_CLASSES)
        Trainer(network, images, given, Accelerator(cpu=True), checkpoint).run(every, progress)
    return network


def weights(network: Any) -> list[np.ndarray[Any, Any]]:
    return [parameter.detach().numpy().copy() for parameter in network.parameters()]


def test_initial_weights_come_from_the_seed_and_no_generator() -> None:
    before = torch.get_rng_state()
    one, same, other = (build_network(how(seed=seed), DIGIT_CLASSES) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    equal = [np.array_equal(*pair) for pair in zip(weights(one), weights(same), strict=True)]
    assert all(equal)
    drawn = [np.array_equal(*p) for p in zip(weights(one), weights(other), strict=True) if p[0].ndim > 1]
    assert not any(drawn)
    for name, parameter in one.named_parameters():
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.4), name
        else:
            assert set(parameter.tolist()) == ({0.0} if name.endswith("bias") else {1.0}), name
    assert one.config.id2label == dict(enumerate(DIGIT_CLASSES))


def test_a_step_is_torchs_own_on_the_hashed_batch(images: ArrowDataset, tmp_path: Path) -> None:
    """The same, written down without accelerate, checkpoints or threads."""
    given = how(epochs=2, warmup_epochs=0.5)
    trained_weights = weights(trained(images, given, tmp_path / "checkpoint"))
    network = build_network(given, DIGIT_CLASSES)
    matrices = [p for p in network.parameters() if p.ndim in (2, 4)]
    others = [p for p in network.parameters() if p.ndim not in (2, 4)]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0}]
    )
    factors = [1 / 2, 2 / 2, *((1 + np.cos(np.pi * k / 4)) / 2 for k in range(4))]
    step = 0
    for epoch in range(2):
        places = [int(name) for name in order(0, "public order", map(str, range(20)), epoch)]
        for start in (0, 6, 12):
            seen, labels = [], []
            for place in places[start : start + 6]:
                image = decode(images[place].payload).resize((18, 18), Image.Resampling.BILINEAR)
                row, column, mirror = below(0, "public augment", (3, 3, 2), epoch, place)
                cut = np.asarray(image.crop((column, row, column + 16, row + 16)))
                seen.append(cut[:, ::-1] if mirror else cut)
                labels.append(images[place].label)
            x = (torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
            with deterministic():
                logits = network(pixel_values=x).logits
                log = logits.log_softmax(dim=1)
                true = log[range(6), labels]
                loss = -(0.9 * true + 0.1 * log.mean(dim=1)).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                for group in optimizer.param_groups:
                    group["lr"] = 0.01 * factors[step]
                optimizer.step()
            step += 1
    for one, other in zip(trained_weights, weights(network), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("stop", [1, 4, 5, 8])
def test_a_stopped_training_gives_the_same_bytes(images: ArrowDataset, tmp_path: Path, stop: int) -> None:
    straight = weights(trained(images, how(), tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        trained(images, how(), tmp_path / "stopped", every=2, stop=stop)
    assert (tmp_path / "stopped").exists() == (stop > 1)
    resumed = weights(trained(images, how(), tmp_path / "stopped", every=2))
    assert all(np.array_equal(*pair) for pair in zip(straight, resumed, strict=True))
    again = weights(trained(images, how(), tmp_path / "stopped"))
    assert all(np.array_equal(*pair) for pair in zip(straight, again, strict=True)), "nothing is left to do"


def test_what_does_not_decay_is_left_alone_by_the_decay(images: ArrowDataset) -> None:
    network = build_network(how(), DIGIT_CLASSES)
    trainer = Trainer(network, images, how(), Accelerator(cpu=True), Path("nowhere"))
    groups = trainer._optimizer.param_groups
    names = {id(p): name for name, p in network.named_parameters()}
    decayed, others = ({names[id(p)] for p in group["params"]} for group in groups)
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (0.05, 0.0)
    assert {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings", "classifier.bias"} <= others
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)


def test_a_loss_that_is_no_number_is_an_error_and_no_state(images: ArrowDataset, tmp_path: Path) -> None:
    network = build_network(how(), DIGIT_CLASSES)
    with torch.no_grad():
        network.classifier.bias[0] = torch.nan
    trainer = Trainer(network, images, how(), Accelerator(cpu=True), tmp_path / "checkpoint")
    with pytest.raises(BackboneError, match="learning-rate"):
        trainer.run(1, silent)
    assert not (tmp_path / "checkpoint").exists()


def test_batches_are_no_larger_than_the_images(images: ArrowDataset, tmp_path: Path) -> None:
    steps = []
    given = how(batch_size=999, epochs=2)
    with deterministic():
        trainer = Trainer(
            build_network(given, DIGIT_CLASSES), images, given, Accelerator(cpu=True), tmp_path / "c"
        )
        trainer.run(100, lambda step, done, total: steps.append((done, total)))
    assert steps == [(0, 40), (20, 40), (40, 40)]


def test_without_images_there_is_no_training(tmp_path: Path) -> None:
    source = open_source(digits(range(1)), columns=DIGIT_COLUMNS)
    empty = type(source)("nothing", source.classes, 0, [])
    images = write_arrow_dataset(empty, tmp_path, skip_bad=False, progress=silent)
    with pytest.raises(InputError, match="0 images"):
        Trainer(build_network(how(), DIGIT_CLASSES), images, how(), Accelerator(cpu=True), tmp_path / "checkpoint")


def test_inputs_are_from_minus_one_to_one() -> None:
    pixels = np.array([[[[0, 51, 255]]]], dtype=np.uint8)
    seen = network_input(pixels, torch.device("cpu"))
    torch.testing.assert_close(seen, torch.tensor([-1.0, -0.6, 1.0]).reshape(1, 3, 1, 1))
