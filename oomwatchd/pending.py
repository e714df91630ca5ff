"""What a configuration may ask for and is not done: by this version, or on this machine."""

import os
from collections.abc import Iterator, Mapping

from oomwatchd.model import Config


def pending(config: Config, missing: Mapping[str, str]) -> Iterator[str]:
    """One line for each, for the log at the start and for `check`.

    *missing*: why a feature of the machine is not available; empty, if it is.
    """
    why_not = missing.get("systemd") or missing.get("cgroup2")
    scopes = [rule.name for rule in config.rules if rule.shield == "scope"]
    if scopes and why_not:
        yield f"shield: scope is not carried out, for rules {', '.join(scopes)} ({why_not})"
    hooks = {
        "on_incident": config.on_incident,
        "on_pressure: warning": config.on_pressure.warning,
        "on_pressure: critical": config.on_pressure.critical,
    }
    for key, command in hooks.items():
        if command and not os.access(command[0], os.X_OK):
            yield f"{key}: is not run, as '{command[0]}' is not there or no program"
    signals = [rule.name for rule in config.rules if rule.critical_signal is not None]
    if signals and missing.get("psi"):
        yield f"on_critical: nobody is told, for rules {', '.join(signals)} ({missing['psi']})"
