"""Hears on the system bus of kills by systemd-oomd: org.freedesktop.oom1.Manager's signal Killed.

Not by pystemd, which takes 10 MiB of memory.  Whoever is connected to the bus may send anything to
anybody: a message with a destination needs no match rule.  So a signal counts by its sender alone,
which the bus itself sets on all that it relays, in place of what the sender has written there.  It
has to be the unique name that owns org.freedesktop.oom1 at this point of the stream.  Unique names
are never given out twice, and the bus lets nobody own that name but systemd-oomd's user
(org.freedesktop.oom1.conf).  Who owns it, the bus says itself, in messages whose sender is
org.freedesktop.DBus, a name that nobody can have.  It tells of changes in order with all else: we
ask for changes first, then for the owner, and for its signals last, so that none is missed.

Before systemd 252 there is no such signal.  Whether there is, the owner itself says: it is asked
for its description by its unique name, by which nobody is started who does not run.

No file descriptors can come along, as we have not agreed to any with the bus.  What others call of
us gets no answer.

Source:  D-Bus Specification, sections "Authentication Protocol", "Header Fields" (SENDER), "Message
Bus Specification", "Introspection Data Format"; systemd, src/oom/oomd-manager-bus.c, and
src/libsystemd/sd-bus/bus-introspect.c for how it writes that; org.freedesktop.oom1(5).
"""

import os
import select
import socket
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.systemd.wire import (
    ERROR,
    ERROR_NAME,
    INTERFACE,
    MEMBER,
    PATH,
    REPLY_SERIAL,
    RETURN,
    SENDER,
    SIGNAL,
    SIGNATURE,
    Malformed,
    Message,
    Messages,
    call,
)
from oomwatchd.text import decoded, printable

SYSTEM_BUS: Final = Path("/run/dbus/system_bus_socket")

BUS: Final = "org.freedesktop.DBus"
OOMD: Final = "org.freedesktop.oom1"
KILLED: Final = {
    PATH: "/org/freedesktop/oom1",
    INTERFACE: "org.freedesktop.oom1.Manager",
    MEMBER: "Killed",
    SIGNATURE: "ss",
}
OWNER_CHANGED: Final = {
    PATH: "/org/freedesktop/DBus",
    INTERFACE: "org.freedesktop.DBus",
    MEMBER: "NameOwnerChanged",
    SIGNATURE: "sss",
}
HAS_KILLED: Final = f'<signal name="{KILLED[MEMBER]}">'  # in its description
HELLO, TELL_OF_OWNERS, WHO_OWNS, TELL_OF_KILLS = range(1, 5)  # the serials of what we ask
REQUESTS: Final = (
    call(HELLO, "Hello"),
    call(
        TELL_OF_OWNERS,
        "AddMatch",
        f"type='signal',sender='{BUS}',path='{OWNER_CHANGED[PATH]}',"
        f"interface='{OWNER_CHANGED[INTERFACE]}',member='{OWNER_CHANGED[MEMBER]}',arg0='{OOMD}'",
    ),
    call(WHO_OWNS, "GetNameOwner", OOMD),
    call(
        TELL_OF_KILLS,
        "AddMatch",
        f"type='signal',sender='{OOMD}',path='{KILLED[PATH]}',"
        f"interface='{KILLED[INTERFACE]}',member='{KILLED[MEMBER]}'",
    ),
)
NO_OWNER: Final = "org.freedesktop.DBus.Error.NameHasNoOwner"
LINE_BYTES_MAX: Final = 1024  # of the answer to AUTH; there is no need for more

CHUNK_BYTES: Final = 16384
# One turn's share, in bytes or messages: 5 to 10 ms.  The rest waits, in the end within the bus.
DRAIN_BYTES_MAX: Final = 1 << 16
DRAIN_MESSAGES_MAX: Final = 500
ANSWER_SECONDS: Final = 30.0  # for all that is asked at the start
PAUSE_SECONDS: Final = 1.0  # before a new connection; it doubles
PAUSE_SECONDS_MAX: Final = 60.0
FAULT_CHARACTERS_MAX: Final = 200
NEVER: Final = float("inf")
AT_ONCE: Final = float("-inf")


class Killed(NamedTuple):
    """What systemd-oomd has said; `kills.parse_killed_signal` judges it."""

    cgroup: str
    reason: str


class Refused(Exception):
    """The bus does not let us in, or does not do what we ask; the text says why."""


class Conversation:
    """All that is said over one connection: bytes come in and go out."""

    def __init__(self) -> None:
        self.owner: str | None = None  # of systemd-oomd's name; None: it does not run
        self.messages = 0  # that have come
        self._has_signal: bool | None = None  # whether the owner has it; None: it has not said
        self._describing = TELL_OF_KILLS  # the serial of what was asked last
        self._unsaid = b""  # what to answer besides
        self._line: bytes | None = b""  # the bus's answer to AUTH; None: it is past that
        self._stream = Messages()
        self._asked = {HELLO, TELL_OF_OWNERS, WHO_OWNS, TELL_OF_KILLS}  # and not answered yet

    @property
    def listening(self) -> bool:
        return not self._asked

    @property
    def tells(self) -> bool | None:
        """Whether a kill would be told of, if there were one; None: that is not known yet."""
        return True if self.owner is None else self._has_signal

    def opening(self, uid: int) -> bytes:
        """What to say first: EXTERNAL is for the bus to ask the kernel who we are."""
        return b"\0AUTH EXTERNAL %s\r\n" % str(uid).encode().hex().encode()

    def hear(self, data: bytes) -> tuple[list[Killed], bytes]:
        """The kills told of in *data*, and what to answer.

        Raises:  Malformed, Refused.
        """
        answer = b""
        if self._line is not None:
            line, end, data = (self._line + data).partition(b"\r\n")
            self._line = None if end else line
            if (end and line.split(b" ")[0] != b"OK") or len(line) > LINE_BYTES_MAX:
                raise Refused(f"it answers AUTH with {decoded(line)}")
            if not end:
                return [], b""
            answer = b"BEGIN\r\n" + b"".join(REQUESTS)
        messages = self._stream.feed(data)
        self.messages += len(messages)
        kills = [killed for message in messages if (killed := self._understood(message))]
        answer, self._unsaid = answer + self._unsaid, b""
        return kills, answer

    def _understood(self, message: Message) -> Killed | None:
        sender = message.fields.get(SENDER)
        if sender is None:
            return None
        if sender == BUS:
            self._told_by_bus(message)
        elif sender == self.owner and is_signal(message, KILLED):
            return Killed(*message.strings())
        elif sender == self.owner and message.fields.get(REPLY_SERIAL) == self._describing:
            described = message.kind == RETURN and message.fields.get(SIGNATURE) == "s"
            self._has_signal = described and HAS_KILLED in message.strings()[0]
        return None

    def _owned_by(self, owner: str | None) -> None:
        self.owner, self._has_signal = owner, None
        if owner is not None:
            self._describing += 1
            self._unsaid = call(
                self._describing,
                "Introspect",
                destination=owner,
                path=KILLED[PATH],
                interface="org.freedesktop.DBus.Introspectable",
            )

    def _told_by_bus(self, message: Message) -> None:
        if is_signal(message, OWNER_CHANGED):
            name, _, owner = message.strings()
            if name == OOMD:
                self._owned_by(owner or None)
        elif message.kind in (RETURN, ERROR):
            self._answered(message)

    def _answered(self, message: Message) -> None:
        serial = message.fields[REPLY_SERIAL]
        if serial not in self._asked:
            return
        error = message.fields.get(ERROR_NAME) if message.kind == ERROR else None
        if error is not None and (serial, error) != (WHO_OWNS, NO_OWNER):
            raise Refused(f"it answers with {error}")
        if error is None and serial == WHO_OWNS:
            self._owned_by(next(iter(message.strings()), None))
        self._asked.discard(int(serial))


def is_signal(message: Message, named: dict[int, str]) -> bool:
    return message.kind == SIGNAL and named.items() <= message.fields.items()


class OomdSignals:
    """The connection, made anew whenever it is lost.  No call ever blocks."""

    def __init__(self, path: Path = SYSTEM_BUS) -> None:
        """Raises:  OSError, if there are no descriptors left."""
        self.fault = ""  # why we do not hear, the last time that was so; empty: we do
        self.due_seconds = AT_ONCE  # when to call `drain`, if nothing happens before
        self._path = path
        self._poll = select.epoll()
        self._link: socket.socket | None = None
        self._conversation = Conversation()
        self._since_seconds = NEVER  # when it began that we hear
        self._pause_seconds = 0.0

    @property
    def listening(self) -> bool:
        return self._link is not None and self._conversation.listening

    @property
    def tells(self) -> bool | None:
        """Whether we would hear of a kill, if there were one; None: that is not known yet."""
        if self.fault:
            return False
        return self._conversation.tells if self.listening else None

    def fileno(self) -> int:
        """Readable when there is something to drain; the same for all connections."""
        return self._poll.fileno()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self._poll.close()

    def drain(self, now_seconds: float) -> list[Killed]:
        """The kills told of since, up to a bound; connect, if it is time to."""
        if self._link is None and now_seconds >= self.due_seconds:
            self._connect(now_seconds)
        if self._link is None:
            return []
        kills: list[Killed] = []
        try:
            self._receive(self._link, kills)
            if self.listening and self._since_seconds == NEVER:
                self.fault, self.due_seconds, self._since_seconds = "", NEVER, now_seconds
            elif now_seconds >= self.due_seconds:
                raise Refused(f"it has not answered within {ANSWER_SECONDS:g} s")
        except (OSError, Malformed, Refused) as error:
            self._part(error, now_seconds)
        return kills

    def _connect(self, now_seconds: float) -> None:
        self._conversation = Conversation()
        self._since_seconds = NEVER
        self.due_seconds = now_seconds + ANSWER_SECONDS
        try:
            kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._link = socket.socket(socket.AF_UNIX, kind)
            self._link.connect(str(self._path))  # done at once, or refused
            say(self._link, self._conversation.opening(os.geteuid()))
            self._poll.register(self._link, select.EPOLLIN)
        except OSError as error:
            self._part(error, now_seconds)

    def _receive(self, link: socket.socket, kills: list[Killed]) -> None:
        """Add to *kills*.

        Raises:  OSError, Malformed, Refused.
        """
        conversation = self._conversation
        enough = conversation.messages + DRAIN_MESSAGES_MAX
        for _ in range(DRAIN_BYTES_MAX // CHUNK_BYTES):
            try:
                data = link.recv(CHUNK_BYTES)
            except BlockingIOError:
                return
            if not data:
                raise Refused("it has hung up")
            heard, answer = conversation.hear(data)
            kills += heard
            say(link, answer)
            if conversation.messages >= enough:
                return

    def _part(self, error: Exception, now_seconds: float) -> None:
        """Hang up, and try again after a pause, which is short if we have heard for long."""
        if self.listening and now_seconds - self._since_seconds >= PAUSE_SECONDS_MAX:
            self._pause_seconds = 0.0
        if self._link is not None:
            self._link.close()  # which takes it out of the poll
            self._link = None
        reason = error.strerror if isinstance(error, OSError) else None
        self.fault = printable(reason or str(error))[:FAULT_CHARACTERS_MAX]
        self._pause_seconds = min(max(2 * self._pause_seconds, PAUSE_SECONDS), PAUSE_SECONDS_MAX)
        self.due_seconds = now_seconds + self._pause_seconds


def say(link: socket.socket, data: bytes) -> None:
    """All of *data*, which is little and finds the socket's buffer empty.

    Raises:  OSError; Refused, if it does not go in all the same.
    """
    if data and link.send(data) < len(data):
        raise Refused("it takes nothing in")
