"""What Prometheus sees: one snapshot turned into text.

Nothing is global and nothing is read here but the snapshot, so a scrape costs the loop nothing.
"""

import gzip
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from oomwatchd.model import Snapshot
from oomwatchd.series import DECLARED, Declared, Row

HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
LABEL_ESCAPES: Final = HELP_ESCAPES | str.maketrans({'"': r"\""})  # OpenMetrics: in a help as well


def render(snapshot: Snapshot, *, openmetrics: bool = False) -> bytes:
    """The text of a scrape, in Prometheus' own format or as OpenMetrics.

    All that DECLARED lists and the snapshot has values for, in that order.

    Source:  https://prometheus.io/docs/instrumenting/exposition_formats/; OpenMetrics 1.0.
    """
    lines: list[str] = []
    for declared in DECLARED:
        found = list(samples(declared, snapshot))
        if found:
            lines += head(declared, openmetrics=openmetrics)
            lines += found
    if openmetrics:
        lines.append("# EOF")
    return "".join([f"{line}\n" for line in lines]).encode()


def head(declared: Declared, *, openmetrics: bool) -> Iterator[str]:
    """OpenMetrics names a counter without the ending that its samples have."""
    name = declared.name.removesuffix("_total") if openmetrics else declared.name
    escapes = LABEL_ESCAPES if openmetrics else HELP_ESCAPES
    yield f"# HELP {name} {declared.help.translate(escapes)}"
    yield f"# TYPE {name} {declared.type}"


def samples(declared: Declared, snapshot: Snapshot) -> Iterator[str]:
    rows = declared.rows(snapshot)
    if declared.type == "histogram":
        yield from histogram(declared.name, rows, snapshot.scan_seconds_total)
        return
    for labels, value in rows:
        yield sample(declared.name, declared.labels, labels, value)


def histogram(name: str, buckets: Iterable[Row], total: float) -> Iterator[str]:
    """*buckets*, each with all that is below its bound; the last has everything."""
    count = 0.0
    for bound, count in buckets:
        yield sample(f"{name}_bucket", ("le",), bound, count)
    yield sample(f"{name}_count", (), (), count)
    yield sample(f"{name}_sum", (), (), total)


def sample(name: str, labels: Iterable[str], values: Iterable[str], value: float) -> str:
    """Labels in the order of the alphabet, as Prometheus' own clients have them: people grep."""
    pairs = sorted(
        f'{label}="{text.translate(LABEL_ESCAPES)}"'
        for label, text in zip(labels, values, strict=True)
    )
    return f"{name}{{{','.join(pairs)}}} {float(value)}" if pairs else f"{name} {float(value)}"


class Exposition:
    """The text of one snapshot, rendered once however many ask for it and however often.

    One thread renders while the others wait for it: several at once would only take the
    interpreter away from the loop for longer.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot: Final = snapshot
        self._lock: Final = threading.Lock()
        self._bodies: Final[dict[tuple[bool, bool], bytes]] = {}

    def body(self, *, openmetrics: bool, compressed: bool) -> bytes:
        with self._lock:
            return self._body(openmetrics=openmetrics, compressed=compressed)

    def _body(self, *, openmetrics: bool, compressed: bool) -> bytes:
        known = self._bodies.get((openmetrics, compressed))
        if known is not None:
            return known
        if compressed:  # level 1: a tenth of the time of level 9, and nearly as small here
            body = gzip.compress(self._body(openmetrics=openmetrics, compressed=False), 1, mtime=0)
        else:
            body = render(self.snapshot, openmetrics=openmetrics)
        self._bodies[openmetrics, compressed] = body
        return body
