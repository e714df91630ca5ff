"""systemd-oomd tells the kernel's log nothing; its kills are incidents all the same."""

import pytest

from .incidents import counted, ids, only_new, why
from .machine import Machine
from .service import configure, has_adj
from .shield import USER_MANAGER, leave_swap, other, rule, trainer, watch_swap

pytestmark = [pytest.mark.vm, pytest.mark.long]

DIES_SECONDS = 120.0


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
