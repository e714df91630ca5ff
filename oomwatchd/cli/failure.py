"""A command that cannot do what it was asked."""

import sys
from pathlib import Path

from oomwatchd.cli import exits
from oomwatchd.cli.table import show


class Failure(Exception):
    """What to say on stderr, a line each, and with which exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.status = status

    @property
    def in_one_line(self) -> str:
        first, *more = self.message.split("\n")
        return f"{first} (and {len(more)} more faults)" if more else first


def unreadable(path: Path, error: OSError) -> Failure:
    if isinstance(error, FileNotFoundError):
        return Failure(f"{path}: no such file", exits.NO_INPUT)
    status = exits.NOT_PERMITTED if isinstance(error, PermissionError) else exits.NO_INPUT
    return Failure(f"{path}: {error.strerror}", status)


def fail(command: str, failure: Failure) -> int:
    show([f"oomwatchd {command}: {line}" for line in failure.message.split("\n")], sys.stderr)
    return failure.status
