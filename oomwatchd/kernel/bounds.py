"""How much memory a cgroup uses, and how much it may: its own limit, or that of one above it.

And how many of its processes the kernel has killed.  inotify would tell of that unasked, but also
of each time that a limit is reached, which is thousands of times a second in a busy container.
"""

import os
from collections.abc import Iterable, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.kernel.cgroup import CGROUP_ROOT, LEVELS_MAX
from oomwatchd.kernel.counters import EVENTS_BYTES, MemoryEvents, parse_memory_events
from oomwatchd.kernel.proc import READ

NUMBER_LIMIT_BYTES: Final = 64
V1_NO_LIMIT_BYTES: Final = 1 << 60  # more than any machine has; v1 shows the largest whole page


class Names(NamedTuple):
    """The files of one version of cgroups."""

    root: Path
    usage: str
    limit: str
    events: str | None  # None: version 1, which does not tell for whose limit it has killed


def names(root: Path = CGROUP_ROOT) -> Names:
    """Version 2, or version 1 where the memory controller lies in a hierarchy of its own.

    Source:  cgroups(7); Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
    """
    if (root / "memory/memory.usage_in_bytes").exists():
        return Names(root / "memory", "memory.usage_in_bytes", "memory.limit_in_bytes", None)
    return Names(root, "memory.current", "memory.max", "memory.events")


def parse_limit(raw: bytes) -> int | None:
    """``memory.max`` or ``memory.limit_in_bytes``; None: no limit.

    Raises:  ValueError, if it is neither a number nor "max".
    """
    text = raw.strip()
    if text == b"max":
        return None
    limit_bytes = int(text)
    return None if limit_bytes >= V1_NO_LIMIT_BYTES else limit_bytes


def bounding(path: str, files: Names) -> str:
    """Of the cgroup *path* and those above it, the one with the least limit.

    Without any limit it is *path* itself.
    """
    components = [component for component in path.split("/") if component]
    if ".." in components:  # outside of what we see: another cgroup namespace
        return path
    found, least = path, None
    for depth in range(1, min(len(components), LEVELS_MAX) + 1):
        above = "/" + "/".join(components[:depth])
        limit_bytes = read_limit(files.root / above[1:] / files.limit)
        if limit_bytes is not None and (least is None or limit_bytes <= least):
            found, least = above, limit_bytes
    return found


def read_limit(path: Path) -> int | None:
    try:
        fd = os.open(path, READ)
    except OSError:  # gone, or without the memory controller
        return None
    try:
        return parse_limit(os.read(fd, NUMBER_LIMIT_BYTES))
    except OSError:  # ENODEV: gone in between
        return None
    finally:
        os.close(fd)


class Bound(NamedTuple):
    usage_bytes: int
    limit_bytes: int | None


class Rise(NamedTuple):
    kills: int  # of processes in the cgroup or below it
    own_limit: bool  # it has reached its own, or one below it has


class BoundFiles:
    """Usage and limit of one cgroup, and its count of kills, held open."""

    def __init__(self, path: str, files: Names) -> None:
        """Raises OSError, where the cgroup has no memory controller, as the root has none."""
        self.limit_bytes: int | None = None  # as last read
        directory = files.root / path.lstrip("/")
        with ExitStack() as opened:
            self._usage_fd = held(opened, directory / files.usage)
            self._limit_fd = held(opened, directory / files.limit)
            self._events_fd, self._events = None, None
            if files.events is not None:
                self._events_fd = held(opened, directory / files.events)
                self._events = read_events(self._events_fd)
            self._opened = opened.pop_all()

    def read(self) -> Bound:
        """Raises OSError (ENODEV), when the cgroup has been removed."""
        self.limit_bytes = parse_limit(os.pread(self._limit_fd, NUMBER_LIMIT_BYTES, 0))
        return self.read_usage()

    def read_usage(self) -> Bound:
        """With the limit as it was last read, which changes seldom; raises OSError likewise."""
        return Bound(int(os.pread(self._usage_fd, NUMBER_LIMIT_BYTES, 0)), self.limit_bytes)

    def risen(self) -> Rise:
        """What has been killed since the last time; raises OSError likewise."""
        if self._events_fd is None or self._events is None:
            return Rise(0, own_limit=False)
        before, self._events = self._events, read_events(self._events_fd)
        return Rise(
            self._events.oom_kill - before.oom_kill, own_limit=self._events.oom > before.oom
        )

    def close(self) -> None:
        self._opened.close()


def held(opened: ExitStack, path: Path) -> int:
    fd = os.open(path, READ)
    opened.callback(os.close, fd)
    return fd


def read_events(fd: int) -> MemoryEvents:
    return parse_memory_events(os.pread(fd, EVENTS_BYTES, 0))


class HeldBounds:
    """Some cgroups, each held open for as long as it is asked for."""

    def __init__(self, root: Path = CGROUP_ROOT) -> None:
        self.names = names(root)
        self._held: dict[str, BoundFiles] = {}

    def close(self) -> None:
        self.keep(frozenset())

    def keep(self, paths: Set[str]) -> bool:
        """Hold these, and no others; whether there are new ones among them."""
        for path in self._held.keys() - paths:
            self._held.pop(path).close()
        held = len(self._held)
        for path in paths - self._held.keys():
            try:
                self._held[path] = BoundFiles(path, self.names)
            except OSError:  # gone, or the root, which has no such files
                continue
        return len(self._held) > held

    def read(self, paths: Iterable[str] | None = None, *, limits: bool) -> dict[str, Bound]:
        """Of *paths*, or of all; with *limits* as they are now, or as they were when last read."""
        found = {}
        for path in list(self._held) if paths is None else paths:
            files = self._held.get(path)
            if files is None:
                continue
            try:
                found[path] = files.read() if limits else files.read_usage()
            except OSError:  # ENODEV: it has been removed
                self._held.pop(path).close()
        return found

    def risen(self) -> dict[str, Rise]:
        """Those in which somebody has been killed since the last time."""
        found = {}
        for path, files in self._held.items():
            try:
                rise = files.risen()
            except OSError:  # ENODEV, as above
                continue
            if rise.kills > 0:
                found[path] = rise
        return found
