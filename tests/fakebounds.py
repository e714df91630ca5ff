"""The files of a cgroup that tell of its memory."""

from pathlib import Path


def cgroup(
    root: Path, path: str, *, usage: int = 0, limit: str = "max", oom: int = 0, oom_kill: int = 0
) -> Path:
    """Made, or changed as a whole; its directory."""
    directory = root / path.strip("/")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.current").write_text(f"{usage}\n")
    (directory / "memory.max").write_text(f"{limit}\n")
    (directory / "memory.events").write_text(f"max 7\noom {oom}\noom_kill {oom_kill}\n")
    return directory
