"""What each page of the server says, asked over real sockets."""

import contextlib
import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import ASK, ask_unix, fetch
from snapshots import turn

from oomwatchd.metrics import render
from oomwatchd.model import Address, Pressure, ProcessId, Tracked
from oomwatchd.pages import quality
from oomwatchd.server import Reporter

ANY_PORT = Address("127.0.0.1", 0)


@pytest.fixture
def reporter(tmp_path: Path) -> Iterator[Reporter]:
    with contextlib.closing(Reporter(ANY_PORT, tmp_path / "s", stale_seconds=15.0)) as reporter:
        reporter.publish(turn())
        yield reporter


def document(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    read: dict[str, object] = json.loads(body)
    return read


# -- pages -----------------------------------------------------------------------------------------


def test_metrics_are_those_of_the_last_snapshot(reporter: Reporter) -> None:
    reporter.publish(turn(version="7"))
    reporter.publish(turn(version="8"))
    response, body = fetch(reporter, "/metrics")

    assert response.status == 200
    assert response.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert body == render(turn(version="8"))


def test_before_the_first_turn_there_is_nothing_to_show(tmp_path: Path) -> None:
    with contextlib.closing(Reporter(ANY_PORT, tmp_path / "s", stale_seconds=15.0)) as reporter:
        answers = [fetch(reporter, path) for path in ("/metrics", "/healthz")]
        status = ask_unix(tmp_path / "s")

    assert [response.status for response, _ in answers] == [503, 503]
    assert all(b"the first turn is not finished yet" in body for _, body in answers)
    assert status.startswith(b"HTTP/1.0 503 ")


def test_openmetrics_and_gzip_are_for_those_who_ask(reporter: Reporter) -> None:
    prometheus = (
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    )
    response, body = fetch(reporter, "/metrics", Accept=prometheus, Accept_Encoding="gzip")
    plain, _ = fetch(reporter, "/metrics", Accept="*/*", Accept_Encoding="identity")

    assert response.getheader("Content-Encoding") == "gzip"
    kind = response.getheader("Content-Type")
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert gzip.decompress(body) == render(turn(), openmetrics=True)
    assert plain.getheader("Content-Encoding") is None


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", 0),
        ("*/*", 0),
        ("gzip", 1),
        ("br, GZIP", 1),
        ("deflate;q=1, gzip; q=0.25", 0.25),
        ("gzip;q=0", 0),
        ("gzip;q=much", 0),
        ("gzip;level=3;q=0.5", 0.5),
        ("x-gzip", 0),
    ],
)
def test_what_a_client_wants_is_read_from_its_header(header: str, wanted: float) -> None:
    assert quality(header, "gzip") == wanted


def test_a_client_that_likes_text_better_gets_text(reporter: Reporter) -> None:
    accept = "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5"
    response, _ = fetch(reporter, "/metrics", Accept=accept)

    assert str(response.getheader("Content-Type")).startswith("text/plain")


def test_the_front_page_leads_to_the_metrics(reporter: Reporter) -> None:
    response, body = fetch(reporter, "/")

    assert response.status == 200
    assert b'href="/metrics"' in body


def test_head_has_the_headers_of_get_and_no_body(reporter: Reporter) -> None:
    head, nothing = fetch(reporter, "/metrics", "HEAD")
    get, body = fetch(reporter, "/metrics")

    assert nothing == b""
    assert head.status == get.status
    assert head.getheader("Content-Length") == get.getheader("Content-Length") == str(len(body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_refused(reporter: Reporter, method: str) -> None:
    response, _ = fetch(reporter, "/metrics", method)

    assert response.status == 405
    assert response.getheader("Allow") == "GET, HEAD"


@pytest.mark.parametrize("path", ["/favicon.ico", "/metrics/", "/../etc/shadow", "/status"])
def test_other_paths_are_not_found(reporter: Reporter, path: str) -> None:
    response, body = fetch(reporter, path)

    assert response.status == 404
    assert path.encode() not in body


def test_a_query_is_passed_over(reporter: Reporter) -> None:
    response, _ = fetch(reporter, "/metrics?name[]=up")

    assert response.status == 200


def test_healthy_is_who_has_finished_a_turn_of_late(reporter: Reporter) -> None:
    reporter.publish(turn(turn_seconds=time.monotonic() - 100))
    late, reason = fetch(reporter, "/healthz")
    reporter.stale_seconds = 200.0
    fine, _ = fetch(reporter, "/healthz")

    assert late.status == 503
    assert reason.startswith(b"the last turn ended 100.")
    assert fine.status == 200


# -- status, on the unix socket --------------------------------------------------------------------


def test_status_tells_all_that_the_daemon_holds(reporter: Reporter, tmp_path: Path) -> None:
    reporter.publish(turn(started_unix_seconds=time.time() - 60))
    status = document(ask_unix(tmp_path / "s"))
    uptime_seconds = status.pop("uptime_seconds")

    assert isinstance(uptime_seconds, float)
    assert 60 <= uptime_seconds < 70
    assert status == {
        "version": "1.2.3",
        "pid": os.getpid(),
        "rules": [
            {
                "name": "model-training",
                "oom_score_adj": -900,
                "workers": -800,
                "processes": 2,
                "resident_bytes": 6_442_450_944,
                "swap_bytes": 1_048_576,
                "adjustments": {
                    "applied": 2,
                    "gone": 0,
                    "refused": 0,
                    "drifted": 1,
                    "restored": 0,
                },
                "exposed": {"systemd_oomd": 2},
            },
            {
                "name": "expendable",
                "oom_score_adj": 500,
                "workers": None,
                "processes": 0,
                "resident_bytes": 0,
                "swap_bytes": 0,
                "adjustments": dict.fromkeys(
                    ("applied", "gone", "refused", "drifted", "restored"), 0
                ),
                "exposed": {},
            },
        ],
        "processes": [
            {
                "pid": 811,
                "start_ticks": 4211,
                "name": "python3",
                "rule": "model-training",
                "wanted": -900,
                "oom_score_adj": -900,
                "resident_bytes": 4_294_967_296,
                "swap_bytes": 0,
            },
            {
                "pid": 812,
                "start_ticks": 4300,
                "name": "python3",
                "rule": "model-training",
                "wanted": -800,
                "oom_score_adj": -800,
                "resident_bytes": 2_147_483_648,
                "swap_bytes": 1_048_576,
            },
        ],
        "pressure": {
            "level": "warning",
            "some_avg10": 12.5,
            "some_avg60": 6.25,
            "some_avg300": 1.0,
            "some_total_seconds": 42.5,
            "full_avg10": 8.0,
            "full_avg60": 4.0,
            "full_avg300": 0.5,
            "full_total_seconds": 21.25,
        },
        "features": {"psi": True, "kernel_log": False},
        "last_incident": None,
    }


def test_status_without_psi_has_the_level_and_no_figures(
    reporter: Reporter, tmp_path: Path
) -> None:
    reporter.publish(turn(pressure=None, level="ok"))

    pressure = document(ask_unix(tmp_path / "s"))["pressure"]

    assert pressure == {"level": "ok", **dict.fromkeys(Pressure._fields)}


def test_a_hostile_name_stays_inside_its_string(reporter: Reporter, tmp_path: Path) -> None:
    name = 'x"}]\r\n\r\n\x1b[2J\u202e'
    reporter.publish(turn(processes=(Tracked(ProcessId(1, 1), name, "r", 0, 0, 0, 0),)))
    answer = ask_unix(tmp_path / "s")
    [process] = json.loads(answer.partition(b"\r\n\r\n")[2])["processes"]

    assert answer.isascii()
    assert process["name"] == name


def test_metrics_are_on_the_unix_socket_too(reporter: Reporter, tmp_path: Path) -> None:
    assert render(turn()) in ask_unix(tmp_path / "s", ASK)
