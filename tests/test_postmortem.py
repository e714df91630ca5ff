"""From a case to an incident, with what the history knows."""

import time

import pytest
from test_attribution import RULED, SCOPE, killed

from oomwatchd.history import History, Portrait, Reading, Usage
from oomwatchd.incident import Case, Machine, Task, Victim
from oomwatchd.model import ProcessId
from oomwatchd.policy.attribution import cases
from oomwatchd.postmortem import Clocks, incident

MIB = 1 << 20
MACHINE = Machine(1 << 30, 0, 4096)
CLOCKS = Clocks(unix_seconds=1_700_000_102.0, boot_seconds=102.0, monotonic_seconds=52.0)
JOB = RULED.cgroup or ""
TURN_SECONDS = 0.1
TRAINER, OTHER = ProcessId(7, 42), ProcessId(8, 43)


def name_of(uid: str) -> str:
    return {"1000": "alice"}.get(uid, uid)


@pytest.fixture
def history() -> History:
    """Samples each second up to the kill, which is at 100 s since boot: 50 s on our clock."""
    history = History(600.0)
    other = Victim(8, "chrome", 43, user="1000", cgroup=f"{SCOPE}/x", rule="expendable")
    history.remember(Portrait(TRAINER, RULED._replace(user="1000"), JOB))
    history.remember(Portrait(OTHER, other, None))
    for second in range(53):
        sizes = [(TRAINER, (100 + second) * MIB), (OTHER, 50 * MIB)]
        alive = sizes if second <= 50 else sizes[1:]
        usage = [Usage(JOB, 200 * MIB, 300 * MIB)]
        history.add(Reading(float(second), 500 * MIB, 0, None, alive, usage))
    return history


def kernel_case(**fields: object) -> Case:
    [case] = cases([killed(**fields)], "boot")
    return case


def test_the_kernel_s_bare_pid_becomes_a_process_with_its_rule_user_and_command(
    history: History,
) -> None:
    made = incident(kernel_case(), history, MACHINE, CLOCKS, name_of)

    assert made.id == "20231114T221500Z-7"
    assert made.time_unix_seconds == 1_700_000_100.0
    victim = made.victim
    assert (victim.name, victim.user, victim.rule) == ("a-long-name-of-ours", "alice", "training")
    assert victim.cmdline == "x --y"


def test_the_samples_are_those_up_to_the_kill_on_the_same_clock(history: History) -> None:
    made = incident(kernel_case(), history, MACHINE, CLOCKS, name_of)

    last = made.past.samples[-1]
    assert last.time_unix_seconds == pytest.approx(made.time_unix_seconds, abs=1.0)
    assert made.past.samples[50].victim_bytes == 150 * MIB
    assert (last.cgroup_bytes, last.cgroup_limit_bytes) == (200 * MIB, 300 * MIB)
    assert len(made.past.others[0].bytes) == len(made.past.samples)
    assert made.diagnosis.kind == "steady_leak"


def test_a_pid_that_was_another_s_by_then_does_not_lend_it_its_rule(history: History) -> None:
    stranger = kernel_case(name="somebody", victim_cgroup="/elsewhere")

    made = incident(stranger, history, MACHINE, CLOCKS, name_of)

    assert (made.victim.name, made.victim.rule) == ("somebody", None)
    assert {sample.victim_bytes for sample in made.past.samples} == {None}


@pytest.mark.parametrize("later_seconds", [21.0, 280.0])
def test_a_pid_that_was_given_out_again_does_not_get_the_rule_of_who_had_it(
    history: History, later_seconds: float
) -> None:
    """Of the same cgroup, and even of the same name."""
    clocks = Clocks(*(one + later_seconds for one in CLOCKS))
    tasks = (Task(7, "a-long-name-of-", 0, 0, 9 * MIB), Task(9, "x", 0, 0, MIB))
    for second in range(10):
        at = 52.0 + later_seconds * second / 10
        history.add(Reading(at, 500 * MIB, 0, None, [], []))
    case = kernel_case(boot_seconds=100.0 + later_seconds, tasks=tasks)

    made = incident(case, history, MACHINE, clocks, name_of)

    assert (made.victim.rule, made.victim.cmdline, made.victim.start_ticks) == (None, None, None)
    assert {one.rule for one in made.candidates} == {None}
    assert {sample.victim_bytes for sample in made.past.samples} == {None}


def test_who_was_buried_before_lends_its_pid_nothing_either(history: History) -> None:
    history.bury(TRAINER, 35.0)
    history.bury(OTHER, 49.0)  # the end of a victim may be known before its kill is read

    made = incident(kernel_case(), history, MACHINE, CLOCKS, name_of)
    other = kernel_case(pid=8, name="chrome", victim_cgroup=f"{SCOPE}/x")
    victim = incident(other, history, MACHINE, CLOCKS, name_of).victim

    assert (made.victim.rule, victim.rule) == (None, "expendable")


def test_who_had_ended_before_is_no_victim_of_a_cgroup_s_kill(history: History) -> None:
    history.bury(OTHER, 35.0)
    case = Case("o", 100.0, "systemd_oomd", SCOPE, ())

    made = incident(case, history, MACHINE, CLOCKS, name_of)

    assert made.victim.pid is None


def test_what_happened_while_the_daemon_was_down_happened_to_nobody_that_it_has_seen(
    history: History,
) -> None:
    made = incident(kernel_case(), history, MACHINE, CLOCKS, name_of, while_down=True)

    assert (made.victim.rule, made.victim.start_ticks) == (None, None)


def test_to_explain_the_kill_of_a_cgroup_of_many_holds_the_loop_up_for_a_moment_only() -> None:
    history = History(600.0)
    ids = [ProcessId(pid, pid) for pid in range(1, 301)]
    for id in ids:
        history.remember(Portrait(id, Victim(id.pid, "w", id.start_ticks, cgroup=SCOPE), None))
    for quarter in range(2400):
        some = [(id, MIB) for id in ids[quarter // 10 : quarter // 10 + 60]]
        history.add(Reading(quarter / 4, 500 * MIB, 0, None, some, []))
    case = Case("o", 648.0, "systemd_oomd", SCOPE, ())
    took, victims = [], set()
    for _ in range(3):
        began = time.thread_time()
        made = incident(case, history, MACHINE, Clocks(1.7e9, 650.0, 600.0), name_of)
        took.append(time.thread_time() - began)
        victims = {one.pid for one in made.case.victims}

    assert victims == set(range(232, 300))  # of the last 22 s
    assert min(took) < TURN_SECONDS


def test_a_process_that_nobody_followed_is_an_incident_with_the_machine_s_past(
    history: History,
) -> None:
    made = incident(kernel_case(pid=999, name="x"), history, MACHINE, CLOCKS, name_of)

    assert made.victim.pid == 999
    assert made.past.samples[0].available_bytes == 500 * MIB
    assert made.diagnosis.kind != "sudden_copy"


def test_of_a_cgroup_that_systemd_oomd_killed_the_victims_are_those_seen_in_it(
    history: History,
) -> None:
    case = Case("o", 100.0, "systemd_oomd", SCOPE, ())

    made = incident(case, history, MACHINE, CLOCKS, name_of)

    assert [(one.pid, one.memory_bytes) for one in made.case.victims] == [(8, 50 * MIB)]
    assert made.victim.name == "chrome"


def test_a_killed_cgroup_in_which_nobody_was_seen_still_has_a_name(history: History) -> None:
    case = Case("o", 100.0, "systemd_oomd", "/system.slice/batch.service", ())

    made = incident(case, history, MACHINE, CLOCKS, name_of)

    assert (made.victim.pid, made.victim.name) == (None, "batch.service")
    assert made.id == "20231114T221500Z-0"


def test_of_many_victims_the_incident_is_told_of_one_under_a_rule() -> None:
    members = (
        Victim(1, "sh"),
        Victim(2, "small", rule="training", memory_bytes=1),
        Victim(3, "large", rule="training", memory_bytes=9),
    )
    case = Case("k", 100.0, "oom_group", JOB, members)

    made = incident(case, History(600.0), MACHINE, CLOCKS, name_of)

    assert made.victim.name == "large"


def test_the_order_of_death_names_the_rules_of_those_that_were_followed(history: History) -> None:
    tasks = (Task(7, "a-long-name-of-", 0, 0, 300 * MIB), Task(8, "chrome", 0, 300, 50 * MIB))

    made = incident(kernel_case(tasks=tasks), history, MACHINE, CLOCKS, name_of)

    assert [(one.pid, one.rule) for one in made.candidates] == [(8, "expendable"), (7, "training")]


def test_what_happened_while_the_daemon_was_down_has_no_samples_of_another_time(
    history: History,
) -> None:
    made = incident(kernel_case(), history, MACHINE, CLOCKS, name_of, while_down=True)

    assert made.while_down
    assert made.past.samples == ()
