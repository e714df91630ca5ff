"""What the audit says of systemd-oomd beforehand is what that does, once let loose."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from .machine import Machine
from .service import GUEST, WORK, alive, configure, metrics, start, stop
from .shield import (
    MANAGER_SCOPE,
    TRAINER_MIB,
    Scope,
    calm,
    cgroup,
    end_all,
    killed_by_oomd,
    last_killed,
    other,
    prepare,
    program,
    session_lives,
    trainer,
)
from .verdicts import prepare_rules, verdict

pytestmark = [pytest.mark.vm, pytest.mark.long]

DIES_SECONDS = 90.0
LIVES_SECONDS = 30.0
SERVICE = "cast"
SLICE = "press.slice"
SQUEEZED = ("MemoryHigh=50M", "ManagedOOMMemoryPressure=kill", "ManagedOOMMemoryPressureLimit=10%")
WATCHED = ("ManagedOOMMemoryPressure=kill", "ManagedOOMMemoryPressureLimit=5%")
AS_IT_WAS = ("ManagedOOMMemoryPressure=auto", "MemoryHigh=infinity")
SCOPE_RULE = """\
interval: 1s
rules:
  - name: training
    match: {script: trainer.py, user: user}
    oom_score_adj: -900
    shield: scope
"""
NO_RULES = "interval: 1s\nrules: []\n"


@pytest.fixture(scope="module")
def squeezed(protected: Machine) -> Machine:
    for name in ("trainer", "other"):
        protected.put(f"{WORK}/{name}.py", (GUEST / "trainer.py").read_bytes(), 0o755)
    protected.put(f"{WORK}/cast.py", (GUEST / "cast.py").read_bytes(), 0o755)
    prepare(protected)
    prepare_rules(protected)
    # As Debian 12 ships it, swap is watched from the root, where no user's mark counts.
    set_property(protected, "-.slice", "ManagedOOMSwap=auto")
    set_property(protected, "user@1000.service", *WATCHED)
    protected.put(f"/etc/systemd/system/{SLICE}", "[Slice]\n" + "\n".join(SQUEEZED) + "\n")
    protected.run("systemctl", "daemon-reload")
    return protected


@pytest.fixture
def session(squeezed: Machine) -> Iterator[Machine]:
    calm(squeezed)
    yield squeezed
    end_all(squeezed)
    squeezed.sh(f"setfattr -x user.oomd_omit /sys/fs/cgroup{MANAGER_SCOPE} || true")
    stop(squeezed, SERVICE)


def mark(machine: Machine, path: str, name: str = "omit") -> None:
    machine.run("setfattr", "-n", f"user.oomd_{name}", "-v", "1", f"/sys/fs/cgroup{path}")


def set_property(machine: Machine, unit: str, *properties: str) -> None:
    machine.run("systemctl", "set-property", "--runtime", "--", unit, *properties)


@contextmanager
def held_back(machine: Machine) -> Iterator[None]:
    """systemd-oomd does nothing until the audit has been heard."""
    machine.run("systemctl", "kill", "--signal=STOP", "systemd-oomd")
    try:
        yield
    finally:
        machine.run("systemctl", "kill", "--signal=CONT", "systemd-oomd")


def said_of(machine: Machine, pid: int) -> str:
    return verdict(machine, pid, "systemd_oomd")


def lives_on(machine: Machine, pid: int) -> bool:
    """Through all of LIVES_SECONDS, which is more than systemd-oomd waits after a kill."""
    end = time.monotonic() + LIVES_SECONDS
    while time.monotonic() < end:
        if not alive(machine, pid):
            return False
        time.sleep(0.5)
    return True


# -- a user's session, watched as Debian has it ----------------------------------------------------


def test_exposed_the_largest_scope_without_a_mark(session: Machine) -> None:
    with held_back(session):
        run = trainer(session)
        other(session)
        said = said_of(session, run.main)

    assert said == "exposed"
    session.wait("it dies", lambda: not run.lives(), DIES_SECONDS)


def test_last_in_line_with_a_mark_beside_another_scope(session: Machine) -> None:
    with held_back(session):
        run = trainer(session)
        mark(session, run.cgroup)
        second = other(session)
        session.wait("both hold memory", lambda: holds_memory(session, second))
        before = len(killed_by_oomd(session))
        said = said_of(session, run.main)
    session.wait("one is killed", lambda: len(killed_by_oomd(session)) > before, DIES_SECONDS)

    assert said == "last_in_line"
    assert killed_by_oomd(session)[before].endswith("/other.scope")


def test_exposed_with_a_mark_but_nobody_else_to_kill(session: Machine) -> None:
    with held_back(session):
        run = trainer(session)
        mark(session, run.cgroup)
        said = said_of(session, run.main)

    assert said == "exposed"
    session.wait("it dies with its session", lambda: not run.lives(), DIES_SECONDS)
    session.wait("that was systemd-oomd", lambda: last_killed(session) == MANAGER_SCOPE)


def test_safe_with_a_mark_on_it_and_on_the_manager(session: Machine) -> None:
    with held_back(session):
        run = trainer(session)
        mark(session, run.cgroup)
        mark(session, MANAGER_SCOPE)
        said = said_of(session, run.main)

    assert said == "safe"
    assert lives_on(session, run.main)
    assert session_lives(session)


def holds_memory(machine: Machine, run: Scope) -> bool:
    shown = machine.get(f"/sys/fs/cgroup{run.cgroup}/memory.current")
    return int(shown or 0) > 50 << 20


def test_the_daemon_counts_the_same_from_its_sandbox(session: Machine) -> None:
    """Of the user's own manager, too."""
    configure(session, SCOPE_RULE.replace("shield: scope", "shield: none"))
    run = Scope(session, "trainer", program("trainer", 20, "--worker"))
    for killer in ("systemd_oomd", "oom_policy"):  # systemd may take its time to answer
        session.wait(f"{killer} is counted", partial(is_exposed_to, session, killer), 180.0)

    assert said_of(session, run.main) == "exposed"
    assert verdict(session, run.main, "oom_policy") == "exposed"
    assert exposed(session, "kubelet") == 0
    configure(session, NO_RULES)


def is_exposed_to(machine: Machine, killer: str) -> bool:
    return exposed(machine, killer) == 1


def exposed(machine: Machine, killer: str) -> float | None:
    """What the metric says; None while it is not there."""
    found = metrics(machine)
    labels = (f'killer="{killer}"', 'rule="training"')
    orders = (",".join(labels), ",".join(reversed(labels)))
    names = [f"oomwatchd_rule_exposed_processes{{{order}}}" for order in orders]
    return next((found[name] for name in names if name in found), None)


# -- watched from above, where the owner is another ------------------------------------------------


@pytest.fixture
def watched_from_user_slice(session: Machine) -> Iterator[Machine]:
    set_property(session, "user@1000.service", "ManagedOOMMemoryPressure=auto")
    set_property(session, "user.slice", "MemoryHigh=200M", *WATCHED)
    yield session
    set_property(session, "user.slice", *AS_IT_WAS)
    set_property(session, "user@1000.service", *WATCHED)


def test_exposed_where_the_mark_of_a_user_s_cgroup_does_not_count(
    watched_from_user_slice: Machine,
) -> None:
    machine = watched_from_user_slice
    with held_back(machine):
        run = trainer(machine)
        mark(machine, run.cgroup)
        mark(machine, MANAGER_SCOPE)
        said = said_of(machine, run.main)

    assert said == "exposed"
    machine.wait("it dies", lambda: not run.lives(), DIES_SECONDS)


@pytest.fixture
def watched_for_swap(session: Machine) -> Iterator[Machine]:
    """From the root slice, for very little of it."""
    set_property(session, "user@1000.service", "ManagedOOMMemoryPressure=auto")
    session.put("/etc/systemd/oomd.conf.d/swap.conf", "[OOM]\nSwapUsedLimit=5%\n")
    set_property(session, "-.slice", "ManagedOOMSwap=kill")
    session.run("systemctl", "restart", "systemd-oomd")
    yield session
    configure(session, NO_RULES)
    set_property(session, "-.slice", "ManagedOOMSwap=auto")
    set_property(session, "user@1000.service", *WATCHED)
    session.run("rm", "/etc/systemd/oomd.conf.d/swap.conf")


def test_exposed_to_the_kill_for_swap_in_spite_of_the_mark(watched_for_swap: Machine) -> None:
    machine = watched_for_swap
    with held_back(machine):
        run = trainer(machine)
        mark(machine, run.cgroup)
        mark(machine, MANAGER_SCOPE)
        said = said_of(machine, run.main)

    assert said == "exposed"
    machine.wait("it dies", lambda: not run.lives(), DIES_SECONDS)


def test_safe_from_the_kill_for_swap_in_a_scope_of_its_own(watched_for_swap: Machine) -> None:
    """Squeezed as much as before, and beside another that is killed for it."""
    machine = watched_for_swap
    configure(machine, SCOPE_RULE)
    ours = "/oomwatchd.slice/"
    with held_back(machine):
        run = trainer(machine)
        machine.wait("it is moved", lambda: cgroup(machine, run.main).startswith(ours))
        set_property(machine, "oomwatchd.slice", "MemoryHigh=200M")
        said = said_of(machine, run.main)
        before = len(killed_by_oomd(machine))
    Scope(machine, "other", program("other", TRAINER_MIB))
    machine.wait("the other is killed", lambda: len(killed_by_oomd(machine)) > before, DIES_SECONDS)

    assert said == "safe"
    assert killed_by_oomd(machine)[before].endswith("/other.scope")
    assert lives_on(machine, run.main)


# -- services --------------------------------------------------------------------------------------


def pressing(machine: Machine, *properties: str) -> int:
    """A service that needs more memory than it may have; it waits for `let_loose`."""
    ready, go = f"{WORK}/press.json", f"{WORK}/press.go"
    machine.run("rm", "-f", ready, go)
    command = ["/usr/bin/python3", f"{WORK}/cast.py", "--press", "--hold-mib", "120"]
    pid = start(
        machine, SERVICE, *command, "--ready", ready, "--go", go, properties=properties
    )  # fmt: skip
    machine.run("touch", go)
    return pid


def service_dies(machine: Machine, pid: int) -> None:
    machine.wait("it dies", lambda: not alive(machine, pid), DIES_SECONDS)
    machine.wait(
        "that was systemd-oomd", lambda: last_killed(machine).endswith(f"/{SERVICE}.service")
    )


def test_exposed_with_avoid_and_nobody_else(session: Machine) -> None:
    with held_back(session):
        pid = pressing(session, f"Slice={SLICE}")
        mark(session, f"/{SLICE}/{SERVICE}.service", "avoid")
        said = said_of(session, pid)

    assert said == "exposed"
    service_dies(session, pid)


def test_exposed_with_the_mark_on_the_slice(session: Machine) -> None:
    with held_back(session):
        pid = pressing(session, f"Slice={SLICE}")
        mark(session, f"/{SLICE}")
        said = said_of(session, pid)

    assert said == "exposed"
    service_dies(session, pid)


def test_safe_with_the_mark_of_the_unit_file(session: Machine) -> None:
    with held_back(session):
        pid = pressing(session, f"Slice={SLICE}", "ManagedOOMPreference=omit")
        said = said_of(session, pid)

    assert said == "safe"
    assert lives_on(session, pid)


def test_exposed_where_the_service_itself_is_watched(session: Machine) -> None:
    with held_back(session):
        pid = pressing(session, *SQUEEZED)
        said = said_of(session, pid)

    assert said == "exposed"
    service_dies(session, pid)
