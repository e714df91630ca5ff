"""What a configuration may ask for and is not done: by this version, or on this machine."""

from collections.abc import Iterator, Mapping

from oomwatchd.model import Config, IncidentSettings


def pending(config: Config, missing: Mapping[str, str]) -> Iterator[str]:
    """One line for each, for the log at the start and for `check`.

    *missing*: why a feature of the machine is not available; empty, if it is.
    """
    why_not = missing.get("systemd") or missing.get("cgroup2")
    scopes = [rule.name for rule in config.rules if rule.shield == "scope"]
    if scopes and why_not:
        yield f"shield: scope is not carried out, for rules {', '.join(scopes)} ({why_not})"
    if config.incidents != IncidentSettings():
        yield "incidents: not carried out by this version; no incident is written"
