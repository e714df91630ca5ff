"""What is heard of systemd-oomd on a real bus: of its owner's signals all, of others' none."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from busclient import (
    Bus,
    Client,
    Ears,
    killed,
    message,
    needs_dbus_daemon,
    running,
    signal,
)
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.systemd import bus as listener
from oomwatchd.systemd.bus import Killed

pytestmark = needs_dbus_daemon

LOT_MAX = listener.DRAIN_MESSAGES_MAX + listener.CHUNK_BYTES // 16  # 16: the shortest message


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with running(tmp_path) as bus:
        yield bus


@pytest.fixture
def oomd(bus: Bus) -> Iterator[Client]:
    with closing(bus.client()) as client:
        client.own()
        yield client


@pytest.fixture
def other(bus: Bus) -> Iterator[Client]:
    with closing(bus.client()) as client:
        yield client


@pytest.fixture
def ears(bus: Bus) -> Iterator[Ears]:
    """It listens already."""
    ears = Ears(bus.path)
    with closing(ears.signals):
        ears.listen()
        yield ears


def name_of(ears: Ears, client: Client) -> str:
    """The unique name of *ears*, found out by *client*."""
    names = [f":1.{number}" for number in range(10)]
    [name] = [name for name in names if is_connection_of(client, name, ears)]
    return name


def is_connection_of(client: Client, name: str, ears: Ears) -> bool:
    """Whether what is sent to *name* comes to *ears*."""
    before = ears.messages
    client.send(signal("/", "a.b", "Probe", ["x"], to=name))
    client.settle()
    ears.signals.drain(ears.now_seconds)
    return ears.messages > before


# -- who counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_kill_is_heard_from_systemd_oomd(oomd: Client, ears: Ears, order: str) -> None:
    oomd.send(killed("/user.slice/a-é.scope", "memory-pressure", order=order))

    assert ears.until(len) == [Killed("/user.slice/a-é.scope", "memory-pressure")]


def test_all_that_is_well_formed_of_it_is_heard_to_be_judged_elsewhere(
    oomd: Client, ears: Ears
) -> None:
    oomd.send(killed("\x07 no path", ""))
    oomd.send(killed("", "x" * 5000))

    assert ears.until(lambda heard: len(heard) == 2)[0] == Killed("\x07 no path", "")


def test_another_client_is_not_heard_whether_it_tells_all_or_us_alone(
    oomd: Client, other: Client, ears: Ears
) -> None:
    ours = name_of(ears, other)
    before = ears.messages
    other.send(killed("/broadcast"))
    other.send(killed("/unicast", to=ours))
    other.send(killed("/forged", to=ours, sender=oomd.name))
    other.send(killed("/forged-name", to=ours, sender="org.freedesktop.oom1"))
    other.settle()
    oomd.send(killed("/alone", to=ours))
    oomd.send(killed("/last"))

    assert ears.cgroups_until("/last") == ["/alone", "/last"]
    assert ears.messages - before == 3 + 2  # all that was for us alone has come


def test_another_client_is_not_heard_while_there_is_no_systemd_oomd(
    bus: Bus, other: Client, ears: Ears
) -> None:
    other.send(killed("/other", to=name_of(ears, other)))
    other.settle()
    with closing(bus.client()) as oomd:
        oomd.own()
        oomd.send(killed("/last"))

        assert ears.cgroups_until("/last") == ["/last"]


def test_nobody_but_the_bus_says_who_owns_the_name(oomd: Client, other: Client, ears: Ears) -> None:
    ours = name_of(ears, other)
    path, interface = "/org/freedesktop/DBus", "org.freedesktop.DBus"
    change = ["org.freedesktop.oom1", oomd.name, other.name]
    other.send(signal(path, interface, "NameOwnerChanged", change, to=ours))
    other.send(signal(path, interface, "NameOwnerChanged", change, to=ours, sender=interface))
    for serial in range(1, 6):  # answers that nobody has asked for; the bus stops them
        other.send(message(2, {5: serial, 6: ours}, [other.name]))
    other.send(killed("/other", to=ours))
    other.settle()
    oomd.send(killed("/last"))

    assert ears.cgroups_until("/last") == ["/last"]
    assert ears.owner == oomd.name


def test_other_signals_of_its_own_are_no_kills(oomd: Client, ears: Ears) -> None:
    ours = name_of(ears, oomd)
    path, interface = "/org/freedesktop/oom1", "org.freedesktop.oom1.Manager"
    arguments = ["/other", "memory-used"]
    for name in ([path, interface, "Spared"], [path, "a.b", "Killed"], ["/", interface, "Killed"]):
        oomd.send(signal(name[0], name[1], name[2], arguments, to=ours))
    for wrong in ([], ["/other"], [*arguments, "more"]):
        oomd.send(signal(path, interface, "Killed", wrong))
    oomd.send(killed("/last"))

    assert ears.cgroups_until("/last") == ["/last"]


def test_what_dbus_send_says_is_heard_only_once_it_owns_the_name(bus: Bus, ears: Ears) -> None:
    command = [
        "dbus-send",
        f"--bus=unix:path={bus.path}",
        "--type=signal",
        "/org/freedesktop/oom1",
        "org.freedesktop.oom1.Manager.Killed",
        "string:/a",
        "string:memory-used",
    ]
    subprocess.run(command, check=True)
    with closing(bus.client()) as oomd:
        oomd.own()
        oomd.send(killed("/last"))

        assert ears.cgroups_until("/last") == ["/last"]


# -- comings and goings ----------------------------------------------------------------------------


def test_systemd_oomd_may_start_later_and_start_anew(bus: Bus, ears: Ears) -> None:
    assert ears.owner is None

    for cgroup in ("/first", "/second"):
        with closing(bus.client()) as oomd:
            oomd.own()
            oomd.send(killed(cgroup))

            assert ears.cgroups_until(cgroup) == [cgroup]
        ears.until(lambda _: ears.owner is None)


def test_the_last_word_of_one_that_ends_is_heard(bus: Bus, ears: Ears) -> None:
    with closing(bus.client()) as oomd:
        oomd.own()
        oomd.send(killed("/last-word"))
        oomd.settle()

    assert ears.cgroups_until("/last-word") == ["/last-word"]


def test_who_has_lost_the_name_is_not_heard_any_more(oomd: Client, bus: Bus, ears: Ears) -> None:
    ours = name_of(ears, oomd)
    oomd.send(killed("/before"))
    with closing(bus.client()) as successor:
        successor.own()
        oomd.send(killed("/after", to=ours))
        oomd.settle()
        successor.send(killed("/successor"))

        assert ears.cgroups_until("/successor") == ["/before", "/successor"]

        successor.disown()  # the first has waited for it
        oomd.send(killed("/again"))

        assert ears.cgroups_until("/again") == ["/again"]


def test_it_connects_by_itself_when_the_bus_starts_anew(bus: Bus, ears: Ears) -> None:
    number = ears.signals.fileno()
    bus.stop()
    ears.until(lambda _: ears.signals.fault)
    lost = ears.signals.fault
    ears.now_seconds = ears.signals.due_seconds
    ears.signals.drain(ears.now_seconds)
    missing = ears.signals.fault

    assert (lost, missing) == ("it has hung up", os.strerror(errno.ENOENT))
    assert not ears.signals.listening

    bus.start()
    ears.now_seconds = ears.signals.due_seconds
    ears.listen()
    with closing(bus.client()) as oomd:
        oomd.own()
        oomd.send(killed("/anew"))

        assert ears.cgroups_until("/anew") == ["/anew"]
    assert ears.signals.fault == ""
    assert ears.signals.fileno() == number


def test_it_has_not_heard_before_the_time_for_another_try(bus: Bus, ears: Ears) -> None:
    bus.stop()
    ears.until(lambda _: ears.signals.fault)
    bus.start()
    too_soon = ears.signals.due_seconds - 0.001

    assert ears.signals.drain(too_soon) == []
    assert ears.signals._link is None


def test_what_the_bus_refuses_is_said(tmp_path: Path) -> None:
    limits = '<limit name="max_match_rules_per_connection">1</limit>'
    with running(tmp_path, limits) as bus:
        ears = Ears(bus.path)
        with closing(ears.signals):
            ears.until(lambda _: ears.signals.fault)

            assert ears.signals.fault == (
                "it answers with org.freedesktop.DBus.Error.LimitsExceeded"
            )
            assert not ears.signals.listening


def test_a_bus_that_lets_nobody_in_is_left_again(tmp_path: Path) -> None:
    limits = '<limit name="max_connections_per_user">1</limit>'
    with running(tmp_path, limits) as bus, closing(bus.client()):
        ears = Ears(bus.path)
        with closing(ears.signals):
            ears.until(lambda _: ears.signals.fault)

            assert not ears.signals.listening


# -- too much, and too odd -------------------------------------------------------------------------


def test_a_flood_is_heard_in_lots_and_whole(oomd: Client, ears: Ears) -> None:
    lots: list[int] = []
    for number in range(10_000):
        oomd.send(killed(f"/{number}"))
    while sum(lots) < 10_000:
        lots.append(len(ears.until(len)))

    assert max(lots) <= LOT_MAX
    assert len(lots) >= 10


def test_one_turn_takes_only_its_share_of_a_flood_that_goes_on(
    oomd: Client, other: Client, ears: Ears
) -> None:
    ours = name_of(ears, other)
    for _ in range(10_000):
        other.send(killed("/other", to=ours))
    other.settle()
    oomd.send(killed("/last"))
    oomd.settle()
    taken = []
    heard: list[Killed] = []
    while not heard:
        before = ears.messages
        heard += ears.signals.drain(ears.now_seconds)
        taken.append(ears.messages - before)

    assert heard == [Killed("/last", "memory-used")]
    assert max(taken) <= LOT_MAX
    assert sum(taken) == 10_001


def test_a_user_who_sends_us_far_too_much_at_once_does_not_deafen_us(
    oomd: Client, other: Client, ears: Ears
) -> None:
    other.send(killed("/" + "x" * (8 << 20), to=name_of(ears, other)))
    other.settle()
    oomd.send(killed("/last"))

    assert ears.cgroups_until("/last") == ["/last"]
    assert ears.signals.fault == ""


LATER_FIELDS = [b"", b"\x0b\x02as\0\0\0\0\x06\0\0\0\1\0\0\0x\0", b"\xff\1v\0\1y\0\7"]


def test_whatever_the_bus_lets_through_is_well_formed_to_us(
    bus: Bus, oomd: Client, other: Client, ears: Ears
) -> None:
    """Else any user could have us hang up, again and again."""
    fields: dict[int, str | int] = {1: "/a", 2: "a.b", 3: "C", 6: name_of(ears, other)}
    arrived: list[int] = []

    @given(
        order=st.sampled_from(["<", ">"]),
        changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2),
        later=st.sampled_from(LATER_FIELDS),
    )
    def relay(order: str, changes: list[tuple[int, int]], later: bytes) -> None:
        more_fields = later if order == "<" else b""
        raw = bytearray(message(4, fields, ["x", "y"], order=order, more_fields=more_fields))
        for at, byte in changes:
            raw[at % len(raw)] = byte
        before = ears.messages
        with closing(bus.client()) as hostile:
            hostile.send(bytes(raw))
            hostile.finish()
        oomd.send(killed("/last"))
        ears.cgroups_until("/last")
        arrived.append(ears.messages - before - 1)

        assert ears.signals.fault == ""

    relay()

    assert sum(arrived) > 10
    assert 0 in arrived  # the bus has been strict as well
