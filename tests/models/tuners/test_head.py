"""Heads on quantized embeddings: tuned like a plain PyTorch head, from the members alone; one image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lmeraser.config.schema import Config, parse
from lmeraser.core.seeding import order
from lmeraser.core.sufficient_statistics import QuantizedEmbeddings, dequantize, quantize
from lmeraser.models.environment import deterministic
from lmeraser.models.tuners.base import Members, QueryBatch
from lmeraser.models.tuners.class_means import class_means
from lmeraser.models.tuners.head import HeadPredictor, HeadTuner
from small import torch_optimizer

CLASSES, FEATURES = 3, 40


def config(seed: int = 0, **tuning: Any) -> Config:
    chosen = {"epochs": 4, "batch_size": 8, "head_learning_rate": 0.05, **tuning}
    return parse({"seed": seed, "constituent": {"kind": "head"}, "tuning": chosen})


def ids(count: int) -> list[str]:
    return [f"r{number:03d}" for number in range(count)]


def labels(count: int) -> list[int]:
    return [number % CLASSES for number in range(count)]


def embeddings(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, FEATURES)).astype(np.float32)


def tuned(count: int, chosen: Config | None = None, classes: Sequence[int] | None = None, **options: Any) -> Any:
    """The weight of a head tuned on so many members; bitwise, as the executor does it."""
    quantized = quantize(embeddings(count))
    with deterministic():
        return HeadTuner(chosen or config()).tune(members(count, quantized, classes), classes=CLASSES, **options)[
            "weight"
        ]


def members(
    count: int, quantized: QuantizedEmbeddings, classes: Sequence[int] | None = None
) -> Members[QuantizedEmbeddings]:
    return Members(tuple(ids(count)), tuple(classes if classes is not None else labels(count)), quantized)


def classified(images: Any, heads: HeadPredictor, chosen: Any) -> Any:
    """Class probabilities of embeddings by the heads chosen for them."""
    return heads.classify(QueryBatch(torch.empty(0), images), chosen)


def plain_loop(count: int, chosen: Config) -> Any:
    """What a PyTorch user would write: nn.Linear on quantized embeddings, torch's optimiser and scheduler."""
    tuning = chosen.tuning
    inputs = torch.from_numpy(quantize(embeddings(count)).astype(np.float32)) / 1024
    head = nn.Linear(FEATURES + 1, CLASSES, bias=False)
    nn.init.zeros_(head.weight)
    rate, decay = tuning.head_learning_rate, tuning.head_weight_decay
    group = {"params": [head.weight], "lr": rate, "weight_decay": decay}
    optimizer, scheduler = torch_optimizer([group], chosen, count)
    for epoch in range(tuning.epochs):
        shuffled = [int(record_id[1:]) for record_id in order(0, "order", ids(count), epoch)]
        for first in range(0, count, tuning.batch_size):
            batch = shuffled[first : first + tuning.batch_size]
            target = torch.tensor([labels(count)[index] for index in batch])
            loss = nn.functional.cross_entropy(head(inputs[batch]), target)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            scheduler.step()
    return head.weight.detach().numpy()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("count", [1, 7, 8, 21])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_it_is_what_a_plain_training_loop_gives(optimizer: str, count: int) -> None:
    chosen = config(optimizer=optimizer)
    ours = tuned(count, chosen)
    assert ours.shape == (CLASSES, FEATURES + 1)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, plain_loop(count, chosen), rtol=2e-3, atol=2e-4)


def test_it_starts_at_zero() -> None:
    assert not tuned(10, config(head_learning_rate=0.0)).any()


def test_it_may_start_from_the_means_of_its_members() -> None:
    still = config(head_learning_rate=0.0, head_weight_decay=0.0)
    chosen = still.model_copy(update={"head": still.head.model_copy(update={"init": "class_means"})})
    weight, bias = class_means(torch.from_numpy(dequantize(quantize(embeddings(10))))[:, :-1], labels(10), CLASSES)
    np.testing.assert_array_equal(tuned(10, chosen), torch.cat([weight, bias[:, None]], dim=1).numpy())


def test_it_goes_on_from_an_earlier_head() -> None:
    earlier = {"weight": tuned(10)}
    copy = earlier["weight"].copy()
    np.testing.assert_array_equal(tuned(10, config(head_learning_rate=0.0), start=earlier), copy)
    assert not np.array_equal(tuned(10, start=earlier), copy)
    np.testing.assert_array_equal(earlier["weight"], copy, err_msg="the earlier head stays as it was")
    zero = {"weight": np.zeros_like(copy)}
    np.testing.assert_array_equal(tuned(10, start=zero), copy)


def test_separable_embeddings_are_separated() -> None:
    count = 60
    points = embeddings(count)
    points[np.arange(count), labels(count)] += 8
    with deterministic():
        head = HeadTuner(config(epochs=20)).tune(members(count, quantize(points)), classes=CLASSES)
    fresh = embeddings(count, seed=1)
    fresh[np.arange(count), labels(count)] += 8
    shares = classified(fresh, HeadPredictor([head]), np.zeros(count, np.int64))
    assert shares.argmax(axis=1).tolist() == labels(count)


def test_one_member_is_learnt() -> None:
    weight = tuned(1, classes=[2])
    assert (weight @ np.append(embeddings(1)[0], 1)).argmax() == 2


def test_one_class_is_learnt() -> None:
    weight = tuned(9, classes=[1] * 9)
    assert weight[:, -1].argmax() == 1
    assert np.allclose(weight[0], weight[2]), "classes without members are alike"


def test_the_order_in_which_members_are_given_changes_no_bit() -> None:
    count = 21
    quantized, first = quantize(embeddings(count)), tuned(count)
    turned = list(reversed(range(count)))
    with deterministic():
        others = Members(
            tuple(ids(count)[index] for index in turned),
            tuple(labels(count)[index] for index in turned),
            np.ascontiguousarray(quantized[turned]),
        )
        again = HeadTuner(config()).tune(others, classes=CLASSES)
    np.testing.assert_array_equal(again["weight"], first)


def test_other_labels_give_another_head() -> None:
    assert not np.array_equal(tuned(21), tuned(21, classes=[*labels(21)[1:], 0]))


def test_torchs_own_randomness_changes_no_bit() -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is the point
        results.append(tuned(21))
    before = torch.get_rng_state()
    tuned(21)
    assert torch.equal(torch.get_rng_state(), before), "none is used up either"
    np.testing.assert_array_equal(results[0], results[1])


def test_the_number_of_threads_changes_no_bit() -> None:
    before, results = torch.get_num_threads(), []
    chosen = config(batch_size=512, epochs=2)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(tuned(900, chosen))
    finally:
        torch.set_num_threads(before)
    with deterministic(), ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results += pool.map(lambda _: tuned(900, chosen), range(3))
    assert all(np.array_equal(results[0], other) for other in results)


def test_the_seed_matters_through_the_order_of_the_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not np.array_equal(tuned(21, config(seed=0)), tuned(21, config(seed=1)))
    np.testing.assert_array_equal(tuned(1, config(seed=0)), tuned(1, config(seed=1)))

    def as_given(seed: int, purpose: str, names: Sequence[str], epoch: int) -> list[str]:
        return list(names)

    monkeypatch.setattr("lmeraser.models.tuners.optimization.order", as_given)
    np.testing.assert_array_equal(tuned(21, config(seed=0)), tuned(21, config(seed=1)))


def test_the_given_embeddings_stay_as_they_were() -> None:
    quantized: QuantizedEmbeddings = quantize(embeddings(9))
    quantized.flags.writeable = False
    HeadTuner(config()).tune(members(9, quantized), classes=CLASSES)


def test_steps_are_reported_and_may_stop_the_work() -> None:
    counts: list[int] = []
    tuned(19, on_step=counts.append)
    assert counts == [8, 8, 3] * 4
    assert sum(counts) == 19 * 4
    steps: list[int] = []

    def stop(records: int) -> None:
        steps.append(records)
        if len(steps) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(19, on_step=stop)
    assert steps == [8, 8]


def some_heads(count: int) -> list[dict[str, Any]]:
    weights = np.random.default_rng(7).standard_normal((count, CLASSES, FEATURES + 1)).astype(np.float32)
    return [{"weight": weight} for weight in weights]


def test_each_image_is_classified_by_the_head_of_its_own_cluster() -> None:
    heads, images, chosen = some_heads(4), embeddings(6), [2, 0, 3, 3, 1, 2]
    shares = classified(images, HeadPredictor(heads), np.array(chosen))
    assert shares.shape == (6, CLASSES)
    assert shares.dtype == np.float32
    for row, image, position in zip(shares, images, chosen, strict=True):
        code = np.append(np.rint(image.astype(np.float64) * 1024) / 1024, 1)
        powers = np.exp(heads[position]["weight"].astype(np.float64) @ code)
        np.testing.assert_allclose(row, powers / powers.sum(), rtol=1e-4, atol=1e-6)


def test_an_image_does_not_see_its_neighbours() -> None:
    heads, images = HeadPredictor(some_heads(4)), embeddings(9)
    chosen = np.arange(9) % 4
    together = classified(images, heads, chosen)
    np.testing.assert_array_equal(classified(images[::-1], heads, chosen[::-1]), together[::-1])
    for place in range(9):
        alone = classified(images[place : place + 1], heads, chosen[place : place + 1])
        np.testing.assert_array_equal(alone[0], together[place])
        strangers = np.concatenate([embeddings(5, seed=place + 1), images[place : place + 1]])
        elsewhere = classified(strangers, heads, np.array([3, 3, 0, 1, 2, chosen[place]]))
        np.testing.assert_array_equal(elsewhere[-1], together[place])


def test_large_scores_are_probabilities_too() -> None:
    heads = HeadPredictor([{"weight": np.full((CLASSES, FEATURES + 1), 1e3, np.float32) * [[1], [2], [-3]]}])
    shares = classified(np.full((1, FEATURES), 30, np.float32), heads, np.zeros(1, np.int64))
    np.testing.assert_array_equal(shares, [[0, 1, 0]])
