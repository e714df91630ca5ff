"""The real daemon, as a child process, over real processes of this machine."""

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from prometheus_client import Metric
from prometheus_client import parser as text_parser

from oomwatchd.kernel.proc import GONE, READ_DIRECTORY, parse_stat
from oomwatchd.model import ProcessId

T = TypeVar("T")
families: Callable[[str], Iterable[Metric]] = text_parser.text_string_to_metric_families

REPOSITORY: Final = Path(__file__).parent.parent
PATIENCE_SECONDS: Final = 20.0  # for what has no bound of its own: this machine is busy and shared
POLL_SECONDS: Final = 0.01

OUR_USERS: Final = range(60017, 60100)  # Debian gives none of these to anybody; base-passwd
MARK: Final = "live-"  # in the path of every program of ours, and in each pattern for one
NAME_MARK: Final = "live"

# Not TMPDIR, as the path of a socket must be short.
TEMPORARY: Final = Path("/tmp")  # noqa: S108 - mkdtemp chooses the name below it
RELOAD_FAILED: Final = "<3>reload failed"
LOAD_SUCCESSFUL: Final = "oomwatchd_config_last_reload_successful"
LOADED_AT: Final = "oomwatchd_config_last_reload_success_timestamp_seconds"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may set others' values")

Rule = dict[str, Any]


# -- waiting ---------------------------------------------------------------------------------------


def until(holds: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Wait until *holds* gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while not (result := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_SECONDS)
    return result


# -- processes -------------------------------------------------------------------------------------


def adj(pid: int) -> int | None:
    """The value now; None if the process has gone."""
    try:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_bytes())
    except GONE:
        return None


def own_value() -> int:
    """What our children have, unless they are given something else."""
    return int(Path("/proc/self/oom_score_adj").read_bytes())


def id_of(pid: int) -> ProcessId | None:
    try:
        stat = parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
    except GONE:
        return None
    return ProcessId(pid, stat.start_ticks)


def comm(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/comm").read_bytes()[:-1]
    except GONE:
        return b""


def values() -> dict[ProcessId, int]:
    """The value of every process of this machine."""
    found = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        id, value = id_of(int(name)), adj(int(name))
        if id is not None and value is not None and id == id_of(int(name)):
            found[id] = value
    return found


class Herd:
    """Processes for the daemon to look at; all end when the test does.

    Each has a process group of its own, so that what it has forked ends with it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.all: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        *command: str | bytes | Path,
        value: int | None = None,
        user: int | None = None,
        environment: Mapping[str, str] | None = None,
        executable: str | None = None,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start *command*; *value* is what its oom_score_adj is before its program runs."""
        if value is not None:
            shown = 'echo "$0" >/proc/self/oom_score_adj && exec "$@"'
            command = ("/bin/sh", "-c", shown, str(value), *command)
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stdout,
            cwd=self.directory,
            env=None if environment is None else {**os.environ, **environment},
            executable=executable,
            start_new_session=True,
            user=user,
        )
        self.all.append(child)
        return child

    def ready(self, *command: str | bytes | Path, **how: Any) -> subprocess.Popen[bytes]:
        """Start *command* and wait for the line with which it says that it is ready."""
        child = self.start(*command, **how)
        assert child.stdout is not None
        assert child.stdout.readline(), f"{command} has ended"
        return child

    def script(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def end(self) -> None:
        for child in self.all:
            if child.returncode is None:  # not reaped yet: the number of its group is still its own
                os.killpg(child.pid, signal.SIGKILL)
        for child in self.all:
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            child.wait()


class Turn:
    """Two runs of these tests would change each other's processes, so they take turns."""

    def __init__(self) -> None:
        self._depth = 0

    def __enter__(self) -> None:
        if not self._depth:
            self._lock = os.open(TEMPORARY, READ_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            os.close(self._lock)


our_turn: Final = Turn()


@contextlib.contextmanager
def herd() -> Iterator[Herd]:
    with our_turn, temporary_directory() as directory:
        animals = Herd(directory)
        try:
            yield animals
        finally:
            animals.end()


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that other users may enter."""
    path = Path(tempfile.mkdtemp(prefix=MARK, dir=TEMPORARY))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


# -- the daemon ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def rule(name: str, match: Mapping[str, Any], value: int, **others: Any) -> Rule:
    """A rule that cannot match a process which is not ours.

    The daemon is real, and so are the other processes of this machine: a careless pattern would
    change them, and nobody would change them back.
    """
    assert any(ours_alone(key, wanted) for key, wanted in match.items()), f"too wide: {match}"
    return {"name": name, "match": dict(match), "oom_score_adj": value, **others}


def ours_alone(key: str, wanted: Any) -> bool:
    """Whether whatever matches has one of our users, or a name that only our programs have."""
    items = wanted if isinstance(wanted, list) else [wanted]
    if key == "user":
        return all(item in OUR_USERS for item in items)
    if key == "name":
        return all(item.startswith(NAME_MARK) for item in items)
    if key == "cmdline" and any("|" in item for item in items):
        return False
    return all(MARK in item for item in items)


class Service:
    """One configuration, one runtime directory, one port; and the daemon that uses them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "oomwatchd.yaml"
        self.runtime = directory / "run"
        self.state = directory / "state"
        self.ledger = self.runtime / "ledger.json"
        self.log_file = directory / "log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    # -- its files

    def configure(self, *rules: Rule, **settings: Any) -> None:
        """Write the configuration: JSON, as all JSON is YAML; a look every second if not given."""
        listen = {"metrics": {"listen": f"127.0.0.1:{self.port}"}}
        document = {"interval": "1s", "events": "off", **listen, **settings, "rules": list(rules)}
        self.config.write_text(json.dumps(document), encoding="utf-8")

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8") if self.log_file.exists() else ""

    def logged(self, text: str, seconds: float = PATIENCE_SECONDS) -> None:
        until(lambda: text in self.log(), f"{text!r} in the log:\n{self.log()}", seconds)

    def claims(self) -> dict[int, dict[str, Any]]:
        """What the ledger remembers, by pid."""
        entries = json.loads(self.ledger.read_bytes())["processes"]
        return {entry["pid"]: entry for entry in entries}

    # -- its life

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "oomwatchd", "run", "-c", str(self.config), *arguments]

    def environment(self, **others: str) -> dict[str, str]:
        bare = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        ours = {"RUNTIME_DIRECTORY": str(self.runtime), "STATE_DIRECTORY": str(self.state)}
        return {**bare, **ours, **others}

    def launch(
        self,
        *arguments: str,
        under: Sequence[str] = (),
        stderr: int | None = None,
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        """Start the daemon, *under* another program if given, and do not wait."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*under, *self.command(*arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if stderr is None else stderr,
                cwd=REPOSITORY,
                env=self.environment(**environment),
            )
        return self.process

    def start(self, *arguments: str, **how: Any) -> None:
        """Start the daemon as `launch` does and wait until its first turn is done."""
        process = self.launch(*arguments, **how)

        def first_turn_done() -> bool:
            assert process.poll() is None, f"it ended with {process.returncode}:\n{self.log()}"
            return self.answers("/healthz")

        until(first_turn_done, f"the first turn:\n{self.log()}")

    def once(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run the daemon to its end, which comes by itself; its status, and what it said."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            check=False,
            cwd=REPOSITORY,
            env=self.environment(**environment),
            timeout=PATIENCE_SECONDS,
        )
        return done.returncode, done.stderr.decode()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def reload(self) -> None:
        """Have the configuration read again, and wait until the turn after that is done."""
        assert self.process is not None
        failed, loaded_at = self.log().count(RELOAD_FAILED), self.metric(LOADED_AT)
        self.process.send_signal(signal.SIGHUP)

        def published() -> bool:
            if self.log().count(RELOAD_FAILED) > failed:
                return self.metric(LOAD_SUCCESSFUL) == 0
            return self.metric(LOADED_AT) > loaded_at

        until(published, "a reload")

    def scans(self) -> float:
        return self.metric("oomwatchd_scan_duration_seconds_count")

    def turns(self, count: int) -> None:
        """Wait for *count* scans to begin and end from now on."""
        goal = self.scans() + count + 1
        until(lambda: self.scans() >= goal, f"{count} scans")

    # -- what it serves

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def answers(self, path: str) -> bool:
        try:
            return self.get(path)[0] == http.HTTPStatus.OK
        except ConnectionError:
            return False

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with those labels, others aside."""
        return sum(
            sample.value
            for family in families(self.get("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextlib.contextmanager
def service() -> Iterator[Service]:
    with our_turn, temporary_directory() as directory:
        one = Service(directory)
        try:
            yield one
        finally:
            if one.process is not None and one.process.poll() is None:
                one.process.kill()
                one.process.wait(PATIENCE_SECONDS)
