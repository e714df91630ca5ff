"""The bytes of a file to a tree of values with their places.  The only module that knows PyYAML.

The values are kept as written: `no`, `010` and `1:30` stay text here, whatever YAML makes of them.
The pure Python loader is used, as the messages of the C one depend on libyaml's version.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, TypeAlias

import yaml

from oomwatchd.config.fault import Place, Report

EXPANDED_LIMIT_CHARACTERS: Final = 4 << 20  # with all aliases written out; a file has 256 KiB
NULLS: Final = ("", "~", "null", "Null", "NULL")
SURROGATE: Final = re.compile("[\ud800-\udfff]")
LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")  # an editor's; YAML also breaks at U+0085 and U+2028
IPV6_LISTEN: Final = re.compile(r"[^#\n]*: *\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]:[0-9]")


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    place: Place
    text: str
    plain: bool  # written without quotes

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in NULLS


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    place: Place
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    place: Place
    entries: tuple[tuple["Node", "Node"], ...]


Node: TypeAlias = Scalar | Items | Mapping


class Broken(Exception):
    """The text is no YAML that we could take apart, from the character *index* on."""

    def __init__(self, index: int, text: str) -> None:
        super().__init__(text)
        self.index = index


class Lines:
    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in LINE_BREAK.finditer(text))]

    def place(self, index: int) -> Place:
        line = bisect_right(self._starts, index)
        return Place(line, index - self._starts[line - 1] + 1)


def parse_yaml(raw: bytes, report: Report) -> Node | None:
    """The document in *raw*; None if it is empty, or broken, which then is in *report*."""
    text = decoded(raw, report)
    if text is None:
        return None
    lines = Lines(text)
    try:
        loader = opened(text)
        root = composed(loader)
        return None if root is None else Conversion(loader, lines, report).converted(root)
    except Broken as broken:
        report.fault(lines.place(broken.index), str(broken))
        return None


def decoded(raw: bytes, report: Report) -> str | None:
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")  # a byte order mark has no column
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8").removeprefix("\ufeff")
        byte = raw[error.start]
        report.fault(
            Lines(before).place(len(before)), f"byte 0x{byte:02x} is not UTF-8; allowed: UTF-8 text"
        )
        return None


def opened(text: str) -> yaml.SafeLoader:
    try:
        return yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        raise Broken(
            error.position,
            f"the character U+{ord(text[error.position]):04X} may not stand in YAML; "
            "allowed: printable characters, tabs and line breaks",
        ) from None


def composed(loader: yaml.SafeLoader) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise syntax_fault(error, loader) from None
    except RecursionError:
        raise Broken(loader.index, "nested too deeply; allowed: a few levels") from None
    except (ValueError, OverflowError):  # PyYAML on "\UFFFFFFFF" and on %YAML 99999(...).1
        raise Broken(
            loader.index,
            "is not valid YAML: a number is out of range; allowed: escapes up to \\U0010FFFF",
        ) from None


def syntax_fault(error: yaml.MarkedYAMLError, loader: yaml.SafeLoader) -> Broken:
    mark = error.problem_mark or error.context_mark
    index = loader.index if mark is None else mark.index
    if error.context == "expected a single document in the stream":
        return Broken(index, "a second document starts here; allowed: one document in a file")
    told = f"{error.problem}"
    if error.context:
        since = f", line {error.context_mark.line + 1}" if error.context_mark else ""
        told = f"{told} ({error.context}{since})"
    return Broken(index, f"is not valid YAML: {told}; {advice(told, loader.buffer, index)}")


def advice(told: str, text: str, index: int) -> str:
    """What most likely was meant: the traps that patterns and addresses fall into."""
    line_start = text.rfind("\n", 0, index) + 1
    if IPV6_LISTEN.match(text, line_start):
        return "an address such as '[::1]:9847' is written in quotes"
    if " alias" in told:
        return "a value that starts with * is written in quotes"
    if "'\\t' that cannot start" in told:
        return "lines are indented with spaces, not with tabs"
    if "cannot start any token" in told:
        return "a value that starts with @ % or ` is written in quotes"
    if "mapping values are not allowed" in told:
        return "a value that holds ': ' is written in quotes, and keys of one mapping line up"
    return "look at the indentation, brackets and quotes here and on the line above"


class Conversion:
    """PyYAML's nodes to ours: with places, without tags, without loops, bounded in size."""

    def __init__(self, loader: yaml.SafeLoader, lines: Lines, report: Report) -> None:
        self._loader = loader
        self._lines = lines
        self._report = report
        self._done: dict[int, tuple[Node, int]] = {}  # by id(): aliases share a node
        self._open: set[int] = set()

    def converted(self, root: yaml.Node) -> Node:
        return self._node(root)[0]

    def _node(self, node: yaml.Node) -> tuple[Node, int]:
        """The node and its size, in characters and values, with all aliases written out."""
        key = id(node)
        if key in self._done:
            return self._done[key]
        if key in self._open:
            raise Broken(
                node.start_mark.index,
                "holds an alias to itself; allowed: aliases to values that are complete",
            )
        self._open.add(key)
        converted, size = self._fresh(node)
        self._open.remove(key)
        if size > EXPANDED_LIMIT_CHARACTERS:
            raise Broken(
                node.start_mark.index,
                "is too large with its aliases written out; "
                f"allowed: {EXPANDED_LIMIT_CHARACTERS >> 20} MiB",
            )
        self._done[key] = converted, size
        return converted, size

    def _fresh(self, node: yaml.Node) -> tuple[Node, int]:
        place = self._lines.place(node.start_mark.index)
        self._check_tag(node, place)
        if isinstance(node, yaml.ScalarNode):
            return Scalar(place, self._text(node, place), plain=node.style is None), len(
                node.value
            ) + 1
        if isinstance(node, yaml.MappingNode):
            entries = [(self._node(key), self._node(value)) for key, value in node.value]
            size = sum(key[1] + value[1] for key, value in entries)
            return Mapping(place, tuple((key[0], value[0]) for key, value in entries)), size + 1
        items = [self._node(item) for item in node.value]
        return Items(place, tuple(item for item, _ in items)), 1 + sum(size for _, size in items)

    def _text(self, node: yaml.ScalarNode, place: Place) -> str:
        text: str = node.value
        if SURROGATE.search(text):
            self._report.fault(place, "holds half of a character; allowed: whole characters")
            return text.encode("utf-8", "backslashreplace").decode("utf-8")
        return text

    def _check_tag(self, node: yaml.Node, place: Place) -> None:
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        implicit: str = self._loader.resolve(  # type: ignore[no-untyped-call]  # so in the stubs
            type(node), node.value, (plain, not plain)
        )
        if node.tag != implicit:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._report.fault(
                place, f"the tag {tag} is not supported; allowed: values without a tag"
            )
