"""The metrics of machine unlearning: pure functions of numpy arrays, each with a description to print beside it.

    >>> from lmeraser.experiments.metrics.accuracies import Accuracies, tug_of_war
    >>> from lmeraser.experiments.metrics.registry import METRICS
    >>> unlearned = Accuracies(retain=0.98, forget=0.75, test=0.76)
    >>> retrained = Accuracies(retain=0.98, forget=0.80, test=0.76)
    >>> print(f"{tug_of_war(unlearned, retrained):.2f}, should be close to {METRICS['tug_of_war'].direction}")
    0.95, should be close to 1

All of them compare with the model retrained without the forgotten records. For an exact method they are
diagnostics: the evidence is that its digest is the retrained model's.
"""
