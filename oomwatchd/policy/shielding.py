"""Which cgroups are to be marked, and which processes moved, for killers blind to oom_score_adj.

systemd-oomd kills whole cgroups, and picks among those that have no others below them, or are
killed as one (memory.oom.group).  It does not know whose session depends on which: with the only
large cgroup of a session marked, it goes on to the user manager's init.scope, and the whole session
dies with that.  So that is marked, too.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from oomwatchd.model import ProcessId

OUR_SCOPE: Final = re.compile(r"(/oomwatchd\.slice/oomwatchd-[^/]*\.scope)(/.*)?", re.DOTALL)
USER_MANAGER: Final = re.compile(r"user@\d+\.service")


class Lodging(NamedTuple):
    """Where a process lives whose rule shields it; a cgroup is a path, with surrogates in it."""

    id: ProcessId
    rule: str
    shield: Literal["preference", "scope"]
    cgroup: str
    groups: tuple[str, ...] = ()  # above it, the cgroups that are killed as one


def wanted_marks(lodgings: Iterable[Lodging]) -> dict[str, str]:
    """The cgroups to be marked for *lodgings*, each with the rule for whose sake.

    Who is to be moved has a mark until he has been.
    """
    marks: dict[str, str] = {}
    for lodging in lodgings:
        for cgroup in to_be_marked(lodging):
            marks.setdefault(cgroup, lodging.rule)
    return marks


def to_be_marked(lodging: Lodging) -> Iterator[str]:
    if lodging.cgroup != "/":  # nobody kills the root
        yield lodging.cgroup
    yield from lodging.groups
    manager = user_manager(lodging.cgroup)
    if manager is not None:
        yield f"{manager}/init.scope"


def is_to_be_moved(lodging: Lodging) -> bool:
    """Whether it is to go to a scope of ours: not twice; and not a manager, which arranges cgroups
    below the one that it was started in.
    """
    stays = our_scope(lodging.cgroup) is not None or lodging.cgroup.endswith("/init.scope")
    return lodging.shield == "scope" and not stays


def our_scope(cgroup: str) -> str | None:
    """The scope of ours that *cgroup* is, or lies in."""
    found = OUR_SCOPE.fullmatch(cgroup)
    return found[1] if found is not None else None


def user_manager(cgroup: str) -> str | None:
    """The cgroup of the user's own manager that *cgroup* lies in; None if in none."""
    components = cgroup.split("/")
    for position, component in enumerate(components):
        if USER_MANAGER.fullmatch(component):
            return "/".join(components[: position + 1])
        if component and not component.endswith(".slice"):
            return None
    return None
