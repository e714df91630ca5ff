"""Processes whose parent has ended before we saw it, and which may have their value from us.

Of ``command &`` in a script, the shell in between is gone at once; the command belongs to a reaper
from then on, and nothing tells any more whose descendant it is.
"""

from contextlib import suppress

from oomwatchd.identify import cgroup_of
from oomwatchd.kernel.proc import GONE, Look, ProcFs
from oomwatchd.ledger import Ledger
from oomwatchd.policy.plan import Claim


def lost_ancestor(look: Look, value: int, proc: ProcFs, ledger: Ledger) -> Claim | None:
    """The claim of the one from whom a process that has *value* must have inherited it, if any.

    It is in the cgroup of one that we changed, younger than that, has the very value, and has been
    adopted.  Its worker it is not, whatever its name: that would be a child of its own.
    """
    givers = ledger.givers(value)
    if not givers or not is_adopted(look, proc):
        return None
    home = cgroup_of(look.directory)
    for id, claim in givers:
        giver = proc.stat(id.pid)
        if giver is None or giver.start_ticks != id.start_ticks:
            continue
        with suppress(*GONE):
            older = id.start_ticks <= look.id.start_ticks
            if older and cgroup_of(proc.directory, f"{id.pid}/cgroup") == home:
                return claim._replace(standing="heir")
    return None


def is_adopted(look: Look, proc: ProcFs) -> bool:
    """Whether its parent is a reaper, of another session, and not the one that forked it."""
    try:
        parent = proc.stat(look.stat.parent_pid)
    except PermissionError:  # hidepid=1
        return False
    return parent is None or parent.session != look.stat.session
