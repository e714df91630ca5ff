"""What systemd says of kills: systemd-oomd by its signal and its log lines, PID 1 of its units.

Anybody may send the journal any text: who sent an entry is told by the fields that begin with an
underscore, which the journal itself sets.  Paths are chosen by users; of a line that can be read in
two ways, nothing is taken.

Source:  systemd, src/oom/oomd-manager.c, src/core/unit.c, sd-messages.h; systemd.journal-fields(7).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from oomwatchd.incident import OomdKill, UnitKilled

# MESSAGE_ID of what PID 1, or a user's manager, logs.
KILLED_BY_OOMD: Final = "d989611b15e44c9dbf31e3c81256e4ed"
KILLED_BY_KERNEL: Final = "fe6faa94e7774663a0da52717891d8ef"
UNIT_FAILED: Final = "d9b373ed55a64feb8242e02dbe79a49c"  # UNIT_RESULT=oom-kill, for both
PROCESS_EXITED: Final = "98e322203f7a4ed290d09fe03c09fe15"  # EXIT_CODE=killed, EXIT_STATUS=9

OOMD_UNIT: Final = "systemd-oomd.service"
SYSTEM_MANAGER: Final = {"_PID": "1", "_UID": "0"}
REASONS: Final = ("memory-used", "memory-pressure")
RULE: Final = re.compile(r"rule [\w.@:-]{1,255}")
PATH_CHARACTERS_MAX: Final = 4096
SEPARATORS_MAX: Final = 20  # in one line; more is somebody's game
# systemd 262 says beforehand that it has marked a cgroup.
KILLED: Final = re.compile(r"(?P<verb>Killed|Marked) (?P<rest>/.*)", re.DOTALL)
TIMESPAN: Final = r"[a-z\d.]{1,20}(?: [a-z\d.]{1,20}){0,7}"  # 20s, 1min 30s, infinity
PRESSURE: Final = re.compile(
    r"memory pressure for (?P<monitored>/.*) being [\d.]+% > [\d.]+% for > "
    + TIMESPAN
    + r" with reclaim activity",
    re.DOTALL,
)
# Until systemd 248, swap alone was looked at.
USED: Final = re.compile(
    r"(?:memory used \(\d+\) / total \(\d+\) and )?swap used \(\d+\) / total \(\d+\)"
    r" being more than [\d.]+%"
)
SEPARATORS: Final = {"Killed": " due to ", "Marked": " for killing due to "}


def parse_killed_signal(boot_seconds: float, cgroup: str, reason: str) -> OomdKill | None:
    """Of the arguments of org.freedesktop.oom1.Manager's signal Killed (since systemd 252).

    None, if they are not what it says: systemd 260 sent garbage while it was being made.
    """
    if not is_path(cgroup) or not (reason in REASONS or RULE.fullmatch(reason)):
        return None
    return OomdKill(boot_seconds, cgroup, reason)


def is_path(text: str) -> bool:
    return text.startswith("/") and len(text) <= PATH_CHARACTERS_MAX and text.isprintable()


def parse_oomd_entry(boot_seconds: float, entry: Mapping[str, str]) -> OomdKill | None:
    """Of an entry of the journal; None, if systemd-oomd does not say in it whom it killed."""
    if entry.get("_SYSTEMD_UNIT") != OOMD_UNIT:
        return None
    return parse_oomd_message(boot_seconds, entry.get("MESSAGE", ""))


def parse_oomd_message(boot_seconds: float, message: str) -> OomdKill | None:
    """Of the line; it has no message id and no fields of its own."""
    line = KILLED.fullmatch(message)
    if line is None:
        return None
    found = set(readings(line["rest"], SEPARATORS[line["verb"]]))
    if len(found) != 1:
        return None
    [(cgroup, reason)] = found
    return OomdKill(boot_seconds, cgroup, reason, (message,)) if is_path(cgroup) else None


def readings(text: str, separator: str) -> Iterator[tuple[str, str]]:
    """All pairs of cgroup and reason that *text* may mean, as paths may hold the separator."""
    if text.count(separator) > SEPARATORS_MAX:
        return
    for match in re.finditer(f"(?={re.escape(separator)})", text):  # they may overlap
        cgroup, why = text[: match.start()], text[match.start() + len(separator) :]
        pressure = PRESSURE.fullmatch(why)
        # What is killed lies below the cgroup whose pressure was too high.
        if pressure and cgroup.startswith(pressure["monitored"].rstrip("/") + "/"):
            yield cgroup, "memory-pressure"
        elif USED.fullmatch(why):
            yield cgroup, "memory-used"


def parse_unit_entry(boot_seconds: float, entry: Mapping[str, str]) -> UnitKilled | None:
    """Of an entry of the journal; None, if PID 1 does not say in it that a unit's were killed.

    Managers of users are not listened to: their owners can make them say anything, of units named
    as the system's are.
    """
    if any(entry.get(name) != value for name, value in SYSTEM_MANAGER.items()):
        return None
    message_id, unit = entry.get("MESSAGE_ID"), entry.get("UNIT", "")
    if message_id not in (KILLED_BY_OOMD, KILLED_BY_KERNEL) or not unit:
        return None
    processes = entry.get("N_PROCESSES", "")  # since systemd 251
    return UnitKilled(
        boot_seconds,
        unit,
        by_oomd=message_id == KILLED_BY_OOMD,
        processes=int(processes) if processes.isdecimal() and len(processes) < 8 else None,
        raw=(entry.get("MESSAGE", ""),),
    )
