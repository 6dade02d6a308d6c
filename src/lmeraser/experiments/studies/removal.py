"""Is it forgotten, and what does that cost: metrics beside the retrained model and its spread over seeds.

For an exact method the unlearned and the retrained model are the same bytes, so every gap is 0; the tables show it
with numbers measured on two models that were made separately, and beside them what the metrics say of a model from
which nothing was unlearned, and of retrained models with other seeds: the yardstick for what is not exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lmeraser.experiments.bench import Bench
from lmeraser.experiments.cells import Cell, Outcome
from lmeraser.experiments.datasets import DATA_SETS
from lmeraser.experiments.methods import METHODS
from lmeraser.experiments.metrics.accuracies import Accuracies, accuracy, average_gap, tug_of_war
from lmeraser.experiments.metrics.agreement import activation_distance, js_divergence
from lmeraser.experiments.metrics.arrays import true_class
from lmeraser.experiments.metrics.attack_report import attack_report
from lmeraser.experiments.metrics.membership import Confidences, confidence, lira, rmia
from lmeraser.experiments.metrics.registry import METRICS
from lmeraser.experiments.metrics.relearning import RelearnTime, anamnesis_index, relearn_time
from lmeraser.experiments.metrics.spread import spread, verdict
from lmeraser.experiments.results import Findings, Table, Value
from lmeraser.experiments.studies.base import Study, data_of, missing

_ALL = ("random", "class", "cluster", "sampled", "outliers", "subject")
_STUDIED = {  # which forget sets of which methods; those whose every training is dear have fewer
    "lmeraser": _ALL,
    "instant": _ALL,
    "lmeraser-paper": ("random", "sampled"),
    "linear": ("random", "class"),
    "sisa": ("random",),
}
_ATTACKED = ("lmeraser", "instant")  # with reference models
_SUBJECTS = "gtsrb"  # the data set with subjects


@dataclass(frozen=True)
class Case:
    """One deletion, and the models around it.

    Attributes:
        cell: the training on all records.
        forget: name of the forget set.
        models: the models by what they are; the first retrained one has the seed of the unlearned one.
    """

    cell: Cell
    forget: str
    models: dict[str, Outcome]

    @property
    def reference(self) -> Outcome:
        """The retrained model of the same seed."""
        return self.models["retrained"]

    @property
    def names(self) -> list[Value]:
        """What the case is, for the first columns of tables."""
        return [DATA_SETS[self.cell.data].title, METHODS[self.cell.method].title, self.forget]


def removal(bench: Bench) -> Findings:
    """Accuracies, distances to the retrained model, relearn times."""
    rows: list[list[Value]] = []
    verdicts: list[list[Value]] = []
    for case in _cases(bench):
        rows += [_agreement(bench, case, name) for name in case.models]
        verdicts.append([*case.names, *_verdict(bench, case)])
    columns = [
        *("data", "method", "forget set", "model", "digest of the retrained model", "retain", "forget", "test"),
        *("average gap", "ToW", "activation distance", "JS divergence", "relearn epochs", "AIN"),
    ]
    title = "Models before and after unlearning, beside retrained ones"
    note = (
        "Gaps, ToW, distance, divergence and AIN are to the retrained model of the same seed; distance and "
        "divergence on the forget set. Relearn epochs: until the forget accuracy is back at 95 % of that before "
        "unlearning, '-' where that is not reached or nothing is tuned."
    )
    tables = [
        Table("models", title, columns, rows, note),
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
        ),
        _definitions(),
    ]
    return Findings(tables, notes=missing(bench))


def membership(bench: Bench) -> Findings:
    """Attacks that look for the forgotten records."""
    rows = [
        [*case.names, name, *row]
        for case in _cases(bench)
        if case.forget in ("random", "outliers", "sampled")
        for name in case.models
        for row in _attacks(bench, case, name)
    ]
    columns = [
        *("data", "method", "forget set", "model", "attack", "AUC", "95 % from", "to", "TPR at 1 % FPR"),
        *("TPR at 0.1 % FPR", "forgotten", "test images"),
    ]
    note = (
        "The forgotten records are taken for members, test images for non-members. What counts is the retrained "
        "model's value, not 0.5: an AUC far below it is a failure as well. TPR at 0.1 % needs 1,000 test images. "
        f"LiRA and RMIA are offline, with {bench.profile.references} models of random halves of the records."
    )
    table = Table("attacks", "Membership inference on forgotten records", columns, rows, note)
    return Findings([table], notes=missing(bench))


def _cases(bench: Bench) -> Iterator[Case]:
    names = list(data_of(bench))
    for method, sets in _STUDIED.items():
        for data in dict.fromkeys([names[0], *(name for name in names if name == _SUBJECTS)]):
            wanted = sets if data == names[0] else [name for name in sets if name == "subject"]
            for forget in wanted:
                if forget in bench.profile.sets and forget in bench.data(data).sets:
                    yield _case(bench, Cell(data, method), forget)


def _case(bench: Bench, cell: Cell, forget: str) -> Case:
    models = {
        "nothing unlearned": bench.trained(cell),
        "unlearned": bench.forgotten(cell, forget),
        "retrained": bench.trained(cell.but(without=forget)),
    }
    for seed in range(1, bench.profile.seeds):
        models[f"retrained, seed {seed}"] = bench.trained(cell.but(without=forget, seed=seed))
    return Case(cell, forget, models)


def _accuracies(bench: Bench, case: Case, model: Outcome) -> Accuracies:
    data = bench.data(case.cell.data)
    chosen, labels = data.chosen(case.forget), data.known.labels
    return Accuracies(
        retain=accuracy(model.private[~chosen], labels[~chosen]),
        forget=accuracy(model.private[chosen], labels[chosen]),
        test=accuracy(model.test, data.test_labels),
    )


def _agreement(bench: Bench, case: Case, name: str) -> list[Value]:
    model, chosen = case.models[name], bench.data(case.cell.data).chosen(case.forget)
    own, retrained = _accuracies(bench, case, model), _accuracies(bench, case, case.reference)
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
        *_relearned(bench, case, name),
    ]


def _relearned(bench: Bench, case: Case, name: str) -> list[Value]:
    """Relearn epochs and anamnesis index."""
    original = _accuracies(bench, case, case.models["nothing unlearned"]).forget
    times: dict[str, RelearnTime] = {}
    for model in (name, "retrained"):
        curve = _curve(bench, case, model)
        if not curve:
            return [None, None]
        times[model] = relearn_time(curve, original)
    index = anamnesis_index(times[name], times["retrained"])
    shown = None if index.value is None else round(index.value, 3)
    return [times[name].steps, shown if index.bound == "exact" or shown is None else f"{index.bound} {shown}"]


def _curve(bench: Bench, case: Case, name: str) -> list[float]:
    if name == "unlearned":
        curve: list[float] = case.models[name].facts["relearned"]
        return curve
    if name == "nothing unlearned":
        return bench.relearned(case.cell, case.forget)
    seed = case.cell.seed if name == "retrained" else int(name.rpartition(" ")[2])
    return bench.relearned(case.cell.but(without=case.forget, seed=seed), case.forget)


def _verdict(bench: Bench, case: Case) -> list[Value]:
    retrained = [_accuracies(bench, case, m).forget for n, m in case.models.items() if n.startswith("retrained")]
    over = spread(retrained)
    inside = [
        verdict([_accuracies(bench, case, case.models[name]).forget], retrained).inside
        for name in ("unlearned", "nothing unlearned")
    ]
    return [round(over.mean, 4), None if over.std is None else round(over.std, 4), over.seeds, *inside]


def _attacks(bench: Bench, case: Case, name: str) -> Iterator[list[Value]]:
    """A row for each attack."""
    data, model = bench.data(case.cell.data), case.models[name]
    chosen = data.chosen(case.forget)
    forgotten = true_class(model.private, data.known.labels)[chosen]
    new = true_class(model.test, data.test_labels)
    scores = {"confidence": (confidence(forgotten), confidence(new))}
    if case.cell.method in _ATTACKED:
        references = [bench.trained(case.cell.but(half=half)) for half in range(bench.profile.references)]
        known = np.stack([true_class(each.private, data.known.labels)[chosen] for each in references])
        unknown = np.stack([true_class(each.test, data.test_labels) for each in references])
        seen = np.stack([data.half(half) for half in range(len(references))])[:, chosen]
        inside, outside = (
            Confidences(forgotten, known, seen),
            Confidences(new, unknown, np.zeros_like(unknown, bool)),
        )
        scores["LiRA, offline"] = (lira(inside), lira(outside))
        scores["RMIA, offline"] = (rmia(inside, outside), rmia(outside, outside))
    for attack, (members, others) in scores.items():
        truth = np.repeat([True, False], [len(members), len(others)])
        found = attack_report(np.concatenate([members, others]), truth)
        yield [
            attack,
            *(round(value, 4) for value in (found.auc, found.auc_low, found.auc_high)),
            found.tpr_at_1_percent,
            found.tpr_at_1_per_mille,
            len(members),
            len(others),
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
