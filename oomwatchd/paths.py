"""Where our files are; systemd's own variables move them, as exec directories do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

CONFIG: Final = Path("/etc/oomwatchd.yaml")
RUNTIME_DIRECTORY: Final = "/run/oomwatchd"
STATE_DIRECTORY: Final = "/var/lib/oomwatchd"


def runtime_directory(environment: Mapping[str, str]) -> Path:
    """RuntimeDirectory= of the unit; systemd.exec(5)."""
    return Path(environment.get("RUNTIME_DIRECTORY") or RUNTIME_DIRECTORY)


def incidents_directory(environment: Mapping[str, str]) -> Path:
    """Below StateDirectory= of the unit; systemd.exec(5)."""
    return Path(environment.get("STATE_DIRECTORY") or STATE_DIRECTORY) / "incidents"


def ledger_path(directory: Path) -> Path:
    return directory / "ledger.json"


def status_socket(directory: Path) -> Path:
    return directory / "status.sock"
