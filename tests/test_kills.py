"""What systemd says of kills, and what others say in its name."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.incident import OomdKill, UnitKilled
from oomwatchd.systemd.kills import (
    KILLED_BY_KERNEL,
    KILLED_BY_OOMD,
    UNIT_FAILED,
    parse_killed_signal,
    parse_oomd_entry,
    parse_oomd_message,
    parse_unit_entry,
)

SCOPE = "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1f.scope"
MANAGER = "/user.slice/user-1000.slice/user@1000.service"
PRESSURE = "due to memory pressure for {} being 57.97% > 50.00% for > 20s with reclaim activity"
USED = (
    "due to memory used (281464832) / total (1020243968) and swap used (305053696) / total"
    " (1073737728) being more than 10.00%"
)
USED_248 = "due to swap used (305053696) / total (1073737728) being more than 90.00%"
FROM_PID_1 = {"_PID": "1", "_UID": "0", "_COMM": "systemd"}


@pytest.mark.parametrize("reason", ["memory-pressure", "memory-used", "rule low_memory"])
def test_the_signal_is_believed(reason: str) -> None:
    assert parse_killed_signal(5.0, SCOPE, reason) == OomdKill(5.0, SCOPE, reason)


@pytest.mark.parametrize(
    ("cgroup", "reason"),
    [
        ("", "memory-used"),
        ("user.slice", "memory-used"),
        ("\x7fELF\x01", "memory-used"),
        ("/a\x01", "memory-used"),
        ("/" * 5000, "memory-used"),
        (SCOPE, "oom"),
        (SCOPE, "rule a b"),
        (SCOPE, "rule \n"),
        (SCOPE, ""),
    ],
)
def test_a_signal_of_something_else_is_not(cgroup: str, reason: str) -> None:
    assert parse_killed_signal(5.0, cgroup, reason) is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (f"Killed {SCOPE} {PRESSURE.format(MANAGER)}", "memory-pressure"),  # 249 to 257
        (f"Killed {SCOPE} {PRESSURE.format('/')}", "memory-pressure"),
        (f"Killed {SCOPE} {USED}", "memory-used"),
        (f"Killed {SCOPE} {USED_248}", "memory-used"),
        (f"Marked {SCOPE} for killing {PRESSURE.format(MANAGER)}", "memory-pressure"),  # 262
        (f"Marked {SCOPE} for killing {USED}", "memory-used"),
    ],
)
def test_the_line_of_each_version_is_read(message: str, reason: str) -> None:
    assert parse_oomd_message(5.0, message) == OomdKill(5.0, SCOPE, reason, (message,))


@pytest.mark.parametrize(
    "span", ["20s", "1min 30s", "2min", "1h 30min 1s", "1.500s", "1y 2month 3w 4d 5h 6min 7s"]
)
def test_the_line_is_read_however_systemd_writes_how_long_pressure_lasted(span: str) -> None:
    message = f"Killed {SCOPE} {PRESSURE.format(MANAGER)}".replace("20s", span)

    assert parse_oomd_message(5.0, message) == OomdKill(5.0, SCOPE, "memory-pressure", (message,))


def test_a_line_of_very_many_times_takes_little_time_to_be_no_kill() -> None:
    again = " being 1% > 1% for > 1s 1s 1s 1s" * 10_000
    began_seconds = time.process_time()
    found = parse_oomd_message(5.0, f"Killed {SCOPE} due to memory pressure for /{again}")

    assert found is None
    assert time.process_time() - began_seconds < 1.0


@pytest.mark.parametrize(
    "message",
    [
        "Considered 2 cgroups for killing, top candidates were:",
        f"Swap used is high, but nothing to kill below {SCOPE}",
        f"Killed {SCOPE} because",
        f"Killed {SCOPE}",
        f"Killed user.slice {USED}",
        f"Killed {SCOPE} {PRESSURE.format('/system.slice')}",  # is not above it
        f"Killed {SCOPE} {USED} or so",
        "",
    ],
)
def test_any_other_line_is_not(message: str) -> None:
    assert parse_oomd_message(5.0, message) is None


@pytest.mark.parametrize(
    "name",
    [
        "x due to nothing",
        f"x {USED}",
        f"x {PRESSURE.format('/system.slice')}",
        "x for killing due to",
    ],
)
def test_a_cgroup_s_name_does_not_tell_of_another(name: str) -> None:
    path = f"{MANAGER}/app.slice/{name}"
    message = f"Killed {path} {PRESSURE.format(MANAGER)}"

    assert parse_oomd_message(5.0, message) == OomdKill(5.0, path, "memory-pressure", (message,))


def test_a_line_that_can_be_read_in_two_ways_is_not_read() -> None:
    """Was it /a, or what lies below it and is named so?"""
    inner = f"/a {PRESSURE.format('/')}"
    message = f"Killed {inner} {PRESSURE.format('/')}"
    reread = parse_oomd_message(5.0, message)

    assert reread is None or reread.cgroup == inner


def test_a_line_counts_only_if_the_journal_says_that_it_is_systemd_oomd_s() -> None:
    message = f"Killed {SCOPE} {USED}"
    true = {"_SYSTEMD_UNIT": "systemd-oomd.service", "MESSAGE": message}
    forged = {"_SYSTEMD_UNIT": "user@1000.service", "SYSLOG_IDENTIFIER": "systemd-oomd"}

    assert parse_oomd_entry(5.0, true) == OomdKill(5.0, SCOPE, "memory-used", (message,))
    assert parse_oomd_entry(5.0, {**forged, "MESSAGE": message}) is None


@given(st.text(), st.text())
def test_no_text_raises_anything(cgroup: str, reason: str) -> None:
    parse_killed_signal(0.0, cgroup, reason)
    found = parse_oomd_message(0.0, f"Killed /{cgroup} due to {reason}")

    assert found is None or found.cgroup.startswith("/")


def test_a_line_of_very_many_separators_is_not_read() -> None:
    assert parse_oomd_message(5.0, f"Killed {'/x due to y' * 19} {USED}") is not None
    assert parse_oomd_message(5.0, f"Killed {'/x due to y' * 20} {USED}") is None


@pytest.mark.parametrize(
    ("message_id", "by_oomd"), [(KILLED_BY_OOMD, True), (KILLED_BY_KERNEL, False)]
)
def test_pid_1_names_the_unit(message_id: str, by_oomd: bool) -> None:  # noqa: FBT001 -- a case
    said = {"MESSAGE_ID": message_id, "UNIT": "train.service", "MESSAGE": "train.service: killed"}
    expected = UnitKilled(5.0, "train.service", by_oomd, 3, ("train.service: killed",))

    assert parse_unit_entry(5.0, {**FROM_PID_1, **said, "N_PROCESSES": "3"}) == expected
    assert parse_unit_entry(5.0, {**FROM_PID_1, **said}) == expected._replace(processes=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"_PID": "4711"},
        {"_UID": "1000"},
        {"MESSAGE_ID": UNIT_FAILED},
        {"MESSAGE_ID": ""},
        {"UNIT": ""},
    ],
)
def test_what_another_says_or_says_of_something_else_is_passed_over(
    changes: dict[str, str],
) -> None:
    entry = {**FROM_PID_1, "MESSAGE_ID": KILLED_BY_OOMD, "UNIT": "ssh.service"}

    assert parse_unit_entry(5.0, entry) is not None
    assert parse_unit_entry(5.0, {**entry, **changes}) is None


@pytest.mark.parametrize("processes", ["", "-1", "x", "9" * 5000, "²"])
def test_a_number_that_is_none_is_left_out(processes: str) -> None:
    entry = {"MESSAGE_ID": KILLED_BY_OOMD, "UNIT": "ssh.service", "N_PROCESSES": processes}
    said = parse_unit_entry(5.0, {**FROM_PID_1, **entry})

    assert said is not None
    assert said.processes is None
