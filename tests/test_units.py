"""What systemd says of a unit, and what becomes of the answers on their way."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from commands import REPOSITORY, needs_root
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.auditing import UnitName, UnitSettings, Unseen
from oomwatchd.systemd.asking import UNITS_MAX, ask_within, decoded, encoded, questions
from oomwatchd.systemd.manager import Worker
from oomwatchd.systemd.units import SCALE, UNSET_USEC, Answers, parse_version, settings

SERVICE = UnitName(None, "train.service")
SCOPE = UnitName(1000, "term.scope")
PATIENCE_SECONDS = 20.0

ratios = st.none() | st.floats(0, 1)
names = st.builds(UnitName, st.none() | st.integers(0, 65535), st.text())
found = st.builds(
    UnitSettings, st.none() | st.text(), st.text(), ratios, ratios, st.text(), st.integers(0)
)
unseen = st.builds(Unseen, st.text())
versions = st.tuples(st.integers(0), st.integers(0))


class Properties:
    """A unit's properties; those that are not there, this systemd does not have."""

    def __init__(self, **values: str | int) -> None:
        self.values = values
        self.asked: list[str] = []

    def __call__(self, _unit: str, name: str, _signature: str) -> str | int | None:
        self.asked.append(name)
        return self.values.get(name)


def test_a_unit_as_debian_ships_it() -> None:
    properties = Properties(
        OOMPolicy="continue",
        ManagedOOMMemoryPressure="kill",
        ManagedOOMMemoryPressureLimit=SCALE // 5,
        ManagedOOMMemoryPressureDurationUSec=UNSET_USEC,
        ManagedOOMSwap="auto",
    )

    told = settings("user@1000.service", properties)

    assert told == UnitSettings("continue", "kill", 0.2, None, "auto")


def test_limits_of_its_own() -> None:
    properties = Properties(
        ManagedOOMMemoryPressureLimit=SCALE, ManagedOOMMemoryPressureDurationUSec=2_000_000
    )

    told = settings("train.slice", properties)

    assert (told.pressure_limit_ratio, told.pressure_seconds) == (1.0, 2.0)


def test_an_old_systemd_knows_none_of_it() -> None:
    assert settings("train.scope", Properties()) == UnitSettings()


def test_a_unit_that_has_gone_has_no_policy() -> None:
    assert settings("gone.service", Properties(OOMPolicy="")).oom_policy is None


def test_only_services_and_scopes_are_asked_for_a_policy() -> None:
    properties = Properties(OOMPolicy="stop")

    told = settings("train.slice", properties)

    assert told.oom_policy is None
    assert "OOMPolicy" not in properties.asked


def test_a_service_has_a_main_process() -> None:
    assert settings("train.service", Properties(MainPID=4711)).main_pid == 4711


def test_a_service_that_has_ended_has_no_main_process() -> None:
    assert settings("train.service", Properties(MainPID=0)).main_pid == 0


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("252.39-1~deb12u1", (252, 39)),
        ("257.13", (257, 13)),
        ("v249", (249, 0)),
        ("262~rc1", (262, 0)),
        ("248", (248, 0)),
    ],
)
def test_a_version_is_two_numbers(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


def test_a_version_of_another_kind_is_not_known() -> None:
    assert parse_version("unstable") == Unseen("systemd calls its version 'unstable'")


@given(versions | unseen, st.dictionaries(names, found | unseen, max_size=5))
def test_answers_come_back_as_they_were_given(
    version: tuple[int, int] | Unseen, units: dict[UnitName, UnitSettings | Unseen]
) -> None:
    answers = Answers(version, units)

    assert decoded(encoded(answers), list(units)) == answers


@given(st.lists(names))
def test_each_manager_is_asked_about_its_own_and_the_system_s_always(units: list[UnitName]) -> None:
    asked = dict(questions(units))

    assert None in asked
    assert sum(map(len, asked.values())) == len(units)
    for manager, theirs in asked.items():
        assert all(unit.manager == manager for unit in theirs)


def child(*command: str, told: bytes = b"") -> Worker:
    """A program that will not answer by itself; *told* is what there is to read all the same."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        if told:
            theirs.send(told)
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
        pid = os.posix_spawn(command[0], command, {}, file_actions=actions)
    return Worker(pid, ours)


def test_one_that_never_answers_is_given_up() -> None:
    before = time.monotonic()
    answers = ask_within([SERVICE], 0.1, lambda: child("/bin/sleep", "3600"))

    reason = Unseen("systemd did not answer within 0.1 s")
    assert answers == Answers(reason, {SERVICE: reason})
    assert time.monotonic() - before < PATIENCE_SECONDS


def test_one_that_dies_is_given_up() -> None:
    answers = ask_within([SERVICE, SCOPE], PATIENCE_SECONDS, lambda: child("/bin/true"))

    assert answers.units == dict.fromkeys([SERVICE, SCOPE], Unseen("asking systemd failed"))


def test_a_manager_that_hangs_does_not_take_the_others_answers_along() -> None:
    told = encoded(Answers((257, 0), {SERVICE: UnitSettings("stop")}))
    children = iter([child("/bin/sleep", "3600", told=told), child("/bin/sleep", "3600")])

    answers = ask_within([SCOPE, SERVICE], 0.5, lambda: next(children))

    assert answers.version == (257, 0)
    assert answers.units == {
        SCOPE: Unseen("systemd did not answer within 0.5 s"),
        SERVICE: UnitSettings("stop"),
    }


def test_a_user_with_many_units_of_long_names_does_not_keep_the_system_from_being_asked() -> None:
    told = encoded(Answers((257, 0), {SERVICE: UnitSettings("stop")}))
    many = [UnitName(1000, f"{number}{'x' * 200}.scope") for number in range(UNITS_MAX)]
    children = iter([child("/bin/sleep", "3600", told=told), child("/bin/true")])

    answers = ask_within([SERVICE, *many], 0.5, lambda: next(children))

    assert (answers.version, answers.units[SERVICE]) == ((257, 0), UnitSettings("stop"))
    assert answers.units[many[0]] == Unseen("asking systemd failed")
    assert answers.units[many[-1]] == Unseen("too many units")


@pytest.mark.parametrize("name", ["x", "x" * 255, "\N{SNOWMAN}" * 85, "\x01" * 255])
def test_question_and_answer_fit_into_a_packet_whatever_the_units_are_called(name: str) -> None:
    units = [UnitName(4294967294, f"{number}{name}") for number in range(UNITS_MAX)]
    [_, (manager, theirs)] = questions(units)
    full = UnitSettings("continue", "auto", 0.20000000004656613, 30.000001, "auto")
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, other:
        sent = [
            ours.send(json.dumps((manager, theirs)).encode()),
            other.send(encoded(Answers(Unseen("not asked"), dict.fromkeys(theirs, full)))),
        ]

    assert theirs == units[: len(theirs)]
    assert len(theirs) >= 80
    assert all(sent)


def test_without_room_for_a_child_it_says_so() -> None:
    def no_room() -> Worker:
        raise OSError(11, "Resource temporarily unavailable")

    reason = Unseen("no process to ask systemd: Resource temporarily unavailable")
    assert ask_within([SERVICE], spawn=no_room) == Answers(reason, {SERVICE: reason})


@needs_root
def test_a_user_s_manager_is_asked_as_that_user() -> None:
    code = "from oomwatchd.systemd.asking import become; import os; become(1000);"
    code += "print(os.getresuid(), os.getresgid(), os.getgroups())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout == "(1000, 1000, 1000) (65534, 65534, 65534) []\n"


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd runs this machine")
def test_without_systemd_it_says_so() -> None:
    reason = Unseen("systemd does not run this machine")

    assert ask_within([SERVICE, SCOPE]) == Answers(reason, {SERVICE: reason, SCOPE: reason})
