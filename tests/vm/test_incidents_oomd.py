"""systemd-oomd tells the kernel's log nothing; its kills are incidents all the same."""

import pytest

from .incidents import counted, ids, only_new, told_again, why
from .machine import Machine
from .service import configure, has_adj
from .shield import (
    TRAINER_MIB,
    USER_MANAGER,
    Scope,
    leave_swap,
    other,
    program,
    rule,
    trainer,
    watch_swap,
)

pytestmark = [pytest.mark.vm, pytest.mark.long]

DIES_SECONDS = 120.0
GO = "/home/user/go"


def test_a_kill_for_pressure_is_systemd_oomd_s(session: Machine) -> None:
    configure(session, rule("none"))
    known, before = ids(session), counted(session, "systemd_oomd")
    run = trainer(session)
    has_adj(session, run.main, -1000)
    session.wait("the trainer is dead", lambda: not run.lives(), DIES_SECONDS)
    made = only_new(session, known)

    assert (made["killer"], made["scope"]) == ("systemd_oomd", run.cgroup)
    assert made["scope"].startswith(USER_MANAGER)
    assert (made["victim"]["pid"], made["victim"]["rule"]) == (run.main, "training")
    assert made["reason"].startswith("memory-pressure")
    assert counted(session, "systemd_oomd") == before + 1
    assert why(session, run.main) == 0


def test_a_kill_for_swap_is_systemd_oomd_s(session: Machine) -> None:
    configure(session, rule("none"))
    known = ids(session)
    watch_swap(session)
    run = trainer(session)
    other(session)
    session.wait("the trainer is dead", lambda: not run.lives(), DIES_SECONDS)
    made = only_new(session, known)
    leave_swap(session)

    assert (made["killer"], made["scope"]) == ("systemd_oomd", run.cgroup)
    assert made["reason"].startswith("memory-used")


def test_a_kill_while_the_daemon_was_down_is_found_once(session: Machine) -> None:
    """Nobody was there to hear systemd-oomd's word: it is read in the journal."""
    configure(session, rule("none"))
    known = ids(session)
    run = Scope(session, "trainer", program("trainer", TRAINER_MIB, "--go", GO))
    has_adj(session, run.main, -1000)
    session.run("systemctl", "stop", "oomwatchd")
    session.run("touch", GO)
    session.wait("the trainer is dead", lambda: not run.lives(), DIES_SECONDS)
    session.run("systemctl", "start", "oomwatchd")
    made = only_new(session, known)

    assert (made["killer"], made["scope"]) == ("systemd_oomd", run.cgroup)
    assert (made["while_down"], made["history"]) == (True, [])
    assert told_again(session, known) == [made["id"]]
