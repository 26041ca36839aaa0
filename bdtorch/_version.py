"""The version of this package, which compiled loops are also named by."""

__version__ = "0.1.0"
