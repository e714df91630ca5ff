"""The worker: does for the daemon what may have to wait for systemd, or for the kernel.

A process of its own, as a call of pystemd lets nothing else run, and may take half a minute while
systemd is short of memory itself.  Its standard input is a socket: a request a packet, a reply to
each.  It ends when the other end is closed.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from oomwatchd.kernel.cgroup import in_container, unit_cgroup
from oomwatchd.kernel.lineage import Herd, ancestors, cgroup_at
from oomwatchd.kernel.mark import CgroupFs, Refused, Vanished, set_home
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import ProcessId
from oomwatchd.policy.shielding import our_scope
from oomwatchd.systemd.manager import PACKET_BYTES, Failed, Reply, Request

ARRIVAL_SECONDS: Final = 10.0  # from systemd's answer until the scope's cgroup is there
POLL_SECONDS: Final = 0.002

Start = Callable[[str, ProcessId, int], str]


class Mover:
    """*start* starts a scope with one process in it, and gives its name."""

    def __init__(self, proc: ProcFs, cgroups: CgroupFs, start: Start) -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._start = start

    def move(self, request: Request) -> Reply:
        """Move a process with its descendants: into the scope that an ancestor is in, or else into
        a new one.
        """
        id = request.process
        stat = self._proc.stat(id.pid)
        home = cgroup_at(self._proc, id.pid)
        if stat is None or stat.start_ticks != id.start_ticks or not stat.alive:
            return Reply(id, "gone")
        if home is None or in_container(home):
            return Reply(
                id, "left_alone", reason="it lives in a container, or outside of what we see"
            )
        if our_scope(home) is not None:
            return Reply(id, "there", home)
        try:
            scope = self._scope_of_ancestor(id.pid)
            if scope is not None:
                return self._herded(id, home, scope)
            with self._new_scope(request, home) as scope:
                return self._herded(id, home, scope)
        except (Failed, Refused) as error:
            return Reply(id, "failed", reason=str(error))
        except Vanished:
            return Reply(id, "failed", reason="the scope ended meanwhile")

    def _herded(self, id: ProcessId, home: str, scope: str) -> Reply:
        herded = Herd(id, unit_cgroup(home), scope, self._proc, self._cgroups).move()
        if herded.left:
            left = f"{len(herded.left)} processes could not be moved"
            return Reply(
                id, "failed", scope, herded.moved, f"{left} ({herded.reason or 'in time'})"
            )
        return Reply(id, "moved" if herded.moved else "gone", scope, herded.moved)

    def _scope_of_ancestor(self, pid: int) -> str | None:
        """The scope of ours that the nearest ancestor in one lives in."""
        homes = (cgroup_at(self._proc, ancestor) for ancestor in ancestors(self._proc, pid))
        scopes = (our_scope(home) for home in homes if home is not None)
        return next((scope for scope in scopes if scope is not None), None)

    @contextmanager
    def _new_scope(self, request: Request, home: str) -> Iterator[str]:
        """A scope that lasts for as long as it is being filled, and then for as long as it is used.

        A scope cannot start empty.  The process itself could be given to systemd by its pid alone,
        which is another's if systemd takes its time; so there is a placeholder.
        """
        with placeholder() as pid:
            name = self._start(request.rule, request.process, pid)
            until = time.monotonic() + ARRIVAL_SECONDS
            while (scope := our_scope(cgroup_at(self._proc, pid) or "")) is None:
                if time.monotonic() > until:
                    raise Failed(f"systemd has not put anything into {name}")
                time.sleep(POLL_SECONDS)
            with self._cgroups.held(scope) as cgroup:
                set_home(cgroup, home)  # before anybody is seen in it
            yield scope


@contextmanager
def placeholder() -> Iterator[int]:
    """A process that does nothing, and ends with the block, or with us."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        yield pid
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def serve(link: socket.socket, move: Callable[[Request], Reply]) -> None:
    while packet := link.recv(PACKET_BYTES):
        request = Request.parsed(packet)
        link.send(move(request).packed())


def main() -> None:
    from oomwatchd.systemd.scope import started  # pystemd, which tests do without

    mover = Mover(ProcFs(), CgroupFs(Path(sys.argv[-1])), started)
    serve(socket.socket(fileno=0), mover.move)
