"""Prompts of all clusters and one head, tuned together: against a plain loop, and what that means for requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import DIGIT_COLUMNS, digits, tiny_config
from lmeraser import Eraser
from lmeraser.config.schema import Config
from lmeraser.errors import NoModelError
from lmeraser.models.environment import deterministic
from lmeraser.models.modalities.image import to_input
from lmeraser.models.modalities.pixel_prompts import PromptShape
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.base import QueryBatch
from small import SIZE, Small, config, linear_head, members, plain_loop, tuned


def settings(**changes: Any) -> Config:
    return config(constituent={"kind": "shared_head"}, **changes)


def members_of_clusters(count: int, clusters: int) -> Any:
    numbers = tuple(n * n % clusters for n in range(count))
    return replace(members(count), cluster_numbers=numbers, cluster_count=clusters)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("count", "clusters"), [(1, 1), (7, 3), (21, 2)])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_it_is_what_a_plain_training_loop_gives(optimizer: str, count: int, clusters: int) -> None:
    chosen, known = settings(tuning={"optimizer": optimizer}), members_of_clusters(count, clusters)
    ours = tuned(known, chosen)
    network, (head, groups) = Small().features_network, linear_head(chosen)
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    mask[3:-3, 3:-3] = False
    prompts = nn.Parameter(torch.zeros(clusters, 3, SIZE, SIZE))
    prompts.data[:, :, mask] = torch.from_numpy(PromptShape.of(chosen).initial(0, 0.1))
    own = {"params": [prompts], "lr": chosen.tuning.prompt_learning_rate, "weight_decay": 0.0}
    cluster = {record_id: known.cluster_numbers[index] for index, record_id in enumerate(known.ids)}

    def logits(images: Any, ids: list[str]) -> Any:
        return head(network(images + prompts[[cluster[i] for i in ids]] * mask))

    plain_loop(known, chosen, [own, *groups], logits)
    np.testing.assert_allclose(ours["prompts"], prompts.data[:, :, mask].numpy(), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(ours["head.weight"], head.weight.data.numpy(), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(ours["head.bias"], head.bias.data.numpy(), rtol=2e-3, atol=2e-4)


def test_each_cluster_answers_with_its_prompt_and_the_one_head() -> None:
    backbone, chosen = Small(), settings()
    tensors = tuned(members_of_clusters(13, 3), chosen, backbone)
    tuner = create_tuner(chosen, backbone)
    pixels = members(3).inputs[range(3)][:, 1:-1, 1:-1]
    with deterministic(), torch.inference_mode():
        predictor = tuner.predictor([tuner.cluster_tensors(tensors, number) for number in (2, 0)])
        queries = QueryBatch(to_input(pixels, backbone))
        result = predictor.classify(queries, np.array([0, 1, 0]))
        for row, number in enumerate((2, 0, 2)):
            painted = PromptShape.of(chosen).paint(torch.from_numpy(tensors["prompts"][number])[None], [(0, 0)])
            features = backbone.features(queries.clean + painted)[row].numpy()
            logits = tensors["head.weight"] @ features + tensors["head.bias"]
            expected = np.exp(logits - logits.max())
            np.testing.assert_allclose(result[row], expected / expected.sum(), rtol=1e-4, atol=1e-6)


def test_any_deletion_tunes_everything_and_reports_say_so(tmp_path: Path) -> None:
    chosen = tiny_config(
        constituent={"kind": "shared_head"}, partition={"method": "random", "clusters": 3, "sample_size": 12}
    )
    with Eraser.create(tmp_path / "w", chosen) as eraser:
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
        model = eraser.workspace.generations.require()
        assert len(model.clusters) == 3
        assert len({cluster.constituent for cluster in model.clusters}) == 1
        assert (model.together, model.expected_share) == (True, 19 / 20)
        status, cost = eraser.status(), eraser.cost()
        assert (status.expected_share, status.p50, status.max) == (19 / 20, 19, 19)
        assert (cost.expected_share, cost.p50, cost.max) == (19 / 20, 19, 19)
        assert cost.batches[1] == pytest.approx(1)
        plan = eraser.plan(ids=["digit-0003"])
        assert (plan.clusters_to_tune, plan.records_to_tune, plan.share_to_tune) == (3, 19, 1.0)
        assert len(plan.affected) == 1, "the others keep their members"
        eraser.request(ids=["digit-0003"])
        assert eraser.quarantined() == {0, 1, 2}
        with pytest.raises(NoModelError, match="All parts of the model are in quarantine"):
            eraser.predict(eraser.workspace.records.payloads(["digit-0005"]))
        report = eraser.unlearn()
        assert report.training is not None
        assert (report.training.stage_counts["tuned"], report.training.stage_counts["tuned_records"]) == (3, 19)
        assert eraser.quarantined() == frozenset()
        assert eraser.predict(eraser.workspace.records.payloads(["digit-0005"]))[0].clusters == (0, 1, 2)
        audit = eraser.audit(clusters=1)
        assert (audit.identical, audit.clusters_checked) == (True, 3)
