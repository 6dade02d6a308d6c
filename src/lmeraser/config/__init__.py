"""Settings: the schema that is read from TOML, and named presets."""
