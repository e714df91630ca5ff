"""Asking systemd with a bound on the time, for who may not hang with it.

A call of pystemd holds the whole interpreter for as long as systemd likes.  So children ask, one of
each manager, and are killed if they take too long.  A user's manager is a program of that user's:
whoever is free to, asks it as that user.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, Final, NamedTuple

from oomwatchd.auditing import UnitName, UnitSettings, Unseen
from oomwatchd.systemd.manager import PACKAGE_PARENT, Spawn, Worker, spawned
from oomwatchd.systemd.units import Answers, ask_manager, no_answers

ANSWER_SECONDS: Final = 10.0  # an idle systemd takes 2 ms for a unit; under emulation 30
PACKET_BYTES: Final = 1 << 20
# Of one manager, so that question and answer fit into a packet each; users choose their units'
# names.  A socket takes 208 KiB at once, unless somebody has changed net.core.wmem_default.
UNITS_MAX: Final = 1000
UNITS_BYTES: Final = 160 << 10
SETTINGS_BYTES: Final = 128  # of a unit's in an answer, beside its name
NO_GROUP: Final = 65534
# -I: neither the directory that we were started in nor the environment says what is imported.
RUN_ASKER: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from oomwatchd.systemd.asking import main; main()"
)

Question = tuple[int | None, list[UnitName]]  # the manager, and of which of its units


class Asked(NamedTuple):
    """A child, and what it has been asked."""

    worker: Worker
    question: Question


def asker() -> Worker:
    return spawned([sys.executable, "-I", "-c", RUN_ASKER, str(PACKAGE_PARENT)])


def ask_within(
    units: Sequence[UnitName], within_seconds: float = ANSWER_SECONDS, spawn: Spawn = asker
) -> Answers:
    until_seconds = time.monotonic() + within_seconds
    late = f"systemd did not answer within {within_seconds:g} s"
    found = dict[UnitName, UnitSettings | Unseen](dict.fromkeys(units, Unseen("too many units")))
    version: tuple[int, int] | Unseen = Unseen(late)
    asked: list[Asked] = []
    try:
        for question in questions(units):
            asked.append(Asked(spawn(), question))
            with suppress(BrokenPipeError):  # it has ended already, which is noticed below
                asked[-1].worker.link.send(json.dumps(question).encode())
        for worker, (manager, theirs) in asked:
            raw = heard(worker.link, until_seconds)
            answers = no_answers(theirs, late) if raw is None else decoded(raw, theirs)
            found.update(answers.units)
            version = answers.version if manager is None else version
    except OSError as error:  # no memory, or no task left
        return no_answers(units, f"no process to ask systemd: {error.strerror}")
    finally:
        for worker, _ in asked:
            worker.link.close()
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
    return Answers(version, found)


def questions(units: Sequence[UnitName]) -> list[Question]:
    """One for each manager; always one for the system's, which tells the version, too."""
    managers = dict.fromkeys([None, *(unit.manager for unit in units)])
    return [
        (manager, fitting([unit for unit in units if unit.manager == manager][:UNITS_MAX]))
        for manager in managers
    ]


def fitting(units: Sequence[UnitName]) -> list[UnitName]:
    """As many of *units* as there is room for."""
    ends = accumulate(len(json.dumps(unit)) + SETTINGS_BYTES for unit in units)
    return [unit for unit, end in zip(units, ends, strict=True) if end <= UNITS_BYTES]


def heard(link: socket.socket, until_seconds: float) -> bytes | None:
    """The answer; empty if there will be none, None if it takes too long."""
    left_seconds = max(until_seconds - time.monotonic(), 0.0)
    if not select.select([link], [], [], left_seconds)[0]:
        return None
    try:
        return link.recv(PACKET_BYTES)
    except ConnectionResetError:  # it ended before it had read the question
        return b""


def encoded(answers: Answers) -> bytes:
    units = [[unit, as_list(found)] for unit, found in answers.units.items()]
    return json.dumps([as_list(answers.version), units]).encode()


def as_list(found: tuple[Any, ...]) -> list[Any]:
    """With its kind in front, as JSON tells no tuples apart."""
    return [type(found).__name__, *found]


def decoded(raw: bytes, units: Sequence[UnitName]) -> Answers:
    if not raw:
        return no_answers(units, "asking systemd failed")
    version, pairs = json.loads(raw)
    found = {UnitName(*unit): from_list(answer) for unit, answer in pairs}
    return Answers(from_list(version), {unit: found[unit] for unit in units})


def from_list(found: list[Any]) -> Any:
    kinds = {kind.__name__: kind._make for kind in (UnitSettings, Unseen)}
    return kinds.get(found[0], tuple)(found[1:])


# -- the child -------------------------------------------------------------------------------------


def main() -> None:
    with socket.socket(fileno=0) as link:
        manager, units = json.loads(link.recv(PACKET_BYTES))
        if manager is not None and os.geteuid() == 0:
            become(manager)
        link.send(encoded(ask_manager(manager, [UnitName(*unit) for unit in units])))


def become(uid: int) -> None:
    """Give up being root; unless we are kept from that, as in the service's sandbox."""
    if find_spec("pystemd") is not None:  # its files may be readable for root alone
        import_module("pystemd.dbuslib")
    try:
        os.setgroups([])
        os.setresgid(NO_GROUP, NO_GROUP, NO_GROUP)
        os.setresuid(uid, uid, uid)
    except PermissionError:
        return
