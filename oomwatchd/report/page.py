"""One incident as one page of HTML: what happened, charts, the order of death, the raw lines."""

import time
from collections.abc import Iterator, Sequence
from typing import Final

from oomwatchd.incident import Case, Contender, Incident, Sample, Victim
from oomwatchd.policy.attribution import lies_in
from oomwatchd.policy.growth import Point, jump
from oomwatchd.policy.words import rate, size
from oomwatchd.report.chart import Chart, Mark, Series, drawn
from oomwatchd.report.markup import Markup, element, joined, lines
from oomwatchd.report.style import STYLE
from oomwatchd.report.verdict import (
    evidence,
    headline,
    killer_in_words,
    scope_in_words,
    victims_total,
)

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
CLOSE_SECONDS: Final = 20.0  # of the second chart: what is fast can be seen only from near
OTHERS_SHOWN: Final = 3
SEEN_SHARE: Final = 0.02  # of the highest line: what has less lies on the axis
ROWS: Final = 30
ORDER: Final = ("#", "name", "pid", "rule", "oom_score_adj", "memory", "points, pages")
LEFT: Final = ("name", "rule")  # columns; all others are numbers
GIB: Final = 1 << 30
MIB: Final = 1 << 20


def page(incident: Incident, again: str | None = None) -> str:
    """The whole document; it is well-formed XML as well.

    *again*: in words, that it was not the first time.
    """
    title = headline(incident)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    body = element("body", element("main", *sections(incident, title, again)))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def sections(incident: Incident, title: str, again: str | None) -> Iterator[Markup]:
    yield element("p", f"oomwatchd, incident {incident.id}", class_="faint")
    yield element("h1", title)
    yield element("p", incident.diagnosis.text, class_="verdict")
    if again is not None:
        yield element("p", again, class_="verdict")
    yield element("h2", "What to do")
    yield element("ul", *(element("li", line) for line in incident.advice.split("\n")))
    yield element("h2", "Memory and pressure before the kill")
    yield from charts(incident)
    yield element("h2", "Who was killed")
    yield facts(incident)
    if len(incident.case.victims) > 1:
        yield element("h2", f"All {victims_total(incident.case)} that died of it")
        yield from victims_table(incident.case)
    if incident.candidates:
        yield element("h2", "The order of death")
        yield from order_table(incident)
    if incident.case.raw:
        yield element("h2", "What was logged")
        yield element("pre", *lines("\n".join(incident.case.raw)))


# -- charts ----------------------------------------------------------------------------------------


def charts(incident: Incident) -> Iterator[Markup]:
    samples = incident.past.samples
    if len(samples) < 2:
        why = ": the daemon was not running then" if incident.while_down else ""
        yield element("p", f"Nothing was sampled before this kill{why}.", class_="faint")
        return
    whole = range(len(samples))
    since = incident.time_unix_seconds - CLOSE_SECONDS
    near: Sequence[int] = [at for at in whole if samples[at].time_unix_seconds >= since]
    ranges: list[tuple[Sequence[int], str]] = [(whole, "")]
    if 2 < len(near) < len(samples):
        ranges.append((near, f", the last {CLOSE_SECONDS:.0f} s"))
    for shown, which in ranges:
        yield drawn(memory_chart(incident, shown, f"Memory{which}"))
    for shown, which in ranges:
        yield drawn(pressure_chart(incident, shown, f"Memory pressure{which}"))


def memory_chart(incident: Incident, shown: Sequence[int], title: str) -> Chart:
    """At a cgroup's limit, only what drew on it: the machine's memory may be of another order."""
    samples = [incident.past.samples[at] for at in shown]
    others = incident.past.others
    series = [
        Series(incident.victim.name, "victim", [one.victim_bytes for one in samples]),
        Series("all in its cgroup", "cgroup", [one.cgroup_bytes for one in samples]),
        Series("limit", "limit", [one.cgroup_limit_bytes for one in samples]),
    ]
    if incident.case.killer in ("cgroup", "oom_group"):
        others = tuple(one for one in others if lies_in(one.cgroup, incident.case.scope))
    else:
        free = [one.available_bytes for one in samples]
        series.append(Series("available on the machine", "free", free))
        if any(one.swap_free_bytes for one in incident.past.samples):
            series.append(Series("swap free", "swap", [one.swap_free_bytes for one in samples]))
    highest = max((value or 0 for one in series for value in one.values), default=0)
    for number, other in enumerate(others[:OTHERS_SHOWN]):
        values = [other.bytes[at] for at in shown]
        if max((value or 0 for value in values), default=0) >= SEEN_SHARE * highest:
            series.append(Series(f"{other.name} ({other.pid})", f"other{number}", values))
    large = any((value or 0) >= GIB for one in series for value in one.values)
    unit, name = (GIB, "GiB") if large else (MIB, "MiB")
    seconds = before_kill(incident, samples)
    marks = [*victim_marks(seconds, series[0].values), *limit_marks(seconds, series[2].values)]
    return Chart(title, seconds, series, name, unit, marks=marks)


def victim_marks(seconds: Sequence[float], values: Sequence[float | None]) -> Iterator[Mark]:
    """What it had at its most; of a sudden rise what it had before, too."""
    points = [
        Point(at, int(value))
        for at, value in zip(seconds, values, strict=True)
        if value is not None
    ]
    if not points:
        return
    top = max(points, key=lambda point: (point.bytes, point.seconds))
    rise = jump(points)
    if rise is not None:
        begun = max(one.seconds for one in points if one.bytes <= rise.before_bytes)
        yield Mark(begun, rise.before_bytes, size(rise.before_bytes), "victim")
    yield Mark(top.seconds, top.bytes, size(top.bytes), "victim")


def limit_marks(seconds: Sequence[float], values: Sequence[float | None]) -> Iterator[Mark]:
    value = next((value for value in reversed(values) if value is not None), None)
    if value is not None:
        yield Mark(seconds[0], value, f"limit {size(value)}", "limit")


def pressure_chart(incident: Incident, shown: Sequence[int], title: str) -> Chart:
    samples = [incident.past.samples[at] for at in shown]
    series = [
        Series("some waited", "free", [one.pressure_some_avg10 for one in samples]),
        Series("all waited", "limit", [one.pressure_full_avg10 for one in samples]),
    ]
    title = f"{title}: % of 10 s in which processes waited for memory"
    return Chart(title, before_kill(incident, samples), series, "%", 1.0, least_top=5.0)


def before_kill(incident: Incident, samples: Sequence[Sample]) -> list[float]:
    return [one.time_unix_seconds - incident.time_unix_seconds for one in samples]


# -- tables ----------------------------------------------------------------------------------------


def facts(incident: Incident) -> Markup:
    rows = (joined(element("dt", key), element("dd", text)) for key, text in told(incident))
    return element("dl", *rows)


def told(incident: Incident) -> Iterator[tuple[str, str]]:
    case, victim = incident.case, incident.victim
    stamp = time.gmtime(incident.time_unix_seconds)
    yield "when", time.strftime("%Y-%m-%d %H:%M:%S UTC", stamp)
    if incident.while_down:
        yield "found", "at the daemon's next start: it was not running when this happened"
    yield "by", killer_in_words(case)
    yield "seen as", "signal 9 (SIGKILL); exit status 137 in shells, containers and pipelines"
    yield "where memory ran out", scope_in_words(case)
    amounts = (("limit", case.limit_bytes), ("used of it", case.usage_bytes))
    yield from ((key, size(amount)) for key, amount in amounts if amount is not None)
    yield "process", f"{victim.name} (pid {victim.pid if victim.pid is not None else 'not known'})"
    texts = (
        ("command line", victim.cmdline),
        ("user", victim.user),
        ("unit", victim.unit),
        ("cgroup", victim.cgroup),
        ("rule", victim.rule or "none"),
        ("oom_score_adj", victim.oom_score_adj),
        ("asked for memory", case.asked_by),
        ("systemd-oomd's reason", case.reason),
    )
    yield from ((key, str(text)) for key, text in texts if text not in (None, ""))
    if victim.memory_bytes is not None:
        yield "memory", size(victim.memory_bytes)
    growth = incident.diagnosis.growth_bytes_per_second
    if growth:
        yield "growth", rate(growth)
    yield "evidence", evidence(case)


def victims_table(case: Case) -> Iterator[Markup]:
    headings = ("name", "pid", "rule", "memory")
    rows = [
        row(headings, (one.name, pid_of(one), one.rule or "", size(one.memory_bytes or 0)))
        for one in case.victims[:ROWS]
    ]
    yield tabled(headings, rows)
    yield from left_out(victims_total(case) - len(rows))


def order_table(incident: Incident) -> Iterator[Markup]:
    dead = {victim.pid for victim in incident.case.victims}
    rows = [
        contender_row(number, one, dead=one.pid in dead)
        for number, one in enumerate(incident.candidates[:ROWS], 1)
    ]
    yield tabled(ORDER, rows)
    yield from left_out(len(incident.candidates) - len(rows))


def contender_row(number: int, one: Contender, *, dead: bool) -> Markup:
    points = "never" if one.points_pages is None else f"{one.points_pages:,}"
    name = joined(one.name, " ", element("em", "killed")) if dead else one.name
    cells = (str(number), name, str(one.pid), one.rule or "", str(one.oom_score_adj))
    return row(ORDER, (*cells, size(one.memory_bytes), points), dead=dead)


def left_out(count: int) -> Iterator[Markup]:
    if count > 0:
        yield element("p", f"and {count} more", class_="faint")


def row(headings: Sequence[str], cells: Sequence[str], *, dead: bool = False) -> Markup:
    """Each cell knows its heading: on a phone a row is shown as a few lines."""
    tds = (
        element("td", cell, class_=side_of(heading), data_label=heading)
        for heading, cell in zip(headings, cells, strict=True)
    )
    return element("tr", *tds, class_="dead" if dead else None)


def tabled(headings: Sequence[str], rows: Sequence[Markup]) -> Markup:
    ths = (element("th", heading, class_=side_of(heading)) for heading in headings)
    head = element("thead", element("tr", *ths))
    return element("table", head, element("tbody", *rows))


def side_of(heading: str) -> str | None:
    return None if heading in LEFT else "number"


def pid_of(victim: Victim) -> str:
    return "" if victim.pid is None else str(victim.pid)
