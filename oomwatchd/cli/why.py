"""``oomwatchd why``: for pipelines that have seen exit status 137: was it for want of memory?"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from oomwatchd.cli import exits
from oomwatchd.cli.arguments import duration, not_empty, process_id
from oomwatchd.cli.failure import Failure, fail
from oomwatchd.cli.stored import directory, print_incident, stored, when
from oomwatchd.cli.table import show, show_document
from oomwatchd.incident import Incident, Victim
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.policy.attribution import lies_in

DEFAULT_SINCE: Final = "24h"
DEFAULT_WAIT: Final = "6s"  # evidence settles within five
POLL_SECONDS: Final = 0.1
FRESH_SECONDS: Final = 120.0  # a pipeline asks sooner than that
CLEARED_UP_SECONDS: Final = 120.0  # systemd waits for 90 s before it sends SIGKILL to the others
CGROUP_MOUNT: Final = "/sys/fs/cgroup"
SUFFIXES: Final = ("", ".service", ".scope")

Wanted = Callable[[Victim], bool]


def configure(parser: argparse.ArgumentParser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--pid", type=process_id, metavar="N", help="a process that has ended")
    who.add_argument("--unit", type=not_empty, metavar="U",
                     help="a systemd unit, of the system or a user")  # fmt: skip
    who.add_argument("--cgroup", type=not_empty, metavar="P",
                     help="a cgroup with all below it: its path, or a container's id")  # fmt: skip
    parser.add_argument("--since", type=duration, default=DEFAULT_SINCE, metavar="1h",
                        help=f"how far back to look; {DEFAULT_SINCE} if not given")  # fmt: skip
    parser.add_argument("--wait", type=duration, default=DEFAULT_WAIT, metavar="10s",
                        help="how long to wait for an incident to be written; "
                        f"{DEFAULT_WAIT} if not given")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the incident, or null")


def run(arguments: argparse.Namespace) -> int:
    try:
        return answer(arguments)
    except Failure as failure:
        return fail("why", failure)


def answer(arguments: argparse.Namespace) -> int:
    who, wanted = asked(arguments)
    alive = arguments.pid is not None and is_alive(arguments.pid)
    until = time.monotonic() + (0.0 if alive else arguments.wait)
    read: set[str] = set()
    incidents = found(wanted, arguments.since, read)
    while not is_answer(incidents, arguments) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        incidents = newest_first([*found(wanted, arguments.since, read), *incidents])
    if not incidents:
        return tell_none(who, wanted, alive=alive, as_document=arguments.json)
    incident = telling(incidents)
    print_incident(incident, as_document=arguments.json)
    return exits.FINE if incident.case.for_want_of_memory else exits.NO


def asked(arguments: argparse.Namespace) -> tuple[str, Wanted]:
    """Whom the question is about, in words and as a test."""
    if arguments.pid is not None:
        return f"process {arguments.pid}", lambda victim: victim.pid == arguments.pid
    if arguments.unit is not None:
        names = {arguments.unit + suffix for suffix in SUFFIXES}
        return f"unit {arguments.unit}", lambda victim: is_of_unit(victim, names)
    path = arguments.cgroup.removeprefix(CGROUP_MOUNT)
    return f"cgroup {path}", lambda victim: is_of_cgroup(victim, path)


def is_of_unit(victim: Victim, names: set[str]) -> bool:
    """By what was read of it, or by its cgroup, in which units stand by their names."""
    return victim.unit in names or not names.isdisjoint((victim.cgroup or "").split("/"))


def is_of_cgroup(victim: Victim, wanted: str) -> bool:
    """*wanted* is a path, or what a component of the path has in it: the id of a container."""
    if victim.cgroup is None or not wanted:
        return False
    if wanted.startswith("/"):
        return lies_in(victim.cgroup, wanted)
    return any(wanted in component for component in victim.cgroup.split("/"))


def is_answer(incidents: Sequence[Incident], arguments: argparse.Namespace) -> bool:
    """Whether there is nothing to wait for: of a unit that has just ended, an old kill is none."""
    if not incidents or arguments.pid is not None:
        return bool(incidents)
    return time.time() - incidents[0].time_unix_seconds <= FRESH_SECONDS


def telling(incidents: Sequence[Incident]) -> Incident:
    """Of the newest first: one that was not for want of memory may have cleared up after one that
    was.
    """
    newest = incidents[0]
    since = newest.time_unix_seconds - CLEARED_UP_SECONDS
    recent = (one for one in incidents if one.time_unix_seconds >= since)
    return next((one for one in recent if one.case.for_want_of_memory), newest)


def newest_first(incidents: Iterable[Incident]) -> list[Incident]:
    return sorted(incidents, key=lambda one: -one.time_unix_seconds)


def found(wanted: Wanted, since_seconds: float, read: set[str]) -> list[Incident]:
    """The incidents that concern them, not older than that, the newest first; of files not yet
    *read*, and no further back than to one that was for want of memory.
    """
    after = time.time() - since_seconds
    concerning = []
    for one in stored(directory(), since_unix_seconds=after, but=read):
        if any(map(wanted, (one.victim, *one.case.victims))):
            concerning.append(one)
            if one.case.for_want_of_memory:
                break
    return concerning


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number, and not only what is left of one."""
    proc = ProcFs()
    try:
        stat = proc.stat(pid)
    except PermissionError:  # hidepid=1
        return True
    finally:
        proc.close()
    return stat is not None and stat.alive


def tell_none(who: str, wanted: Wanted, *, alive: bool, as_document: bool) -> int:
    if as_document:
        show_document(None)
        return exits.NO
    lines = [f"no: nothing says that {who} was killed for want of memory in that time"]
    if alive:
        lines = [f"no: {who} is there, and nothing says that one of that number was killed before"]
    for older in found(wanted, time.time(), set())[:1]:
        lines.append(f"there is an older incident: {older.id} ({when(older.time_unix_seconds)})")
    show(lines, sys.stdout)
    return exits.NO
