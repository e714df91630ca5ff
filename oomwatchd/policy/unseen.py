"""What an audit can say of a process where some cgroup above it could not be looked at.

Only for that process: what nobody can see of one must not spoil what is said of the others.
"""

from collections.abc import Iterator

from oomwatchd.auditing import Killer, Subject, Surroundings


def killers_at(subject: Subject, around: Surroundings) -> Iterator[Killer]:
    """Those that could be set at an unseen cgroup; its units are known by its path alone."""
    yield "cgroup"
    if around.unified:
        yield "oom_group"
        if not subject.holder.cgroup:
            yield "oom_policy"


def unseen(subject: Subject) -> str:
    """The first that is, and why."""
    manager = () if subject.init_scope is None else (subject.init_scope,)
    for cgroup in (*subject.line, *manager):
        if cgroup.unseen:
            which = "its cgroup" if cgroup is subject.line[-1] else cgroup.path
            return f"{which} could not be looked at: {cgroup.unseen}"
    return ""
