"""docs/troubleshooting.md: each message in it is one that the program gives, word for word."""

import errno
import os
import re
import socket
from pathlib import Path

import pytest
from commands import REPOSITORY, needs_root, run, run_as_nobody
from guides import guide

from oomwatchd.cli import exits
from oomwatchd.cli.explain import conclusion
from oomwatchd.cli.verdict import Verdict
from oomwatchd.config import ConfigError, load, parse
from oomwatchd.journal import Narrator
from oomwatchd.kernel.features import NO_PYSTEMD, PROBES, Missing, missing
from oomwatchd.model import DEFAULT_LISTEN, Change, Config, ProcessId
from oomwatchd.pending import pending
from oomwatchd.record import (
    Adjustment,
    DeafToOomd,
    Drift,
    FeatureChanged,
    GaveUp,
    Guarded,
    Hooked,
    Kept,
    LedgerFailed,
    Marking,
    Moving,
    News,
    ReadsHang,
    Record,
    Signalled,
    Untold,
)

MESSAGES = re.findall(r"^### `(.*)`$", guide("troubleshooting"), re.MULTILINE)
RELOAD = REPOSITORY / "oomwatchd/reload.py"
FILE = "/etc/oomwatchd.yaml"
TRAINER = ProcessId(4711, 100)
SESSION = "/user.slice/user-1000.slice/session-2.scope"
MIB = 1 << 20
FULL = os.strerror(errno.ENOSPC)
NEWS: list[News] = [
    Adjustment(Change(TRAINER, "python3", "training", -900), 0, "refused", "EACCES"),
    Drift(TRAINER, "python3", "training", -900, 0, yielded=False),
    Drift(TRAINER, "python3", "training", -900, 0, yielded=True),
    Guarded(tripped=True, held_bytes=20480 * MIB, limit_bytes=16384 * MIB),
    ReadsHang(16),
    Marking(SESSION, "training", "applied"),
    Marking(SESSION, "training", "refused", "EOPNOTSUPP"),
    Moving(
        TRAINER, "training", "left_alone",
        reason="it lives in a container, or outside of what we see",
    ),
    DeafToOomd(os.strerror(errno.ECONNREFUSED)),
    Hooked("on_incident", "/usr/local/bin/tell", "dropped"),
    Signalled(TRAINER, "python3", "training", "SIGUSR1", "not_caught"),
    Kept("", "", "", None, "kernel", {}, FULL, b"", written=False),
    LedgerFailed(FULL),
    Untold(607),
    FeatureChanged("process_events", available=False, loss=PROBES["process_events"][1]),
]  # fmt: skip
LACKING: list[tuple[str, Exception]] = [
    ("lower_adj", Missing("CAP_SYS_RESOURCE is lacking")),
    ("psi", FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))),
    ("process_events", PermissionError(errno.EPERM, os.strerror(errno.EPERM))),
    ("kernel_log", PermissionError(errno.EPERM, os.strerror(errno.EPERM))),
    ("systemd", Missing(NO_PYSTEMD)),
]
FAULTY = {
    "'oom_score_adj' is missing": "rules:\n  - name: training\n    match: {user: root}\n",
    "can never be reached": (
        "rules:\n  - {name: training, match: {user: root}, oom_score_adj: -900}\n\n\n"
        "  - {name: mine, match: {user: root, name: python3}, oom_score_adj: -800}\n"
    ),
}
WARNED = {
    "no rules": "interval: 5s\n",
    "any user can name": (
        "rules:\n  - name: training\n    match: {name: python3}\n    oom_score_adj: -900\n"
    ),
}


def said_of(news: News) -> list[str]:
    return [text for _, text in Narrator(dry_run=False).lines(news)]


def said_of_lacking(name: str, error: Exception) -> str:
    def attempt() -> None:
        raise error

    return f"{name}: not available ({missing(attempt, PROBES[name][1])})"


def faults_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), FILE)
    return [str(fault) for fault in caught.value.faults]


def warnings_of(text: str) -> list[str]:
    """As `check` shows them."""
    warnings = parse(text.encode(), FILE).warnings
    return [str(fault._replace(text=f"warning: {fault.text}")) for fault in warnings]


def in_time() -> list[str]:
    """What is said of processes on which time runs out."""
    record = Record()
    record.match_gave_up(TRAINER, "java")
    record.read_gave_up(TRAINER, "python3")
    assert all(isinstance(one, GaveUp) for one in record.news)
    return [line for one in record.news for line in said_of(one)]


def whose_file(tmp_path: Path) -> list[str]:
    """Of a file that belongs to somebody else, and that others may write."""
    path = tmp_path / "oomwatchd.yaml"
    path.touch()
    path.chmod(0o664)
    os.chown(path, 1000, -1)
    with pytest.raises(ConfigError) as caught:
        load(path, root_only=True)
    return [str(fault).replace(str(path), FILE) for fault in caught.value.faults]


def of_commands(tmp_path: Path) -> list[str]:
    """What the commands say, where they find nothing or may not look."""
    absent, closed = tmp_path / "absent", tmp_path / "closed"
    (closed / "incidents").mkdir(parents=True)
    (closed / "incidents").chmod(0o700)
    tmp_path.chmod(0o755)
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    told = [
        run("run", "-c", "/no/such.yaml").stderr.replace("/no/such.yaml", FILE),
        run_as_nobody("run").stderr,
        run("incidents", env={**os.environ, "STATE_DIRECTORY": str(absent)}).stderr,
        run("incidents", env={**os.environ, "STATE_DIRECTORY": str(closed)}, **nobody).stderr,
        run("status", env={**os.environ, "RUNTIME_DIRECTORY": str(absent)}).stderr,
    ]
    usual = "\n".join(told).replace(f"{absent}/status.sock", "/run/oomwatchd/status.sock")
    for directory in (absent, closed):
        usual = usual.replace(str(directory), "/var/lib/oomwatchd")
    return [re.sub(r"^<\d>", "", line) for line in usual.splitlines()]


def of_a_port_in_use(tmp_path: Path) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "taken.yaml"
        config.write_text(f"metrics: {{listen: '127.0.0.1:{taken.getsockname()[1]}'}}\n")
        config.chmod(0o600)
        done = run("run", "-c", config, env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)})
    assert done.returncode == exits.NO
    lines = done.stderr.splitlines()
    return [re.sub(r"^<\d>|(?<=127\.0\.0\.1:)\d+", with_usual_port, line) for line in lines]


def with_usual_port(found: re.Match[str]) -> str:
    return "" if found[0].startswith("<") else str(DEFAULT_LISTEN.port)


def of_a_reload() -> list[str]:
    """Its words stand in the code, as it takes a daemon to say them; test_live_reload lets one."""
    return re.findall(r'log\.error\("(reload failed[^"%:]*)"\)', RELOAD.read_text(encoding="utf-8"))


@needs_root
def test_every_message_is_one_that_the_program_gives(tmp_path: Path) -> None:
    lines = {line for news in NEWS for line in said_of(news)}
    lines |= {said_of_lacking(*one) for one in LACKING}
    lines |= {line for text in FAULTY.values() for line in faults_of(text)}
    lines |= {line for text in WARNED.values() for line in warnings_of(text)}
    lines |= {*in_time(), *whose_file(tmp_path), *of_commands(tmp_path)}
    lines |= set(pending(Config(on_incident=("/usr/local/bin/tell",)), {}))
    lines.add(conclusion(Verdict("python3", None, "", (), None, 0, None, None)))
    lines |= {*of_a_port_in_use(tmp_path), *of_a_reload()}

    assert len(MESSAGES) > 30
    assert [message for message in MESSAGES if message not in lines] == []
