"""The incidents on disk, for the commands that read them."""

import os
import pwd
import sys
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

from oomwatchd.cli import exits
from oomwatchd.cli.failure import Failure
from oomwatchd.cli.table import show, show_document, terminal_width
from oomwatchd.document import as_json
from oomwatchd.incident import Contender, Incident, Victim
from oomwatchd.incidents import Entry, entries
from oomwatchd.paths import incidents_directory
from oomwatchd.policy.recurrence import BEFORE_SECONDS, recurrence
from oomwatchd.policy.words import rate
from oomwatchd.report.page import page
from oomwatchd.report.verdict import headline, killer_in_words, scope_in_words
from oomwatchd.text import printable, size

CANDIDATES_SHOWN: Final = 8
WRAP: Final = 100


def directory() -> Path:
    return incidents_directory(os.environ)


def stored(
    path: Path, *, since_unix_seconds: float = 0.0, but: set[str] | None = None
) -> Iterator[Incident]:
    """The incidents, the newest first; what cannot be read is said on stderr.

    *but*: files to leave out; those that have been read are added.

    Raises:  Failure.
    """
    read = set() if but is None else but
    for entry in kept(path, since_unix_seconds=since_unix_seconds, but=read):
        read.add(entry.path.name)
        if entry.incident is None:
            show([f"oomwatchd: {entry.path.name}: not read: {entry.fault}"], sys.stderr)
        else:
            yield with_user_names(entry.incident)


def kept(path: Path, *, since_unix_seconds: float, but: Container[str]) -> Iterator[Entry]:
    """Raises Failure."""
    try:
        yield from entries(path, since_unix_seconds=since_unix_seconds, but=but)
    except FileNotFoundError:
        if path.parent.is_dir():  # the daemon's: it has run, and nobody has been killed
            return
        message = f"{path}: no such directory: the daemon has not run here yet"
        raise Failure(message, exits.NO_INPUT) from None
    except PermissionError:
        message = f"{path}: may not be read by you: try as root, or as a member of the group adm"
        raise Failure(message, exits.NOT_PERMITTED) from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", exits.NO_INPUT) from error


def with_user_names(incident: Incident) -> Incident:
    """Numbers of users that the daemon knew no name of may have one in a directory service."""
    case = incident.case._replace(victims=tuple(map(with_user_name, incident.case.victims)))
    return incident._replace(case=case, victim=with_user_name(incident.victim))


def with_user_name(victim: Victim) -> Victim:
    if victim.user is None or not victim.user.isdecimal() or len(victim.user) > 10:
        return victim
    try:
        return victim._replace(user=pwd.getpwuid(int(victim.user)).pw_name)
    except (KeyError, OverflowError):
        return victim


def again(incident: Incident) -> str | None:
    """Whether it had happened before, in words.  Raises Failure."""
    since = incident.time_unix_seconds - BEFORE_SECONDS
    found = kept(directory(), since_unix_seconds=since, but=())
    earlier = (with_user_names(one.incident) for one in found if one.incident is not None)
    return recurrence(incident, earlier)


def print_incident(incident: Incident, *, as_document: bool) -> None:
    """Raises Failure."""
    if as_document:
        show_document(as_json(incident))
    else:
        show(as_text(incident, again(incident)), sys.stdout)


def write_page(incident: Incident, path: Path) -> None:
    """Raises Failure."""
    text = page(incident, again(incident))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        status = exits.NOT_PERMITTED if isinstance(error, PermissionError) else exits.NO_INPUT
        raise Failure(f"{path}: {error.strerror}", status) from error


def when(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))


# -- as text ---------------------------------------------------------------------------------------


def as_text(incident: Incident, again: str | None = None) -> Iterator[str]:
    yield printable(headline(incident))
    yield ""
    for key, text in facts(incident):
        yield f"  {key:<14} {printable(text)}"
    yield ""
    yield from wrapped(incident.diagnosis.text)
    if again is not None:
        yield from wrapped(again)
    yield ""
    for line in incident.advice.split("\n"):
        yield from wrapped(line, mark="- ")
    if incident.candidates:
        yield ""
        yield "The order of death at that moment:"
        yield from order(incident)
    if incident.past.samples:
        yield ""
        yield (
            f"{len(incident.past.samples)} samples from before: `oomwatchd incidents show"
            f" {incident.id} --html FILE` draws them"
        )


def facts(incident: Incident) -> Iterator[tuple[str, str]]:
    case, victim = incident.case, incident.victim
    yield "incident", incident.id
    yield "when", when(incident.time_unix_seconds)
    yield "by", killer_in_words(case)
    yield "seen as", "signal 9 (SIGKILL); exit status 137 in shells, containers and pipelines"
    yield "where", scope_in_words(case)
    sizes = (("limit", case.limit_bytes), ("memory", victim.memory_bytes))
    yield from ((key, size(amount)) for key, amount in sizes if amount is not None)
    texts = (
        ("command line", victim.cmdline),
        ("user", victim.user),
        ("unit", victim.unit),
        ("cgroup", victim.cgroup),
        ("rule", victim.rule or "none"),
        ("oom_score_adj", victim.oom_score_adj),
        ("asked by", case.asked_by),
        ("reason", case.reason),
    )
    yield from ((key, str(text)) for key, text in texts if text not in (None, ""))
    kind = incident.diagnosis.kind.replace("_", " ")
    growth = incident.diagnosis.growth_bytes_per_second
    yield "diagnosis", f"{kind}, {rate(growth)}" if growth else kind
    if incident.while_down:
        yield "note", "found afterwards: the daemon was not running, so nothing was sampled"


def order(incident: Incident) -> Iterator[str]:
    dead = {victim.pid for victim in incident.case.victims}
    for number, one in enumerate(incident.candidates[:CANDIDATES_SHOWN], 1):
        yield candidate_line(number, one, killed=one.pid in dead)


def candidate_line(number: int, one: Contender, *, killed: bool) -> str:
    rule = f", rule {one.rule}" if one.rule else ""
    end = "  <- killed" if killed else ""
    never = ", never picked" if one.points_pages is None else ""
    return (
        f"  {number:>2}. {printable(one.name)} (pid {one.pid}), {size(one.memory_bytes)},"
        f" adj {one.oom_score_adj}{printable(rule)}{never}{end}"
    )


def wrapped(text: str, mark: str = "") -> Iterator[str]:
    """*text* over several lines; its words may be anybody's, so they are made printable."""
    width = min(terminal_width(sys.stdout) or WRAP, WRAP)
    line = mark
    for word in printable(text).split(" "):
        if len(line) + len(word) > width and line.strip() != mark.strip():
            yield line.rstrip()
            line = " " * len(mark)
        line += f"{word} "
    yield line.rstrip()
