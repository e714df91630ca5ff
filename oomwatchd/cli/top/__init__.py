"""``oomwatchd top``: a live view in the terminal."""

from oomwatchd.cli.top.command import configure, run

__all__ = ["configure", "run"]
