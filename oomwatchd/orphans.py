"""Processes whose parent we have not met, and which may have their value from us.

A shell in between that runs no program of its own is in no event, and may be gone at once: of
``command &`` in a script, the command belongs to a reaper from then on, and nothing tells any more
whose descendant it is.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

from oomwatchd.identify import cgroup_of
from oomwatchd.kernel.proc import GONE, Look, ProcFs, Stat
from oomwatchd.ledger import Ledger
from oomwatchd.policy.plan import Claim
from oomwatchd.population import Population

GENERATIONS_MAX: Final = 8  # of ancestors that nobody has met


def strangers(
    looks: Iterable[Look], pids: Collection[int], proc: ProcFs, population: Population
) -> list[int]:
    """The parents of *looks* whom we have not met, and who have inherited from one that we changed.

    Parents among *pids* are no strangers: their turn comes first.
    """
    parents = dict.fromkeys(look.stat.parent_pid for look in looks if look.stat.alive)
    unmet = (pid for pid in parents if pid > 1 and pid not in pids and population.at(pid) is None)
    return [pid for pid in unmet if has_heritage(pid, proc, population)]


def has_heritage(pid: int, proc: ProcFs, population: Population) -> bool:
    """Whether the next ancestor of *pid* that we have met is one that we have changed."""
    for _ in range(GENERATIONS_MAX):
        stat = proc.stat(pid)
        if stat is None:
            return False
        pid = stat.parent_pid
        known = population.at(pid)
        if known is not None:
            return known.claim is not None
    return False


def lost_ancestor(look: Look, value: int, proc: ProcFs, ledger: Ledger) -> Claim | None:
    """The claim of the one from whom a process that has *value* must have inherited it, if any.

    It is in the cgroup of one that we changed, younger than that, has the very value, and has been
    adopted.  Its worker it is not, whatever its name: that would be a child of its own.
    """
    givers = ledger.givers(value)
    home = cgroup_of(look.directory) if givers else None
    for id, claim in givers:
        giver = proc.stat(id.pid)
        if giver is None or giver.start_ticks != id.start_ticks:
            continue
        if giver.start_ticks > look.stat.start_ticks or not is_adopted(look, giver, proc):
            continue
        with suppress(*GONE):
            if cgroup_of(proc.directory, f"{id.pid}/cgroup") == home:
                return claim._replace(standing="heir")
    return None


def is_adopted(look: Look, giver: Stat, proc: ProcFs) -> bool:
    """Whether its parent is a reaper, and not the one that forked it.

    In the giver's session, a parent of another one can only be a reaper.  In a session of its own,
    any parent may have forked it; but pid 1 and the users' managers do not fork for others.
    """
    try:
        parent = proc.stat(look.stat.parent_pid)
        if parent is None:
            return True
        if parent.session == look.stat.session:
            return False
        if look.stat.session == giver.session:
            return True
        where = cgroup_of(proc.directory, f"{look.stat.parent_pid}/cgroup")
    except GONE:
        return True
    except PermissionError:  # hidepid=1
        return False
    return look.stat.parent_pid == 1 or where.unit_path.endswith("/init.scope")
