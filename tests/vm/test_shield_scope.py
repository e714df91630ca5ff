"""Scopes of their own: against OOMPolicy=, and how they begin and end; and a systemd that hangs."""

import time

import pytest

from .machine import Machine
from .service import (
    alive,
    configure,
    has_adj,
    log,
    main_pid,
    metrics,
    start,
    stop,
    unit_property,
)
from .shield import AS_USER, NO_RULES, Scope, cgroup, ours, program, rule, trainer

pytestmark = pytest.mark.vm

HANGING_SECONDS = 35.0


# -- OOMPolicy= ------------------------------------------------------------------------------------

ANOTHER_FIRST = "echo 1000 >/proc/self/oom_score_adj; exec sleep infinity"


def siblings(machine: Machine) -> Scope:
    """A terminal with a trainer, its worker, and another program; the kernel kills the last two."""
    command = program("trainer", 20, "--worker")
    return Scope(machine, "trainer", f"sh -c '{command} & sh -c \"{ANOTHER_FIRST}\" & wait'")


def live_in(machine: Machine, scope: str, *pids: int) -> bool:
    """Whether all of them do: they are moved one after the other."""
    return all(cgroup(machine, pid) == scope for pid in pids)


def let_the_kernel_kill(machine: Machine) -> None:
    """The process with the highest score."""
    machine.sh("echo f >/proc/sysrq-trigger")


def test_one_killed_by_the_kernel_takes_the_trainer_with_it(session: Machine) -> None:
    configure(session, rule("preference"))
    run = siblings(session)
    has_adj(session, run.main, -1000)
    let_the_kernel_kill(session)

    session.wait("systemd has stopped the trainer", lambda: not run.lives())


def test_in_a_scope_of_its_own_neither_worker_nor_neighbour_takes_it_along(
    session: Machine,
) -> None:
    configure(session, rule("scope"))
    run = siblings(session)
    scope = ours(run.main)
    session.wait("both are moved", lambda: live_in(session, scope, run.main, run.workers[0]))
    let_the_kernel_kill(session)
    let_the_kernel_kill(session)
    session.wait("its worker is dead", lambda: not alive(session, run.workers[0]))
    session.wait(
        "systemd has stopped the terminal",
        lambda: session.status("test", "-e", f"/sys/fs/cgroup{run.cgroup}") != 0,
    )

    assert run.lives()
    assert unit_property(session, scope.rpartition("/")[2], "ActiveState") == "active"


@pytest.mark.long
def test_of_a_service_systemd_still_stops_the_main_process(session: Machine) -> None:
    """The loss that the manual names."""
    configure(session, rule("scope"))
    state = "/home/user/trainer.json"
    session.run("rm", "-f", state)
    orphan = f'(setsid sh -c "{ANOTHER_FIRST}" &)'
    main = start(
        session,
        "service",
        *("sh", "-c", f"{orphan}; exec {program('trainer', 20)}"),
        properties=("User=user", "OOMPolicy=stop"),
    )
    scope = ours(main)
    session.wait("it is moved", lambda: cgroup(session, main) == scope)
    let_the_kernel_kill(session)

    session.wait("systemd has stopped it", lambda: not alive(session, main))
    stop(session, "service")


# -- scopes ----------------------------------------------------------------------------------------


def test_the_scope_goes_with_the_last_of_its_processes(session: Machine) -> None:
    configure(session, rule("scope"))
    run = siblings(session)
    scope = ours(run.main)
    session.wait("both are moved", lambda: live_in(session, scope, run.main, run.workers[0]))
    session.run("kill", "-9", str(run.main))
    still = unit_property(session, scope.rpartition("/")[2], "ActiveState")
    session.run("kill", "-9", str(run.workers[0]))

    session.wait(
        "the scope is gone",
        lambda: unit_property(session, scope.rpartition("/")[2], "LoadState") == "not-found",
    )
    assert still == "active"


@pytest.mark.long
def test_a_scope_of_that_name_is_no_obstacle(session: Machine) -> None:
    configure(session, NO_RULES)
    run = Scope(session, "trainer", program("trainer", 20))
    taken = ours(run.main).rpartition("/")[2]
    session.sh(f"systemd-run --scope --unit={taken} sleep 600 >/dev/null 2>&1 &")
    session.wait(
        "the name is taken", lambda: unit_property(session, taken, "LoadState") == "loaded"
    )
    configure(session, rule("scope"))
    stat = session.get(f"/proc/{run.main}/stat") or ""
    longer = taken.replace(".scope", f"-{stat.rpartition(')')[2].split()[19]}.scope")

    session.wait("it is moved", lambda: cgroup(session, run.main).endswith(f"/{longer}"))
    stop(session, taken)


def test_a_rule_by_cgroup_still_holds_for_what_it_has_moved(session: Machine) -> None:
    by_cgroup = rule("scope").replace("user: user", "cgroup: '/user.slice/*/trainer.scope'")
    configure(session, by_cgroup)
    run = Scope(session, "trainer", program("trainer", 20))
    session.wait("it is moved", lambda: cgroup(session, run.main) == ours(run.main))
    session.run("systemctl", "restart", "oomwatchd")  # which looks at everything
    configure(session, by_cgroup)

    has_adj(session, run.main, -1000)
    session.wait(
        "it is counted",
        lambda: metrics(session).get('oomwatchd_rule_processes{rule="training"}') == 1.0,
    )


@pytest.mark.long
def test_it_outlives_its_terminal_and_its_session(session: Machine) -> None:
    configure(session, rule("scope"))
    run = trainer(session)
    session.wait("it is moved", lambda: cgroup(session, run.main) == ours(run.main))
    session.run(*AS_USER, "systemctl", "--user", "stop", run.unit, check=False)
    session.run("systemctl", "stop", "user@1000.service")

    assert run.lives()


# -- a systemd that hangs --------------------------------------------------------------------------


@pytest.mark.long
def test_while_systemd_hangs_values_marks_and_scrapes_go_on(session: Machine) -> None:
    configure(session, rule("scope"))
    pid = main_pid(session)
    freeze = "/sys/fs/cgroup/init.scope/cgroup.freeze"
    session.sh(f"echo 1 >{freeze}")
    try:
        hung = session.status("timeout", "3", "systemctl", "is-active", "oomwatchd") == 124
        state = "/home/user/trainer.json"
        session.run("rm", "-f", state)
        session.sh(f"setsid {' '.join(AS_USER[:-1])} {program('trainer', 20)} >/dev/null 2>&1 &")
        run = session.wait("it has started", lambda: session.get(state))
        main = int(run.partition('"main": ')[2].partition(",")[0])
        has_adj(session, main, -1000, 5.0)
        slowest, scans = scraped(session)
    finally:
        session.sh(f"echo 0 >{freeze}")

    assert hung
    assert slowest < 5.0
    assert scans > HANGING_SECONDS / 2
    session.wait("it is moved", lambda: cgroup(session, main) == ours(main), 120.0)
    assert main_pid(session) == pid
    assert any("did not answer" in line for line in log(session))


def scraped(machine: Machine) -> tuple[float, float]:
    """Scrape all the while; the longest that one took, and how many scans there were."""
    name = "oomwatchd_scan_duration_seconds_count"
    start, slowest = time.monotonic(), 0.0
    first = last = metrics(machine)[name]
    while time.monotonic() - start < HANGING_SECONDS:
        began = time.monotonic()
        last = metrics(machine)[name]
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.5)
    return slowest, last - first
