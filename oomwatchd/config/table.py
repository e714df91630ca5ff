"""The records that the table of keys is made of: `Kind` of value, `Key`, `Table` of keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum, auto
from typing import Final, Generic, TypeVar

from oomwatchd.config.fault import Report
from oomwatchd.config.source import Node

T_co = TypeVar("T_co", covariant=True)


class Refused(Enum):
    """What is returned in place of a value that is at fault; None is a value like any other."""

    REFUSED = auto()


REFUSED: Final = Refused.REFUSED


@dataclass(frozen=True, slots=True)
class Reading:
    """The reading of one key's value: says what is wrong with it, always in the same words."""

    report: Report
    key: str
    allowed: str
    tables: "Sequence[Table]"  # all there are, for what stands in the wrong one

    def refuse(self, node: Node, wrong: str) -> Refused:
        self.report.fault(node.place, f"{self.key}: {wrong}; allowed: {self.allowed}")
        return REFUSED

    def warn(self, node: Node, text: str) -> None:
        self.report.warning(node.place, f"{self.key}: {text}")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """A kind of value: what is allowed in words, in JSON Schema, and in code."""

    allowed: str
    schema: Mapping[str, object]
    read: Callable[[Node, Reading], T_co | Refused]
    table: "Table | None" = None  # of a mapping, or of the mappings in a list


@dataclass(frozen=True, slots=True)
class Key(Generic[T_co]):
    name: str
    kind: Kind[T_co]
    about: str  # for people, in Markdown: in the README, in the man page, and shown by editors
    _: KW_ONLY
    default: object = None  # as JSON writes it; None: has none, or it depends on other keys
    default_text: str = ""  # what it depends on
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """The keys that one mapping may hold."""

    where: str  # completes "it belongs ..."
    keys: tuple[Key[object], ...]

    @property
    def names(self) -> list[str]:
        return [key.name for key in self.keys]
