"""One incident as one page of HTML: what happened, charts, the order of death, the raw lines."""

import time
from collections.abc import Iterator, Sequence
from typing import Final

from oomwatchd.incident import Contender, Incident, Sample, Victim
from oomwatchd.policy.attribution import lies_in
from oomwatchd.policy.words import rate, size
from oomwatchd.report.chart import Chart, Series, drawn
from oomwatchd.report.markup import Markup, element, joined, lines
from oomwatchd.report.style import STYLE
from oomwatchd.report.verdict import KILLERS, headline, scope_in_words

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
CLOSE_SECONDS: Final = 20.0  # of the second chart: what is fast can be seen only from near
OTHERS_SHOWN: Final = 3
ROWS: Final = 30
GIB: Final = 1 << 30
MIB: Final = 1 << 20


def page(incident: Incident) -> str:
    """The whole document; it is well-formed XML as well."""
    title = headline(incident)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    body = element("body", element("main", *sections(incident, title)))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def sections(incident: Incident, title: str) -> Iterator[Markup]:
    yield element("p", f"oomwatchd, incident {incident.id}", class_="faint")
    yield element("h1", title)
    yield element("p", incident.diagnosis.text, class_="verdict")
    yield element("h2", "What to do")
    yield element("ul", *(element("li", line) for line in incident.advice.split("\n")))
    yield element("h2", "Memory and pressure before the kill")
    yield from charts(incident)
    yield element("h2", "Who was killed")
    yield facts(incident)
    if len(incident.case.victims) > 1:
        yield victims_table(incident.case.victims)
    if incident.candidates:
        yield element("h2", "The order of death")
        yield order_table(incident)
    if incident.case.raw:
        yield element("h2", "What was logged")
        yield element("pre", lines("\n".join(incident.case.raw)))


# -- charts ----------------------------------------------------------------------------------------


def charts(incident: Incident) -> Iterator[Markup]:
    samples = incident.past.samples
    if len(samples) < 2:
        yield element("p", "Nothing was sampled before this kill.", class_="faint")
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
        Series("its cgroup", "cgroup", [one.cgroup_bytes for one in samples]),
        Series("limit", "limit", [one.cgroup_limit_bytes for one in samples]),
    ]
    if incident.case.killer in ("cgroup", "oom_group"):
        others = tuple(one for one in others if lies_in(one.cgroup, incident.case.scope))
    else:
        free = [one.available_bytes for one in samples]
        series.append(Series("available on the machine", "free", free))
        if any(one.swap_free_bytes for one in incident.past.samples):
            series.append(Series("swap free", "swap", [one.swap_free_bytes for one in samples]))
    for number, other in enumerate(others[:OTHERS_SHOWN]):
        values = [other.bytes[at] for at in shown]
        series.append(Series(f"{other.name} ({other.pid})", f"other{number}", values))
    large = any((value or 0) >= GIB for one in series for value in one.values)
    unit, name = (GIB, "GiB") if large else (MIB, "MiB")
    return Chart(title, before_kill(incident, samples), series, name, unit)


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
    yield "by", KILLERS[case.killer]
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
    yield "evidence", ", ".join(case.sources) or "its end by SIGKILL alone"


def victims_table(victims: Sequence[Victim]) -> Markup:
    rows = [
        row(one.name, pid_of(one), one.rule or "", size(one.memory_bytes or 0))
        for one in victims[:ROWS]
    ]
    return tabled(("name", "pid", "rule", "memory"), (1, 3), rows)


def order_table(incident: Incident) -> Markup:
    dead = {victim.pid for victim in incident.case.victims}
    rows = [
        contender_row(number, one, dead=one.pid in dead)
        for number, one in enumerate(incident.candidates[:ROWS], 1)
    ]
    headings = ("", "name", "pid", "rule", "oom_score_adj", "memory", "points, pages")
    return tabled(headings, (0, 2, 4, 5, 6), rows)


def contender_row(number: int, one: Contender, *, dead: bool) -> Markup:
    points = "never" if one.points_pages is None else f"{one.points_pages:,}"
    cells = (str(number), one.name, str(one.pid), one.rule or "", str(one.oom_score_adj))
    numbers = {0, 2, 4, 5, 6}
    return row(*cells, size(one.memory_bytes), points, dead=dead, numbers=numbers)


def row(*cells: str, dead: bool = False, numbers: set[int] | None = None) -> Markup:
    right = {1, 3} if numbers is None else numbers
    tds = (
        element("td", cell, class_="number" if at in right else None)
        for at, cell in enumerate(cells)
    )
    return element("tr", *tds, class_="dead" if dead else None)


def tabled(headings: Sequence[str], right: Sequence[int], rows: Sequence[Markup]) -> Markup:
    ths = (
        element("th", heading or "#", class_="number" if at in right else None)
        for at, heading in enumerate(headings)
    )
    head = element("thead", element("tr", *ths))
    return element("div", element("table", head, element("tbody", *rows)), class_="scroll")


def pid_of(victim: Victim) -> str:
    return "" if victim.pid is None else str(victim.pid)
