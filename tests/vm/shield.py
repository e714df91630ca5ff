"""A user's session in a machine, squeezed so that systemd-oomd acts; and the scopes in it."""

import json
import re
import shlex
from functools import partial
from typing import Any, Final

from .machine import Machine
from .service import WORK, alive, sync_journal

USER_MANAGER: Final = "/user.slice/user-1000.slice/user@1000.service"
MANAGER_SCOPE: Final = f"{USER_MANAGER}/init.scope"
AS_USER: Final = (
    *("setpriv", "--reuid=1000", "--regid=1000", "--init-groups"),
    *("env", "XDG_RUNTIME_DIR=/run/user/1000", "HOME=/home/user"),
)
OOMD: Final = "[OOM]\nDefaultMemoryPressureDurationSec=2s\n"  # Debian's is 20 s
HIGH_MIB: Final = 200
LIMIT_PERCENT: Final = 20.0
TRAINER_MIB: Final = 400
OTHER_MIB: Final = 100
RULE: Final = """\
interval: 1s
rules:
  - name: training
    match: {{script: trainer.py, user: user}}
    oom_score_adj: -1000
    unkillable: true
    shield: {shield}
"""
NO_RULES: Final = "interval: 1s\nrules: []\n"


def rule(shield: str) -> str:
    return RULE.format(shield=shield)


def ours(pid: int) -> str:
    """The scope that the process *pid* is moved to."""
    return f"/oomwatchd.slice/oomwatchd-training-{pid}.scope"


def prepare(machine: Machine) -> None:
    """Swap, systemd-oomd with a short duration, and a session of the user's that stays."""
    machine.sh("fallocate -l 1G /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap")
    machine.run("mkdir", "-p", "/etc/systemd/oomd.conf.d")
    machine.put("/etc/systemd/oomd.conf.d/test.conf", OOMD)
    machine.run("systemctl", "restart", "systemd-oomd")
    machine.run("loginctl", "enable-linger", "user")
    machine.wait("the user's manager runs", lambda: session_lives(machine))
    watch_pressure(machine)


def watch_pressure(machine: Machine) -> None:
    """What Debian's package has for each user's manager, but for the limits."""
    machine.run(
        *("systemctl", "set-property", "--runtime", "user@1000.service"),
        *(f"MemoryHigh={HIGH_MIB}M", "ManagedOOMMemoryPressure=kill"),
        f"ManagedOOMMemoryPressureLimit={LIMIT_PERCENT:g}%",
    )


def watch_swap(machine: Machine) -> None:
    """As Debian 12 and Ubuntu 22.04 have it for the root slice, but for the limit."""
    machine.run(
        *("systemctl", "set-property", "--runtime", "user@1000.service"),
        *(f"MemoryHigh={HIGH_MIB}M", "ManagedOOMMemoryPressure=auto"),
    )
    machine.run("systemctl", "set-property", "--runtime", "--", "-.slice", "ManagedOOMSwap=kill")
    machine.put("/etc/systemd/oomd.conf.d/test.conf", OOMD + "SwapUsedLimit=10%\n")
    machine.run("systemctl", "restart", "systemd-oomd")


def leave_swap(machine: Machine) -> None:
    machine.put("/etc/systemd/oomd.conf.d/test.conf", OOMD)
    machine.run("systemctl", "set-property", "--runtime", "--", "-.slice", "ManagedOOMSwap=auto")
    watch_pressure(machine)
    machine.run("systemctl", "restart", "systemd-oomd")


def end_all(machine: Machine) -> None:
    """Whatever a scenario has left running."""
    machine.sh(f"pkill -9 -f '{WORK}/([t]rainer|[o]ther).py' || true")
    for unit in ("trainer.scope", "other.scope"):
        machine.run(*AS_USER, "systemctl", "--user", "stop", unit, check=False)
        machine.wait(f"{unit} is forgotten", partial(is_forgotten, machine, unit))
    machine.run("systemctl", "stop", "oomwatchd-training-*.scope", check=False)


def is_forgotten(machine: Machine, unit: str) -> bool:
    """Whether the user's manager would take another unit of that name, if it runs at all."""
    told = machine.run(
        *(*AS_USER, "systemctl", "--user", "show", "--value", "-p", "LoadState", unit), check=False
    )
    return told.strip() != "loaded"


def session_lives(machine: Machine) -> bool:
    state = machine.run("systemctl", "is-active", "user@1000.service", check=False)
    answers = machine.status(*AS_USER, "systemctl", "--user", "show-environment") == 0
    return state.strip() == "active" and answers


class Scope:
    """A scope that the user has started from a terminal; a program in it has said its pids."""

    def __init__(self, machine: Machine, name: str, command: str, *properties: str) -> None:
        self._machine = machine
        self.unit = f"{name}.scope"
        self.state = f"/home/user/{name}.json"
        options = " ".join(f"-p {shlex.quote(item)}" for item in properties)
        machine.run("rm", "-f", self.state)
        run = f"systemd-run --user --scope --collect --quiet --unit={name} {options} {command}"
        machine.sh(f"setsid {' '.join(AS_USER)} {run} >/home/user/{name}.log 2>&1 &")
        state = machine.wait(f"{name} has started", self._told)
        self.main: int = state["main"]
        self.workers: list[int] = state["workers"]
        # systemd-run goes on when it has it; where its processes are now depends on the rules.
        self.cgroup = f"{USER_MANAGER}/app.slice/{self.unit}"

    def _told(self) -> dict[str, Any] | None:
        text = self._machine.get(self.state)
        return json.loads(text) if text else None

    def lives(self) -> bool:
        return alive(self._machine, self.main)


def trainer(machine: Machine, *properties: str) -> Scope:
    return Scope(machine, "trainer", program("trainer", TRAINER_MIB), *properties)


def other(machine: Machine) -> Scope:
    return Scope(machine, "other", program("other", OTHER_MIB))


def program(name: str, mib: int, *options: str) -> str:
    """The same program under two names, of which the rule matches one."""
    words = ["/usr/bin/python3", f"{WORK}/{name}.py", "--mib", str(mib), *options]
    return shlex.join([*words, "--state", f"/home/user/{name}.json"])


def cgroup(machine: Machine, pid: int) -> str:
    """The path of the cgroup that the process lives in; empty if it has gone."""
    text = machine.get(f"/proc/{pid}/cgroup") or ""
    return text.partition("0::")[2].strip()


def is_marked(machine: Machine, path: str) -> bool:
    shown = machine.run(
        *("getfattr", "--absolute-names", "--only-values", "-n", "user.oomd_omit"),
        f"/sys/fs/cgroup{path}",
        check=False,
    )
    return shown.startswith("1")


def pressure_percent(machine: Machine) -> float:
    """Of the last 10 s, how long all tasks below the user's manager waited for memory."""
    text = machine.get(f"/sys/fs/cgroup{USER_MANAGER}/memory.pressure") or ""
    found = re.search(r"full avg10=([\d.]+)", text)
    return float(found[1]) if found else 0.0


def killed_by_oomd(machine: Machine) -> list[str]:
    """The cgroups that systemd-oomd says it has killed since boot, in order.

    It says so after the kill.
    """
    sync_journal(machine)
    said = machine.sh("journalctl -b -u systemd-oomd --no-pager -o cat | cat")
    return re.findall(r"(?m)^(?:Killed|Marked) (\S+) (?:for killing )?due to", said)


def last_killed(machine: Machine) -> str:
    """The one that systemd-oomd has killed last; empty if none."""
    return next(reversed(killed_by_oomd(machine)), "")


def calm(machine: Machine) -> None:
    """Wait until the pressure has gone, and have systemd-oomd forget the pause after a kill."""
    machine.wait("the pressure has gone", lambda: pressure_percent(machine) < 2.0, 120.0)
    machine.run("systemctl", "restart", "systemd-oomd")
    machine.run("systemctl", "reset-failed", check=False)
    machine.run("systemctl", "start", "user@1000.service")
    machine.wait("the user's manager runs", lambda: session_lives(machine))
