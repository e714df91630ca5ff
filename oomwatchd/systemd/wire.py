"""D-Bus messages as bytes: enough of the format to call the bus, and to take apart what comes.

A bus checks every message that it relays as strictly as we do, so none that another user may send
is malformed here; one that is comes from the bus itself.  Both byte orders come, as a message stays
in that of its sender.

Source:  D-Bus Specification, sections "Type System", "Marshaling (Wire Format)" and "Message
Protocol"; for what a bus lets through, dbus-broker, src/dbus/message.c.
"""

import re
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

CALL: Final = 1
RETURN: Final = 2
ERROR: Final = 3
SIGNAL: Final = 4

# The codes of header fields, and then the type of each.
PATH: Final = 1
INTERFACE: Final = 2
MEMBER: Final = 3
ERROR_NAME: Final = 4
REPLY_SERIAL: Final = 5
DESTINATION: Final = 6
SENDER: Final = 7
SIGNATURE: Final = 8
FIELDS: Final = dict(enumerate("osssussgu", PATH))  # the last: how many descriptors came along
REQUIRED: Final = {
    CALL: {PATH, MEMBER},
    RETURN: {REPLY_SERIAL},
    ERROR: {ERROR_NAME, REPLY_SERIAL},
    SIGNAL: {PATH, INTERFACE, MEMBER},
}
NO_OBJECT_PATH: Final = re.compile(r"\A(?!/)|//|/\Z|[^A-Za-z0-9_/]")  # but "/" is one

# What comes before the array of fields: byte order, kind, flags, version, size of the body, serial,
# size of the array; its first element is aligned already.
START_BYTES: Final = 16
ORDERS: Final = {ord("l"): "<", ord("B"): ">"}
STARTS: Final = {order: struct.Struct(f"{order}4B3I") for order in "<>"}
NUMBERS: Final = {order: struct.Struct(f"{order}I") for order in "<>"}
VERSION: Final = 1
FIELDS_BYTES_MAX: Final = 1 << 26  # as any array
MESSAGE_BYTES_MAX: Final = 1 << 27
# Of what concerns us, nothing is nearly as long.  A longer one is passed over: if we hung up for
# it, any user could keep us from hearing.
KEPT_BYTES_MAX: Final = 1 << 14

SIZES: Final = {"y": 1, "n": 2, "q": 2, "b": 4, "i": 4, "u": 4, "h": 4, "x": 8, "t": 8, "d": 8}
ALIGNMENTS: Final = {**SIZES, "s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}


class Malformed(Exception):
    """It breaks the specification; the text says how."""


class Message(NamedTuple):
    """Of its *fields*, by code, the bus vouches for the sender; the others are the sender's own."""

    kind: int
    fields: Mapping[int, str | int]
    body: bytes
    order: str  # of the body's numbers, as `struct` has it

    def strings(self) -> tuple[str, ...]:
        """The arguments, if all are strings.

        Raises:  Malformed, if they are not, or not what the signature says.
        """
        reader = Reader(self.body, self.order)
        signature = str(self.fields.get(SIGNATURE, ""))
        if signature.strip("s"):
            raise Malformed(f"arguments of type {signature!r} and not strings")
        arguments = tuple([reader.string() for _ in signature])
        if not reader.at_end:
            raise Malformed("the body is longer than its signature says")
        return arguments


class Messages:
    """What comes in, cut into messages; of an unfinished one, KEPT_BYTES_MAX are kept at most."""

    def __init__(self) -> None:
        self._unfinished = bytearray()
        self._skip_bytes = 0  # that are still to come, of one that is too long

    def feed(self, data: bytes) -> list[Message]:
        """The messages that *data* completes.

        Raises:  Malformed; then there is no telling any more where a message begins.
        """
        skipped = min(self._skip_bytes, len(data))
        self._skip_bytes -= skipped
        self._unfinished += data[skipped:]
        messages = []
        while len(self._unfinished) >= START_BYTES:
            size = message_bytes(self._unfinished)
            if size > KEPT_BYTES_MAX:
                self._skip_bytes = max(size - len(self._unfinished), 0)
            elif size > len(self._unfinished):
                break
            else:
                messages.append(parse_message(bytes(self._unfinished[:size])))
            del self._unfinished[:size]
        return messages


def message_bytes(start: bytes | bytearray) -> int:
    """The size of the message that starts so.

    Raises:  Malformed.
    """
    if start[0] not in ORDERS:
        raise Malformed(f"no byte order: {start[0]:#04x}")
    layout = STARTS[ORDERS[start[0]]]
    _, kind, _, version, body_bytes, serial, fields_bytes = layout.unpack_from(start)
    if version != VERSION or not kind or not serial:
        raise Malformed(f"kind {kind}, version {version}, serial {serial}")
    size: int = START_BYTES + aligned(fields_bytes, 8) + body_bytes
    if fields_bytes > FIELDS_BYTES_MAX or size > MESSAGE_BYTES_MAX:
        raise Malformed(f"too long: {fields_bytes} bytes of header fields, {size} in all")
    return size


def parse_message(raw: bytes) -> Message:
    """Take apart one whole message, of the size that `message_bytes` gives.

    Raises:  Malformed.
    """
    order = ORDERS[raw[0]]
    _, kind, _, _, body_bytes, _, fields_bytes = STARTS[order].unpack_from(raw)
    end = START_BYTES + fields_bytes
    body_start = aligned(end, 8)
    if any(raw[end:body_start]):
        raise Malformed("padding that is not zero")
    fields = header_fields(Reader(raw[START_BYTES:end], order))
    if not REQUIRED.get(kind, set()) <= fields.keys():
        raise Malformed(f"a message of kind {kind} with the fields {sorted(fields)} only")
    if body_bytes and not fields.get(SIGNATURE):
        raise Malformed("a body without a signature")
    return Message(kind, fields, raw[body_start:], order)


def header_fields(reader: "Reader") -> dict[int, str | int]:
    """By code.  Codes that are not known yet are passed over, as they have to be."""
    fields: dict[int, str | int] = {}
    while not reader.at_end:
        reader.align(8)
        code, kind = reader.byte(), reader.signature()
        if code == 0:
            raise Malformed("header field 0")
        if code not in FIELDS:
            reader.skip(single(kind))
        elif kind != FIELDS[code] or code in fields:
            raise Malformed(f"header field {code} twice, or with the type {kind!r}")
        elif kind == "u":
            fields[code] = reader.number()
        else:
            fields[code] = reader.signature() if kind == "g" else reader.string()
    path = str(fields.get(PATH, "/"))
    if path != "/" and NO_OBJECT_PATH.search(path):
        raise Malformed("a path that is none")
    return fields


class Reader:
    """Takes values from *data*, which starts at a multiple of 8 in its message.

    All raise Malformed.
    """

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._number = NUMBERS[order]
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise Malformed("a value goes on beyond the end")
        return self._data[start : self._at]

    def align(self, boundary: int) -> None:
        if any(self.take(-self._at % boundary)):
            raise Malformed("padding that is not zero")

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        self.align(4)
        return int(self._number.unpack(self.take(4))[0])

    def string(self) -> str:
        return self._text(self.number())

    def signature(self) -> str:
        return self._text(self.byte())

    def _text(self, size: int) -> str:
        raw = self.take(size + 1)
        if raw.find(0) != size:
            raise Malformed("a string that does not end at its end")
        try:
            return raw[:size].decode()
        except UnicodeDecodeError as error:
            raise Malformed("a string that is not UTF-8") from error

    def skip(self, kinds: str) -> None:
        """Pass over values of the complete types *kinds*.

        In time that grows as their size does.  How deep they are nested is left to the bus.
        """
        at = 0
        while at < len(kinds):
            code, at = kinds[at], at + 1
            if code in SIZES:
                self.align(SIZES[code])
                self.take(SIZES[code])
            elif code in "so":
                self.string()
            elif code == "g":
                self.signature()
            elif code == "v":
                kinds, at = single(self.signature()) + kinds[at:], 0
            elif code == "a":
                size = self.number()
                self.align(ALIGNMENTS[kinds[at]])
                self.take(size)
                at = type_end(kinds, at - 1)
            elif code == "(":
                self.align(8)


def single(signature: str) -> str:
    """*signature*, if it is one single complete type."""
    if type_end(signature) != len(signature):
        raise Malformed(f"not one type: {signature!r}")
    return signature


def type_end(signature: str, start: int = 0) -> int:
    """Where the single complete type ends that begins at *start*.

    Raises:  Malformed.
    """
    closing = previous = ""  # the brackets that are still to come; the code before
    for at in range(start, len(signature)):
        code = signature[at]
        if code == "(" or (code == "{" and previous == "a"):
            closing = ")}"[code == "{"] + closing
        elif closing[:1] == code and previous not in ("(", "{", "a"):
            closing = closing[1:]
        elif code not in ALIGNMENTS or code == "{":
            break
        if not closing and code != "a":
            return at + 1
        previous = code
    raise Malformed(f"not a type: {signature!r}")


def aligned(size: int, boundary: int) -> int:
    return size + -size % boundary


def call(
    serial: int,
    member: str,
    *arguments: str,
    destination: str = "org.freedesktop.DBus",
    path: str = "/org/freedesktop/DBus",
    interface: str = "org.freedesktop.DBus",
) -> bytes:
    """A message that calls a method, of the bus itself or of another; arguments are strings."""
    body = b""
    for argument in arguments:
        body = padded(body, 4) + marshalled(argument)
    fields = b""
    for code, value in (
        (PATH, marshalled(path)),
        (DESTINATION, marshalled(destination)),
        (INTERFACE, marshalled(interface)),
        (MEMBER, marshalled(member)),
        (SIGNATURE, bytes((len(arguments),)) + b"s" * len(arguments) + b"\0"),
    ):
        fields = padded(fields, 8) + bytes((code, 1, ord(FIELDS[code]), 0)) + value
    start = STARTS["<"].pack(ord("l"), CALL, 0, VERSION, len(body), serial, len(fields))
    return start + padded(fields, 8) + body


def marshalled(text: str) -> bytes:
    raw = text.encode()
    return NUMBERS["<"].pack(len(raw)) + raw + b"\0"


def padded(data: bytes, boundary: int) -> bytes:
    return data + bytes(-len(data) % boundary)
