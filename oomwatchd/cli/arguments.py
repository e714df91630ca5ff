"""Values of options.  What can only be a mistake is refused: an answer to it would be wrong."""

import argparse

from oomwatchd.config.values import DURATION, SECONDS


def duration(text: str) -> float:
    match = DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration such as 90s, 10m or 24h")
    return int(match[1]) * SECONDS[match[2]]


def process_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"'{text}' is no pid such as 4711")
    return int(text)


def not_empty(text: str) -> str:
    """Of a unit or a cgroup: an empty one would be everybody's."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: has a variable of your script no value?")
    return text
