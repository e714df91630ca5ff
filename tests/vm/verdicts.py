"""What `oomwatchd audit` says in a machine, by rules that no daemon carries out."""

import json
import logging
from typing import Any, Final

from .machine import Machine
from .service import WORK

log = logging.getLogger("vm")
CONFIG: Final = f"{WORK}/audit.yaml"
# The scenarios give values and marks themselves, so that each stands for itself.
RULES: Final = f"""\
rules:
  - name: subject
    match: {{cmdline: '{WORK}/(cast|trainer)[.]py'}}
    oom_score_adj: -1000
    unkillable: true
    shield: none
"""


def prepare_rules(machine: Machine) -> None:
    machine.put(CONFIG, RULES)


def verdict(machine: Machine, pid: int, killer: str) -> str:
    """What is said of one process, with the reason in the test's log."""
    said = machine.run("oomwatchd", "audit", "-c", CONFIG, "--pid", str(pid), "--json", check=False)
    [entry] = json.loads(said)
    found: dict[str, Any] = entry["killers"][killer]
    log.info("%s: %s", killer, found)
    name: str = found["verdict"]
    return name
