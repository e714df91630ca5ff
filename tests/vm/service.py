"""The installed service in a machine: install and configure it, ask for its metrics and values."""

import json
import re
from pathlib import Path
from typing import Any, Final

from .machine import Machine

CONFIG: Final = "/etc/oomwatchd.yaml"
GUEST: Final = Path(__file__).parent / "guest"
WORK: Final = "/opt/work"  # where the programs of the scenarios are put
LAST_RELOAD: Final = "oomwatchd_config_last_reload_success_timestamp_seconds"
SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")

Metrics = dict[str, float]


def install(machine: Machine, deb: Path) -> None:
    """The package as a user would install it; its dependencies are in the image."""
    machine.put(f"{WORK}/oomwatchd.deb", deb.read_bytes())
    machine.run("dpkg", "-i", f"{WORK}/oomwatchd.deb", timeout_seconds=180.0)
    machine.wait("the service is active", lambda: is_active(machine))


def put_programs(machine: Machine) -> None:
    machine.run("mkdir", "-p", WORK)
    for name in ("train.py", "hog.py", "fill.py", "scrape.py"):
        machine.put(f"{WORK}/{name}", (GUEST / name).read_bytes(), 0o755)


def configure(machine: Machine, config: str) -> None:
    """Put *config* in force, as an administrator does."""
    machine.put(CONFIG, config)
    machine.run("oomwatchd", "check")
    before = metrics(machine).get(LAST_RELOAD)
    machine.run("systemctl", "reload-or-restart", "oomwatchd")
    machine.wait(
        "the configuration is in force",
        lambda: metrics(machine).get(LAST_RELOAD, before) != before,
    )


def is_active(machine: Machine) -> bool:
    return machine.run("systemctl", "is-active", "oomwatchd", check=False).strip() == "active"


def main_pid(machine: Machine) -> int:
    return int(unit_property(machine, "oomwatchd", "MainPID"))


def unit_property(machine: Machine, unit: str, name: str) -> str:
    return machine.run("systemctl", "show", "--value", "-p", name, unit).strip()


def metrics(machine: Machine) -> Metrics:
    """What a scrape gives, by ``name`` or ``name{labels}``; empty if there is no answer."""
    scraped = machine.run(
        *("curl", "-s", "--max-time", "20", "http://127.0.0.1:9847/metrics"), check=False
    )
    found: Metrics = {}
    for line in scraped.splitlines():
        if sample := SAMPLE.match(line):
            name, labels, value = sample.groups()
            found[f"{name}{{{labels}}}" if labels else name] = float(value)
    return found


def features(machine: Machine) -> dict[str, float]:
    """Each feature's ``oomwatchd_feature_available``."""
    prefix = 'oomwatchd_feature_available{feature="'
    return {
        name.removeprefix(prefix).removesuffix('"}'): value
        for name, value in metrics(machine).items()
        if name.startswith(prefix)
    }


def unfed_seconds(machine: Machine) -> float:
    """How long ago the daemon has last told systemd's watchdog that it turns."""
    fed_microseconds = int(unit_property(machine, "oomwatchd", "WatchdogTimestampMonotonic"))
    uptime = machine.get("/proc/uptime") or ""
    return float(uptime.split()[0]) - fed_microseconds / 1e6


def log(machine: Machine) -> list[str]:
    """What the daemon has logged since boot."""
    sync_journal(machine)
    journal = machine.run("journalctl", "-b", "--no-pager", "-o", "cat", "-u", "oomwatchd")
    return journal.splitlines()


def sync_journal(machine: Machine) -> None:
    """Wait until what has been logged is there to be read."""
    machine.wait("the journal is up to date", lambda: not machine.status("journalctl", "--sync"))


def adj(machine: Machine, pid: int) -> int | None:
    """A process's oom_score_adj; None if it has gone."""
    text = machine.get(f"/proc/{pid}/oom_score_adj")
    return None if text is None else int(text)


def alive(machine: Machine, pid: int) -> bool:
    stat = machine.get(f"/proc/{pid}/stat")
    return stat is not None and stat.rpartition(")")[2].split()[0] not in "ZX"


def has_adj(machine: Machine, pid: int, value: int, timeout_seconds: float = 60.0) -> None:
    machine.wait(
        f"{pid} has oom_score_adj {value}", lambda: adj(machine, pid) == value, timeout_seconds
    )


def killed_by_kernel(machine: Machine) -> list[int]:
    """The pids that the kernel's log names as killed, in order.

    The journal may have been killed itself, and reads on where it left off when it is back.
    """
    sync_journal(machine)
    reports = machine.sh("journalctl -b -k --no-pager -o cat | grep 'Killed process' || true")
    return [
        int(pid) for pid in re.findall(r"(?m)^.*ut of memory.*: Killed process (\d+) ", reports)
    ]


def oom_kills(machine: Machine) -> int:
    """How many processes the kernel has killed since boot, by its own count."""
    text = machine.get("/proc/vmstat") or ""
    return int(text.partition("\noom_kill ")[2].split()[0])


def start(machine: Machine, unit: str, *command: str, properties: tuple[str, ...] = ()) -> int:
    """Start *command* as a service and give its main pid."""
    options = [part for item in properties for part in ("-p", item)]
    machine.run("systemd-run", "--quiet", f"--unit={unit}", *options, *command)
    return machine.wait(
        f"{unit} has a main process", lambda: int(unit_property(machine, unit, "MainPID"))
    )


def stop(machine: Machine, *units: str) -> None:
    """Stop *units* and wait until systemd has forgotten them, so that their names are free."""
    for unit in units:  # one by one: systemd 262 stops none if one of them is not loaded
        machine.run("systemctl", "stop", unit, check=False)
    machine.run("systemctl", "reset-failed", check=False)

    def forgotten() -> bool:
        states = machine.run("systemctl", "show", "--value", "-p", "LoadState", *units)
        return set(states.split()) == {"not-found"}

    machine.wait(f"{', '.join(units)}: forgotten", forgotten)


class Training:
    """A user's training run in a unit of its own, as train.py describes it."""

    def __init__(self, machine: Machine, unit: str, hold_mib: int, *properties: str) -> None:
        self._machine = machine
        self._state = f"/home/user/{unit}.json"
        self.unit = unit
        start(
            machine,
            unit,
            *("/usr/bin/python3", f"{WORK}/train.py", "--hold-mib", str(hold_mib)),
            *("--state", self._state),
            properties=("User=user", *properties),
        )
        self._wait_for(workers=1)

    def fork_and_start_a_shell(self) -> None:
        """Once more, so that both inherit the value that the main process has now."""
        self._machine.run("kill", "-USR1", str(self.main))
        self._wait_for(workers=len(self.workers) + 1)

    def stop(self) -> None:
        stop(self._machine, self.unit)
        self._machine.run("rm", "-f", self._state)

    def _wait_for(self, workers: int) -> None:
        def told() -> dict[str, Any] | None:
            text = self._machine.get(self._state)
            state: dict[str, Any] = json.loads(text) if text else {"workers": []}
            return state if len(state["workers"]) == workers else None

        state = self._machine.wait("the training run holds its memory", told)
        self.main: int = state["main"]
        self.workers: list[int] = state["workers"]
        self.shells: list[int] = state["shells"]
