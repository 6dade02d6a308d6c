"""Settings as a TOML file: nested values from one, and every setting with its description into one."""

from __future__ import annotations

import textwrap
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmeraser.config.tuning import Section
from lmeraser.errors import ConfigError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table

    from lmeraser.config.schema import Config

_WIDTH = 112


def read_values(path: Path) -> dict[str, Any]:
    """Nested settings from a TOML file, unchecked.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin files with a mark
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "Cannot read settings", got=f"{path}: {error}", next_step="correct the TOML file or its path"
        ) from error


def to_toml(config: Config) -> str:
    """Every setting with its description as a comment; `read` returns an equal `Config`."""
    import tomlkit

    document = tomlkit.document()
    document.add(
        tomlkit.comment("Settings. All but [compute], [storage], [requests] and [service] are part of the model.")
    )
    document.add(tomlkit.nl())
    for name, value in config:
        if not isinstance(value, Section):
            _add_setting(document, name, value, type(config).model_fields[name].description or "")
            continue
        table = tomlkit.table()
        table.comment(_first_line(type(value)))
        for key, field in type(value).model_fields.items():
            _add_setting(table, key, getattr(value, key), field.description or "")
        document.add(tomlkit.nl())
        document.add(name, table)
    return tomlkit.dumps(document)


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").partition("\n")[0]


def _add_setting(table: TOMLDocument | Table, key: str, value: Any, description: str) -> None:
    """Add a key and its description: behind it, or above it where the line would get too long.

    TOML has no null, so a setting without a value is written as a comment.
    """
    import tomlkit

    item = tomlkit.item(_plain(value)) if value is not None else None
    line = f"{key} = {item.as_string()}" if item is not None else f"# {key} ="
    behind = len(line) + len(description) < _WIDTH
    if not behind:
        for part in textwrap.wrap(description, _WIDTH):
            table.add(tomlkit.comment(part))
    if item is None:
        table.add(tomlkit.comment(f"{key} =  # {description}" if behind and description else f"{key} ="))
        return
    if behind and description:
        item.comment(description)
    table.add(key, item)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
