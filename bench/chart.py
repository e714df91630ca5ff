"""A line chart as SVG, both axes logarithmic; readable on a light and on a dark page."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final, NamedTuple

WIDTH: Final = 880
HEIGHT: Final = 420
LEFT, TOP, RIGHT, BOTTOM = 70, 52, 550, 370  # of the area with the lines
LABEL_HEIGHT: Final = 16
DOTS_MAX: Final = 12  # a line with more points is a curve
COLOURS: Final = (  # Okabe and Ito's: told apart by the colour-blind; each on white and on black
    "#8c8c8c", "#c07a00", "#d55e00", "#0072b2", "#009e73", "#a8578a", "#3f9fd8", "#a39a00",
)  # fmt: skip
STYLE: Final = """\
.page { fill: #ffffff } text { fill: #1f2328; font: 12px sans-serif } .title { font-size: 15px }
.grid { stroke: #d0d7de } .line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d }
}"""

Point = tuple[float, float]


class Axis(NamedTuple):
    """Values from *low* to *high*, both powers of ten, on pixels from *start* to *end*."""

    low: int  # exponents
    high: int
    start: int
    end: int

    def pixel(self, value: float) -> float:
        share = (log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        return [10.0**exponent for exponent in range(self.low, self.high + 1)]


def axis(values: Sequence[float], start: int, end: int) -> Axis:
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    return Axis(low, max(high, low + 1), start, end)


def lines(title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[Point]]) -> str:
    """One line for each name; points that are not above 0 are left out."""
    drawn = {
        name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in series.items()
    }
    points = [point for line in drawn.values() for point in line]
    across = axis([x for x, _ in points], LEFT, RIGHT)
    up = axis([y for _, y in points], BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        label(LEFT, 22, title, "start", "title"),
        *grid(across, up),
        label((LEFT + RIGHT) / 2, HEIGHT - 10, x_label),
        label(LEFT, TOP - 6, y_label, "start"),
        *curves(drawn, across, up),
        "</svg>\n",
    ]
    return "\n".join(parts)


def grid(across: Axis, up: Axis) -> Iterator[str]:
    for value in across.ticks():
        x = across.pixel(value)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}"/>'
        yield label(x, BOTTOM + 18, f"{value:,.10g}")
    for value in up.ticks():
        y = up.pixel(value)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}"/>'
        yield label(LEFT - 6, y + 4, f"{value:,.10g}", "end")


def curves(drawn: Mapping[str, Sequence[Point]], across: Axis, up: Axis) -> Iterator[str]:
    """The lines, and their names at their ends, pushed down where they would cover each other."""
    ends = sorted((up.pixel(line[-1][1]), name) for name, line in drawn.items() if line)
    heights = spaced([height for height, _ in ends])
    found = dict(zip((name for _, name in ends), heights, strict=True))
    places = {name: found[name] for name in drawn if name in found}
    for number, name in enumerate(places):
        colour, line = COLOURS[number % len(COLOURS)], drawn[name]
        pixels = [(across.pixel(x), up.pixel(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
        x, y = pixels[-1]
        yield f'<polyline class="line" stroke="{colour}" points="{path}"/>'
        for x, y in pixels if len(pixels) <= DOTS_MAX else ():
            yield f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        yield (
            f'<line stroke="{colour}" x1="{x:.1f}" y1="{y:.1f}" x2="{RIGHT + 22}" '
            f'y2="{places[name]:.1f}"/>'
        )
        yield label(RIGHT + 26, places[name] + 4, name, "start")


def spaced(heights: Sequence[float]) -> list[float]:
    """Ascending heights, moved apart to at least `LABEL_HEIGHT`, within the page."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + LABEL_HEIGHT) if placed else height)
    for left, height in enumerate(reversed(placed)):
        place = len(placed) - 1 - left
        placed[place] = min(height, BOTTOM + 20 - left * LABEL_HEIGHT)
    return placed


def label(x: float, y: float, text: str, anchor: str = "middle", kind: str = "label") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
