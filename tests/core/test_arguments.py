"""An argument that is a list is one, however callers in Python give it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmeraser.core.arguments import listed
from lmeraser.errors import InputError


def test_a_table_is_the_list_of_its_rows_and_not_of_the_names_of_its_columns() -> None:
    rows = listed(pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=["a", "b"]), "queries")
    assert [row.tolist() for row in rows] == [[1.0, 2.0], [3.0, 4.0]]
    assert listed(pd.Series(["a", "b"]), "ids") == ["a", "b"]
    assert listed((name for name in "ab"), "ids") == ["a", "b"]


@pytest.mark.parametrize("one", ["abc", b"abc", 5, np.zeros((2, 2, 3)), np.float32(1)])
def test_a_single_value_is_no_list(one: Any) -> None:
    with pytest.raises(InputError, match="One value where a list is expected"):
        listed(one, "ids")
