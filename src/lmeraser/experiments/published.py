"""Numbers published in the paper (LMEraser, AISTATS 2025), for display beside our own.

The paper used other machines, sizes and backbones than most runs here: these numbers are displayed, and no program
compares against them.
"""

from __future__ import annotations

SECONDS_PER_REQUEST = {  # Table II, one V100, ViT-B-22K
    "LMEraser": {"cifar10": 27.61, "cifar100": 12.45, "svhn": 213.81, "gtsrb": 27.73},
    "DAM-VP": {"cifar10": 21.26, "cifar100": 12.14, "svhn": 260.07, "gtsrb": 26.64},
    "Single Prompt": {"cifar10": 3185.0, "cifar100": 4048.0, "svhn": 4688.0, "gtsrb": 1740.0},
}
NOT_MEASURED = {"Retrain": "days", "SISA": "days"}  # the same table; the paper gives a unit of time only
ACCURACY = {
    ("cifar100", 0.0): 0.7275,
    ("cifar100", 0.5): 0.6953,
}  # Figure 5: ViT-B-22K, nothing and half unlearned
CLUSTERS = {"cifar10": 194, "cifar100": 347, "svhn": 30, "gtsrb": 90}  # in its published code
RECORDS = {"cifar10": 60_000, "cifar100": 60_000, "svhn": 58_605, "gtsrb": 21_312}  # Table I
