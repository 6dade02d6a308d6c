"""Extras that are missing are named, with the command that installs them."""

from __future__ import annotations

import pytest

from lmeraser.core.extras import require_extra
from lmeraser.errors import InputError


def test_what_is_missing_is_named() -> None:
    require_extra("json", "JSON", "json")
    with pytest.raises(InputError, match="The extra for JSON is not installed") as raised:
        require_extra("json", "JSON", "json", "no_such_package", "nor_this")
    assert raised.value.got == "missing: no_such_package, nor_this"
    assert raised.value.next_step == "pip install 'lmeraser[json]'"
