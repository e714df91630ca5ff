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
AT_THE_EDGE: Final = 0.1  # of a step: what was sampled last is as good as the kill
NICE: Final = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0)
STEPS_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

Value = float | None


class Series(NamedTuple):
    label: str
    style: str  # the class of its line and of its key
    values: Sequence[Value]  # None: a gap


class Chart(NamedTuple):
    title: str
    seconds: Sequence[float]  # before the kill: negative, ascending
    series: Sequence[Series]
    unit: str  # of the vertical axis
    unit_size: float  # of the values: 1 GiB, 1 MiB, 1 %
    least_top: float = 1.0  # in units: the axis reaches at least so far


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
        *horizontal_labels(chart.seconds),
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
    for one in chart.series:
        path = path_of(chart.seconds, one.values, top)
        if path:
            yield element("path", d=path, class_=f"line {one.style}")
        if len(chart.seconds) <= POINTS_SHOWN_MAX and one.style == "victim":
            yield element("path", d=dots(chart.seconds, one.values, top), class_=f"dot {one.style}")


def path_of(seconds: Sequence[float], values: Sequence[Value], top: float) -> str:
    """Straight from point to point, with a gap where a value is not known."""
    parts, drawing_now = [], False
    for at, value in zip(seconds, values, strict=True):
        if value is not None:
            command = "L" if drawing_now else "M"
            parts.append(f"{command}{x(at, seconds):.1f} {y(value, top):.1f}")
        drawing_now = value is not None
    return "".join(parts)


def dots(seconds: Sequence[float], values: Sequence[Value], top: float) -> str:
    """Lines of no length, whose round caps are dots however the drawing is stretched."""
    return "".join(
        f"M{x(at, seconds):.1f} {y(value, top):.1f}h0.01"
        for at, value in zip(seconds, values, strict=True)
        if value is not None
    )


def x(at: float, seconds: Sequence[float]) -> float:
    first, last = seconds[0], seconds[-1]
    return WIDTH * (at - first) / ((last - first) or 1.0)


def y(value: float, top: float) -> float:
    return HEIGHT * (1 - min(value / top, 1.0))


def vertical_labels(chart: Chart, top: float, step: float) -> Iterator[Markup]:
    for number in range(round(top / step) + 1):
        place = f"bottom:{100 * number * step / top:.2f}%"
        value = f"{number * step / chart.unit_size:g}"
        yield element("span", f"{value} {chart.unit}" if number else "0", class_="y", style=place)


def horizontal_labels(seconds: Sequence[float]) -> Iterator[Markup]:
    """Round times before the kill, five at most, and the kill itself."""
    first, last = seconds[0], seconds[-1]
    length = (last - first) or 1.0
    step = next((step for step in STEPS_SECONDS if length / step <= 4), length / 4)
    newest = ceil(-last / step - AT_THE_EDGE)  # in steps before the kill
    for number in range(newest, newest + 6):
        at = -number * step
        if at >= first:
            place = f"left:{min(100 * (at - first) / length, 100.0):.2f}%"
            text = before(at) if number else "kill"
            yield element("span", text, class_="x", style=place)


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
