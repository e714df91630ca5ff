"""How systemd-oomd is configured; what it watches, each unit says itself."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from oomwatchd.auditing import Oomd

# The first of these that has a file of some name decides about it; of oomd.conf itself, the first.
DIRECTORIES: Final = ("etc", "run", "usr/local/lib", "usr/lib")
RULES: Final = "systemd/oomd/rules.d"  # since systemd 261
PERCENT_OF: Final = {"%": 100.0, "\N{PER MILLE SIGN}": 1000.0, "\N{PER TEN THOUSAND SIGN}": 10000.0}
SECONDS_OF: Final = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3,
    "": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_PART: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)")


def read_oomd(root: Path, *, running: bool) -> Oomd:
    """*root*: the file system's, or, in the tests, a directory in its place."""
    settings: dict[str, str] = {}
    unread = []
    for path in (*first(root, "systemd/oomd.conf"), *drop_ins(root)):
        try:
            settings.update(parse_conf(text_of(path)))
        except OSError as error:  # systemd goes on without it, too
            unread.append(f"{path}: {error.strerror}")
    asked = Oomd(running)
    return asked._replace(
        limit_ratio=ratio(settings.get("DefaultMemoryPressureLimit", "")) or asked.limit_ratio,
        seconds=seconds(settings.get("DefaultMemoryPressureDurationSec", "")) or asked.seconds,
        swap_limit_ratio=ratio(settings.get("SwapUsedLimit", "")) or asked.swap_limit_ratio,
        rule_files=tuple(sorted(named(root, RULES, "*.oomrule"))),
        unread=tuple(unread),
    )


def text_of(path: Path) -> str:
    """Nothing, where it is a link to /dev/null, which could as well be something that waits."""
    return path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size else ""


def parse_conf(text: str) -> Mapping[str, str]:
    """The settings of ``[OOM]``; an empty one takes an earlier one back.

    Source:  oomd.conf(5), systemd.syntax(7).
    """
    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[OOM]" and line[:1] not in ("#", ";", ""):
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    return found


def ratio(text: str) -> float | None:
    """``60%``, or in smaller units; None if it is nothing of the kind, which systemd ignores."""
    for sign, whole in PERCENT_OF.items():
        if text.endswith(sign):
            try:
                return float(text.removesuffix(sign)) / whole
            except ValueError:
                return None
    return None


def seconds(text: str) -> float | None:
    """``20``, ``20s``, ``1min 30s``; systemd.time(7).  None if it is nothing of the kind."""
    total, position = 0.0, 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None or part[2] not in SECONDS_OF:
            return None
        total += float(part[1]) * SECONDS_OF[part[2]]
        position = part.end()
    return total or None


def first(root: Path, name: str) -> list[Path]:
    """The file of that name that counts, if there is one."""
    found = [root / directory / name for directory in DIRECTORIES]
    return [path for path in found if os.path.isfile(path)][:1]


def drop_ins(root: Path) -> list[Path]:
    files = named(root, "systemd/oomd.conf.d", "*.conf")
    return [files[name] for name in sorted(files)]


def named(root: Path, place: str, pattern: str) -> dict[str, Path]:
    """The files in *place*, by name; of those with the same name, the one that counts."""
    files: dict[str, Path] = {}
    for directory in DIRECTORIES:
        for path in (root / directory / place).glob(pattern):
            files.setdefault(path.name, path)
    return files
