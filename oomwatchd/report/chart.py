"""Line charts over time, as inline SVG with labels in HTML.

The drawing is stretched to the width there is, while lines keep their width and labels stay text of
ordinary size; so the same chart can be read on a phone and on a wall.
"""

from collections.abc import Iterator, Sequence
from math import ceil, floor, log10
from typing import Final, NamedTuple

from oomwatchd.report.markup import Markup, element, joined

WIDTH: Final = 1000.0  # of the drawing's own coordinates
HEIGHT: Final = 300.0
POINTS_SHOWN_MAX: Final = 80  # with a dot each; more of them would be a smear
TIMES_MAX: Final = 5  # steps between labels, as many as a phone has room for
MIDDLE: Final = 0.5  # a mark right of it is written to the left of its place, and so stays inside
HIGH: Final = 0.9  # a mark above it is written below its place
NICE: Final = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0)
STEPS_SECONDS: Final = (
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
)

Value = float | None
Place = tuple[float, float] | None


class Series(NamedTuple):
    label: str
    style: str  # the class of its line and of its key
    values: Sequence[Value]  # None: a gap


class Mark(NamedTuple):
    """A few words at a point of a line."""

    seconds: float
    value: float
    text: str
    style: str


class Chart(NamedTuple):
    title: str
    seconds: Sequence[float]  # before the kill: negative, ascending
    series: Sequence[Series]
    unit: str  # of the vertical axis
    unit_size: float  # of the values: 1 GiB, 1 MiB, 1 %
    least_top: float = 1.0  # in units: the axis reaches at least so far
    marks: Sequence[Mark] = ()

    @property
    def last(self) -> float:
        """Where the time axis ends: at the kill, or after it, should the clock have been set."""
        return max(self.seconds[-1], 0.0)

    def x(self, at: float) -> float:
        """From 0 to 1."""
        first = self.seconds[0]
        return (at - first) / ((self.last - first) or 1.0)


def drawn(chart: Chart) -> Markup:
    """A figure; empty without at least two instants and one value."""
    values = [value for one in chart.series for value in one.values if value is not None]
    if len(chart.seconds) < 2 or not values:
        return Markup("")
    highest = max(chart.least_top * chart.unit_size, *values)
    step = nice_step(highest / chart.unit_size) * chart.unit_size
    top = step * ceil(highest / step)
    plot = element(
        "div",
        element("svg", *drawing(chart, top, step), **frame(chart.title)),
        *vertical_labels(chart, top, step),
        *horizontal_labels(chart),
        *written(chart, top),
        class_="plot",
    )
    caption = element("figcaption", element("strong", chart.title), *keys(chart.series))
    return element("figure", caption, plot)


def frame(title: str) -> dict[str, object]:
    return {
        "viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        "preserveAspectRatio": "none",
        "role": "img",
        "aria-label": title,
    }


def drawing(chart: Chart, top: float, step: float) -> Iterator[Markup]:
    for number in range(round(top / step) + 1):
        height = y(number * step, top)
        yield element("path", d=f"M0 {height:.1f}H{WIDTH:.0f}", class_="grid")
    for at in times(chart):
        style = "grid" if at else "kill"
        yield element("path", d=f"M{WIDTH * chart.x(at):.1f} 0V{HEIGHT:.0f}", class_=style)
    for one in chart.series:
        places = placed(chart, one.values, top)
        if path := path_of(places):
            yield element("path", d=path, class_=f"line {one.style}")
        if len(chart.seconds) <= POINTS_SHOWN_MAX and one.style == "victim":
            yield element("path", d=dots(places), class_=f"dot {one.style}")


def placed(chart: Chart, values: Sequence[Value], top: float) -> list[Place]:
    return [
        None if value is None else (WIDTH * chart.x(at), y(value, top))
        for at, value in zip(chart.seconds, values, strict=True)
    ]


def path_of(places: Sequence[Place]) -> str:
    """Straight from point to point, with a gap where a value is not known."""
    parts, drawing_now = [], False
    for place in places:
        if place is not None:
            parts.append(f"{'L' if drawing_now else 'M'}{place[0]:.1f} {place[1]:.1f}")
        drawing_now = place is not None
    return "".join(parts)


def dots(places: Sequence[Place]) -> str:
    """Lines of no length, whose round caps are dots however the drawing is stretched."""
    return "".join(f"M{place[0]:.1f} {place[1]:.1f}h0.01" for place in places if place is not None)


def y(value: float, top: float) -> float:
    return HEIGHT * (1 - min(value / top, 1.0))


def vertical_labels(chart: Chart, top: float, step: float) -> Iterator[Markup]:
    for number in range(round(top / step) + 1):
        place = f"bottom:{100 * number * step / top:.2f}%"
        value = f"{number * step / chart.unit_size:g}"
        yield element("span", f"{value} {chart.unit}" if number else "0", class_="y", style=place)


def horizontal_labels(chart: Chart) -> Iterator[Markup]:
    for number, at in enumerate(times(chart)):
        place = f"left:{100 * chart.x(at):.2f}%"
        style = "x odd" if number % 2 else "x"  # left out where there is very little room
        yield element("span", before(at) if at else "kill", class_=style, style=place)


def times(chart: Chart) -> list[float]:
    """Round times before the kill, a few, and the kill itself: 0."""
    length = chart.last - chart.seconds[0]
    step = next((step for step in STEPS_SECONDS if length / step <= TIMES_MAX), length / TIMES_MAX)
    return [-number * step for number in range(floor(-chart.seconds[0] / (step or 1.0)) + 1)]


def written(chart: Chart, top: float) -> Iterator[Markup]:
    """Beside their places, and never outside of the drawing."""
    for mark in chart.marks:
        right, high = chart.x(mark.seconds), min(mark.value / top, 1.0)
        place = f"left:{100 * right:.2f}%;bottom:{100 * high:.2f}%"
        side = "before" if right > MIDDLE else "after"
        level = "below" if high > HIGH else "above"
        style = f"mark {side} {level} {mark.style}"
        yield element("span", mark.text, class_=style, style=place)


def before(seconds: float) -> str:
    """``-2.5 s``, ``-5 min``; after it, should the clock have been set, ``+1 s``."""
    sign = "\N{MINUS SIGN}" if seconds < 0 else "+"
    size = abs(seconds)
    return f"{sign}{size:g} s" if size < 60 else f"{sign}{size / 60:g} min"


def nice_step(top: float) -> float:
    """A round number that goes at most five times into *top*."""
    size = 10.0 ** floor(log10(top / 5))
    return next(size * factor for factor in NICE if size * factor * 5 >= top)


def keys(series: Sequence[Series]) -> Iterator[Markup]:
    for one in series:
        if any(value is not None for value in one.values):
            swatch = element("span", class_=f"swatch {one.style}")
            yield joined(Markup(" "), element("span", swatch, one.label, class_="key"))
