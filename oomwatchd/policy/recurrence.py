"""Whether a victim had been killed before: a job that is started again, and ends the same way."""

from collections.abc import Iterable
from typing import Final

from oomwatchd.incident import Incident, Victim
from oomwatchd.policy.words import span

BEFORE_SECONDS: Final = 86400.0


def recurrence(incident: Incident, others: Iterable[Incident]) -> str | None:
    """How often in the day before, in words; None: not once."""
    since = incident.time_unix_seconds - BEFORE_SECONDS
    earlier = [
        one
        for one in others
        if since <= one.time_unix_seconds < incident.time_unix_seconds
        and one.id != incident.id
        and is_same_job(one.victim, incident.victim)
        and one.case.for_want_of_memory == incident.case.for_want_of_memory
    ]
    if not earlier:
        return None
    last = max(earlier, key=lambda one: one.time_unix_seconds)
    first_seconds = min(one.time_unix_seconds for one in earlier)
    times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
    text = (
        f"{incident.victim.name} had been killed {times} before in the last"
        f" {span(incident.time_unix_seconds - first_seconds)}, the last time"
        f" {span(incident.time_unix_seconds - last.time_unix_seconds)} before ({last.id})"
    )
    if incident.diagnosis.kind == last.diagnosis.kind != "unknown":
        text += ", and for the same reason"
    return f"{text}. To start it again changes nothing of the cause{stop_hint(incident.victim)}."


def is_same_job(one: Victim, other: Victim) -> bool:
    """By its name and its unit, its rule, or its command line and user; pids and scopes change."""
    if one.name != other.name:
        return False
    same_unit = one.unit is not None and one.unit == other.unit
    same_rule = one.rule is not None and one.rule == other.rule
    same_line = one.cmdline is not None and (one.cmdline, one.user) == (other.cmdline, other.user)
    return same_unit or same_rule or same_line


def stop_hint(victim: Victim) -> str:
    if victim.unit is None or not victim.unit.endswith(".service"):
        return ""
    return f"; StartLimitBurst= and RestartSec= of {victim.unit} bound how often it is"
