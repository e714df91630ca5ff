"""D-Bus messages as bytes: what is well formed is understood, all else is refused as malformed."""

import struct
import time
import tracemalloc

import pytest
from busclient import aligned, killed, message
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.systemd import wire
from oomwatchd.systemd.wire import Malformed, Message, Messages

# What a header field of a later version may hold: its type, and the parts of its value, each with
# the boundary that it is aligned to.
ONE, NONE = (4, b"\1\0\0\0"), (4, b"\0\0\0\0")
VALUES = [
    ("y", [(1, b"\7")]),
    ("b", [ONE]),
    ("n", [(2, b"\1\0")]),
    ("d", [(8, bytes(8))]),
    ("t", [(8, bytes(8))]),
    ("h", [ONE]),
    ("s", [ONE, (1, b"x\0")]),
    ("o", [ONE, (1, b"/\0")]),
    ("g", [(1, b"\2ss\0")]),
    ("as", [(4, b"\6\0\0\0"), ONE, (1, b"x\0")]),
    ("ay", [(4, b"\3\0\0\0"), (1, b"abc")]),
    ("ax", [NONE, (8, b"")]),  # what aligns its first element is there even if that is not
    ("at", [(4, b"\x08\0\0\0"), (8, bytes(8))]),
    ("aad", [(4, b"\x0c\0\0\0"), (4, b"\x08\0\0\0"), (8, bytes(8))]),
    ("a{sv}", [(4, b"\x0a\0\0\0"), (8, ONE[1]), (1, b"k\0"), (1, b"\1y\0\7")]),
    ("a(ya{s(iv)})", [NONE, (8, b"")]),
    ("(yu)", [(8, b"\7"), ONE]),
    ("((y)sy)", [(8, b"\7"), ONE, (1, b"x\0"), (1, b"\7")]),
    ("v", [(1, b"\1v\0"), (1, b"\1u\0"), ONE]),
    ("v", [(1, b"\3(t)\0"), (8, bytes(8))]),
]
BROKEN_TYPES = [
    "",
    "a",
    "(",
    ")",
    "()",
    "(a)",
    "a)",
    "ss",
    "{",
    "{sv}",
    "(y",
    "z",
    "a{",
    "aa",
    "(}",
]


def field(code: int, kind: str, parts: list[tuple[int, bytes]]) -> bytes:
    raw = bytes((code, len(kind))) + kind.encode() + b"\0"
    for boundary, part in parts:
        raw = aligned(raw, boundary) + part
    return raw


def only(data: bytes) -> Message:
    [found] = Messages().feed(data)
    return found


def is_malformed(data: bytes) -> bool:
    try:
        Messages().feed(data)
    except Malformed:
        return True
    return False


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


# -- well formed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_signal_is_understood_in_either_byte_order(order: str) -> None:
    found = only(killed("/a.slice/é.scope", "memory-pressure", sender=":1.7", order=order))

    assert found.kind == wire.SIGNAL
    assert found.fields == {
        wire.PATH: "/org/freedesktop/oom1",
        wire.INTERFACE: "org.freedesktop.oom1.Manager",
        wire.MEMBER: "Killed",
        wire.SENDER: ":1.7",
        wire.SIGNATURE: "ss",
    }
    assert found.strings() == ("/a.slice/é.scope", "memory-pressure")


def test_the_specifications_own_example_is_read_as_it_says() -> None:
    body = b"\3\0\0\0foo\0\1\0\0\0+\0\0\0\3\0\0\0bar\0"

    assert Message(wire.SIGNAL, {wire.SIGNATURE: "sss"}, body, "<").strings() == ("foo", "+", "bar")


@given(st.lists(st.text().map(lambda text: text.replace("\0", "")), max_size=20))
def test_what_is_called_with_is_what_is_understood(arguments: list[str]) -> None:
    found = only(wire.call(3, "AddMatch", *arguments))

    assert found.kind == wire.CALL
    assert found.fields[wire.MEMBER] == "AddMatch"
    assert found.strings() == tuple(arguments)


def test_a_call_is_as_another_encoder_makes_it() -> None:
    bus = "org.freedesktop.DBus"
    fields = {1: "/org/freedesktop/DBus", 6: bus, 2: bus, 3: "GetNameOwner"}

    assert wire.call(3, "GetNameOwner", "x.y") == message(1, fields, ["x.y"], serial=3)


@pytest.mark.parametrize(("kind", "parts"), VALUES)
def test_header_fields_of_later_versions_are_passed_over(
    kind: str, parts: list[tuple[int, bytes]]
) -> None:
    known: dict[int, str | int] = {1: "/", 2: "a.b", 3: "c"}
    raw = message(4, known, ["x"], more_fields=field(11, kind, parts))

    assert only(raw).strings() == ("x",)
    assert only(raw).fields == {**known, 8: "s"}


def test_kinds_and_flags_of_later_versions_are_no_fault() -> None:
    later = replaced(message(9, {}), 2, b"\xf0")

    assert [one.kind for one in Messages().feed(later + killed())] == [9, wire.SIGNAL]


def test_messages_come_out_whole_wherever_the_stream_is_cut() -> None:
    stream = killed("/1") + killed("/22", order=">") + message(9, {}) + killed("/333")
    whole = Messages().feed(stream)

    for size in range(1, 70):
        messages = Messages()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]

        assert [one for piece in pieces for one in messages.feed(piece)] == whole


@pytest.mark.parametrize("size", [1000, 16384, 100_000])
def test_a_message_that_is_too_long_is_passed_over_and_not_kept(size: int) -> None:
    long = killed("/" + "x" * 10 * wire.KEPT_BYTES_MAX)
    longest = replaced(killed(), 4, struct.pack("<I", wire.MESSAGE_BYTES_MAX - 1000))
    messages, stream = Messages(), killed("/1") + long + killed("/2")
    tracemalloc.start()
    try:
        found = [
            one
            for at in range(0, len(stream), size)
            for one in messages.feed(stream[at : at + size])
        ]
        messages.feed(longest)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [one.strings()[0] for one in found] == ["/1", "/2"]
    assert peak_bytes < 3 * (wire.KEPT_BYTES_MAX + size)


# -- malformed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "new"),
    [
        (0, b"x"),  # byte order
        (0, b"\0"),
        (1, b"\0"),  # kind
        (3, b"\2"),  # version
        (4, b"\xff\xff\xff\xff"),  # size of the body
        (4, struct.pack("<I", 1 << 27)),
        (8, b"\0\0\0\0"),  # serial
        (12, b"\xff\xff\xff\xff"),  # size of the fields
        (12, struct.pack("<I", (1 << 26) + 1)),
        (16, b"\0"),  # code of the first field, which is the path
        (16, b"\3"),  # that of another, whose type differs
        (17, b"\0"),  # size of its type
        (17, b"\xff"),
        (18, b"s"),
        (19, b"x"),  # end of its type
        (20, b"\xff\xff\xff\x7f"),  # size of the path
        (20, b"\x14"),
        (24, b"x"),  # the path
        (25, b"/"),
        (25, b"-"),
        (25, b"\0"),
        (25, b"\xff"),
        (44, b"/"),
        (45, b"x"),  # its end
        (47, b"x"),  # padding before the next field
    ],
)
def test_a_byte_that_breaks_the_specification_is_found(at: int, new: bytes) -> None:
    assert not is_malformed(killed())
    assert is_malformed(replaced(killed(), at, new))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (4, {1: "/", 2: "a.b"}),
        (4, {1: "/", 3: "c"}),
        (4, {2: "a.b", 3: "c"}),
        (1, {1: "/"}),
        (2, {}),
        (3, {5: 1}),
        (3, {4: "a.b"}),
    ],
)
def test_a_message_without_what_its_kind_takes_is_malformed(
    kind: int, fields: dict[int, str | int]
) -> None:
    assert is_malformed(message(kind, fields))


@pytest.mark.parametrize("path", ["", "x", "//", "/x/", "/x//y", "/é", "/x.y", "/x\n", "/x-y"])
def test_a_path_is_one_of_an_object(path: str) -> None:
    assert is_malformed(message(4, {1: path, 2: "a.b", 3: "c"}))


def test_a_header_field_that_comes_twice_is_malformed() -> None:
    assert is_malformed(
        message(4, {1: "/", 2: "a.b", 3: "c"}, more_fields=field(1, "o", [ONE, (1, b"/\0")]))
    )


def test_a_header_field_of_no_code_is_malformed() -> None:
    nothing = field(0, "s", [ONE, (1, b"x\0")])

    assert is_malformed(message(4, {1: "/", 2: "a.b", 3: "c"}, more_fields=nothing))


def test_what_fills_the_header_up_to_the_body_is_zero() -> None:
    raw = message(4, {1: "/", 3: "c", 2: "a.bc"})  # ends 3 bytes before a multiple of 8

    assert not is_malformed(raw)
    assert raw[-3:] == bytes(3)
    assert is_malformed(raw[:-1] + b"x")


def test_a_body_without_a_signature_is_malformed() -> None:
    bare = message(4, {1: "/", 2: "a.b", 3: "c"})

    assert is_malformed(replaced(bare, 4, b"\4\0\0\0") + b"\0\0\0\0")


@pytest.mark.parametrize("kind", BROKEN_TYPES)
def test_a_header_field_whose_type_is_none_is_malformed(kind: str) -> None:
    for value in (b"", bytes(64)):
        later = field(11, kind, [(1, value)])

        assert is_malformed(message(4, {1: "/", 2: "a.b", 3: "c"}, more_fields=later))


@pytest.mark.parametrize(
    "parts",
    [
        (b"\1v\0" * 5000),
        (b"\xfc" + b"v" * 252 + b"\0") * 60,
        (b"\xfd(" + b"y" * 251 + b")\0" + bytes(251)) * 30,
        (b"\x41" + b"(" * 32 + b"y" + b")" * 32 + b"\0").ljust(80, b"\0") * 190,
        (b"\xff" + b"a" * 254 + b"y\0" + bytes(255)) * 30,
    ],
)
def test_no_header_field_takes_long_to_pass_over(parts: bytes) -> None:
    """A bus may let anything through in fields that it does not know."""
    kinds = b"(" + b"v" * 252 + b")"
    later = bytes((11, len(kinds))) + kinds + b"\0"
    raw = message(4, {1: "/", 2: "a.b", 3: "c"}, more_fields=aligned(later, 8) + parts)
    started = time.process_time()
    is_malformed(raw)

    assert len(raw) <= wire.KEPT_BYTES_MAX  # it is not passed over as a whole
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("u", bytes(4)),
        ("as", bytes(4)),
        ("s", b""),
        ("s", b"\1\0\0\0x"),
        ("s", b"\1\0\0\0xy"),
        ("s", b"\1\0\0\0x\0more"),
        ("s", b"\1\0\0\0\xff\0"),
        ("s", b"\3\0\0\0x\0y\0"),
        ("s", b"\2\0\0\0\xc0\x80\0"),  # a zero byte, in more bytes than it needs
        ("s", b"\3\0\0\0\xed\xa0\x80\0"),  # half of a UTF-16 pair
        ("ss", b"\1\0\0\0x\0\0\1\1\0\0\0y\0"),
    ],
)
def test_arguments_that_are_not_the_strings_that_they_should_be(
    signature: str, body: bytes
) -> None:
    with pytest.raises(Malformed):
        Message(wire.SIGNAL, {wire.SIGNATURE: signature}, body, "<").strings()


# -- anything --------------------------------------------------------------------------------------


def feed_all(pieces: list[bytes]) -> None:
    """As whoever reads a connection: what is malformed ends it."""
    messages = Messages()
    try:
        for one in [one for piece in pieces for one in messages.feed(piece)]:
            one.strings()
    except Malformed:
        pass
    assert len(messages._unfinished) <= wire.KEPT_BYTES_MAX + sum(map(len, pieces))


@given(st.lists(st.binary()))
def test_anything_at_all_is_understood_or_malformed(pieces: list[bytes]) -> None:
    feed_all(pieces)


STARTS = st.sampled_from([b"l\4\0\1", b"B\4\0\1", b"l\2\0\1", b"B\3\0\1"])


@given(STARTS, st.integers(0, 64), st.integers(0, 128), st.binary(max_size=256))
def test_any_content_within_a_sound_frame_is_understood_or_malformed(
    start: bytes, body_bytes: int, fields_bytes: int, content: bytes
) -> None:
    order = "<" if start[:1] == b"l" else ">"
    feed_all([start + struct.pack(order + "III", body_bytes, 1, fields_bytes) + content])


@given(
    st.sampled_from(["<", ">"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.lists(st.integers(0, 400), max_size=5),
)
def test_a_message_with_any_bytes_changed_is_understood_or_malformed(
    order: str, changes: list[tuple[int, int]], cuts: list[int]
) -> None:
    raw = bytearray(killed(sender=":1.7", order=order) + killed(order=order))
    for at, byte in changes:
        raw[at % len(raw)] = byte
    ends = [*sorted(at % len(raw) for at in cuts), len(raw)]
    starts = [0, *ends[:-1]]

    feed_all([bytes(raw[start:end]) for start, end in zip(starts, ends, strict=True)])


@given(st.text("ybnqiuxtdhsogav(){}", max_size=20), st.binary(max_size=100))
def test_a_later_header_field_of_any_type_and_value_is_passed_over_or_malformed(
    kind: str, value: bytes
) -> None:
    feed_all([message(4, {1: "/", 2: "a.b", 3: "c"}, more_fields=field(11, kind, [(1, value)]))])
