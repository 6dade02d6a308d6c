"""Against numbers worked out by hand, and on models that overfit and models that saw nothing."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import true_class
from lmeraser.experiments.metrics.attack_report import attack_report
from lmeraser.experiments.metrics.membership import Confidences, confidence, lira, mia_efficacy, rmia


def logistic(values: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(values, dtype=np.float64)))


def unseen(target: Any, references: Any) -> Confidences:
    """Of records that no reference model was trained on."""
    return Confidences(target, references, np.zeros(np.shape(references), dtype=np.bool_))


def some(seed: int, models: int, count: int) -> Confidences:
    """Of records that half of the reference models were trained on, but never all."""
    coins = np.random.default_rng(seed)
    seen = coins.random((models, count)) < 0.5
    seen[coins.integers(0, models, count), np.arange(count)] = False
    return Confidences(coins.random(count), coins.random((models, count)), seen)


# --- what goes in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "references", "seen", "message"),
    [
        ([0.5, 0.5], [[0.5]], [[False]], "differ in number of records"),
        ([0.5], [[0.5]], [[0]], "seen is not a boolean array"),
        ([0.5], [[0.5]], [False], "seen is not a boolean array"),
        ([0.5, 0.5], [[0.5, 0.5]] * 2, [[True, False], [True, True]], "1 of 2 records were seen by all 2 models"),
        ([1.5], [[0.5]], [[False]], "Values of target are out of range"),
        ([0.5], [[math.nan]], [[False]], "Values of references are not finite"),
        ([], np.zeros((1, 0)), np.zeros((1, 0), dtype=np.bool_), "a non-empty"),
        ([0.5], np.zeros((0, 1)), np.zeros((0, 1), dtype=np.bool_), "a non-empty"),
    ],
)
def test_what_models_say_fits_together(target: Any, references: Any, seen: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Confidences(target, references, seen)


def test_confidence_is_the_score() -> None:
    assert confidence(np.array([0.25, 1.0], dtype=np.float32)).tolist() == [0.25, 1.0]
    with pytest.raises(InputError, match="target"):
        confidence([math.nan])


# --- LiRA --------------------------------------------------------------------------------------------------


def test_lira_by_hand_with_a_deviation_of_each_record() -> None:
    """Logits 1, 3 and 2, 6: means 2 and 4, sample deviations sqrt(2) and sqrt(8)."""
    records = unseen(logistic([5, 2]), logistic([[1, 2], [3, 6]]))
    assert lira(records, enough=2) == pytest.approx([3 / math.sqrt(2), -2 / math.sqrt(8)])


def test_lira_by_hand_with_a_common_deviation() -> None:
    """Squared deviations 1 + 1 and 4 + 4 with one degree of freedom each: sqrt(10 / 2)."""
    records = unseen(logistic([5, 2]), logistic([[1, 2], [3, 6]]))
    assert lira(records) == pytest.approx([3 / math.sqrt(5), -2 / math.sqrt(5)])


def test_lira_asks_only_models_that_did_not_see_the_record() -> None:
    """Record 0 was seen by model 2, record 1 by models 0 and 1: means 2 and 3, one degree of freedom in all."""
    seen = np.array([[False, True], [False, True], [True, False]])
    records = Confidences(logistic([4, 4]), logistic([[1, 9], [3, -9], [99, 3]]), seen)
    assert lira(records) == pytest.approx([2 / math.sqrt(2), 1 / math.sqrt(2)])


def test_lira_of_one_reference_model_is_the_difference_of_logits() -> None:
    assert lira(unseen(logistic([2, 2]), logistic([[1, 5]]))) == pytest.approx([1, -3])


def test_lira_of_reference_models_that_agree() -> None:
    """Of six times the same number, the mean is not always that number to the last bit."""
    said = np.array([0.1, 0.6, 0.5])
    records = unseen(logistic([2.0] * 3), np.repeat(said[None], 6, axis=0))
    assert lira(records) == pytest.approx(2 - np.log(said / (1 - said)))
    with pytest.raises(InputError, match="3 of 3 records have the same prediction"):
        lira(records, enough=6)
    with pytest.raises(InputError, match="expected at least 2"):
        lira(records, enough=1)


def test_probabilities_of_0_and_1_have_finite_scores() -> None:
    scores = lira(unseen([1.0, 0.0, 1.0], [[0.0, 1.0, 1.0], [1.0, 0.5, 1.0]]))
    assert np.isfinite(scores).all()
    assert scores[1] < scores[2] < scores[0]
    assert scores[2] == 0


def test_a_model_that_is_less_sure_than_others_is_no_sign_of_membership() -> None:
    scores = lira(unseen(logistic([-6, 0, 6]), logistic([[-1, -1, -1], [1, 1, 1]])))
    assert scores.tolist() == sorted(scores)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 20))
def test_lira_treats_records_alike_wherever_they_stand(seed: int, models: int, count: int) -> None:
    records = some(seed, models, count)
    coins = np.random.default_rng(seed)
    places = np.ix_(coins.permutation(models), coins.permutation(count))
    moved = Confidences(records.target[places[1][0]], records.references[places], records.seen[places])
    assert lira(moved) == pytest.approx(lira(records)[places[1][0]])


# --- RMIA --------------------------------------------------------------------------------------------------


def test_rmia_by_hand() -> None:
    """With a = 1, p is the mean of the models that did not see it: ratios 2 and 1 against 1/2, 1, 3/2 and 4."""
    said = np.array([[0.8, 0.5], [0.2, 0.5], [0.6, 0.9]])
    records = Confidences(said[0], said[1:], np.array([[False, False], [False, True]]))
    population = unseen([0.2, 0.5, 0.6, 0.8], [[0.4, 0.5, 0.4, 0.2]] * 2)
    assert rmia(records, population, offline_a=1).tolist() == [3 / 4, 2 / 4]
    assert rmia(records, population, offline_a=1, gamma=1.9).tolist() == [2 / 4, 1 / 4]
    assert rmia(records, population, offline_a=1, gamma=5).tolist() == [0, 0]


def test_the_correction_for_models_that_were_trained_on_a_record_by_hand() -> None:
    """With a = 0.5, p = 0.75 q + 0.25: 0.4 for q = 0.2, and a record of 0.6 has 1.5."""
    records = unseen([0.6], [[0.2]])
    for ratio, expected in ((1.49, 1.0), (1.51, 0.0)):
        assert rmia(records, unseen([ratio * 0.4], [[0.2]]), offline_a=0.5).tolist() == [expected]


@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(1, 15),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_rmia_is_that_of_its_formula(seed: int, models: int, count: int, a: float, gamma: float) -> None:
    """Record by record and z by z."""
    records, population = some(seed, models, count), some(seed + 1, models, 40)

    def ratio(of: Confidences, place: int) -> float:
        out = of.references[~of.seen[:, place], place].mean()
        return float(of.target[place] / (((1 + a) * out + (1 - a)) / 2))

    expected = [
        np.mean([ratio(records, x) / ratio(population, z) >= gamma for z in range(40)]) for x in range(count)
    ]
    assert rmia(records, population, offline_a=a, gamma=gamma) == pytest.approx(expected)


def test_rmia_where_nothing_is_probable() -> None:
    nothing, population = unseen([0.0], [[0.0]]), unseen([0.5, 0.0], [[0.5, 0.5]])
    assert rmia(nothing, population).tolist() == [0.5]
    with pytest.raises(InputError, match="1 records with probability 0 from every reference model"):
        rmia(nothing, population, offline_a=1)


@pytest.mark.parametrize(
    ("a", "gamma"), [(-0.1, 1), (1.1, 1), (math.nan, 1), (0.3, 0), (0.3, math.inf), (0.3, math.nan)]
)
def test_rmia_refuses_settings_out_of_range(a: float, gamma: float) -> None:
    with pytest.raises(InputError, match=r"offline_a|gamma"):
        rmia(unseen([0.5], [[0.5]]), unseen([0.5], [[0.5]]), offline_a=a, gamma=gamma)


# --- the SVC -----------------------------------------------------------------------------------------------


def test_mia_efficacy_by_hand() -> None:
    """Retained records near 1 and others near 0: of the forgotten, three are like others and one is not."""
    retain, others = np.linspace(0.9, 1.0, 20), np.linspace(0.0, 0.1, 20)
    assert mia_efficacy(retain, others, [0.05, 0.02, 0.08, 0.95]) == 3 / 4
    assert mia_efficacy(retain, others, [0.97]) == 0
    assert mia_efficacy(retain[::-1], others[::-1], [0.01]) == 1


def test_mia_efficacy_takes_as_many_of_both() -> None:
    with pytest.raises(InputError, match="differ: 3 and 2"):
        mia_efficacy([0.9] * 3, [0.1] * 2, [0.5])
    with pytest.raises(InputError, match="forget"):
        mia_efficacy([0.9] * 2, [0.1] * 2, [])


# --- on models ---------------------------------------------------------------------------------------------

HALF, MODELS = 150, 17


@cache
def world() -> tuple[Any, Any, Any]:
    """Records, a population and models of ten random labels, which can only be learned by heart.

    Returns what models say of the records, [models, n], of a population that none was trained on, [models, m], and
    which records each was trained on. Model 0 is the one to attack; model 1 was trained on other records only.
    """
    coins = np.random.default_rng(0)
    points = coins.standard_normal((5 * HALF, 200))
    labels = coins.integers(0, 10, 5 * HALF)
    records, others, population = np.split(np.arange(5 * HALF), [2 * HALF, 3 * HALF])
    seen = np.array([coins.permutation(2 * HALF) < HALF for _ in range(MODELS)])
    seen[1] = False
    said, said_of_population = [], []
    for number in range(MODELS):
        trained_on = others if number == 1 else records[seen[number]]
        model = LogisticRegression(C=1.0, max_iter=1000).fit(points[trained_on], labels[trained_on])
        said.append(true_class(model.predict_proba(points[records]), labels[records]))
        said_of_population.append(true_class(model.predict_proba(points[population]), labels[population]))
    return np.array(said), np.array(said_of_population), seen


@pytest.mark.parametrize("references", [1, 2, 15])
@pytest.mark.parametrize("attack", ["confidence", "lira", "rmia"])
def test_a_model_that_learned_by_heart_gives_its_records_away(attack: str, references: int) -> None:
    assert found(attack, 0, references).auc > 0.9


@pytest.mark.parametrize("references", [1, 2, 15])
@pytest.mark.parametrize("attack", ["confidence", "lira", "rmia"])
def test_a_model_that_saw_none_of_the_records_gives_nothing_away(attack: str, references: int) -> None:
    report = found(attack, 1, references)
    assert report.auc_low <= 0.5 <= report.auc_high
    assert report.auc == pytest.approx(0.5, abs=0.1)


def found(attack: str, target: int, references: int) -> Any:
    """The members are those of model 0; records that all reference models saw are left out."""
    said, said_of_population, seen = world()
    models = slice(2, 2 + references)
    kept = ~seen[models].all(axis=0)
    records = Confidences(said[target][kept], said[models][:, kept], seen[models][:, kept])
    population = unseen(said_of_population[target], said_of_population[models])
    scores = {
        "confidence": lambda: confidence(records.target),
        "lira": lambda: lira(records),
        "rmia": lambda: rmia(records, population),
    }[attack]()
    return attack_report(scores, seen[0][kept])


def test_reference_models_tell_easy_records_from_members() -> None:
    """Logits of a record's own ease, a little noise, and 2 more where the model was trained on it.

    The confidence alone wins a pair with probability Phi(2 / (sqrt(2) sqrt(3^2 + 0.5^2))) = 0.68.
    """
    coins = np.random.default_rng(0)
    ease = 3 * coins.standard_normal(2000)
    seen = coins.random((9, 2000)) < 0.5
    seen[8] = False
    said = logistic(ease + 0.5 * coins.standard_normal((9, 2000)) + 2 * seen)
    records = Confidences(said[0], said[1:], seen[1:])
    others = logistic(ease + 0.5 * coins.standard_normal((2, 2000)))
    population = unseen(others[0], others[1:])
    assert attack_report(confidence(records.target), seen[0]).auc == pytest.approx(0.68, abs=0.04)
    assert attack_report(lira(records), seen[0]).auc > 0.95
    assert attack_report(rmia(records, population), seen[0]).auc > 0.8


def test_an_overfitted_model_betrays_what_it_did_not_forget_to_the_svc() -> None:
    said, said_of_population, seen = world()
    trained = said[0][seen[0]]
    kept, forgotten = trained[:100], trained[100:]
    new = said_of_population[0]
    assert mia_efficacy(kept, new[:100], forgotten) < 0.1
    assert mia_efficacy(kept, new[:100], new[100:150]) > 0.9
