"""What Prometheus sees: one snapshot turned into metric families, and these into text.

Nothing is global and nothing is read here but the snapshot, so a scrape costs the loop nothing.
"""

import gzip
import threading
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder

from oomwatchd.model import Snapshot
from oomwatchd.series import DECLARED


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """All that DECLARED lists and the snapshot has values for, in that order."""
    for declared in DECLARED:
        rows = declared.rows(snapshot)
        if declared.type == "histogram":
            buckets = [(le, count) for (le,), count in rows]
            total = snapshot.scan_seconds_total
            yield HistogramMetricFamily(declared.name, declared.help, buckets, total)
            continue
        make = CounterMetricFamily if declared.type == "counter" else GaugeMetricFamily
        family = make(declared.name, declared.help, labels=declared.labels)
        for labels, value in rows:
            family.add_metric(labels, value)
        if family.samples:
            yield family


class _SnapshotRegistry(CollectorRegistry):
    """What the library's encoders ask for: our families, and none of its own about Python."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return families(self._snapshot)


def render(snapshot: Snapshot, *, openmetrics: bool = False) -> bytes:
    """The text of a scrape, in Prometheus' own format or as OpenMetrics."""
    # Our names need no escaping; allow-utf-8 spares recent libraries a check of each character
    # of each sample, which doubled the time (0.26: 5.5 ms for 100 rules).  Older ones ignore it.
    wanted = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"
    encode, _ = choose_encoder(wanted if openmetrics else "")
    return encode(_SnapshotRegistry(snapshot))


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
