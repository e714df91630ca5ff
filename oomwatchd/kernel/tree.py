"""The tree of cgroups: limits, marks and owners of those above a process.

The tree may lie anywhere, so the tests build one in a temporary directory.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from oomwatchd.auditing import Cgroup, Preference, UnitName
from oomwatchd.kernel.cgroup import CGROUP_ROOT, LEVELS_MAX, UNIT, USER_MANAGER
from oomwatchd.kernel.mark import MEANS_YES, OMIT, CgroupFs
from oomwatchd.text import decoded

AVOID: Final = "user.oomd_avoid"
ROOT_SLICE: Final = "-.slice"
NO_LIMIT_V1: Final = 1 << 62  # what cgroup v1 shows for none, less its rounding to pages
UNTOLD: Final = "the kernel does not tell which it is, as its path is too long"
TOO_DEEP: Final = f"more than {LEVELS_MAX} cgroups lie above it"
NO_ATTRIBUTE: Final = (errno.ENODATA, errno.ENOTSUP, errno.ENOENT, errno.ENODEV)


def parse_limit(raw: bytes) -> int | None:
    """Take ``memory.max`` and the like apart; None for ``max``, and for what v1 has in its place.

    Units:   bytes.
    Raises:  ValueError, if it is no number.
    Source:  Documentation/admin-guide/cgroup-v2.rst; cgroup-v1/memory.rst.
    """
    text = raw.strip()
    if text == b"max":
        return None
    number = int(text)
    return number if number < NO_LIMIT_V1 else None


class CgroupTree:
    """Reads what is there; of what is not, or has gone, nothing is told, and of what may not or
    cannot be read, that it is unseen.  Each is read once.

    It is given paths as the file system has them, with surrogates for what is not UTF-8 (a name may
    have backslashes of its own, so none can stand for that), and gives such as can be shown.
    """

    def __init__(self, root: Path = CGROUP_ROOT) -> None:
        self.unified = (root / "cgroup.controllers").exists()
        self._root = os.fspath(root if self.unified else root / "memory")
        self._seen: dict[str, Cgroup] = {}

    def line(self, path: str) -> tuple[Cgroup, ...]:
        """The cgroups from the root down to *path*; empty: one that the kernel does not tell."""
        units = dict(units_above(path)) if self.unified and path else {}
        levels = list(islice(paths_above(path or "/"), LEVELS_MAX + 1))
        line = tuple(self.cgroup(one, units.get(one, ())) for one in levels)
        if levels[-1] == path:
            return line
        return (*line, Cgroup(shown(path), unseen=TOO_DEEP if path else UNTOLD))

    def init_scope(self, path: str) -> Cgroup | None:
        """That of the user's manager that *path* lies in; None if in none, or if it has none."""
        manager = next(
            (one for one, units in units_above(path) if units[0].manager is None and units[1:]),
            None,
        )
        if manager is None:
            return None
        found = self.cgroup(f"{manager}/init.scope", ())
        there = found.unseen or os.path.isdir(f"{self._root}{manager}/init.scope")
        return found if there else None

    def home_of(self, scope: str) -> str | None:
        """Where those in a scope of ours lay before; None if that is not told, or not by root."""
        told = CgroupFs(Path(self._root)).home_of(scope)
        by_root = owner_of(f"{self._root}{scope}") == 0
        return os.fsdecode(told) if told is not None and by_root else None

    def cgroup(self, path: str, units: tuple[UnitName, ...]) -> Cgroup:
        if path not in self._seen:
            try:
                self._seen[path] = self._cgroup(path, units)
            except OSError as error:
                unseen = error.strerror or str(error)
                self._seen[path] = Cgroup(shown(path), units=units, unseen=unseen)
        return self._seen[path]

    def _cgroup(self, path: str, units: tuple[UnitName, ...]) -> Cgroup:
        directory = self._root + path.rstrip("/")
        limits = limits_v2(directory) if self.unified else limits_v1(directory)
        limit_bytes, swap_limit_bytes, high_bytes, used_bytes = limits
        return Cgroup(
            shown(path),
            owner_uid=owner_of(directory),
            limit_bytes=limit_bytes,
            swap_limit_bytes=swap_limit_bytes,
            high_bytes=high_bytes,
            used_bytes=used_bytes,
            oom_group=told_by(directory, "memory.oom.group") == b"1\n",
            preference=preference_of(directory) if self.unified else "none",
            leaf=is_leaf(directory),
            units=units,
        )


def limits_v2(directory: str) -> Sequence[int | None]:
    names = ("memory.max", "memory.swap.max", "memory.high", "memory.current")
    return [limit_of(directory, name) for name in names]


def limits_v1(directory: str) -> Sequence[int | None]:
    """There, memory and swap together have a limit beside that of memory."""
    limit = limit_of(directory, "memory.limit_in_bytes")
    both = limit_of(directory, "memory.memsw.limit_in_bytes")
    swap = None if limit is None or both is None else max(both - limit, 0)
    return limit, swap, None, limit_of(directory, "memory.usage_in_bytes")


def limit_of(directory: str, name: str) -> int | None:
    raw = told_by(directory, name)
    return None if raw is None else parse_limit(raw)


def told_by(directory: str, name: str) -> bytes | None:
    """None where there is no such file: in the root, without the controller, or not any more."""
    try:
        with open(f"{directory}/{name}", "rb") as file:
            return file.read()
    except OSError as error:
        if error.errno in (*NO_ATTRIBUTE, errno.EOPNOTSUPP):
            return None
        raise


def owner_of(directory: str) -> int:
    try:
        return os.stat(directory).st_uid
    except FileNotFoundError:  # it has gone, and the process with it
        return 0


def preference_of(directory: str) -> Preference:
    """As systemd-oomd reads it: of both marks, omit counts."""
    if has_mark(directory, OMIT):
        return "omit"
    return "avoid" if has_mark(directory, AVOID) else "none"


def has_mark(directory: str, name: str) -> bool:
    try:
        return os.getxattr(directory, name).strip().lower() in MEANS_YES
    except OSError as error:
        if error.errno in NO_ATTRIBUTE:
            return False
        raise


def is_leaf(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return not any(entry.is_dir(follow_symlinks=False) for entry in entries)
    except FileNotFoundError:
        return True


# -- paths -----------------------------------------------------------------------------------------


def shown(path: str) -> str:
    return decoded(os.fsencode(path))


def paths_above(path: str) -> Iterator[str]:
    """``/``, ``/a``, ``/a/b`` for ``/a/b``."""
    yield "/"
    position = 0
    while path != "/" and position >= 0:
        position = path.find("/", position + 1)
        yield path if position < 0 else path[:position]


def units_above(path: str) -> Iterator[tuple[str, tuple[UnitName, ...]]]:
    """Each cgroup from the root down to *path* that is a unit's, with that unit.

    The slices, then one unit that is none; what lies deeper is that unit's own affair.  If that
    unit is a user's manager, it goes on with the units of that: its root slice is the same cgroup.

    Source:  systemd, src/basic/cgroup-util.c, cg_path_get_unit(), cg_path_get_user_unit().
    """
    manager: int | None = None
    yield "/", (UnitName(None, ROOT_SLICE),)
    for one in islice(paths_above(path), 1, LEVELS_MAX + 1):
        name = shown(one.rpartition("/")[2]).removeprefix("_")
        if not UNIT.fullmatch(name):
            return
        if manager is None and USER_MANAGER.fullmatch(name):
            manager = int(name.removeprefix("user@").removesuffix(".service"))
            yield one, (UnitName(None, name), UnitName(manager, ROOT_SLICE))
            continue
        yield one, (UnitName(manager, name),)
        if not name.endswith(".slice"):
            return
