"""A training run in a user's terminal, and systemd-oomd, which does not read oom_score_adj."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from .machine import Machine
from .service import configure, has_adj, is_active, main_pid
from .shield import (
    AS_USER,
    HIGH_MIB,
    LIMIT_PERCENT,
    MANAGER_SCOPE,
    NO_RULES,
    Scope,
    cgroup,
    end_all,
    is_marked,
    killed_by_oomd,
    last_killed,
    leave_swap,
    other,
    ours,
    pressure_percent,
    program,
    rule,
    session_lives,
    trainer,
    watch_swap,
)

pytestmark = pytest.mark.vm

WATCHED_SECONDS = 60.0
TRIES = 3


def watched(machine: Machine, *disturb: Callable[[], object]) -> float:
    """Watch for a minute, with what disturbs spread over it; the highest pressure seen."""
    left = list(disturb)
    start, highest = time.monotonic(), 0.0
    while (passed := time.monotonic() - start) < WATCHED_SECONDS:
        highest = max(highest, pressure_percent(machine))
        if left and passed > WATCHED_SECONDS * (len(disturb) - len(left) + 1) / (len(disturb) + 1):
            left.pop(0)()
        time.sleep(0.5)
    return highest


# -- systemd-oomd, by pressure ---------------------------------------------------------------------


def test_without_a_shield_minus_1000_does_not_save_the_trainer(session: Machine) -> None:
    configure(session, rule("none"))
    other(session)  # first, as it may be killed as soon as there is pressure
    run = trainer(session)
    has_adj(session, run.main, -1000)

    session.wait("the trainer is dead", lambda: not run.lives(), WATCHED_SECONDS)
    session.wait("that was systemd-oomd", lambda: last_killed(session) == run.cgroup)


def test_with_preference_it_and_its_session_live(session: Machine) -> None:
    configure(session, rule("preference"))
    other(session)  # first, as it may be killed as soon as there is pressure
    run = trainer(session)
    has_adj(session, run.main, -1000)

    highest = watched(session)

    assert highest > LIMIT_PERCENT
    assert run.lives()
    assert session_lives(session)
    assert is_marked(session, run.cgroup)
    assert is_marked(session, MANAGER_SCOPE)
    assert last_killed(session).endswith("/other.scope")


def test_with_a_scope_of_its_own_it_and_its_session_live(session: Machine) -> None:
    configure(session, rule("scope"))
    other(session)  # first, as it may be killed as soon as there is pressure
    run = trainer(session)

    watched(session)

    assert run.lives()
    assert session_lives(session)
    scope = ours(run.main)
    assert cgroup(session, run.main) == scope
    assert is_marked(session, scope)
    assert session.run("stat", "-c", "%u", f"/sys/fs/cgroup{scope}").strip() == "0"
    assert not is_marked(session, MANAGER_SCOPE)


# -- systemd-oomd, for swap ------------------------------------------------------------------------


@pytest.fixture
def swapping(session: Machine) -> Iterator[Machine]:
    watch_swap(session)
    yield session
    end_all(session)
    leave_swap(session)


def audited(machine: Machine, pid: int) -> str:
    """Whether systemd-oomd can still take the process, as the audit has it."""
    told = machine.run("oomwatchd", "audit", "--json", "--pid", str(pid), check=False)
    [process] = json.loads(told)
    verdict: str = process["killers"]["systemd_oomd"]["verdict"]
    return verdict


@pytest.mark.long
def test_a_mark_on_a_user_s_cgroup_does_not_count_for_swap_and_the_audit_says_so(
    swapping: Machine,
) -> None:
    configure(swapping, rule("preference"))
    run = Scope(swapping, "trainer", program("trainer", 30))
    swapping.wait("it is marked", lambda: is_marked(swapping, run.cgroup))
    told = audited(swapping, run.main)
    end_all(swapping)
    run = trainer(swapping)
    swapping.wait("it is marked", lambda: is_marked(swapping, run.cgroup))

    swapping.wait("the trainer is dead", lambda: not run.lives(), 2 * WATCHED_SECONDS)
    assert told == "exposed"
    swapping.wait("that was systemd-oomd", lambda: last_killed(swapping) == run.cgroup)


@pytest.mark.long
def test_in_a_scope_of_its_own_it_outlives_the_end_of_swap(swapping: Machine) -> None:
    configure(swapping, rule("scope"))
    first = Scope(swapping, "trainer", program("trainer", 20))
    scope = ours(first.main)
    swapping.wait("it is moved", lambda: cgroup(swapping, first.main) == scope)
    told = audited(swapping, first.main)
    swapping.run(  # so that its memory goes to swap there, too
        "systemctl", "set-property", "--runtime", "oomwatchd.slice", f"MemoryHigh={HIGH_MIB}M"
    )
    end_all(swapping)
    run = trainer(swapping)
    other(swapping)

    watched(swapping)

    used = swapping.run("cat", "/proc/meminfo")
    scope = ours(run.main)
    swapped = int(swapping.get(f"/sys/fs/cgroup{scope}/memory.swap.current") or 0)
    swapping.run("systemctl", "set-property", "--runtime", "oomwatchd.slice", "MemoryHigh=infinity")
    assert told == "safe"
    assert swapped > 0.1 * 2**30, used
    assert run.lives()


# -- what takes marks away -------------------------------------------------------------------------


@pytest.mark.long
def test_without_the_daemon_a_set_property_takes_the_mark_and_the_trainer(
    session: Machine,
) -> None:
    configure(session, rule("preference"))
    run = trainer(session)
    session.wait("it is marked", lambda: is_marked(session, run.cgroup))
    session.run("systemctl", "stop", "oomwatchd")
    set_property(session, run)
    unmarked = not is_marked(session, run.cgroup)

    try:
        session.wait("the trainer is dead", lambda: not run.lives(), 2 * WATCHED_SECONDS)
    finally:
        session.run("systemctl", "start", "oomwatchd")
    assert unmarked


@pytest.mark.long
def test_with_the_daemon_it_outlives_reloads_properties_and_restarts(session: Machine) -> None:
    configure(session, rule("preference"))
    other(session)  # first, as it may be killed as soon as there is pressure
    run = trainer(session)
    session.wait("it is marked", lambda: is_marked(session, run.cgroup))

    highest = watched(
        session,
        lambda: session.run("systemctl", "daemon-reload"),
        lambda: session.run(*AS_USER, "systemctl", "--user", "daemon-reload"),
        lambda: set_property(session, run),
        lambda: session.run("systemctl", "restart", "systemd-oomd"),
        lambda: set_property(session, run),
    )

    assert highest > LIMIT_PERCENT
    assert run.lives()
    assert session_lives(session)
    assert is_marked(session, run.cgroup)
    assert is_marked(session, MANAGER_SCOPE)


def test_a_mark_that_was_removed_is_back_within_half_a_second(session: Machine) -> None:
    run = Scope(session, "trainer", program("trainer", 20))  # too small for anybody to kill
    configure(session, rule("preference").replace("interval: 1s", "interval: 1h"))
    session.wait("it is marked", lambda: is_marked(session, run.cgroup))

    # A machine that has to wait for processors makes it later, never sooner.
    assert any(unmarked_seconds(session, run) < 0.5 for _ in range(TRIES))


def unmarked_seconds(machine: Machine, run: Scope) -> float:
    """How long the scope is without its mark once that has been removed."""
    took_ns = machine.sh(
        f"setfattr -x user.oomd_omit /sys/fs/cgroup{run.cgroup}; a=$(date +%s%N);"
        f"until getfattr -n user.oomd_omit /sys/fs/cgroup{run.cgroup} >/dev/null 2>&1;"
        "do :; done; echo $(($(date +%s%N) - a))"
    )
    return int(took_ns) / 1e9


def set_property(machine: Machine, run: Scope) -> None:
    """Of the user's manager, which then removes the marks that it has not made itself."""
    machine.run(
        *(*AS_USER, "systemctl", "--user", "set-property", "--runtime"),
        *(run.unit, f"CPUWeight={90 + len(killed_by_oomd(machine)) % 2}"),
    )


# -- ours and others' ------------------------------------------------------------------------------


def test_our_marks_go_with_the_last_match_and_others_stay(session: Machine) -> None:
    session.run("setfattr", "-n", "user.oomd_omit", "-v", "1", f"/sys/fs/cgroup{MANAGER_SCOPE}")
    configure(session, rule("preference"))
    run = Scope(session, "trainer", f"sh -c {quoted(program('trainer', 20))}")
    session.wait("it is marked", lambda: is_marked(session, run.cgroup))
    configure(session, NO_RULES)

    session.wait("the mark is gone", lambda: not is_marked(session, run.cgroup))
    assert is_marked(session, MANAGER_SCOPE)
    session.run("setfattr", "-x", "user.oomd_omit", f"/sys/fs/cgroup{MANAGER_SCOPE}")


@pytest.mark.long
def test_killed_the_daemon_leaves_marks_that_the_next_one_takes_back(session: Machine) -> None:
    configure(session, rule("preference"))
    run = trainer(session)
    session.wait("it is marked", lambda: is_marked(session, run.cgroup))
    session.put("/etc/oomwatchd.yaml", NO_RULES)
    session.run("kill", "-9", str(main_pid(session)))
    session.wait("systemd has restarted it", lambda: is_active(session))

    marked = (run.cgroup, MANAGER_SCOPE)
    session.wait("the marks are gone", lambda: not any(is_marked(session, one) for one in marked))


def quoted(command: str) -> str:
    return f"'{command} & wait'"
