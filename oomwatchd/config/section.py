"""Taking a mapping apart: each key is known, stands once, and is read by its kind."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from oomwatchd.config.fault import Place, Report, quoted
from oomwatchd.config.source import Items, Mapping, Node, Scalar
from oomwatchd.config.table import REFUSED, Key, Kind, Reading, Refused, Table

T = TypeVar("T")


class Section:
    """A mapping whose keys have been checked.

    *tables* are all there are: a key that stands in the wrong one is told where it belongs.
    """

    def __init__(
        self, node: Mapping, report: Report, table: Table, tables: Sequence[Table]
    ) -> None:
        self.place = node.place
        self.report = report
        self._table = table
        self._tables = tables
        self._entries: dict[str, tuple[Scalar, Node]] = {}
        for key, value in node.entries:
            self._admit(key, value)

    def take(self, key: Key[T], *, default: T) -> T:
        """The value of *key*; *default* if it is not there, or at fault, which is then reported."""
        if not self.has(key):
            return default
        value = self._read(key)
        return default if value is REFUSED else value

    def require(self, key: Key[T]) -> T | None:
        """The value of *key*; None if it is not there, or at fault, which is then reported."""
        if not self.has(key):
            self.report.fault(self.place, f"'{key.name}' is missing; required: {key.kind.allowed}")
            return None
        value = self._read(key)
        return None if value is REFUSED else value

    def place_of(self, key: Key[object]) -> Place:
        """Where the value of *key* stands, or the mapping if the key is not there."""
        entry = self._entries.get(key.name)
        return self.place if entry is None else entry[1].place

    def has(self, key: Key[object]) -> bool:
        return key.name in self._entries

    def _read(self, key: Key[T]) -> T | Refused:
        node = self._entries[key.name][1]
        return key.kind.read(node, Reading(self.report, key.name, key.kind.allowed, self._tables))

    def _admit(self, key: Node, value: Node) -> None:
        allowed = f"allowed: {', '.join(self._table.names)}"
        if not isinstance(key, Scalar):
            self.report.fault(key.place, f"{described(key)} stands where a key should; {allowed}")
        elif key.plain and key.text == "<<":
            self.report.fault(key.place, f"the merge key '<<' is not supported; {allowed}")
        elif key.text not in self._table.names:
            self.report.fault(key.place, f"{self._unknown(key.text)}; {allowed}")
        elif key.text in self._entries:
            line = self._entries[key.text][0].place.line
            self.report.fault(
                key.place, f"'{key.text}' is given again, first on line {line}; allowed: once"
            )
        else:
            self._entries[key.text] = key, value

    def _unknown(self, name: str) -> str:
        where = " or ".join(table.where for table in self._tables if name in table.names)
        if where:
            return f"'{name}' does not belong here but {where}"
        import difflib  # here, as the daemon does without its 0.5 MiB

        near = difflib.get_close_matches(name, self._table.names, 1)
        return f"unknown key {quoted(name)}" + (f", is it '{near[0]}'?" if near else "")


def described(node: Node) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    return "no value" if node.is_null else quoted(node.text)


def mapping(table: Table, build: Callable[[Section], T], *, at_least: int = 0) -> Kind[T]:
    """A mapping with the keys of *table*, and what is built of it."""

    def read(node: Node, reading: Reading) -> T | Refused:
        if not isinstance(node, Mapping):
            return reading.refuse(node, f"{described(node)} stands where a mapping should")
        if len(node.entries) < at_least:
            return reading.refuse(node, "the mapping is empty")
        return build(Section(node, reading.report, table, reading.tables))

    allowed = f"a mapping with {'at least one of ' if at_least else ''}{', '.join(table.names)}"
    schema = {"type": "object"} | ({"minProperties": at_least} if at_least else {})
    return Kind(allowed, schema, read, table)


def mappings(table: Table) -> Kind[tuple[Mapping, ...]]:
    """A list of mappings with the keys of *table*, not yet taken apart."""

    def read(node: Node, reading: Reading) -> tuple[Mapping, ...]:
        if isinstance(node, Scalar) and node.is_null:  # all in the list is commented out
            return ()
        if not isinstance(node, Items):
            reading.refuse(node, f"{described(node)} stands where a list should")
            return ()
        for item in node.items:
            if not isinstance(item, Mapping):
                reading.refuse(item, f"{described(item)} stands where a mapping should")
        return tuple(item for item in node.items if isinstance(item, Mapping))

    allowed = f"a list of mappings with {', '.join(table.names)}"
    return Kind(allowed, {"type": ["array", "null"]}, read, table)
