"""The version of lmeraser."""

__version__ = "0.1.0"
