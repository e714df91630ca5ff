"""What is wrong with the configuration, and where."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from oomwatchd.text import printable

QUOTED_CHARACTERS: Final = 60  # of the administrator's own text; the place says where the rest is


class Place(NamedTuple):
    """As editors count: from 1, the column in characters."""

    line: int
    column: int


START: Final = Place(1, 1)


class Fault(NamedTuple):
    """One line for the administrator; warnings are told in the same form."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{printable(self.file)}:{self.line}:{self.column}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used; *faults* are all there are, in the order of the files."""

    def __init__(self, faults: Sequence[Fault], warnings: Sequence[Fault] = ()) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)
        self.warnings = tuple(warnings)


class Report:
    """What has been found in one file so far."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []

    def fault(self, place: Place, text: str) -> None:
        self.faults.append(Fault(self.file, *place, printable(text)))

    def warning(self, place: Place, text: str) -> None:
        self.warnings.append(Fault(self.file, *place, printable(text)))


def in_order(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Each once: what an alias repeats is one fault.  ``X.d/...`` sorts after ``X``."""
    return tuple(sorted(set(faults)))


def quoted(written: str) -> str:
    """*written* in quotes, cut where it would fill the line."""
    if len(written) > QUOTED_CHARACTERS:
        written = written[: QUOTED_CHARACTERS - 3] + "..."
    return f"'{written}'"
