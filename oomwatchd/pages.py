"""The server's pages: each an answer made from what was last published, and from nothing else."""

import json
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from oomwatchd.metrics import Exposition
from oomwatchd.model import Pressure, Rule, Snapshot, Tracked
from oomwatchd.series import NO_PROCESSES, OUTCOMES

TEXT: Final = "text/plain; charset=utf-8"
PROMETHEUS_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text"
INDEX: Final = b"""\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>oomwatchd</title></head>
<body><h1>oomwatchd</h1><p><a href="/metrics">Metrics</a>, <a href="/healthz">health</a></p></body>
</html>
"""


class Answer(NamedTuple):
    status: HTTPStatus
    headers: Mapping[str, str]
    body: bytes


Header = Callable[[str], str]  # gives the request's header of a name; empty if it has none
Page = Callable[[Header], Answer]


def text(status: HTTPStatus, line: str) -> Answer:
    return Answer(status, {"Content-Type": TEXT}, f"{line}\n".encode())


INDEX_PAGE: Final = Answer(HTTPStatus.OK, {"Content-Type": "text/html; charset=utf-8"}, INDEX)
NOT_FOUND: Final = text(HTTPStatus.NOT_FOUND, "404 Not Found")
REFUSED: Final = Answer(
    HTTPStatus.METHOD_NOT_ALLOWED,
    {"Content-Type": TEXT, "Allow": "GET, HEAD"},
    b"405 Method Not Allowed\n",
)
NOT_YET: Final = text(HTTPStatus.SERVICE_UNAVAILABLE, "the first turn is not finished yet")


def quality(header: str, name: str) -> float:
    """How much a client wants *name*, by its Accept or Accept-Encoding header: 0, not at all, to 1.

    Source: RFC 9110, section 12.4.2.
    """
    for item in header.lower().split(","):
        key, *parameters = (part.strip() for part in item.split(";"))
        if key == name:
            wanted = next((part[2:] for part in parameters if part.startswith("q=")), "1")
            return float(wanted) if wanted.replace(".", "", 1).isdecimal() else 0.0
    return 0.0


def metrics_page(exposition: Exposition, header: Header) -> Answer:
    accept = header("Accept")
    openmetrics = 0 < quality(accept, OPENMETRICS) >= quality(accept, "text/plain")
    compressed = quality(header("Accept-Encoding"), "gzip") > 0
    kind = f"{OPENMETRICS}; version=1.0.0; charset=utf-8" if openmetrics else PROMETHEUS_TEXT
    headers = {"Content-Type": kind, "Vary": "Accept, Accept-Encoding"}
    if compressed:
        headers["Content-Encoding"] = "gzip"
    body = exposition.body(openmetrics=openmetrics, compressed=compressed)
    return Answer(HTTPStatus.OK, headers, body)


def health_page(turn_age_seconds: float, stale_seconds: float) -> Answer:
    if turn_age_seconds <= stale_seconds:
        return text(HTTPStatus.OK, "ok")
    return text(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"the last turn ended {turn_age_seconds:.1f} s ago, more than {stale_seconds:.1f} s",
    )


def status_page(snapshot: Snapshot, now_unix_seconds: float) -> Answer:
    document = json.dumps(status_document(snapshot, now_unix_seconds))
    headers = {"Content-Type": "application/json"}
    return Answer(HTTPStatus.OK, headers, f"{document}\n".encode())


def status_document(snapshot: Snapshot, now_unix_seconds: float) -> dict[str, object]:
    """What `oomwatchd status --json` prints: a contract, fields are only ever added."""
    pressure = snapshot.pressure
    averages = dict.fromkeys(Pressure._fields) if pressure is None else pressure._asdict()
    return {
        "version": snapshot.version,
        "pid": os.getpid(),
        "uptime_seconds": max(0.0, now_unix_seconds - snapshot.started_unix_seconds),
        "rules": [_rule(rule, snapshot) for rule in snapshot.rules],
        "processes": [_process(process) for process in snapshot.processes],
        "pressure": {"level": snapshot.level, **averages},
        "features": dict(snapshot.features),
        "last_incident": snapshot.last_incident,
    }


def _rule(rule: Rule, snapshot: Snapshot) -> dict[str, object]:
    count = snapshot.adjustments.get
    return {
        "name": rule.name,
        "oom_score_adj": rule.oom_score_adj,
        "workers": rule.workers,
        **snapshot.totals.get(rule.name, NO_PROCESSES)._asdict(),
        "adjustments": {outcome: count((rule.name, outcome), 0) for outcome in OUTCOMES},
        "exposed": _exposed(rule, snapshot.exposed),
    }


def _exposed(rule: Rule, exposed: Mapping[tuple[str, str], int] | None) -> dict[str, int] | None:
    """By killer, those that it can still take; None: no audit has told."""
    if exposed is None:
        return None
    return {killer: count for (name, killer), count in exposed.items() if name == rule.name}


def _process(process: Tracked) -> dict[str, object]:
    return {
        "pid": process.id.pid,
        "start_ticks": process.id.start_ticks,
        "name": process.comm,
        "rule": process.rule,
        "wanted": process.wanted,
        "oom_score_adj": process.oom_score_adj,
        "resident_bytes": process.resident_bytes,
        "swap_bytes": process.swap_bytes,
    }
