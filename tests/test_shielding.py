"""Which cgroups are to be marked and which processes moved; as of where they live, and no more."""

import pytest

from oomwatchd.model import ProcessId
from oomwatchd.policy.shielding import (
    Lodging,
    is_to_be_moved,
    user_manager,
    wanted_marks,
)

MANAGER = "/user.slice/user-1000.slice/user@1000.service"
OURS = "/oomwatchd.slice/oomwatchd-training-7.scope"


def living_in(cgroup: str, *groups: str, rule: str = "training") -> Lodging:
    return Lodging(ProcessId(7, 100), rule, "scope", cgroup, groups)


@pytest.mark.parametrize(
    ("cgroup", "manager"),
    [
        (f"{MANAGER}/app.slice/term.scope", MANAGER),
        (f"{MANAGER}/session.slice/dbus.service", MANAGER),
        (MANAGER, MANAGER),
        ("/user.slice/user-1000.slice/session-3.scope", None),
        ("/user.slice/user-1000.slice/session-3.scope/user@1000.service/x", None),  # anybody's name
        ("/system.slice/user@1000.service-like.service", None),
        ("/", None),
        ("/system.slice/db.service", None),
    ],
)
def test_the_manager_of_a_cgroup(cgroup: str, manager: str | None) -> None:
    assert user_manager(cgroup) == manager


def test_each_cgroup_is_marked_once_for_the_first_rule_that_asks() -> None:
    lodgings = [
        living_in(f"{MANAGER}/app.slice/a.scope"),
        living_in(f"{MANAGER}/app.slice/b.scope", rule="other"),
        living_in(f"{MANAGER}/app.slice/a.scope", rule="other"),
        living_in("/system.slice/db.service/inner", "/system.slice/db.service"),
        living_in("/"),
    ]

    assert wanted_marks(lodgings) == {
        f"{MANAGER}/app.slice/a.scope": "training",
        f"{MANAGER}/app.slice/b.scope": "other",
        f"{MANAGER}/init.scope": "training",
        "/system.slice/db.service/inner": "training",
        "/system.slice/db.service": "training",
    }


@pytest.mark.parametrize(
    ("cgroup", "moved"),
    [
        (f"{MANAGER}/app.slice/term.scope", True),
        ("/system.slice/db.service", True),
        ("/", True),
        (OURS, False),
        (f"{OURS}/inner", False),
        ("/user.slice/oomwatchd.slice/oomwatchd-training-7.scope", True),  # not of our slice
        ("/oomwatchd.slice/other.scope", True),
        ("/init.scope", False),
        (f"{MANAGER}/init.scope", False),  # its manager would lose what it manages
    ],
)
def test_who_is_to_be_moved(cgroup: str, *, moved: bool) -> None:
    assert is_to_be_moved(living_in(cgroup)) is moved
    assert not is_to_be_moved(living_in(cgroup)._replace(shield="preference"))
