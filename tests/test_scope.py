"""What systemd is asked for a scope, and what becomes of it where systemd is old or says no."""

import errno
from typing import Any

import pytest

pytest.importorskip("pystemd", reason="pystemd is not installed here")

from pystemd import dbusexc

from oomwatchd.systemd.scope import Value, array, is_new, told, wanted

NAME = "oomwatchd-training-7.scope"
TYPES = {ord("s"): str, ord("b"): bool, ord("u"): int}


class FakeBus:
    """systemd at the other end: knows some properties, and has some units."""

    def __init__(self, *unknown: str, units: tuple[str, ...] = ()) -> None:
        self.unknown = unknown
        self.units = set(units)
        self.asked: list[dict[str, Any]] = []

    def call_method(self, *call: Any) -> None:
        *_, method, arguments = call
        assert method == b"StartTransientUnit"
        name, mode, *_ = (value for kind, value in arguments if kind == ord("s"))
        assert mode == b"fail"
        self.asked.append(properties(arguments))
        if any(word in self.asked[-1] for word in self.unknown):
            raise dbusexc.DBusPropertyReadOnlyError(-errno.EROFS, "", "Cannot set property")
        if name.decode() in self.units:
            raise dbusexc.DBusFileExistsError(-errno.EEXIST, "", f"Unit {name} already exists.")
        self.units.add(name.decode())


def properties(arguments: list[tuple[int, Any]]) -> dict[str, Any]:
    """What stands in ``a(sv)``, taken apart again."""
    found: dict[str, Any] = {}
    name: str | None = None
    variant = b""
    for kind, value in arguments[2:]:
        if kind == ord("s") and name is None and variant == b"":
            name = value.decode()
        elif kind == ord("v"):
            variant = value
            found[name or ""] = [] if variant == b"au" else None
        elif kind in TYPES and variant == b"au":
            found[name or ""].append(value)
        elif kind in TYPES:
            found[name or ""] = value.decode() if isinstance(value, bytes) else value
        elif kind == -1:
            name, variant = None, b""
    return found


def test_everything_is_asked_for_of_a_systemd_that_knows_it() -> None:
    bus = FakeBus()

    assert is_new(bus, NAME, "what it is", 42)
    assert bus.asked == [
        {
            "Description": "what it is",
            "Slice": "oomwatchd.slice",
            "PIDs": [42],
            "CollectMode": "inactive-or-failed",
            "MemoryAccounting": True,
            "ManagedOOMPreference": "omit",
            "OOMPolicy": "continue",
        }
    ]


def test_where_scopes_know_no_oom_policy_they_are_delegated_which_continues_as_well() -> None:
    bus = FakeBus("OOMPolicy")

    assert is_new(bus, NAME, "", 42)
    assert bus.asked[-1]["Delegate"] is True
    assert bus.asked[-1]["ManagedOOMPreference"] == "omit"
    assert "OOMPolicy" not in bus.asked[-1]


def test_before_there_were_marks_there_is_still_a_scope() -> None:
    bus = FakeBus("OOMPolicy", "ManagedOOMPreference")

    assert is_new(bus, NAME, "", 42)
    assert bus.units == {NAME}


def test_of_a_systemd_that_knows_none_of_it_the_refusal_is_raised() -> None:
    with pytest.raises(dbusexc.DBusPropertyReadOnlyError):
        is_new(FakeBus("Slice"), NAME, "", 42)


@pytest.mark.parametrize("unknown", [(), ("OOMPolicy",)])
def test_a_name_that_is_taken_is_told(unknown: tuple[str, ...]) -> None:
    assert not is_new(FakeBus(*unknown, units=(NAME,)), NAME, "", 42)


def test_what_else_systemd_says_is_raised_at_once() -> None:
    class Refusing(FakeBus):
        def call_method(self, *call: Any) -> None:
            super().call_method(*call)
            raise dbusexc.DBusAccessDeniedError(-errno.EACCES, "", "Access denied")

    bus = Refusing()
    with pytest.raises(dbusexc.DBusAccessDeniedError):
        is_new(bus, NAME, "", 42)

    assert len(bus.asked) == 1


def test_each_property_is_closed_before_the_next_begins() -> None:
    properties: list[tuple[str, Value]] = [("A", "x"), ("B", [1, 2]), ("C", True)]
    arguments = list(array(properties))

    assert arguments[0] == (ord("a"), b"(sv)")
    assert [kind for kind, _ in arguments].count(-1) == 3 * 2 + 1 + 1  # the array within B, too
    assert arguments[-1] == (-1, None)


def test_every_set_of_properties_has_the_same_ground() -> None:
    assert all({"CollectMode", "MemoryAccounting"} <= set(one) for one in wanted())


def test_what_systemd_says_is_one_line() -> None:
    error = dbusexc.DBusBaseError(-5, "org.example.Odd", "two\nlines")

    assert "\n" not in told(error)
