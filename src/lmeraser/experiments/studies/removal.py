"""Forgetting quality: metrics relative to the retrained model, and their spread over seeds.

For an exact method the unlearned and the retrained model are the same bytes, so every gap is 0. The tables confirm
this on two models that were derived separately. For scale, they also show the metrics of a model from which
nothing was unlearned and of models retrained with other seeds: the yardstick for methods that are not exact, of
which fine-tuning and gradient ascent are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lmeraser.experiments.methods import Method
from lmeraser.experiments.metrics.accuracies import Accuracies, accuracy, average_gap, tug_of_war
from lmeraser.experiments.metrics.agreement import activation_distance, js_divergence
from lmeraser.experiments.metrics.arrays import true_class
from lmeraser.experiments.metrics.attack_report import attack_report
from lmeraser.experiments.metrics.membership import Confidences, confidence, lira, rmia
from lmeraser.experiments.metrics.registry import METRICS
from lmeraser.experiments.metrics.relearning import RelearnTime, anamnesis_index, relearn_time
from lmeraser.experiments.metrics.spread import spread, verdict
from lmeraser.experiments.results import Findings, Table, Value
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.studies.base import Study, available_data_sets, missing_notes
from lmeraser.experiments.trials import StepResult, Trial

_ALL = ("random", "class", "cluster", "sampled", "outliers", "subject")
_STUDIED = {  # forget sets studied for each method; fewer for methods with expensive training
    "lmeraser": _ALL,
    "instant": _ALL,
    "lmeraser-paper": ("random", "sampled"),
    "linear": ("random", "class"),
    "sisa": ("random",),
    "fine-tuning": ("random", "class"),
    "gradient-ascent": ("random", "class"),
}
_OF_OTHERS = ("random", "class")  # of methods that were added
_ATTACKED = ("lmeraser", "instant")  # methods that are attacked with reference models


@dataclass(frozen=True)
class Case:
    """One deletion, with the models before and after it and the retrained models.

    Attributes:
        trial: the training on all records.
        forget: name of the forget set.
        models: the models by role; the one named "retrained" has the seed of the unlearned model.
        titles: of the data set and the method.
    """

    trial: Trial
    forget: str
    titles: tuple[str, str]
    models: dict[str, StepResult]

    @property
    def reference(self) -> StepResult:
        """The retrained model with the same seed."""
        return self.models["retrained"]

    @property
    def names(self) -> list[Value]:
        """Data set, method and forget set, for the first columns of tables."""
        return [*self.titles, self.forget]


def removal(runner: TrialRunner) -> Findings:
    """Accuracies, distances to the retrained model, and relearn times."""
    rows: list[list[Value]] = []
    verdicts: list[list[Value]] = []
    for case in _cases(runner):
        rows += [_agreement(runner, case, name) for name in case.models]
        verdicts.append([*case.names, *_verdict(runner, case)])
    columns = [
        *("data", "method", "forget set", "model", "digest of the retrained model", "retain", "forget", "test"),
        *("average gap", "ToW", "activation distance", "JS divergence", "relearn epochs", "AIN", "s"),
    ]
    title = "Models before and after unlearning, and retrained models"
    note = (
        "Gaps, ToW, distance, divergence and AIN are relative to the retrained model with the same seed; distance "
        "and divergence are measured on the forget set. Relearn epochs: until the forget accuracy is back at 95 % "
        "of that before unlearning, '-' where that is not reached or nothing is tuned. Seconds are of the "
        "training or of the unlearning."
    )
    tables = [
        Table("models", title, columns, rows, note, keys=tuple(columns[:4])),
        Table(
            "verdicts",
            "Forget accuracy: inside the spread of retrained models?",
            [
                *columns[:3],
                "retrained: mean",
                "standard deviation",
                "seeds",
                "unlearned is inside",
                "not unlearned is inside",
            ],
            verdicts,
            "Inside: within Student's 95 % prediction interval of the retrained models of all seeds.",
            keys=tuple(columns[:3]),
        ),
        _definitions(),
    ]
    return Findings(tables, notes=missing_notes(runner))


def membership(runner: TrialRunner) -> Findings:
    """Membership inference attacks on the forgotten records."""
    rows = [
        [*case.names, name, *row]
        for case in _cases(runner)
        if case.forget in ("random", "outliers", "sampled")
        for name in case.models
        for row in _attacks(runner, case, name)
    ]
    columns = [
        *("data", "method", "forget set", "model", "attack", "AUC", "95 % from", "to", "TPR at 1 % FPR"),
        *("TPR at 0.1 % FPR", "forgotten", "test records"),
    ]
    note = (
        "Forgotten records are treated as members, test records as non-members. The reference is the retrained "
        "model's value, not 0.5: an AUC far below it is a failure as well. TPR at 0.1 % needs 1,000 test records. "
        f"LiRA and RMIA are offline, with {runner.profile.reference_models} models of random halves of the "
        "records."
    )
    title = "Membership inference on forgotten records"
    table = Table("attacks", title, columns, rows, note, keys=tuple(columns[:5]))
    return Findings([table], notes=missing_notes(runner))


def _cases(runner: TrialRunner) -> Iterator[Case]:
    names = list(available_data_sets(runner))
    with_subjects = [name for name in names if runner.data_set(name).subject]
    for data in dict.fromkeys([names[0], *with_subjects]):
        for method in runner.methods(tuple(_STUDIED), data):
            for forget in _sets(method, first=data == names[0]):
                if forget in runner.profile.forget_sets and forget in runner.data(data).sets:
                    yield _case(runner, Trial(data, method.name), forget)


def _sets(method: Method, *, first: bool) -> list[str]:
    """The forget sets that are studied for a method: of further data sets only subjects."""
    return [name for name in _STUDIED.get(method.name, _OF_OTHERS) if first or name == "subject"]


def _case(runner: TrialRunner, trial: Trial, forget: str) -> Case:
    models = {
        "nothing unlearned": runner.trained(trial),
        "unlearned": runner.unlearned(trial, forget),
        "retrained": runner.trained(trial.vary(without=forget)),
    }
    for seed in range(1, runner.profile.seeds):
        models[f"retrained, seed {seed}"] = runner.trained(trial.vary(without=forget, seed=seed))
    titles = (runner.data_set(trial.data).title, runner.method(trial).title)
    return Case(trial, forget, titles, models)


def _accuracies(runner: TrialRunner, case: Case, model: StepResult) -> Accuracies:
    data = runner.data(case.trial.data)
    chosen = data.in_forget_set(case.forget)
    labels = data.records.labels
    return Accuracies(
        retain=accuracy(model.private[~chosen], labels[~chosen]),
        forget=accuracy(model.private[chosen], labels[chosen]),
        test=accuracy(model.test, data.test_labels),
    )


def _agreement(runner: TrialRunner, case: Case, name: str) -> list[Value]:
    model = case.models[name]
    chosen = runner.data(case.trial.data).in_forget_set(case.forget)
    own, retrained = _accuracies(runner, case, model), _accuracies(runner, case, case.reference)
    mine, theirs = model.private[chosen], case.reference.private[chosen]
    return [
        *case.names,
        name,
        model.facts["digest"] == case.reference.facts["digest"],
        round(own.retain, 4),
        round(own.forget, 4),
        round(own.test, 4),
        round(average_gap(own.to_json(), retrained.to_json()), 5),
        round(tug_of_war(own, retrained), 5),
        round(activation_distance(mine, theirs), 6),
        round(js_divergence(mine, theirs), 6),
        *_relearned(runner, case, name),
        round(model.facts["seconds"], 3),
    ]


def _relearned(runner: TrialRunner, case: Case, name: str) -> list[Value]:
    """Relearn epochs and anamnesis index, for two columns."""
    original = _accuracies(runner, case, case.models["nothing unlearned"]).forget
    times: dict[str, RelearnTime] = {}
    for model in (name, "retrained"):
        curve = _curve(runner, case, model)
        if not curve:
            return [None, None]
        times[model] = relearn_time(curve, original)
    index = anamnesis_index(times[name], times["retrained"])
    shown = None if index.value is None else round(index.value, 3)
    return [times[name].steps, shown if index.bound == "exact" or shown is None else f"{index.bound} {shown}"]


def _curve(runner: TrialRunner, case: Case, name: str) -> list[float]:
    if name == "unlearned":
        curve: list[float] = case.models[name].facts["relearned"]
        return curve
    if name == "nothing unlearned":
        return runner.relearned(case.trial, case.forget)
    seed = case.trial.seed if name == "retrained" else int(name.rpartition(" ")[2])
    return runner.relearned(case.trial.vary(without=case.forget, seed=seed), case.forget)


def _verdict(runner: TrialRunner, case: Case) -> list[Value]:
    retrained = [_accuracies(runner, case, m).forget for n, m in case.models.items() if n.startswith("retrained")]
    over_seeds = spread(retrained)
    inside: list[Value] = [None, None]
    if len(retrained) > 1:
        inside = [
            verdict([_accuracies(runner, case, case.models[name]).forget], retrained).inside
            for name in ("unlearned", "nothing unlearned")
        ]
    return [
        round(over_seeds.mean, 4),
        None if over_seeds.std is None else round(over_seeds.std, 4),
        over_seeds.seeds,
        *inside,
    ]


def _attacks(runner: TrialRunner, case: Case, name: str) -> Iterator[list[Value]]:
    """A table row for each attack."""
    data = runner.data(case.trial.data)
    model = case.models[name]
    chosen = data.in_forget_set(case.forget)
    forgotten = true_class(model.private, data.records.labels)[chosen]
    unseen = true_class(model.test, data.test_labels)
    scores = {"confidence": (confidence(forgotten), confidence(unseen))}
    if case.trial.method in _ATTACKED:
        references = [
            runner.trained(case.trial.vary(half=half)) for half in range(runner.profile.reference_models)
        ]
        on_forgotten = np.stack([true_class(each.private, data.records.labels)[chosen] for each in references])
        on_unseen = np.stack([true_class(each.test, data.test_labels) for each in references])
        seen = np.stack([data.in_half(half) for half in range(len(references))])[:, chosen]
        members = Confidences(forgotten, on_forgotten, seen)
        non_members = Confidences(unseen, on_unseen, np.zeros_like(on_unseen, bool))
        scores["LiRA, offline"] = (lira(members), lira(non_members))
        scores["RMIA, offline"] = (rmia(members, non_members), rmia(non_members, non_members))
    for attack, (of_members, of_others) in scores.items():
        truth = np.repeat([True, False], [len(of_members), len(of_others)])
        report = attack_report(np.concatenate([of_members, of_others]), truth)
        yield [
            attack,
            *(round(value, 4) for value in (report.auc, report.auc_low, report.auc_high)),
            report.tpr_at_1_percent,
            report.tpr_at_1_per_mille,
            len(of_members),
            len(of_others),
        ]


def _definitions() -> Table:
    columns = ["metric", "definition", "from", "to", "close to", "source"]
    rows: list[list[Value]] = [
        [m.name, m.definition, m.low, m.high, str(m.direction.value), m.source] for m in METRICS.values()
    ]
    return Table("metrics", "What the metrics are", columns, rows)


STUDIES = (
    Study("removal", "Is it forgotten?", "Appendix B", removal),
    Study("membership", "Membership inference", "Appendix B", membership),
)
