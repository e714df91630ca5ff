"""What a configuration asks for in vain on this machine is said, and nothing else is."""

from pathlib import Path

import pytest
from world import named

from oomwatchd.model import Config, IncidentSettings, PressureHooks
from oomwatchd.pending import pending

TELLING = named("x", -900, critical_signal="SIGUSR1")


def test_what_is_carried_out_is_not_spoken_of() -> None:
    config = Config(
        (TELLING, named("y", -900, shield="scope")),
        incidents=IncidentSettings(keep=1, history_seconds=60.0),
        on_incident=("/bin/sh", "-c", "exit 0"),
    )

    assert list(pending(config, {})) == []


@pytest.mark.parametrize("feature", ["systemd", "cgroup2"])
def test_scopes_that_cannot_be_are_named_with_their_rules(feature: str) -> None:
    config = Config((named("x", -900, shield="scope"), named("y", 1)))

    assert list(pending(config, {feature: "not here"})) == [
        "shield: scope is not carried out, for rules rule-x (not here)"
    ]


def test_a_hook_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    config = Config(
        on_incident=(f"{tmp_path}/absent",),
        on_pressure=PressureHooks(critical=(f"{tmp_path}/text", "--now")),
    )

    assert list(pending(config, {})) == [
        f"on_incident: is not run, as '{tmp_path}/absent' is not there or no program",
        f"on_pressure: critical: is not run, as '{tmp_path}/text' is not there or no program",
    ]


def test_without_psi_nobody_is_told_that_it_is_critical() -> None:
    assert list(pending(Config((TELLING,)), {"psi": "no PSI"})) == [
        "on_critical: nobody is told, for rules rule-x (no PSI)"
    ]
