"""What a configuration may ask for and this version does not do yet: said, never ignored."""

from collections.abc import Iterator

from oomwatchd.model import Config, IncidentSettings


def pending(config: Config) -> Iterator[str]:
    """One line for each, for the log at the start and for `check`."""
    shielded = [rule.name for rule in config.rules if rule.shield != "none"]
    if shielded:
        yield (
            f"shield: not carried out by this version, for rules {', '.join(shielded)}; "
            "systemd-oomd and OOMPolicy= can still kill what they match"
        )
    if config.incidents != IncidentSettings():
        yield "incidents: not carried out by this version; no incident is written"
