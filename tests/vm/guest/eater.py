#!/usr/bin/python3
"""Takes memory as programs do that die of it: by a copy at once, or by a leak.

    python3 eater.py --hold-mib N [--rest-seconds S] (--copy-seconds S | --leak-mib-per-second M)

Holds N MiB, rests, and then takes as much again, evenly within --copy-seconds and up to three times
over; or M each second without end.
"""

import argparse
import mmap
import time

THERE_AT_ONCE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
COPIES = 3


def taken(mib: int) -> mmap.mmap:
    return mmap.mmap(-1, mib << 20, flags=THERE_AT_ONCE)


def take(mib_per_second: float, mib: float) -> None:
    """On time, also where one step has taken longer than it should."""
    blocks: list[mmap.mmap] = []
    start = time.monotonic()
    while len(blocks) < mib:
        time.sleep(max(start + len(blocks) / mib_per_second - time.monotonic(), 0.0))
        blocks.append(taken(1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hold-mib", type=int, required=True)
    parser.add_argument("--rest-seconds", type=float, default=0.0)
    parser.add_argument("--copy-seconds", type=float)
    parser.add_argument("--leak-mib-per-second", type=float)
    arguments = parser.parse_args()
    held = taken(arguments.hold_mib)
    time.sleep(arguments.rest_seconds)
    if arguments.copy_seconds is not None:
        take(len(held) / (1 << 20) / arguments.copy_seconds, COPIES * arguments.hold_mib)
    else:
        take(arguments.leak_mib_per_second, float("inf"))


if __name__ == "__main__":
    main()
