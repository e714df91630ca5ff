"""Sizes, rates and times, as people say them."""

from typing import Final

UNITS: Final = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0


def size(size_bytes: float) -> str:
    """``62.0 GiB``, ``512 MiB``, ``4 KiB``, ``0``: three digits tell enough."""
    if size_bytes == 0:
        return "0"
    name, unit = next((pair for pair in UNITS if abs(size_bytes) >= pair[1]), UNITS[-1])
    number = size_bytes / unit
    return (
        f"{number:.1f} {name}" if abs(number) < 100 and unit > 1 << 20 else f"{number:.0f} {name}"
    )


def rate(bytes_per_second: float) -> str:
    """``5.0 MiB/s``; what is slow, by the minute or the hour."""
    steps = ((1.0, "s"), (MINUTE, "min"), (HOUR, "h"))
    per, unit = next((one for one in steps if abs(bytes_per_second) * one[0] >= 1 << 20), steps[-1])
    mib = bytes_per_second * per / (1 << 20)
    return f"{mib:.1f} MiB/{unit}" if abs(mib) < 1000 else f"{mib / 1024:.1f} GiB/{unit}"


def span(seconds: float) -> str:
    """``1.9 s``, ``42 s``, ``8 min``, ``3.5 h``, ``2 days``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * MINUTE:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < 2 * DAY else f"{seconds / DAY:.0f} days"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"
