"""An estimate of a trace is close to it, and the same for the same matrix."""

from __future__ import annotations

import numpy as np
import pytest

from lmeraser.core.traces import effective_parameters, probes_for


def test_probes_are_fixed_signs() -> None:
    probes = probes_for(9)
    assert set(np.unique(probes)) == {-1.0, 1.0}
    assert np.array_equal(probes, probes_for(9))
    assert len({row.tobytes() for row in probes_for(64)}) == len(probes)


@pytest.mark.parametrize("ridge", [1.0, 100.0, 1e4])
def test_the_effective_number_of_parameters_is_close_to_the_exact_one(ridge: float) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 200)) * np.geomspace(10, 0.1, 200)
    matrix = rows.T @ rows + ridge * np.eye(200)
    probes = probes_for(200)
    values = np.linalg.eigvalsh(rows.T @ rows)
    found = effective_parameters(probes, np.linalg.solve(matrix, probes.T).T, ridge)
    assert found == pytest.approx((values / (values + ridge)).sum(), rel=0.1)
