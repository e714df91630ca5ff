"""The journal is asked by a program, which may say anything, or nothing, or never end."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakejournal import FakeJournal, entry, oomd_entry, unit_entry, wait_for_children
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.incident import OomdKill, UnitKilled
from oomwatchd.systemd.entries import (
    APART_SECONDS,
    JOURNALCTL,
    NEVER,
    SPAN_SECONDS,
    STARTS_MAX,
    JournalEntries,
    boot_seconds,
)
from oomwatchd.systemd.journalctl import (
    DEADLINE_SECONDS,
    ENTRIES_MAX,
    ENVIRONMENT,
    OUTPUT_BYTES_MAX,
    POLL_SECONDS,
    STEP_BYTES,
    Entry,
    parse_entry,
)

PATIENCE_SECONDS = 20.0
NOW_SECONDS = 500.0
BOOT_SECONDS = 1500.0  # the machine has slept for 1,000 s
SCOPE = "/user.slice/user-1000.slice/user@1000.service/app.slice/job.scope"
LINE = json.dumps(oomd_entry(1.5, SCOPE)).encode()
# What it sees of itself.  Python would ignore SIGPIPE by itself.
SEES = """grep SigIgn /proc/self/status > "$0.ignored"
exec %s -c '
import json, os, time
def adj():
    return int(open("/proc/self/oom_score_adj").read())
until = time.monotonic() + 10
while adj() and time.monotonic() < until:  # it is set from outside, once the program runs
    time.sleep(0.01)
print(json.dumps({
    "environment": {k: v for k, v in os.environ.items() if k not in ("LC_CTYPE", "PWD")},
    "oom_score_adj": adj(),
    "leads": os.getpid() == os.getpgid(0),
    "stdin": os.readlink("/proc/self/fd/0"),
    "open": [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")],
}), file=open("%s", "w"))'"""


class Asker:
    """The journal's reader, with a clock of its own."""

    def __init__(self, program: Path) -> None:
        self.entries = JournalEntries(program)
        self.seconds = NOW_SECONDS
        self.longest_seconds = 0.0

    def tend(self, after_seconds: float = 0.0) -> list[OomdKill | UnitKilled]:
        self.seconds += after_seconds
        began = time.monotonic()
        found = self.entries.tend(self.seconds, BOOT_SECONDS - NOW_SECONDS + self.seconds)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        return found

    def ask(self, since_unix_seconds: float = 0.0) -> list[OomdKill | UnitKilled]:
        """What it finds."""
        self.entries.ask(since_unix_seconds)
        return self.until(lambda: self.entries.due_seconds == NEVER)

    def until(self, done: Callable[[], object]) -> list[OomdKill | UnitKilled]:
        """In as little time of its own clock as may be."""
        until = time.monotonic() + PATIENCE_SECONDS
        found = self.tend()
        while not done():
            assert time.monotonic() < until
            wait = self.entries.due_seconds - self.seconds
            if wait > 0:
                time.sleep(0.002)
            self.seconds += max(wait, 0.0) / 200
            found += self.tend()
        return found


@pytest.fixture
def journal(tmp_path: Path) -> FakeJournal:
    return FakeJournal(tmp_path)


@pytest.fixture
def asker(journal: FakeJournal) -> Iterator[Asker]:
    yield (asker := Asker(journal.path))
    asker.entries.close()


# -- lines -----------------------------------------------------------------------------------------


def test_a_line_is_its_times_and_the_fields_that_are_looked_at() -> None:
    line = json.dumps(entry(7.25, MESSAGE="x", __MONOTONIC_TIMESTAMP="2500000", OTHER="y"))

    assert parse_entry(line.encode()) == Entry(7.25, 2.5, {"MESSAGE": "x"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),  # too long
        ([75, 255, 10], "K\\xff\n"),  # not UTF-8
        (["a", "b"], None),  # twice
        ([[75], "a"], None),
        ([75, 256], None),
        ([75, -1], None),
        ([True, 75], None),
        ([], None),
        ({}, None),
        (5, None),
    ],
)
def test_a_value_may_be_something_else_than_text(value: Any, text: str | None) -> None:
    found = parse_entry(json.dumps(entry(1.0, MESSAGE=value, UNIT="u")).encode())

    assert found is not None
    assert found.fields == {"UNIT": "u", **({"MESSAGE": text} if text is not None else {})}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"-- No entries --",
        b"[]",
        b"5",
        b"{",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"__REALTIME_TIMESTAMP": 5}',
        b'{"__REALTIME_TIMESTAMP": "x"}',
        b'{"__REALTIME_TIMESTAMP": "-5"}',
        b'{"__REALTIME_TIMESTAMP": "%s"}' % (b"9" * 5000),
        b'{"__REALTIME_TIMESTAMP": %s}' % (b"9" * 5000),
    ],
)
def test_anything_else_is_no_entry(line: bytes) -> None:
    assert parse_entry(line) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda one: json.dumps(one).encode()))
def test_no_line_raises_anything(line: bytes) -> None:
    found = parse_entry(line)

    assert found is None or isinstance(found.fields, dict)


@given(st.dictionaries(st.sampled_from(["MESSAGE", "_PID", "UNIT", "__MONOTONIC_TIMESTAMP"]), JSON))
def test_no_value_raises_anything(values: dict[str, Any]) -> None:
    found = parse_entry(json.dumps({**entry(1.0), **values}).encode())

    assert found is not None
    assert all(isinstance(value, str) for value in found.fields.values())


@given(st.integers(0, len(LINE)), st.binary(max_size=9))
def test_a_damaged_line_raises_nothing(at: int, damage: bytes) -> None:
    found = parse_entry(LINE[:at] + damage + LINE[at + len(damage) :])

    assert found is None or isinstance(found.fields, dict)


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unix_seconds", "monotonic_seconds", "expected"),
    [
        (90_000.0, None, 1490.0),  # ten seconds ago
        (90_000.0, 490.0, 1490.0),  # and the machine had slept before
        (90_000.0, 600.0, 1490.0),
        (89_000.0, 490.0, 490.0),  # before it slept
        (95_000.0, None, 1500.0),  # the clock was set back since, and nobody knows more
        (95_000.0, 490.0, 1490.0),
        (5.0, 490.0, 490.0),  # it was set forward, as happens where no battery keeps it
    ],
)
def test_when_it_was_is_told_by_both_clocks(
    unix_seconds: float, monotonic_seconds: float | None, expected: float
) -> None:
    said = Entry(unix_seconds, monotonic_seconds, {})

    assert boot_seconds(said, 90_010.0, NOW_SECONDS, BOOT_SECONDS) == expected


# -- what is found ---------------------------------------------------------------------------------


def test_kills_are_found_with_when_they_were(journal: FakeJournal, asker: Asker) -> None:
    ago = time.time() - 100.0
    journal.says(
        unit_entry(ago + 1.0, "job.service"),
        oomd_entry(ago, SCOPE),
        entry(ago, _PID="1", _UID="0", MESSAGE="Started something."),
        {**oomd_entry(ago, SCOPE), "_SYSTEMD_UNIT": "user@1000.service"},
    )
    unit, killed = asker.ask()

    assert isinstance(unit, UnitKilled)
    assert isinstance(killed, OomdKill)
    assert (unit.unit, killed.cgroup, killed.reason) == ("job.service", SCOPE, "memory-pressure")
    assert killed.boot_seconds == pytest.approx(BOOT_SECONDS - 100.0, abs=PATIENCE_SECONDS)
    assert unit.boot_seconds - killed.boot_seconds == pytest.approx(1.0, abs=0.01)
    assert asker.entries.fault == ""


def test_it_is_asked_for_this_boot_and_for_what_is_wanted_alone(
    journal: FakeJournal, asker: Asker
) -> None:
    asker.ask()
    asker.seconds += APART_SECONDS
    asker.ask(1234567890.0)
    whole, since = journal.asked

    assert "--boot" in whole.split()
    assert "--since" not in whole
    assert since == whole.replace(" _SYSTEMD", " --since=@1234567890 _SYSTEMD")
    assert " _SYSTEMD_UNIT=systemd-oomd.service + _PID=1 _UID=0 MESSAGE_ID=" in whole


def test_garbage_is_passed_over(journal: FakeJournal, asker: Asker) -> None:
    journal.says_bytes(b"\0\xff[\n{}\n" + LINE + b"\n" + LINE[:-9])

    assert len(asker.ask()) == 1
    assert asker.entries.fault == ""


def test_more_than_a_pipe_holds_arrives_in_steps(journal: FakeJournal, asker: Asker) -> None:
    ago = time.time() - 100.0
    journal.says(*(oomd_entry(ago, f"{SCOPE}/{'x' * 2000}{n}") for n in range(ENTRIES_MAX - 1)))
    found = asker.ask()

    assert len({one.cgroup for one in found if isinstance(one, OomdKill)}) == ENTRIES_MAX - 1
    assert OUTPUT_BYTES_MAX > ENTRIES_MAX * 2000 > 4 * STEP_BYTES


# -- what it does not find -------------------------------------------------------------------------


def test_an_exit_status_is_a_fault_with_what_it_complained_of(
    journal: FakeJournal, asker: Asker
) -> None:
    journal.does("echo 'Failed \033 to open' >&2; echo more >&2; exit 3")
    asker.ask()

    assert asker.entries.fault == f"{journal.path}: exit status 3: Failed \\x1b to open"


def test_that_it_was_killed_is_a_fault(journal: FakeJournal, asker: Asker) -> None:
    journal.does("kill -9 $$")
    asker.ask()

    assert asker.entries.fault == f"{journal.path}: ended by signal 9"


def test_that_it_is_not_there_is_a_fault(tmp_path: Path) -> None:
    asker = Asker(tmp_path / "nothing")
    asker.ask()

    assert asker.entries.fault == f"{tmp_path}/nothing: No such file or directory"


def test_who_says_too_much_is_stopped(journal: FakeJournal, asker: Asker) -> None:
    journal.does("exec yes '{}'")
    asker.ask()

    assert asker.entries.fault == f"{journal.path}: it says more than 1 MiB"
    assert asker.seconds < NOW_SECONDS + DEADLINE_SECONDS


def test_who_says_too_much_in_one_line_is_stopped(journal: FakeJournal, asker: Asker) -> None:
    journal.does("exec cat /dev/zero")
    asker.ask()

    assert asker.entries.fault == f"{journal.path}: it says more than 1 MiB"


@pytest.mark.parametrize(
    "commands",
    [
        "exec sleep 600",
        "exec sleep 600 >&- 2>&-",  # it has said all
        "trap '' TERM INT HUP; while :; do sleep 600; done",
    ],
)
def test_who_takes_too_long_is_ended_with_all_in_its_group(
    journal: FakeJournal, asker: Asker, commands: str
) -> None:
    journal.does(commands)
    asker.entries.ask(0.0)
    asker.until(lambda: journal.asked)
    family = [one.pid for one in psutil.Process().children(recursive=True)]
    asker.seconds = NOW_SECONDS + DEADLINE_SECONDS - 1.0
    asker.tend()
    assert asker.entries.fault == ""
    asker.seconds = NOW_SECONDS + DEADLINE_SECONDS
    asker.until(lambda: asker.entries.due_seconds == NEVER)

    assert asker.entries.fault == f"{journal.path}: it took longer than 20 s"
    assert family
    until = time.monotonic() + PATIENCE_SECONDS
    while any(is_running(pid) for pid in family):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_who_inherits_its_output_is_not_waited_for(
    journal: FakeJournal, asker: Asker, tmp_path: Path
) -> None:
    journal.does(f"sleep 600 & echo $! > {tmp_path / 'child'}")
    asker.ask()
    child = int((tmp_path / "child").read_text())

    assert asker.entries.fault == ""
    assert asker.seconds < NOW_SECONDS + DEADLINE_SECONDS
    until = time.monotonic() + PATIENCE_SECONDS
    while is_running(child):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_an_answer_that_we_come_late_to_hear_counts(journal: FakeJournal, asker: Asker) -> None:
    journal.says(*(oomd_entry(time.time(), f"{SCOPE}{n}") for n in range(50)))
    asker.entries.ask(0.0)
    asker.tend()
    wait_for_children()
    asker.seconds += 3 * DEADLINE_SECONDS
    found = asker.until(lambda: asker.entries.due_seconds == NEVER)

    assert len(found) == 50
    assert asker.entries.fault == ""


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_call_waits_for_it(journal: FakeJournal, asker: Asker) -> None:
    journal.does("sleep 600 & wait")
    asker.entries.ask(0.0)
    asker.tend()
    asker.longest_seconds = 0.0
    for _ in range(40):
        asker.tend(after_seconds=POLL_SECONDS)

    assert asker.longest_seconds < 2.0
    assert asker.entries.due_seconds == asker.seconds + POLL_SECONDS
    asker.tend(after_seconds=DEADLINE_SECONDS)  # it is killed, and ends when it can
    assert asker.entries.due_seconds >= asker.seconds + POLL_SECONDS


def test_closing_ends_it(journal: FakeJournal, asker: Asker) -> None:
    journal.does("exec sleep 600")
    asker.entries.ask(0.0)
    asker.tend()
    asker.entries.close()

    assert psutil.Process().children() == []


# -- how often -------------------------------------------------------------------------------------


def test_it_is_not_asked_more_often_than_three_times_in_half_a_minute(
    journal: FakeJournal, asker: Asker
) -> None:
    starts = []
    for _ in range(400):
        before = len(journal.asked)
        asker.entries.ask(0.0)
        asker.tend(after_seconds=POLL_SECONDS)
        wait_for_children()
        starts += [asker.seconds] * (len(journal.asked) - before)

    assert len(starts) >= 9
    assert min(b - a for a, b in pairwise(starts)) >= APART_SECONDS
    spans = zip(starts, starts[STARTS_MAX:], strict=False)
    assert min(b - a for a, b in spans) >= SPAN_SECONDS


def test_it_is_asked_once_for_all_who_have_waited(journal: FakeJournal, asker: Asker) -> None:
    asker.ask(3000.0)
    asker.entries.ask(2000.0)
    asker.entries.ask(2500.0)
    asker.tend()
    assert asker.entries.due_seconds == NOW_SECONDS + APART_SECONDS
    asker.seconds = asker.entries.due_seconds
    asker.until(lambda: asker.entries.due_seconds == NEVER)

    assert [line.split("--since=@")[1].split()[0] for line in journal.asked] == ["3000", "2000"]


def test_what_one_query_could_not_tell_the_next_is_asked_for(
    journal: FakeJournal, asker: Asker
) -> None:
    journal.does("exit 1")
    asker.ask(0.0)
    assert asker.entries.due_seconds == NEVER  # nobody wants to know
    journal.says()
    asker.seconds += APART_SECONDS
    asker.ask(2000.0)
    asker.seconds += APART_SECONDS
    asker.ask(3000.0)

    assert ["--since" in line for line in journal.asked] == [False, False, True]
    assert asker.entries.fault == ""


# -- what it gets ----------------------------------------------------------------------------------


def test_it_has_nothing_of_ours(
    journal: FakeJournal, asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "x")
    journal.does(SEES % ("/usr/bin/python3", tmp_path / "seen"))
    child = os.fork()
    if child == 0:
        Path("/proc/self/oom_score_adj").write_text("300")
        with (tmp_path / "ours").open("w"):
            asker.ask()
        os._exit(0)
    os.waitpid(child, 0)
    seen = json.loads((tmp_path / "seen").read_text())
    ignored = int((tmp_path / "journalctl.ignored").read_text().split()[1], 16)

    assert str(tmp_path / "ours") not in seen.pop("open")
    assert seen.pop("environment") == ENVIRONMENT
    assert seen == {"oom_score_adj": 0, "leads": True, "stdin": "/dev/null"}
    assert not ignored & 1 << signal.SIGPIPE - 1


# -- the real one ----------------------------------------------------------------------------------

needs_journalctl = pytest.mark.skipif(not JOURNALCTL.exists(), reason="no journalctl (systemd)")


@needs_journalctl
def test_the_real_one_understands_what_it_is_asked() -> None:
    """It may find no journal: that is no fault."""
    asker = Asker(JOURNALCTL)
    found = asker.ask()
    asker.seconds += APART_SECONDS
    later = asker.ask(time.time() + 3600.0)

    assert asker.entries.fault == ""
    assert all(isinstance(one, OomdKill | UnitKilled) for one in found)
    assert later == []


@needs_journalctl
@pytest.mark.parametrize("wrong", ["--no-such-option", "+ + =x"])
def test_the_real_one_says_so_if_it_does_not(journal: FakeJournal, wrong: str) -> None:
    journal.does(f'exec {JOURNALCTL} "$@" {wrong}')
    asker = Asker(journal.path)
    asker.ask()

    assert asker.entries.fault.startswith(f"{journal.path}: exit status 1: ")
