"""The dashboard as one SVG, drawn from the answers to its own queries; not by Grafana."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple

COLUMN, UNIT, GAP = 52, 30, 8  # pixels: a column of the grid, a unit of height, between panels
HEADING, FOOT, LEFT = 26, 34, 62  # of a panel with lines: title, legend, labels of the axis
NOTE: Final = 30
COLOURS: Final = (  # Okabe and Ito's: told apart by the colour-blind; each on white and on black
    "#0072b2", "#c07a00", "#009e73", "#d55e00", "#a8578a", "#3f9fd8", "#8c8c8c", "#a39a00",
)  # fmt: skip
BACKGROUNDS: Final = {"green": "#2c7a3f", "orange": "#b86a00", "red": "#b3261e", "blue": "#1f5fae"}
STYLE: Final = """\
.page { fill: #f4f5f5 } .panel { fill: #ffffff; stroke: #d0d7de } text { fill: #1f2328;
font: 12px sans-serif } .title { font-weight: bold } .grid { stroke: #e3e7eb }
.tile { fill: #ffffff; font-size: 26px; font-weight: bold } .tiletitle { fill: #ffffff }
.kill { stroke: #d55e00; stroke-dasharray: 4 3 } .axis { font-size: 11px }
@media (prefers-color-scheme: dark) {
.page { fill: #111217 } .panel { fill: #181b1f; stroke: #2c3235 } text { fill: #d8d9da }
.grid { stroke: #2c3235 }
}"""
STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)

Series = dict[str, Any]  # as Prometheus gives it
Ask = Callable[[str, bool], list[Series]]  # a query, and whether of this moment alone


class Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float


class Frame(NamedTuple):
    """Where lines are drawn, and what of."""

    box: Box
    began: float
    ended: float
    top: float

    def point(self, seconds: float, value: float) -> tuple[float, float]:
        across = (seconds - self.began) / (self.ended - self.began)
        x = self.box.x + across * self.box.width
        return x, self.box.y + self.box.height * (1 - min(value / self.top, 1.0))


class Picture(NamedTuple):
    ask: Ask
    began: float
    ended: float
    kills: Sequence[float]  # when

    # -- panels

    def panel(self, panel: Mapping[str, Any], box: Box) -> Iterator[str]:
        kinds = {"stat": self.tile, "timeseries": self.lines, "state-timeline": self.levels,
                 "table": self.table}  # fmt: skip
        if panel["type"] != "stat":
            yield rectangle(box, "panel")
            yield label(box.x + 10, box.y + 18, panel["title"], kind="title")
        yield from kinds[panel["type"]](panel, box)

    def tile(self, panel: Mapping[str, Any], box: Box) -> Iterator[str]:
        [series] = self.ask(panel["targets"][0]["expr"], True)
        value = float(series["value"][1])
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        reached = [step["color"] for step in steps if value >= (step["value"] or 0)]
        colour = BACKGROUNDS[reached[-1]]
        yield (
            f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" '
            f'height="{box.height:.0f}" rx="3" fill="{colour}"/>'
        )
        yield label(box.x + 10, box.y + 18, panel["title"], kind="tiletitle")
        yield label(box.x + box.width / 2, box.y + 76, f"{value:.0f}", "middle", "tile")

    def lines(self, panel: Mapping[str, Any], box: Box) -> Iterator[str]:
        custom = panel["fieldConfig"]["defaults"]["custom"]
        found = [
            (legend(target["legendFormat"], series), points(series))
            for target in panel["targets"]
            for series in self.ask(target["expr"], False)
        ]
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        shown = stack(found) if stacked else found
        highest = max((value for _, line in shown for value in line.values()), default=0.0)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        step = nice_step(highest, binary=unit == "bytes")
        top = step * max(1, -(-highest // step))
        frame = Frame(inner(box), self.began, self.ended, top)
        yield from axes(frame, step, unit)
        for number, (_, line) in reversed(list(enumerate(shown))):
            yield drawn(frame, line, COLOURS[number % len(COLOURS)], filled=stacked)
        for seconds in self.kills:
            x, _ = frame.point(seconds, 0)
            ground = frame.box.y + frame.box.height
            yield f'<path class="kill" d="M{x:.1f} {frame.box.y}V{ground}"/>'
        yield from keys(box, [name for name, _ in found])

    def levels(self, panel: Mapping[str, Any], box: Box) -> Iterator[str]:
        words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
        found = self.ask(panel["targets"][0]["expr"], False)
        area = inner(box)
        frame = Frame(area, self.began, self.ended, 1.0)
        height = min(40.0, area.height / max(len(found), 1))
        for number, series in enumerate(found):
            y = area.y + number * height
            line = points(series)
            ends = [*list(line)[1:], self.ended]
            for (start, value), end in zip(line.items(), ends, strict=True):
                (left, _), (right, _) = frame.point(start, 0), frame.point(end, 0)
                colour = BACKGROUNDS[words[f"{value:.0f}"]["color"]]
                yield (
                    f'<rect x="{left:.1f}" y="{y:.0f}" width="{right - left + 0.5:.1f}" '
                    f'height="{height - 8:.0f}" fill="{colour}"/>'
                )
            yield label(area.x, y + height + 8, legend("{{instance}}", series), kind="axis")
        colours = [BACKGROUNDS[one["color"]] for one in words.values()]
        yield from keys(box, [one["text"] for one in words.values()], colours)

    def table(self, panel: Mapping[str, Any], box: Box) -> Iterator[str]:
        names = panel["transformations"][1]["options"]["renameByName"]
        units = {
            one["matcher"]["options"]: one["properties"][0].get("value")
            for one in panel["fieldConfig"]["overrides"]
        }
        rows: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
        for target in panel["targets"]:
            several = len(panel["targets"]) > 1
            column = names[f"Value #{target['refId']}" if several else "Value"]
            for series in self.ask(target["expr"], True):
                row = rows.setdefault(tuple(sorted(series["metric"].items())), {})
                row[column] = float(series["value"][1])
        labels = [name for name, _ in next(iter(rows), ())]
        columns = [name for name in names.values() if name != "machine"]
        width = (box.width - 20) / (len(labels) + len(columns))
        heads = [*(names.get(name, name) for name in labels), *columns]
        lines = [heads]
        for key, values in sorted(rows.items(), key=lambda row: -max(row[1].values())):
            cells = [shown(values.get(one, 0.0), units.get(one) or "short") for one in columns]
            lines.append([*(value for _, value in key), *cells])
        for number, cells in enumerate(lines):
            for place, cell in enumerate(cells):
                x, y = box.x + 10 + place * width, box.y + 48 + number * 24
                yield label(x, y, cell, kind="label" if number else "title")


def picture(panels: Sequence[Mapping[str, Any]], drawn_by: Picture, note: str) -> str:
    """Of *panels*, rows among them, from the top of the first to the end of the last."""
    begin = min(one["gridPos"]["y"] for one in panels)
    end = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels)
    width, height = 24 * COLUMN + GAP, (end - begin) * UNIT + NOTE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>The dashboard of oomwatchd</title>\n<style>\n{STYLE}\n</style>",
        rectangle(Box(0, 0, width, height), "page"),
    ]
    for one in panels:
        place = one["gridPos"]
        x, y = place["x"] * COLUMN + GAP, (place["y"] - begin) * UNIT
        if one["type"] == "row":
            parts.append(label(x + 2, y + 20, one["title"], kind="title"))
            continue
        box = Box(x, y, place["w"] * COLUMN - GAP, place["h"] * UNIT - GAP)
        parts += drawn_by.panel(one, box)
    return "\n".join([*parts, label(GAP + 2, height - 10, note), "</svg>\n"])


# -- lines -----------------------------------------------------------------------------------------


def points(series: Series) -> dict[float, float]:
    return {float(seconds): float(value) for seconds, value in series["values"] if value != "NaN"}


def stack(found: Sequence[tuple[str, dict[float, float]]]) -> list[tuple[str, dict[float, float]]]:
    """Each line on top of those before it."""
    below: dict[float, float] = {}
    stacked = []
    for name, line in found:
        below = {**below, **{at: below.get(at, 0.0) + value for at, value in line.items()}}
        stacked.append((name, dict(sorted(below.items()))))
    return stacked


def nice_step(highest: float, *, binary: bool) -> float:
    """Between two lines of the grid, of which there are five or so."""
    size, base = 1.0, 1024.0 if binary else 1000.0
    while size * base <= highest:
        size *= base
    while not binary and size > highest > 0:
        size /= 10
    hundreds = [size * tens * step for tens in (1, 10, 100) for step in STEPS]
    return next((one for one in hundreds if one * 5 >= highest), size) if highest else 1.0


def drawn(frame: Frame, line: Mapping[float, float], colour: str, *, filled: bool) -> str:
    places = [frame.point(at, value) for at, value in line.items()]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    if not places:
        return ""
    stroke = f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    if not filled:
        return stroke
    ground = frame.box.y + frame.box.height
    area = f"M{places[0][0]:.1f} {ground:.1f}L{path}L{places[-1][0]:.1f} {ground:.1f}Z"
    return f'<path d="{area}" fill="{colour}"/>{stroke}'


def axes(frame: Frame, step: float, unit: str) -> Iterator[str]:
    box = frame.box
    for number in range(round(frame.top / step) + 1):
        _, y = frame.point(frame.began, number * step)
        yield f'<path class="grid" d="M{box.x:.0f} {y:.1f}H{box.x + box.width:.0f}"/>'
        yield label(box.x - 6, y + 4, shown(number * step, unit), "end", "axis")
    for minute in range(int((frame.ended - frame.began) // 60) + 1):
        x, _ = frame.point(frame.began + 60 * minute, 0)
        yield label(x, box.y + box.height + 14, f"{minute} min", "middle", "axis")


def keys(box: Box, names: Sequence[str], colours: Sequence[str] = COLOURS) -> Iterator[str]:
    x = box.x + 12
    for number, name in enumerate(names):
        y = box.y + box.height - 9
        colour = colours[number % len(colours)]
        yield f'<rect x="{x:.0f}" y="{y - 8:.0f}" width="10" height="8" fill="{colour}"/>'
        yield label(x + 14, y, name, kind="axis")
        x += 32 + 6.5 * len(name)


def legend(template: str, series: Series) -> str:
    for name, value in series["metric"].items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


# -- text ------------------------------------------------------------------------------------------


def shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        for name in ("B", "KiB", "MiB"):
            if value < 1024:
                return f"{value:.3g} {name}"
            value /= 1024
        return f"{value:.3g} GiB"
    return f"{value:.0f}" if abs(value - round(value)) < 0.05 else f"{value:.3g}"


def inner(box: Box) -> Box:
    return Box(
        box.x + LEFT, box.y + HEADING + 6, box.width - LEFT - 16, box.height - HEADING - FOOT - 12
    )


def rectangle(box: Box, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" '
        f'height="{box.height:.0f}" rx="3"/>'
    )


def label(x: float, y: float, text: str, anchor: str = "start", kind: str = "label") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
