"""The version of lmeraser."""

__version__ = "0.2.0"
