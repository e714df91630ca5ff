"""One run of the program journalctl, and what it says.

The format of the journal's files is its library's, which would be a compiled module more.

Source:  journalctl(1); systemd.journal-fields(7); "Journal Export Formats", section "Journal JSON
Format": a value is null if it is too long, a list of numbers if it is not UTF-8, and a list of
values if the field occurs more than once.
"""

import json
import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from oomwatchd.kernel.adjust import write
from oomwatchd.kernel.proc import PROC, READ_DIRECTORY
from oomwatchd.systemd.kills import KILLED_BY_KERNEL, KILLED_BY_OOMD, OOMD_UNIT, SYSTEM_MANAGER
from oomwatchd.text import decoded, printable

ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8"}
ENTRIES_MAX: Final = 300  # the newest; a kill by systemd-oomd makes two or three
FIELDS: Final = (
    "MESSAGE",
    "MESSAGE_ID",
    "N_PROCESSES",
    "UNIT",
    "_PID",
    "_SYSTEMD_UNIT",
    "_UID",
)  # what the parsers look at
# The newest first: if there is too much, the oldest are missing.
ARGUMENTS: Final = (
    "--output=json",
    f"--output-fields={','.join(FIELDS)}",
    "--boot",
    "--quiet",
    "--no-pager",
    "--reverse",
    f"--lines={ENTRIES_MAX}",
)
MATCHES: Final = (
    f"_SYSTEMD_UNIT={OOMD_UNIT}",
    "+",
    *(f"{name}={value}" for name, value in SYSTEM_MANAGER.items()),
    f"MESSAGE_ID={KILLED_BY_OOMD}",
    f"MESSAGE_ID={KILLED_BY_KERNEL}",
)
OUTPUT_BYTES_MAX: Final = 1 << 20
STEP_BYTES: Final = 1 << 16  # what a pipe holds
DEADLINE_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.25  # between two looks, while it says nothing
END_SECONDS: Final = 1.0  # to wait for the killed one, which may be waiting for a disk
END_POLL_SECONDS: Final = 0.005
FAULT_CHARACTERS_MAX: Final = 200
STAMP_DIGITS_MAX: Final = 18
ORDINARY: Final = 0  # oom_score_adj
STDIN, STDOUT, STDERR = range(3)


class Entry(NamedTuple):
    unix_seconds: float
    monotonic_seconds: float | None
    fields: dict[str, str]


def parse_entry(line: bytes) -> Entry | None:
    """Of a line of journalctl's JSON; None, if it is something else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    unix_seconds = stamp(found.get("__REALTIME_TIMESTAMP"))
    if unix_seconds is None:
        return None
    values = {name: text(found.get(name)) for name in FIELDS}
    fields = {name: value for name, value in values.items() if value is not None}
    return Entry(unix_seconds, stamp(found.get("__MONOTONIC_TIMESTAMP")), fields)


def stamp(value: Any) -> float | None:
    """In seconds, of microseconds as text."""
    if not isinstance(value, str) or not value.isdecimal() or len(value) > STAMP_DIGITS_MAX:
        return None
    return int(value) / 1e6


def text(value: Any) -> str | None:
    """None, if the field is not there, is too long, or there more than once."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(is_byte(one) for one in value):
        return decoded(bytes(value))
    return None


def is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value < 256


class Query:
    """One run of journalctl.  No call blocks."""

    def __init__(self, program: Path, since_unix_seconds: float, now_seconds: float) -> None:
        """Raises:  OSError, if it cannot be started."""
        self.since_unix_seconds = since_unix_seconds
        self.fault = ""
        self.entries: list[Entry] = []  # as far as it has told them
        self.due_seconds = now_seconds + POLL_SECONDS
        self._until_seconds = now_seconds + DEADLINE_SECONDS
        self._pending = b""  # of a line
        self._bytes = 0
        self._given_up = False
        since = [f"--since=@{since_unix_seconds:.0f}"] if since_unix_seconds > 0 else []
        command = [str(program), *ARGUMENTS, *since, *MATCHES]
        self._pid, self._output, self._complaints = spawned(command)

    def step(self, now_seconds: float) -> bool:
        """Take what it has to say, up to a bound; whether it has ended."""
        self.due_seconds = now_seconds + POLL_SECONDS
        ended = self._has_ended()  # seen first: then there is nothing that it has still to say
        more = not self._given_up and self._receive(now_seconds)
        if not self._given_up:
            self._judge(now_seconds, ended=ended)
        if more or not ended:
            return False
        complaint = self._complaint()
        status = self._reap()
        if not self.fault and status:
            how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
            self.fault = f"{how}: {complaint}" if complaint else how
        return True

    def close(self) -> None:
        """End it, and wait for that, but not for ever."""
        kill_group(self._pid)
        until_seconds = time.monotonic() + END_SECONDS
        while not self._has_ended() and time.monotonic() < until_seconds:
            time.sleep(END_POLL_SECONDS)
        self._reap()

    def _receive(self, now_seconds: float) -> bool:
        """Whether it has said something, after which there may be more."""
        try:
            data = os.read(self._output, STEP_BYTES)
        except BlockingIOError:
            return False
        if data:
            self.due_seconds = now_seconds
        self._bytes += len(data)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines[: ENTRIES_MAX - len(self.entries)]:
            entry = parse_entry(line)
            if entry is not None:
                self.entries.append(entry)
        return bool(data)

    def _judge(self, now_seconds: float, *, ended: bool) -> None:
        if self._bytes > OUTPUT_BYTES_MAX:
            self.fault = f"it says more than {OUTPUT_BYTES_MAX >> 20} MiB"
        elif now_seconds >= self._until_seconds and not ended:
            self.fault = f"it took longer than {DEADLINE_SECONDS:g} s"
        else:
            return
        self._given_up = True
        kill_group(self._pid)
        self.due_seconds = now_seconds + POLL_SECONDS

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _complaint(self) -> str:
        """The first line of what it has said to stderr."""
        try:
            raw = os.read(self._complaints, STEP_BYTES)
        except BlockingIOError:  # who inherited it from journalctl has not ended
            return ""
        return printable(decoded(raw.partition(b"\n")[0]))[:FAULT_CHARACTERS_MAX]

    def _reap(self) -> int:
        """How it has ended.  Until we reap it, the group's number is its own."""
        kill_group(self._pid)
        os.close(self._output)
        os.close(self._complaints)
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else 0


def spawned(command: list[str]) -> tuple[int, int, int]:
    """Start *command* in a group of its own; its pid, and where it speaks: stdout, and stderr.

    By posix_spawn, which copies no memory and needs no lock that another thread may hold.

    Raises:  OSError.
    """
    ignored = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python; a child would go on ignoring them
    with ExitStack() as ours, ExitStack() as theirs:
        output, stdout = pipe(ours, theirs)
        complaints, stderr = pipe(ours, theirs)
        actions: list[Any] = [
            (os.POSIX_SPAWN_OPEN, STDIN, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stdout, STDOUT),
            (os.POSIX_SPAWN_DUP2, stderr, STDERR),
        ]
        pid = os.posix_spawn(
            command[0], command, ENVIRONMENT, file_actions=actions,
            setpgroup=0, setsigmask=(), setsigdef=ignored,
        )  # fmt: skip
        ours.pop_all()  # they stay open
    make_ordinary(pid)
    return pid, output, complaints


def pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """Its ends, for us to read and for the other to write, each to be closed on its own."""
    reading, writing = os.pipe()
    ours.callback(os.close, reading)
    theirs.callback(os.close, writing)
    os.set_blocking(reading, False)
    return reading, writing


def make_ordinary(pid: int) -> None:
    """It is not to outlive what we protect.  It has no children, which would have our value."""
    with suppress(OSError):  # it has ended already, or /proc is read-only: then it is one of us
        directory = os.open(PROC / str(pid), READ_DIRECTORY)
        try:
            write(directory, ORDINARY)
        finally:
            os.close(directory)


def kill_group(pid: int) -> None:
    """End its group; it has not been reaped, so the number is still its own."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
