"""The YAML file to a `model.Config`, or every fault in it with file, line and column."""

from oomwatchd.config.fault import ConfigError, Fault
from oomwatchd.config.load import Loaded, load, parse

__all__ = ["ConfigError", "Fault", "Loaded", "load", "parse"]
