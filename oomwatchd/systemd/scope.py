"""Scopes of our own, started by systemd's manager over D-Bus.

pystemd holds the whole interpreter until systemd has answered: this is for the worker alone.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBusAddress, apply_signature

from oomwatchd.model import ProcessId
from oomwatchd.systemd.manager import Failed

DESTINATION: Final = b"org.freedesktop.systemd1"
PATH: Final = b"/org/freedesktop/systemd1"
INTERFACE: Final = b"org.freedesktop.systemd1.Manager"
PRIVATE_SOCKET: Final = b"unix:path=/run/systemd/private"  # root's way to pid 1, past the bus
SLICE: Final = "oomwatchd.slice"
UNKNOWN_PROPERTY: Final = ("DBusPropertyReadOnlyError", "DBusUnknownPropertyError")
STRUCT_END: Final = (-1, None)

Value = str | bool | list[int]
SIGNATURES: Final[Mapping[type, bytes]] = {str: b"s", bool: b"b", list: b"au"}


def started(rule: str, process: ProcessId, first_pid: int) -> str:
    """Start a scope for *process* with *first_pid* in it, and give its name.

    Its name is taken if a process of that pid has left descendants in it; then the start is added.

    Raises:  Failed.
    """
    name = f"oomwatchd-{rule}-{process.pid}.scope"
    names = (name, f"oomwatchd-{rule}-{process.pid}-{process.start_ticks}.scope")
    description = f"Process {process.pid} and its descendants, by rule {rule} of oomwatchd"
    try:
        with DBusAddress(PRIVATE_SOCKET, peer_to_peer=True) as bus:
            for name in names:
                if is_new(bus, name, description, first_pid):
                    return name
    except DBusBaseError as error:
        raise Failed(told(error)) from error
    raise Failed(f"a unit of the name {name} is there already")


def is_new(bus: Any, name: str, description: str, first_pid: int) -> bool:
    """Start the scope *name*, with as much of what we want as this systemd knows; False if there is
    one of that name.
    """
    common: dict[str, Value] = {"Description": description, "Slice": SLICE, "PIDs": [first_pid]}
    *better, least = wanted()
    for properties in better:
        try:
            return is_started(bus, name, {**common, **properties})
        except DBusBaseError as error:
            if type(error).__name__ not in UNKNOWN_PROPERTY:
                raise
    return is_started(bus, name, {**common, **least})


def is_started(bus: Any, name: str, properties: Mapping[str, Value]) -> bool:
    try:
        start(bus, name, properties)
    except DBusBaseError as error:
        if abs(error.errno) == errno.EEXIST:  # org.freedesktop.systemd1.UnitExists
            return False
        raise
    return True


def wanted() -> Iterator[dict[str, Value]]:
    """What makes it safe, from all of it to what old versions know of it."""
    # Not kept as failed when the last one in it was killed.
    lean: dict[str, Value] = {"CollectMode": "inactive-or-failed", "MemoryAccounting": True}
    omitted = {**lean, "ManagedOOMPreference": "omit"}  # since 248
    yield {**omitted, "OOMPolicy": "continue"}  # for scopes since 253, and in 252 of Debian 12
    yield {**omitted, "Delegate": True}
    yield {**lean, "Delegate": True}


def start(bus: Any, name: str, properties: Mapping[str, Value]) -> None:
    """StartTransientUnit, of org.freedesktop.systemd1(5), without other units beside it."""
    arguments = [*apply_signature(b"ss", [name.encode(), b"fail"]), *array(properties.items())]
    arguments += [(ord("a"), b"(sa(sv))"), STRUCT_END]
    bus.call_method(DESTINATION, PATH, INTERFACE, b"StartTransientUnit", arguments)


def array(properties: Iterable[tuple[str, Value]]) -> Iterator[tuple[int, object]]:
    """``a(sv)``, as pystemd's own signature_array() has it, which knows too few names."""
    yield ord("a"), b"(sv)"
    for name, value in properties:
        signature = SIGNATURES[type(value)]
        yield from ((ord("r"), b"sv"), (ord("s"), name.encode()), (ord("v"), signature))
        raw = value.encode() if isinstance(value, str) else value
        yield from apply_signature(signature, [raw])
        yield from (STRUCT_END, STRUCT_END)
    yield STRUCT_END


def told(error: DBusBaseError) -> str:
    return " ".join(str(error).split()) or type(error).__name__
