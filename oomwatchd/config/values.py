"""One small reader for each kind of value.  Values are taken as written, not as YAML guesses."""

import re
import socket
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from oomwatchd.config.fault import quoted
from oomwatchd.config.section import described
from oomwatchd.config.source import Items, Node, Scalar
from oomwatchd.config.table import REFUSED, Kind, Reading, Refused
from oomwatchd.model import Address

T = TypeVar("T")
Word = TypeVar("Word", bound=str)

WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
DURATION: Final = re.compile(r"(0|[1-9][0-9]*)(ms|s|m|h)")
SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
PERCENTAGE: Final = re.compile(r"(0|[1-9][0-9]*)%")
POINT: Final = re.compile(r"-?[0-9]*\.[0-9]*")
IPV4_LIKE: Final = re.compile(r"[0-9.]+")
PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
DIGITS_LIMIT: Final = 15  # more are out of every range, and int() is slow on very many
LIST_LIMIT: Final = 1000

NO_NUMBERS: Final = (  # what people write for a number, and what a reader could make of it
    (re.compile(r"[-+]?0[0-9_]+"), "would be read as octal"),
    (re.compile(r"[-+]?0[xX][0-9a-fA-F_]+"), "is hexadecimal"),
    (re.compile(r"[-+]?0[bB][01_]+"), "is binary"),
    (re.compile(r"[-+]?[0-9]+_[0-9_]*"), "has an underscore"),
    (re.compile(r"\+[0-9.]+"), "has a plus sign"),
    (re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+"), "has an exponent"),
    (re.compile(r"-?[0-9]*\.[0-9]*"), "has no digit on one side of the point"),
    (re.compile(r"[-+]?[0-9]+(?::[0-5]?[0-9])+"), "would be read in base 60"),
    (re.compile(r"-?[0-9.]+ *%"), "has a percent sign"),
)


class Wrong(NamedTuple):
    """What is wrong with a value, said after the value itself."""

    text: str


def scalar(node: Node, reading: Reading) -> Scalar | Refused:
    if not isinstance(node, Scalar):
        return reading.refuse(node, f"{described(node)} stands where one value should")
    if node.is_null:
        return reading.refuse(node, "no value is given")
    return node


def single(
    allowed: str, schema: Mapping[str, object], parse: Callable[[Scalar], T | Wrong]
) -> Kind[T]:
    """The kind of one value that *parse* understands."""

    def read(node: Node, reading: Reading) -> T | Refused:
        value = scalar(node, reading)
        if value is REFUSED:
            return REFUSED
        parsed = parse(value)
        if isinstance(parsed, Wrong):
            return reading.refuse(node, f"{quoted(value.text)} {parsed.text}")
        return parsed

    return Kind(allowed, schema, read)


def why_not_a_number(value: Scalar) -> Wrong:
    if not value.plain:
        return Wrong("in quotes is text, not a number")
    reasons = (reason for form, reason in NO_NUMBERS if form.fullmatch(value.text))
    return Wrong(next(reasons, "is not a number"))


def whole_number(low: int, high: int) -> Kind[int]:
    def parse(value: Scalar) -> int | Wrong:
        if value.plain and POINT.fullmatch(value.text):
            return Wrong("is not whole")
        if not value.plain or not WHOLE.fullmatch(value.text):
            return why_not_a_number(value)
        if len(value.text) > DIGITS_LIMIT or not low <= int(value.text) <= high:
            return Wrong("is out of range")
        return int(value.text)

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return single(f"a whole number from {low} to {high}", schema, parse)


def threshold() -> Kind[float]:
    def parse(value: Scalar) -> float | Wrong:
        if not value.plain or not DECIMAL.fullmatch(value.text):
            return why_not_a_number(value)
        if not 0 < float(value.text) <= 100:
            return Wrong("is out of range")
        return float(value.text)

    schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
    return single("a number above 0 and up to 100, in percent of time", schema, parse)


def percentage() -> Kind[float]:
    """Read as a ratio."""

    def parse(value: Scalar) -> float | Wrong:
        if WHOLE.fullmatch(value.text):
            return Wrong("has no percent sign")
        found = PERCENTAGE.fullmatch(value.text)
        if found is None:
            return Wrong("is not a whole number of percent")
        if len(found[1]) > DIGITS_LIMIT or not 1 <= int(found[1]) <= 100:
            return Wrong("is out of range")
        return int(found[1]) / 100

    schema = {"type": "string", "pattern": "^([1-9][0-9]?|100)%$"}
    return single("1% to 100%", schema, parse)


def boolean() -> Kind[bool]:
    def parse(value: Scalar) -> bool | Wrong:
        if not value.plain:
            return Wrong("in quotes is text")
        if value.text not in ("true", "false"):
            return Wrong("is neither of the two")
        return value.text == "true"

    return single("true or false", {"type": "boolean"}, parse)


def choice(*words: Word) -> Kind[Word]:
    def parse(value: Scalar) -> Word | Wrong:
        chosen = (word for word in words if word == value.text)
        return next(chosen, None) or Wrong("is none of the choices")

    schema = {"type": "string", "enum": list(words)}
    return single(f"{', '.join(words[:-1])} or {words[-1]}", schema, parse)


def seconds(written: str) -> float | None:
    """The length of a duration such as ``500ms``; None if it is none."""
    found = DURATION.fullmatch(written)
    if found is None:
        return None
    digits, unit = found.groups()
    return float(digits) * SECONDS[unit]


def duration(low: str, high: str) -> Kind[float]:
    """From *low* to *high*, which are durations themselves; read as seconds."""
    lowest, highest = seconds(low) or 0.0, seconds(high) or 0.0

    def parse(value: Scalar) -> float | Wrong:
        if WHOLE.fullmatch(value.text):
            return Wrong("has no unit")
        length = seconds(value.text)
        if length is None:
            return Wrong("is not a whole number with its unit")
        return length if lowest <= length <= highest else Wrong("is out of range")

    schema = {"type": "string", "pattern": "^(0|[1-9][0-9]*)(ms|s|m|h)$"}
    return single(f"{low} to {high}; units are ms, s, m and h", schema, parse)


def address() -> Kind[Address | None]:
    """Read as None where it is ``off``."""

    def parse(value: Scalar) -> Address | Wrong | None:
        if value.text == "off":
            return None
        host, colon, port = value.text.rpartition(":")
        if not colon:
            return Wrong("has no port")
        if not PORT.fullmatch(port) or int(port) > 65535:
            return Wrong("has a port that is no number from 1 to 65535")
        wrong = why_no_host(host)
        return Address(host.strip("[]"), int(port)) if wrong is None else wrong

    pattern = r"^(off|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):[1-9][0-9]{0,4})$"
    schema = {"type": "string", "pattern": pattern}
    return single("host:port, '[::1]:port' in quotes, or off", schema, parse)


def why_no_host(host: str) -> Wrong | None:
    if host.startswith("[") and host.endswith("]"):
        return None if is_ip(socket.AF_INET6, host[1:-1]) else Wrong("is not an IPv6 address")
    if ":" in host:
        return Wrong("has an IPv6 address without brackets")
    if IPV4_LIKE.fullmatch(host):
        return None if is_ip(socket.AF_INET, host) else Wrong("is not an IPv4 address")
    return None if HOST_NAME.fullmatch(host) else Wrong("has no host")


def is_ip(family: socket.AddressFamily, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except OSError:
        return False
    return True


def one_or_more(item: Kind[T]) -> Kind[tuple[T, ...]]:
    """One value, or a list of them."""

    def read(node: Node, reading: Reading) -> tuple[T, ...] | Refused:
        nodes = node.items if isinstance(node, Items) else (node,)
        if not nodes:
            return reading.refuse(node, "the list is empty")
        if len(nodes) > LIST_LIMIT:
            return reading.refuse(node, f"the list has more than {LIST_LIMIT} items")
        values = [item.read(each, reading) for each in nodes]
        read_well = tuple(value for value in values if value is not REFUSED)
        return read_well if len(read_well) == len(values) else REFUSED

    many = {"type": "array", "minItems": 1, "maxItems": LIST_LIMIT, "items": item.schema}
    return Kind(f"{item.allowed}, or a list of them", {"anyOf": [item.schema, many]}, read)
