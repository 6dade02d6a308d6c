"""Settings: the schema that is read from TOML, and named presets."""

from lmeraser.core.moved_modules import names_of

__getattr__ = names_of("lmeraser.config.schema", "lmeraser.config.toml_file", package=__name__)
