"""A bus of the test's own and who is on it: the listener, and others with their own encoder."""

import contextlib
import os
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from oomwatchd.systemd import wire
from oomwatchd.systemd.bus import TELL_OF_KILLS, Killed, OomdSignals
from oomwatchd.systemd.wire import Message, Messages

OOMD: Final = "org.freedesktop.oom1"
BUS: Final = "org.freedesktop.DBus"
PATIENCE_SECONDS: Final = 20.0
NOBODY_ASKS: Final = 1 << 31  # the serial of what gets no answer, or one that nobody waits for

needs_dbus_daemon = pytest.mark.skipif(
    not shutil.which("dbus-daemon"), reason="no dbus-daemon (Debian: dbus-daemon)"
)

# As the system's bus: anybody may send a signal to anybody.  Names are for the test to give away.
CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_interface="org.freedesktop.DBus.Introspectable"/>
  </policy>
  {more}
</busconfig>
"""


# -- messages --------------------------------------------------------------------------------------


def aligned(data: bytes, boundary: int) -> bytes:
    return data + bytes(-len(data) % boundary)


def packed(kind: str, value: str | int, order: str) -> bytes:
    if isinstance(value, int):
        return struct.pack(order + "I", value)
    text = value.encode()
    return struct.pack(("B" if kind == "g" else order + "I"), len(text)) + text + b"\0"


def message(
    kind: int,
    fields: Mapping[int, str | int],
    arguments: Sequence[str] = (),
    *,
    order: str = "<",
    serial: int = NOBODY_ASKS,
    more_fields: bytes = b"",
) -> bytes:
    """*more_fields* come first, each at a multiple of 8."""
    body = b""
    for argument in arguments:
        body = aligned(body, 4) + packed("s", argument, order)
    array = more_fields
    for code, value in {**fields, **({8: "s" * len(arguments)} if arguments else {})}.items():
        kind_of_field = {1: "o", 5: "u", 8: "g", 9: "u"}.get(code, "s")
        array = aligned(array, 8) + bytes((code, 1)) + kind_of_field.encode() + b"\0"
        array += packed(kind_of_field, value, order)
    byte_order = b"l" if order == "<" else b"B"
    head = struct.pack(order + "BBBIII", kind, 0, 1, len(body), serial, len(array))
    return byte_order + head + aligned(array, 8) + body


def signal(
    path: str,
    interface: str,
    member: str,
    arguments: Sequence[str],
    *,
    sender: str | None = None,
    to: str | None = None,
    order: str = "<",
) -> bytes:
    fields: dict[int, str | int] = {1: path, 2: interface, 3: member}
    fields |= {6: to} if to is not None else {}
    fields |= {7: sender} if sender is not None else {}
    return message(4, fields, arguments, order=order)


def killed(
    cgroup: str = "/a.slice",
    reason: str = "memory-used",
    *,
    sender: str | None = None,
    to: str | None = None,
    order: str = "<",
) -> bytes:
    return signal(
        "/org/freedesktop/oom1",
        "org.freedesktop.oom1.Manager",
        "Killed",
        (cgroup, reason),
        sender=sender,
        to=to,
        order=order,
    )


# As systemd writes it; the signal is there since 252.
DESCRIPTION: Final = """\
<node>
 <interface name="org.freedesktop.oom1.Manager">
  <method name="DumpByFileDescriptor">
   <arg type="h" name="fd" direction="out"/>
  </method>
{signal}\
 </interface>
</node>
"""
SIGNAL: Final = """\
  <signal name="Killed">
   <arg type="s" name="cgroup"/>
   <arg type="s" name="reason"/>
  </signal>
"""


def description(*, signal: bool) -> str:
    return DESCRIPTION.format(signal=SIGNAL if signal else "")


# What a bus says to one that wants to listen.
OK = b"OK 0123456789abcdef0123456789abcdef\r\n"
OWNER = ":1.3"
ANSWERS = [
    message(2, {5: 1, 7: BUS}, [":1.9"], serial=1),
    message(2, {5: 2, 7: BUS}, serial=2),
    message(2, {5: 3, 7: BUS}, [OWNER], serial=3),
    message(2, {5: 4, 7: BUS}, serial=4),
]
WELCOME = OK + b"".join(ANSWERS)


# -- the bus ---------------------------------------------------------------------------------------


class Bus:
    """A real dbus-daemon; *more* goes into its configuration."""

    def __init__(self, directory: Path, more: str = "") -> None:
        self.path = directory / "bus"
        self._config = directory / "bus.conf"
        self._log = directory / "bus.log"
        self._config.write_text(CONFIG.format(path=self.path, more=more))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--print-address"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), self._log.read_text()  # it listens now

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None
        self.path.unlink(missing_ok=True)

    def client(self) -> "Client":
        return Client(self.path)


class Client:
    """One that waits for what it asks."""

    def __init__(self, path: Path) -> None:
        self.heard: list[Message] = []
        self._stream = Messages()
        self._serial = 0
        self._link = socket.socket(socket.AF_UNIX)
        self._link.settimeout(PATIENCE_SECONDS)
        self._link.connect(str(path))
        self._link.sendall(
            b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n"
        )
        assert self._link.recv(1024).startswith(b"OK ")
        self._link.sendall(b"BEGIN\r\n")
        [self.name] = self.ask("Hello")

    def close(self) -> None:
        self._link.close()

    def send(self, data: bytes) -> None:
        self._link.sendall(data)

    def ask(self, member: str, *arguments: str, flags: int | None = None) -> tuple[str, ...]:
        """Of the bus; *flags*: of RequestName and the like.  The strings of its answer."""
        self._serial += 1
        fields: dict[int, str | int] = {1: "/org/freedesktop/DBus", 2: BUS, 3: member, 6: BUS}
        request = message(1, fields, arguments, serial=self._serial)
        if flags is not None:
            request = with_flags(fields, arguments[0], flags, self._serial)
        self.send(request)
        while True:
            for one in self.receive():
                if one.fields.get(wire.REPLY_SERIAL) == self._serial:
                    assert one.kind == wire.RETURN, one
                    return one.strings() if one.fields.get(wire.SIGNATURE) == "s" else ()

    def receive(self) -> list[Message]:
        data = self._link.recv(65536)
        assert data, "the bus has hung up"
        messages = self._stream.feed(data)
        self.heard += messages
        return messages

    def own(self, name: str = OOMD) -> None:
        """Have the name, even if another has it and lets it go."""
        self.ask("RequestName", name, flags=0b011)  # may be replaced; replaces

    def describe(self, *, signal: bool = True, number: int = 1) -> None:
        """Answer the listener's first question of an owner, or that of this *number*."""
        asker = None
        while asker is None:
            calls = (one for one in self.heard if one.fields.get(wire.MEMBER) == "Introspect")
            asker = next((one.fields[wire.SENDER] for one in calls), None)
            if asker is None:
                self.receive()
        reply = {5: TELL_OF_KILLS + number, 6: asker}
        self.send(message(2, reply, [description(signal=signal)]))
        self.settle()

    def disown(self, name: str = OOMD) -> None:
        self.ask("ReleaseName", name)

    def finish(self) -> None:
        """All that we have sent has been dealt with, or taken amiss; here it ends."""
        with contextlib.suppress(ConnectionError):  # the bus may have hung up before
            self._link.shutdown(socket.SHUT_WR)
            while self._link.recv(65536):
                pass

    def settle(self) -> None:
        """All that we have sent has been dealt with."""
        self.ask("GetId")


def with_flags(fields: Mapping[int, str | int], name: str, flags: int, serial: int) -> bytes:
    """A call with the arguments ``su``."""
    body = aligned(packed("s", name, "<"), 4) + struct.pack("<I", flags)
    bare = message(1, {**fields, 8: "su"}, serial=serial)
    return bare[:4] + struct.pack("<I", len(body)) + bare[8:] + body


@contextlib.contextmanager
def running(directory: Path, more: str = "") -> Iterator[Bus]:
    bus = Bus(directory, more)
    bus.start()
    try:
        yield bus
    finally:
        bus.stop()


# -- the listener ----------------------------------------------------------------------------------


class Ears:
    """The listener, with a clock that a test turns by hand."""

    def __init__(self, path: Path) -> None:
        self.now_seconds = 1000.0
        self.signals = OomdSignals(path)
        self._poll = select.poll()
        self._poll.register(self.signals, select.POLLIN)

    def until(self, done: Callable[[list[Killed]], object]) -> list[Killed]:
        """What is heard, until *done* with it; drained only when there is something, or due."""
        heard: list[Killed] = []
        end = time.monotonic() + PATIENCE_SECONDS
        while not done(heard):
            assert time.monotonic() < end, f"{len(heard)} heard, fault: {self.signals.fault!r}"
            if self._poll.poll(100) or self.now_seconds >= self.signals.due_seconds:
                heard += self.signals.drain(self.now_seconds)
        return heard

    def listen(self) -> None:
        self.until(lambda _: self.signals.listening)

    def cgroups_until(self, last: str) -> list[str]:
        heard = self.until(lambda heard: last in [one.cgroup for one in heard])
        return [one.cgroup for one in heard]

    @property
    def owner(self) -> str | None:
        return self.signals._conversation.owner

    @property
    def messages(self) -> int:
        return self.signals._conversation.messages
