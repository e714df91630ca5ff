"""Why memory ran out: what the samples before a kill and the case itself say of it.

Told are only numbers that were measured.  Who was killed need not be who took the memory; so first
it is asked who did: the page cache, many alike, another process, and only then the victim.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from oomwatchd.incident import Diagnosis
from oomwatchd.policy.facts import RECENT_SECONDS, Facts, last_known, rate_of
from oomwatchd.policy.growth import Point, foot_of, jump, trend, until_the_end
from oomwatchd.policy.suspects import (
    many_processes,
    other_process,
    overshadowed,
    page_cache,
    shared_memory,
)
from oomwatchd.policy.words import percent, rate, size, span

SWAP_LEFT_SHARE: Final = 0.05
BARELY_FITS: Final = 0.6  # of what there is: no room for the same once more
NEAR_TOP: Final = 0.9  # of the peak: it had been there before
DOUBLED: Final = 1.9  # times, about
MANIFOLD: Final = 2.5  # times: from here on it is not one copy
MANIFOLD_LOOKS: Final = (
    "several copies, or a result far larger than what it was made from (a join, text turned into"
    " objects, a file unpacked)"
)
MATTERS_SHARE: Final = 0.1  # of what there is: whoever has less did not use it up, however it grew


def diagnose(facts: Facts) -> Diagnosis:
    if facts.case.by_sysrq:
        return by_hand(facts)
    found = (judge(facts) for judge in JUDGES)
    return next((one for one in found if one is not None), unknown(facts))


# -- how the victim grew ---------------------------------------------------------------------------


def sudden_copy(facts: Facts) -> Diagnosis | None:
    found = jump(facts.points)
    if found is None or not matters(facts):
        return None
    factor = found.after_bytes / found.before_bytes
    grew = "doubled" if DOUBLED <= factor <= 2.15 else f"grew {factor:.1f}-fold"
    looks = MANIFOLD_LOOKS if factor >= MANIFOLD else "a copy of its data"
    looks += ", of a part of it or not yet whole" if factor < DOUBLED else ""
    text = (
        f"{facts.who} {grew} in {span(found.seconds)}: from {size(found.before_bytes)} to"
        f" {size(found.after_bytes)} ({found.points} samples). Until then it had stood level; that"
        f" it took {size(found.after_bytes - found.before_bytes)} more at once looks like {looks}."
        f" Of {facts.room}, {size(found.after_bytes)} were then its own."
    )
    return Diagnosis("sudden_copy", text, round(found.bytes_per_second))


def matters(facts: Facts) -> bool:
    return facts.peak_bytes >= MATTERS_SHARE * facts.room_bytes


def steady_leak(facts: Facts) -> Diagnosis | None:
    found = trend(facts.points)
    if found is None or not matters(facts):
        return None
    text = (
        f"{facts.who} grew steadily by {rate(found.bytes_per_second)} for {span(found.seconds)},"
        f" from {size(found.from_bytes)} to {size(found.to_bytes)}. At that rate each further"
        f" GiB lasts {span((1 << 30) / found.bytes_per_second)}."
    )
    return Diagnosis("steady_leak", text, round(found.bytes_per_second))


def swap_exhausted(facts: Facts) -> Diagnosis | None:
    """No swap was left, and nobody grew so as to explain it."""
    total = facts.machine.swap_bytes
    left = last_known(one.swap_free_bytes for one in facts.past.samples)
    for_swap = facts.case.killer == "systemd_oomd" and "used" in (facts.case.reason or "")
    gone = left is not None and left < SWAP_LEFT_SHARE * total
    if not total or facts.in_cgroup or not (gone or for_swap):
        return None
    told = (
        "" if left is None else f", {size(left)} of it left, and nobody who was watched grew fast"
    )
    text = (
        f"The swap of {size(total)} was used up{told}; {facts.who} had"
        f" {size(facts.peak_bytes)}, in memory and in swap."
    )
    return Diagnosis("swap_exhausted", text, rate_of(facts))


def limit_below_peak(facts: Facts) -> Diagnosis | None:
    """It neither leaked nor jumped: it needs about as much as there is."""
    points, peak, room = facts.points, facts.peak_bytes, facts.room_bytes
    if peak < BARELY_FITS * room or not points:
        return None
    text = f"{facts.who} had {size(peak)} at its most, {percent(peak, room)} of {facts.room}"
    start = start_of(points)
    times = times_at_top(points)
    if start is not None:
        text += f". It took {size(peak)} within {span(start)} of when it was first seen"
    elif times > 1:
        text += f". It came to {percent(NEAR_TOP, 1)} of that {times} times in"
        text += f" {span(points[-1].seconds - points[0].seconds)}: this is what the job needs"
    return Diagnosis("limit_below_peak", f"{text}.", rate_of(facts))


def by_hand(facts: Facts) -> Diagnosis:
    had = f" had {size(facts.peak_bytes)} and" if facts.peak_bytes else ""
    text = (
        f"{facts.who}{had} was killed as somebody asked for it by SysRq f: at a keyboard, or by"
        " writing f to /proc/sysrq-trigger. The kernel then takes whoever has the most points,"
        " also if memory is not short at all. Lack of memory is not shown."
    )
    return Diagnosis("unknown", text, rate_of(facts))


def unknown(facts: Facts) -> Diagnosis:
    had = f"{facts.who} had {size(facts.peak_bytes)}" if facts.peak_bytes else facts.who
    if facts.case.killer == "unknown":
        text = (
            f"{had} and was ended by SIGKILL; neither the kernel nor systemd-oomd says that it was"
            " them, so somebody else sent it. Lack of memory is not shown."
        )
    elif len(facts.points) < 3:
        share = f" of {facts.room}" if facts.in_cgroup and facts.peak_bytes else ""
        so = "not watched before, so how it grew is not known."
        text = f"{had}{share}. It was {so}" if facts.peak_bytes else f"{had} was {so}"
    else:
        text = f"{had}. In the time before, neither it nor another process that was watched grew"
        text += " in a way that explains it."
    return Diagnosis("unknown", text + "".join(waited(facts)), rate_of(facts))


def waited(facts: Facts) -> Iterator[str]:
    """How short memory was, by the pressure: what systemd-oomd goes by."""
    samples = facts.past.samples
    if facts.case.killer != "systemd_oomd" or not samples:
        return
    since = samples[-1].time_unix_seconds - RECENT_SECONDS
    recent = (one.pressure_full_avg10 for one in samples if one.time_unix_seconds >= since)
    highest = max((one for one in recent if one is not None), default=0.0)
    if highest >= 1:
        yield f" In the last minute all processes at once waited for memory, {highest:.0f} % of the"
        yield " time at the worst."


# -- measures --------------------------------------------------------------------------------------


def start_of(points: Sequence[Point]) -> float | None:
    """How long it took from when it was first seen, small, to its peak; None: it was not small."""
    points = until_the_end(points)
    if not points:
        return None
    top = max(range(len(points)), key=lambda at: points[at].bytes)
    seconds = points[top].seconds - points[0].seconds
    small = points[0].bytes < 0.2 * points[top].bytes
    return seconds if small and seconds < RECENT_SECONDS and foot_of(points, top) is None else None


def times_at_top(points: Sequence[Point]) -> int:
    """How often it came near its peak, from well below."""
    peak = max((point.bytes for point in points), default=0)
    times, up = 0, False
    for point in points:
        if not up and point.bytes >= NEAR_TOP * peak:
            times, up = times + 1, True
        elif point.bytes < BARELY_FITS * peak:
            up = False
    return times


JUDGES: Final[tuple[Callable[[Facts], Diagnosis | None], ...]] = (
    page_cache,
    many_processes,
    other_process,
    sudden_copy,
    steady_leak,
    overshadowed,
    shared_memory,
    swap_exhausted,
    limit_below_peak,
)
