"""Texts and vectors are unlearned as exactly as images, and only the families know which modality it is."""

from __future__ import annotations

import csv
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lmeraser
from conftest import Run, examples
from lmeraser import Eraser
from lmeraser.config.modalities import MODALITIES
from lmeraser.config.presets import PRESETS
from lmeraser.config.schema import parse
from lmeraser.errors import ConfigError
from modality_records import LENGTH, classes_of, columns_of, records_of
from oracle import Oracle

PACKAGE = Path(lmeraser.__file__).parent
VARIANTS: dict[str, dict[str, Any]] = {
    "vector, instant": {
        "data": {"modality": "vector", "length": LENGTH},
        "partition": {"method": "single", "clusters": 1},
        "global_head": {"weight": 1.0},
        "constituent": {"kind": "none"},
    },
    "vector, heads": {
        "data": {"modality": "vector", "length": LENGTH},
        "partition": {"clusters": 3, "sample_size": 8},
        "tuning": {"epochs": 2},
    },
    "text, instant": {
        "data": {"modality": "text"},
        "partition": {"method": "single", "clusters": 1},
        "embedding": {"layers": ["auto"], "random_features": 48},
        "global_head": {"weight": 1.0, "penalty_rule": "cross_validated", "score": "blend"},
        "constituent": {"kind": "none"},
    },
    "text, soft tokens": {
        "data": {"modality": "text"},
        "partition": {"clusters": 2, "sample_size": 8},
        "tokens": {"count": 2, "deep": True},
        "tuning": {"epochs": 1},
    },
    "text, one shared head": {
        "data": {"modality": "text"},
        "constituent": {"kind": "shared_head"},
        "partition": {"clusters": 2, "sample_size": 8},
        "tokens": {"count": 2, "deep": True},
        "tuning": {"epochs": 1},
    },
    "text, prompts without head": {
        "data": {"modality": "text"},
        "constituent": {"kind": "mapping"},
        "partition": {"clusters": 2, "sample_size": 8},
        "tokens": {"count": 2},
        "tuning": {"epochs": 1},
    },
    "text, networks of shards": {
        "data": {"modality": "text"},
        "constituent": {"kind": "network"},
        "partition": {"method": "random", "clusters": 2},
        "aggregation": {"combine": "vote"},
        "tuning": {"epochs": 1, "slices": 2},
    },
}
LONG = ("text, one shared head", "text, prompts without head", "text, networks of shards")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny network for texts."""
    pytest.importorskip("tokenizers")
    from tiny_texts import save

    return str(save("bert", tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle(threads=2) as started:
        yield started


def settings_of(variant: str, network: str) -> dict[str, Any]:
    chosen = VARIANTS[variant]
    if chosen["data"]["modality"] == "vector":
        return chosen
    return {**chosen, "backbone": {"name": network, "micro_batch": 4}, "text": {"max_tokens": 32, "windows": 3}}


_step = st.tuples(
    st.sampled_from(["add", "unlearn", "forget"]), st.lists(st.integers(0, 29), min_size=1, max_size=4)
)


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in VARIANTS]
)
@given(
    first=st.sets(st.integers(0, 29), min_size=4, max_size=16),
    history=st.lists(_step, min_size=1, max_size=3),
    shuffle=st.randoms(use_true_random=False),
)
@settings(examples(fast=2, explore=20), suppress_health_check=list(HealthCheck))
def test_any_history_gives_the_model_of_training_once(
    oracle: Oracle,
    network: str,
    variant: str,
    first: set[int],
    history: list[tuple[str, list[int]]],
    shuffle: random.Random,
) -> None:
    chosen = settings_of(variant, network)
    modality = chosen["data"]["modality"]
    with (
        tempfile.TemporaryDirectory() as folder,
        Eraser.create(Path(folder) / "w", chosen, classes=classes_of(modality), preset="prompts") as eraser,
    ):
        retained: set[int] = set()
        for verb, numbers in [("add", sorted(first)), *history]:
            if verb == "add":
                new = records_of(modality, numbers)
                eraser.add(new, columns=columns_of(modality), allow_deleted=True)
                retained |= set(numbers)
                eraser.train()
            elif verb == "unlearn" and (gone := retained.intersection(numbers)):
                eraser.unlearn(ids=[f"digit-{number:04d}" for number in sorted(gone)])
                retained -= gone
            elif verb == "forget" and any(number % 5 == numbers[0] % 5 for number in retained):
                eraser.unlearn(subjects=[f"w{numbers[0] % 5}"])
                retained = {number for number in retained if number % 5 != numbers[0] % 5}
        left = sorted(retained)
        shuffle.shuffle(left)
        assert eraser.model_digest == oracle.digest({**chosen, "compute": {"workers": 3}}, left)


@pytest.mark.parametrize("variant", ["vector, heads", "text, soft tokens", *LONG])
def test_a_workspace_predicts_audits_and_finds_no_residue(tmp_path: Path, network: str, variant: str) -> None:
    chosen = settings_of(variant, network)
    modality = chosen["data"]["modality"]
    with Eraser.create(tmp_path / "w", chosen, classes=classes_of(modality), preset="prompts") as eraser:
        records = records_of(modality, range(14))
        assert eraser.add(records, columns=columns_of(modality)).added == 14
        eraser.train()
        queries = [record[modality] for record in records]
        together = eraser.predictor().batch(queries)
        for place in (0, 7, 13):  # neighbours, and texts of other lengths, do not matter
            alone = eraser.predictor().batch([queries[place]])
            np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[place])
            np.testing.assert_array_equal(alone.features[0], together.features[place])
        eraser.unlearn(ids=["digit-0003"])
        assert "digit-0003" not in eraser.record_ids()
        assert eraser.audit().identical
        probe = tmp_path / "probe"
        probe.write_bytes(eraser.payload_format.payload(queries[3]))
        found = eraser.residue([probe], ids=["digit-0003"])
        assert found.clean
        assert found.held == 0


def test_settings_of_another_modality_are_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"data": {"modality": "vector"}}, "length (init --length) must be given for modality 'vector'"),
        ({"data": {"modality": "text", "length": 3}}, "for no other"),
        ({"data": {"modality": "text"}, "embedding": {"views": ["clean"]}}, "must be of head, tail, whole"),
        ({"data": {"modality": "vector", "length": 3}, "constituent": {"kind": "tokens"}}, "must be one of"),
        ({"data": {"modality": "sound"}}, "'image', 'text' or 'vector'"),
    ]
    for values, fault in cases:
        with pytest.raises(ConfigError, match=re.escape(fault)):
            parse(values)
    with pytest.raises(ConfigError, match="Preset not available for this modality"):
        parse({"data": {"modality": "vector", "length": 3}}, base="dam-vp")


@pytest.mark.parametrize("name", PRESETS)
def test_texts_have_every_preset(name: Any) -> None:
    config = parse({"data": {"modality": "text"}}, base=name)
    assert config.constituent.kind in config.modality.constituents
    assert (config.backbone.name, config.prompt.kind) == ("all-MiniLM-L6-v2", "none")


def test_an_image_workspace_has_the_settings_of_before() -> None:
    settings_now = parse({}).model_settings()
    assert not {"data", "text"} & settings_now.keys()
    assert settings_now["backbone"].keys() >= {"image_size", "resize", "micro_batch"}
    text = parse({"data": {"modality": "text"}}).model_settings()
    assert text["data"]["modality"] == "text"
    assert not {"image_size", "resize", "resample"} & text["backbone"].keys()


_FAMILY = ("config/modalities.py", "data/modalities/", "models/modalities/")
_ASKS = re.compile(r"modality\s*(==|!=|\bin\b|\bis\b)|match\s.*modality|==\s*['\"](text|vector)['\"]")


def test_only_the_families_ask_which_modality_it_is() -> None:
    """A fourth modality must not need a change elsewhere."""
    asked = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).as_posix()
        if relative == "config/inputs.py" or relative.startswith(_FAMILY):  # the settings name `length`'s rule
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        asked += [f"{relative}:{number}: {line}" for number, line in enumerate(lines, 1) if _ASKS.search(line)]
    assert not asked


def test_every_modality_has_its_modules() -> None:
    for name in MODALITIES:
        assert (PACKAGE / "data" / "modalities" / f"{name}.py").is_file()
        assert (PACKAGE / "models" / "modalities" / f"{name}.py").is_file()


def test_texts_on_the_command_line(run: Run, tmp_path: Path, network: str) -> None:
    """Columns with other names; words that fit texts; and a text that is left in another encoding is found."""
    table = tmp_path / "tickets.csv"
    rows = [{**record, "said": record["text"]} for record in records_of("text", range(12))]
    rows[3]["said"] = "Please close the account of my late mother"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "said", "label", "subject"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    workspace = tmp_path / "w"
    chosen = {**settings_of("text, instant", network), "embedding": {"random_features": 0}}
    Eraser.create(workspace, chosen, classes=classes_of("text")).close()
    w = ("-w", workspace)
    columns = ("--text-column", "said", "--id-column", "id", "--subject-column", "subject")
    assert "12" in run(*w, "add", table, *columns).out
    wrong = run(*w, "add", table, "--text-column", "words")
    assert wrong.code == 2
    assert "no words in" in wrong.err
    run(*w, "train")
    plan = run(*w, "plan", "--id", "digit-0003")
    assert (plan.code, "image" in plan.out) == (0, False)
    run(*w, "unlearn", "--id", "digit-0003")
    probe = tmp_path / "probe.txt"
    probe.write_text(rows[3]["said"], encoding="utf-8")
    assert run(*w, "residue", "--probe", probe).code == 0
    (workspace / "left.txt").write_bytes(b"..." + rows[3]["said"].encode("utf-16-le") + b"...")
    found = run(*w, "residue", "--probe", probe)
    assert (found.code, "left.txt" in found.out) == (1, True)
