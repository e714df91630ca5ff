"""Where programs of a kind use to waste memory, and what shows it."""

from collections.abc import Mapping
from typing import Final, Literal

from oomwatchd.incident import Victim

Runtime = Literal["python", "java", "node"]
PROGRAMS: Final[Mapping[str, Runtime]] = {
    "python": "python",
    "pypy": "python",
    "ipython": "python",
    "jupyter": "python",
    "ray::": "python",
    "gunicorn": "python",
    "celery": "python",
    "torchrun": "python",
    "uwsgi": "python",
    "java": "java",
    "node": "node",
}
COPY: Final[Mapping[Runtime | None, str]] = {
    "python": (
        "If it works with pandas: drop(), astype(), merge(), sort_values() and df = df[cols] each"
        " copy the whole frame, and both are there until the old one is let go. Select columns"
        " with a list when reading (usecols=, columns=), read in smaller types (dtype=; float32"
        " and category take half and less), work on one column at a time, and del the old frame"
        " before the next step."
    ),
    None: (
        "Look for what is made a second time while the first is still there: a table or an array"
        " that is converted, sorted or enlarged, a file or an answer that is read whole and then"
        " parsed. Work on it in pieces, or let the first go before."
    ),
}
LEAK: Final[Mapping[Runtime | None, str]] = {
    "python": (
        "Look for what is kept and never let go: results appended to a list, a cache without a"
        " bound (functools.lru_cache(maxsize=None)), tensors of a loss kept with their graph (use"
        " loss.item()), a worker that is never restarted. tracemalloc and memray show where it was"
        " allocated."
    ),
    "java": (
        "If it grows within -Xmx, -Xmx is too large for the room there is. If it grows beyond,"
        " it is outside of the heap: direct buffers (-XX:MaxDirectMemorySize=), threads, classes;"
        " -XX:NativeMemoryTracking=summary with `jcmd PID VM.native_memory` tells which. Of the"
        " heap, `jmap -histo:live PID` shows what is kept."
    ),
    "node": (
        "Two heap snapshots some minutes apart (node --heapsnapshot-signal=SIGUSR2, or --inspect)"
        " show what is kept: maps that only grow, listeners, closures. With --max-old-space-size="
        " below the room there is, it fails with a stack of its own instead of being killed."
    ),
    None: (
        "Look for what is kept and never let go: a queue or a cache without a bound, results that"
        " are gathered, sessions that never end. heaptrack, or the heap profile of jemalloc, shows"
        " where it was allocated."
    ),
}


def runtime_of(victim: Victim) -> Runtime | None:
    """By its name, or that of the program in its command line; None: another, or not known."""
    program = (victim.cmdline or "").partition(" ")[0].rpartition("/")[2]
    for name in (victim.name, program):
        for beginning, runtime in PROGRAMS.items():
            if name.startswith(beginning):
                return runtime
    return None


def of_copy(victim: Victim) -> str:
    return COPY.get(runtime_of(victim), COPY[None])


def of_leak(victim: Victim) -> str:
    return LEAK.get(runtime_of(victim), LEAK[None])
