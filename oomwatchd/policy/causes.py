"""Keys of cases, and whether two of them name the same cause.

A kill by systemd-oomd is heard on the bus and read in the journal, with a time from each, and it
may be named by its cgroup or by its unit alone.  All other keys are the same, or of another cause.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

SAME_SECONDS: Final = 10.0  # what is told within them can be about the same kill
PREFIX: Final = "oomd"


class OomdCause(NamedTuple):
    boot_id: str
    cgroup: str  # or only the name of its unit
    boot_seconds: float


def oomd_key(boot_id: str, cgroup: str, boot_seconds: float) -> str:
    return f"{PREFIX}:{boot_id}:{cgroup}:{boot_seconds:.0f}"


def oomd_cause(key: str) -> OomdCause | None:
    """None, if it is the key of another kind of case."""
    prefix, _, rest = key.partition(":")
    boot_id, _, rest = rest.partition(":")
    cgroup, _, seconds = rest.rpartition(":")  # paths may hold colons
    if prefix != PREFIX or not cgroup:
        return None
    try:
        return OomdCause(boot_id, cgroup, float(seconds))
    except ValueError:
        return None


def is_same(one: OomdCause, other: OomdCause) -> bool:
    return (
        one.boot_id == other.boot_id
        and abs(one.boot_seconds - other.boot_seconds) <= SAME_SECONDS
        and (
            one.cgroup == other.cgroup
            or one.cgroup in other.cgroup.split("/")
            or other.cgroup in one.cgroup.split("/")
        )
    )


class Causes:
    """Those that have been told of: of more than *most*, the oldest are forgotten."""

    def __init__(self, most: int, keys: Iterable[str] = ()) -> None:
        self._most = most
        self._keys: dict[str, OomdCause | None] = {}
        for key in keys:
            self.add(key)

    def __contains__(self, key: str) -> bool:
        if key in self._keys:
            return True
        cause = oomd_cause(key)
        if cause is None:
            return False
        return any(one is not None and is_same(one, cause) for one in self._keys.values())

    def add(self, key: str) -> None:
        self._keys[key] = oomd_cause(key)
        while len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]
