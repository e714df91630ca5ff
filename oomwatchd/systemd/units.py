"""What systemd says of units, over D-Bus: their OOMPolicy=, and what systemd-oomd is to watch.

By pystemd, whose calls may block for 25 s and let no other thread run meanwhile.  So this is for a
process that may wait; the commands ask through a child of theirs (`systemd.asking`).

Root talks to each manager by its private socket: the system bus may be down or not installed, and
the bus of a user refuses root.  Others have the system bus, and their own manager.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from oomwatchd.auditing import UnitName, UnitSettings, Unseen

SYSTEMD: Final = b"org.freedesktop.systemd1"
MANAGER_PATH: Final = b"/org/freedesktop/systemd1"
UNIT_PATH: Final = b"/org/freedesktop/systemd1/unit"
BOOTED_BY_SYSTEMD: Final = Path("/run/systemd/system")  # sd_booted(3)
PRIVATE: Final = b"unix:path=/run/systemd/private"
PRIVATE_OF_USER: Final = b"unix:path=/run/user/%d/systemd/private"
SCALE: Final = 0xFFFFFFFF  # of ManagedOOMMemoryPressureLimit, for 100 %
UNSET_USEC: Final = (1 << 64) - 1
WITH_OOM_POLICY: Final = (".service", ".scope")
_VERSION: Final = re.compile(r"v?(\d+)(?:\.(\d+))?")


class Answers(NamedTuple):
    version: tuple[int, int] | Unseen  # of systemd
    units: Mapping[UnitName, UnitSettings | Unseen]


Ask = Callable[[Sequence[UnitName]], Answers]  # never raises: what fails is `Unseen`, with why


class Refused(Exception):
    """It cannot be asked; the text says why."""


Property = Callable[[str, str, str], str | int | None]
"""A unit, a property of its own type's interface, its signature; None, where systemd has none."""


def ask_manager(manager: int | None, units: Sequence[UnitName]) -> Answers:
    """Ask here and now, however long it takes; the system's manager also for its version."""
    try:
        with ExitStack() as stack:
            bus = Bus(manager, stack)
            found = {unit: settings(unit.name, bus.value) for unit in units}
            version = parse_version(bus.version()) if manager is None else Unseen("not asked")
    except Refused as error:
        return no_answers(units, str(error))
    return Answers(version, found)


def no_answers(units: Sequence[UnitName], reason: str) -> Answers:
    return Answers(Unseen(reason), dict.fromkeys(units, Unseen(reason)))


class Bus:
    """A connection to one manager; every fault of it is Refused."""

    def __init__(self, manager: int | None, stack: ExitStack) -> None:
        if not BOOTED_BY_SYSTEMD.is_dir():
            raise Refused("systemd does not run this machine")
        try:
            from pystemd import dbusexc, dbuslib
        except ImportError as error:
            raise Refused("pystemd is not installed") from error
        self._whose = "systemd" if manager is None else f"the systemd of uid {manager}"
        self._error: type[Exception] = dbusexc.DBusBaseError
        self._not_there = (dbusexc.DBusUnknownPropertyError, dbusexc.DBusUnknownInterfaceError)
        self._path = dbuslib.path_encode
        try:
            self._bus = stack.enter_context(opened(manager, dbuslib))
        except self._error as error:
            raise Refused(f"{self._whose} cannot be reached ({error})") from error

    def version(self) -> str:
        return str(self._property(MANAGER_PATH, b"Manager", b"Version", b"s"))

    def value(self, unit: str, name: str, signature: str) -> str | int | None:
        """A property of *unit*'s own type; None, if this systemd has none of that name."""
        interface = unit.rpartition(".")[2].capitalize()
        path = self._path(UNIT_PATH, unit.encode())
        try:
            return self._property(path, interface.encode(), name.encode(), signature.encode())
        except self._not_there:
            return None

    def _property(self, path: bytes, interface: bytes, name: bytes, signature: bytes) -> str | int:
        try:
            found = self._bus.get_property(
                SYSTEMD, path, SYSTEMD + b"." + interface, name, signature
            )
        except self._not_there:
            raise
        except self._error as error:
            raise Refused(f"{self._whose} does not answer ({error})") from error
        return found.decode() if isinstance(found, bytes) else int(found)


def opened(manager: int | None, dbuslib: Any) -> Any:
    """A connection to open; raises Refused, where we would only be turned away."""
    me = os.geteuid()
    if manager is None:
        return dbuslib.DBusAddress(PRIVATE, peer_to_peer=True) if me == 0 else dbuslib.DBus()
    if me not in (0, manager):
        raise Refused(f"only uid {manager} and root may ask its systemd")
    return dbuslib.DBusAddress(PRIVATE_OF_USER % manager, peer_to_peer=True)


# -- taking apart ----------------------------------------------------------------------------------


def settings(unit: str, value: Property) -> UnitSettings:
    """What *value* tells of *unit*.

    Units:   ManagedOOMMemoryPressureLimit is a share of 2^32 - 1, 0 standing for the default.
    Source:  org.freedesktop.systemd1(5).
    """
    limit = value(unit, "ManagedOOMMemoryPressureLimit", "u")
    microseconds = value(unit, "ManagedOOMMemoryPressureDurationUSec", "t")  # since 257
    policy = value(unit, "OOMPolicy", "s") if unit.endswith(WITH_OOM_POLICY) else None
    return UnitSettings(
        oom_policy=str(policy) if policy else None,  # empty for a unit that has gone
        pressure=str(value(unit, "ManagedOOMMemoryPressure", "s") or "auto"),
        pressure_limit_ratio=int(limit) / SCALE if limit else None,
        pressure_seconds=(
            None if microseconds in (None, UNSET_USEC) else int(microseconds or 0) / 1e6
        ),
        swap=str(value(unit, "ManagedOOMSwap", "s") or "auto"),
        main_pid=int(value(unit, "MainPID", "u") or 0) if unit.endswith(".service") else 0,
    )


def parse_version(text: str) -> tuple[int, int] | Unseen:
    """``252.39-1~deb12u1`` is (252, 39); ``v249`` is (249, 0)."""
    match = _VERSION.match(text)
    if match is None:
        return Unseen(f"systemd calls its version {text!r}")
    return int(match[1]), int(match[2] or 0)
