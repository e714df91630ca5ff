"""Who is measured: oomwatchd as it can be set, the C programs, and what Debian has of the kind."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from bench.meters import cpu_milliseconds, first_thread_milliseconds
from bench.programs import OURS, OURS_VALUE, POOLS, THEIRS, THEIRS_VALUE

CHECKOUT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = "/usr/bin/python3"  # Debian's, as in the package
MEMORY: Final = "/dev/shm"  # noqa: S108 - a tmpfs, as /run is where systemd runs
PATIENCE_SECONDS: Final = 120.0
SCRAPE_SECONDS: Final = 15.0  # how often those are asked that look only then

POLLING: Final = "oomwatchd, polling"
EVENTS: Final = "oomwatchd, events"
SHIPPED: Final = "oomwatchd, as shipped"
READER: Final = "C, reads all"
LISTENER: Final = "C, listens"
EXPORTER: Final = "process-exporter"


class Subject(NamedTuple):
    name: str
    pid: int
    start_milliseconds: float  # CPU until it was ready
    first_thread_milliseconds: float  # of these
    port: int | None = None  # of its metrics
    turned: threading.Event | None = None  # set whenever it has told systemd that it turns
    looks_when_scraped: bool = False


Start = Callable[[], AbstractContextManager[Subject]]


def ours(scratch: Path) -> dict[str, Start]:
    """A look every second, but for the last, which has the default."""
    return {
        POLLING: lambda: oomwatchd(scratch, POLLING, {"events": "off", "interval": "1s"}),
        EVENTS: lambda: oomwatchd(scratch, EVENTS, {"events": "auto", "interval": "1s"}),
        SHIPPED: lambda: oomwatchd(scratch, SHIPPED, {}),
    }


def references(scratch: Path) -> dict[str, Start]:
    listener = [str(scratch / "listener"), THEIRS, str(THEIRS_VALUE)]
    return {
        READER: lambda: program(scratch, READER, [str(scratch / "reference"), "1"]),
        LISTENER: lambda: program(scratch, LISTENER, listener),
    }


def peers(scratch: Path) -> dict[str, Start]:
    """Those that are installed; each as its package starts it, but that none can kill anybody."""
    all_peers: dict[str, tuple[str, Start]] = {
        "earlyoom": ("earlyoom", lambda: earlyoom(scratch)),
        "nohang": ("/usr/sbin/nohang", lambda: nohang(scratch)),
        EXPORTER: ("prometheus-process-exporter", lambda: exporter(scratch)),
    }
    return {name: start for name, (path, start) in all_peers.items() if shutil.which(path)}


# -- each of them


def rules() -> dict[str, str]:
    """A hundred names with a pattern for the command line: the sleepers' pools, and `OURS`."""
    pools = {f"pool{number}": f"--pool=pool{number} " for number in range(POOLS)}
    return {**pools, "launched": f"^[^ ]*/{OURS} "}  # not `launch`, which has it as an argument


def configuration(settings: Mapping[str, str], port: int) -> str:
    """Values above 0 only, as not every root may lower them."""
    listen = f"metrics: {{listen: 127.0.0.1:{port}}}\n"
    head = "".join(f"{key}: {value}\n" for key, value in settings.items())
    lines = [
        f"  - {{name: {name}, match: {{cmdline: '{pattern}'}}, "
        f"oom_score_adj: {OURS_VALUE if OURS in pattern else 100}}}\n"
        for name, pattern in rules().items()
    ]
    return listen + head + "rules:\n" + "".join(lines)


@contextmanager
def oomwatchd(scratch: Path, name: str, settings: Mapping[str, str]) -> Iterator[Subject]:
    directory = scratch / re.sub(r"\W+", "-", name)
    directory.mkdir(exist_ok=True)
    port = free_port()
    file = directory / "oomwatchd.yaml"
    file.write_text(configuration(settings, port), encoding="ascii")
    # As the unit has it; without the right to, `nice` says so and goes on.
    command = ["nice", "-n", "-10", PYTHON, "-m", "oomwatchd", "run", "--config", str(file)]
    with (
        tempfile.TemporaryDirectory(prefix="oomwatchd-bench-", dir=MEMORY) as runtime,
        notifications(directory / "notify") as (ready, turned),
    ):
        environment = {
            "RUNTIME_DIRECTORY": runtime,
            "STATE_DIRECTORY": runtime,
            "NOTIFY_SOCKET": str(directory / "notify"),
            "MALLOC_ARENA_MAX": "1",  # as the unit has it
        }
        started = running(scratch, name, command, ready.is_set, environment, installed(scratch))
        with started as subject:
            yield subject._replace(port=port, turned=turned)


def installed(scratch: Path) -> Path:
    """Where the daemon's code lies compiled, as a package's does once it has been installed."""
    directory = scratch / "installed"
    if not directory.exists():
        shutil.copytree(CHECKOUT / "oomwatchd", directory / "oomwatchd")
        command = [PYTHON, "-m", "compileall", "-q", "oomwatchd"]
        subprocess.run(command, check=True, cwd=directory)
    return directory


@contextmanager
def notifications(path: Path) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A socket as systemd's; the events are set when READY=1 comes, and at each WATCHDOG=1."""
    path.unlink(missing_ok=True)
    ready, turned = threading.Event(), threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reading_end:
        reading_end.bind(str(path))

        def read() -> None:
            while message := reading_end.recv(4096):
                if b"READY=1" in message:
                    ready.set()
                elif b"WATCHDOG=1" in message:
                    turned.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield ready, turned
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as writing_end:
                writing_end.sendto(b"", str(path))
            reader.join()


def program(scratch: Path, name: str, command: Sequence[str]) -> AbstractContextManager[Subject]:
    return running(scratch, name, command, lambda: True)


def earlyoom(scratch: Path) -> AbstractContextManager[Subject]:
    log = log_of(scratch, "earlyoom")
    command = ["earlyoom", "-r", "3600", "--dryrun"]
    return running(scratch, "earlyoom", command, lambda: "mem total" in text_of(log))


def nohang(scratch: Path) -> AbstractContextManager[Subject]:
    """With its thresholds so low that it never acts."""
    settings = Path("/etc/nohang/nohang.conf").read_text(encoding="utf-8")
    lowered = re.sub(
        r"^(soft|hard)(_threshold_min_\w+) *=.*", r"\1\2 = 0.1 %", settings, flags=re.MULTILINE
    )
    file, log = scratch / "nohang.conf", log_of(scratch, "nohang")
    file.write_text(lowered, encoding="utf-8")
    command = [PYTHON, "-u", "/usr/sbin/nohang", "--monitor", "-c", str(file)]
    return running(scratch, "nohang", command, lambda: "Monitoring" in text_of(log))


@contextmanager
def exporter(scratch: Path) -> Iterator[Subject]:
    """With our rules."""
    port, file = free_port(), scratch / "process-exporter.yaml"
    entries = [
        f"  - {{name: {name}, cmdline: ['{pattern}']}}\n" for name, pattern in rules().items()
    ]
    file.write_text("process_names:\n" + "".join(entries), encoding="ascii")
    command = ["prometheus-process-exporter", "-config.path", str(file)]
    command += ["-web.listen-address", f"127.0.0.1:{port}"]
    with running(scratch, EXPORTER, command, lambda: answers(port)) as subject:
        yield subject._replace(port=port, looks_when_scraped=True)


# -- starting and asking


@contextmanager
def running(
    scratch: Path,
    name: str,
    command: Sequence[str],
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    directory: Path = CHECKOUT,
) -> Iterator[Subject]:
    with log_of(scratch, name).open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > until:
                raise ended(scratch, name, process.poll())
            time.sleep(0.002)
        pid = process.pid
        yield Subject(name, pid, cpu_milliseconds(pid), first_thread_milliseconds(pid))
    finally:
        ended_early = process.poll() is not None
        process.terminate()
        status = process.wait()
        if ended_early:  # which explains whatever else has failed
            raise ended(scratch, name, status)


def ended(scratch: Path, name: str, status: int | None) -> SystemExit:
    tail = text_of(log_of(scratch, name))[-3000:]
    return SystemExit(f"{name} ended with status {status}:\n{tail}")


def log_of(scratch: Path, name: str) -> Path:
    return scratch / f"{name}.log"


def text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def answers(port: int) -> bool:
    try:
        scrape(port)
    except OSError:
        return False
    return True


def scrape(port: int, encoding: str = "gzip") -> bytes:
    """Ask for the metrics, as Prometheus does."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with closing(client):
        client.request("GET", "/metrics", headers={"Accept-Encoding": encoding})
        return client.getresponse().read()


def metric(port: int, name: str) -> float:
    """The sum of the samples of that name; 0 if there is none."""
    text = scrape(port, "identity").decode()
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def scraping(subjects: Sequence[Subject]) -> Callable[[float], None]:
    """A sleep during which those are scraped that look at processes only then."""
    ports = [subject.port for subject in subjects if subject.looks_when_scraped and subject.port]

    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds
        scrapes = round(seconds / SCRAPE_SECONDS) if ports else 0
        for left in range(scrapes, 0, -1):
            time.sleep(max(until - left * SCRAPE_SECONDS - time.monotonic(), 0))
            for port in ports:
                scrape(port)
        time.sleep(max(until - time.monotonic(), 0))

    return sleep
