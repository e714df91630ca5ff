"""`oomwatchd status`: what the running daemon holds, asked on its unix socket.

It imports neither the server nor its libraries: the question is one line, and the answer comes
as HTTP with the connection's end as its end.
"""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from oomwatchd.cli import exits
from oomwatchd.cli.failure import Failure, fail
from oomwatchd.cli.table import Column, show, show_document, table, terminal_width
from oomwatchd.paths import runtime_directory, status_socket
from oomwatchd.text import printable, size

FIRST_ROWS: Final = 20
ANSWER_SECONDS: Final = 10.0
CHUNK_BYTES: Final = 65536

RULE_COLUMNS: Final = (
    Column("RULE", cut=True),
    Column("ADJ", right=True),
    Column("PROCESSES", right=True),
    Column("RESIDENT", right=True),
    Column("SWAP", right=True),
    Column("APPLIED", right=True),
    Column("REFUSED", right=True),
    Column("DRIFTED", right=True),
)
PROCESS_COLUMNS: Final = (
    Column("PID", right=True),
    Column("NAME", cut=True),
    Column("RULE", cut=True),
    Column("ADJ", right=True),
    Column("WANTED", right=True),
    Column("RESIDENT", right=True),
    Column("SWAP", right=True),
)

Fields = Mapping[str, Any]  # of the document, as JSON gives them


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    parser.add_argument("--all", action="store_true", help="all processes, not only the largest")


def run(arguments: argparse.Namespace) -> int:
    try:
        document = ask(status_socket(runtime_directory(os.environ)))
    except Failure as failure:
        return fail("status", failure)
    if arguments.json:
        show_document(document)
    else:
        show(as_text(document, time.time(), everything=arguments.all), sys.stdout)
    return exits.FINE


# -- asking ----------------------------------------------------------------------------------------


def ask(path: Path, *, within_seconds: float = ANSWER_SECONDS) -> Fields:
    """Raises: Failure."""
    try:
        answer = _exchange(path, b"GET /status HTTP/1.0\r\n\r\n", within_seconds)
    except PermissionError:
        raise Failure(f"no permission to ask {path}: run it as root", exits.NOT_PERMITTED) from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise Failure(f"oomwatchd is not running: nothing answers at {path}", exits.NO) from None
    except OSError as error:
        reason = error.strerror or error
        raise Failure(f"no answer from oomwatchd at {path}: {reason}", exits.NO) from error
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"%d" % HTTPStatus.OK]:
        said = printable(body.decode("utf-8", "replace").strip()) or "the connection was closed"
        raise Failure(f"no status from oomwatchd at {path}: {said}", exits.NO)
    document: Fields = json.loads(body)
    return document


def _exchange(path: Path, request: bytes, within_seconds: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(within_seconds)
        connection.connect(str(path))
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(CHUNK_BYTES), b""))


# -- showing ---------------------------------------------------------------------------------------


def as_text(document: Fields, now_unix_seconds: float, *, everything: bool) -> Iterator[str]:
    """What people see: of the processes the largest, unless *everything*."""
    width = terminal_width(sys.stdout)
    yield from about(document, now_unix_seconds)
    yield ""
    yield from table(RULE_COLUMNS, [rule_row(rule) for rule in document["rules"]], width)
    processes = sorted(document["processes"], key=memory_bytes, reverse=True)
    if not processes:
        return
    shown = processes if everything else processes[:FIRST_ROWS]
    yield ""
    yield from table(PROCESS_COLUMNS, [process_row(process) for process in shown], width)
    if len(shown) < len(processes):
        yield ""
        yield f"{len(processes) - len(shown)} smaller ones are not shown; --all shows them"


def about(document: Fields, now_unix_seconds: float) -> Iterator[str]:
    uptime_seconds = document["uptime_seconds"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_unix_seconds - uptime_seconds))
    version, up = printable(document["version"]), duration(uptime_seconds)
    yield f"oomwatchd {version}, pid {document['pid']}, running since {since} ({up})"
    yield f"memory pressure: {pressure_line(document['pressure'])}"
    missing = [printable(name) for name, works in document["features"].items() if not works]
    if missing:
        yield f"not available here: {', '.join(missing)}"


def pressure_line(pressure: Fields) -> str:
    if pressure["some_avg10"] is None:
        return "not known, as this kernel does not measure it (it may if booted with psi=1)"
    some, full = (
        " / ".join(f"{pressure[f'{kind}_{window}']:.2f}" for window in ("avg10", "avg60", "avg300"))
        for kind in ("some", "full")
    )
    return f"{pressure['level']}; % of the last 10 / 60 / 300 s: some {some}, full {full}"


def memory_bytes(process: Fields) -> int:
    total: int = process["resident_bytes"] + process["swap_bytes"]
    return total


def rule_row(rule: Fields) -> Sequence[str]:
    counts = rule["adjustments"]
    return (
        rule["name"],
        str(rule["oom_score_adj"]),
        str(rule["processes"]),
        size(rule["resident_bytes"]),
        size(rule["swap_bytes"]),
        str(counts["applied"]),
        str(counts["refused"]),
        str(counts["drifted"]),
    )


def process_row(process: Fields) -> Sequence[str]:
    return (
        str(process["pid"]),
        process["name"],
        process["rule"],
        str(process["oom_score_adj"]),
        str(process["wanted"]),
        size(process["resident_bytes"]),
        size(process["swap_bytes"]),
    )


def duration(seconds: float) -> str:
    """The two largest units: ``3 d 4 h``, ``12 min 5 s``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    counted = ((days, "d"), (hour, "h"), (minute, "min"), (second, "s"))
    first = next((place for place, (count, _) in enumerate(counted) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in counted[first : first + 2])
