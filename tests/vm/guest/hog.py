#!/usr/bin/python3
"""Takes memory until the kernel kills.

    python3 hog.py [--processes N] [--mib-per-second M] [--for-seconds S]

N processes grow side by side, each by about M.  With --for-seconds each one that was killed is
replaced for that long; otherwise the end has come when all have been killed.  Prints how many were.
"""

import argparse
import mmap
import os
import sys
import time

THERE_AT_ONCE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
STEP_MIB = 2


def grow(mib_per_second: float) -> int:
    pid = os.fork()
    if pid == 0:
        blocks = []
        while True:
            blocks.append(mmap.mmap(-1, STEP_MIB << 20, flags=THERE_AT_ONCE))
            time.sleep(STEP_MIB / mib_per_second)
    return pid


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--mib-per-second", type=float, default=200.0)
    parser.add_argument("--for-seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.for_seconds
    growing = {grow(arguments.mib_per_second) for _ in range(arguments.processes)}
    killed = 0
    while growing:
        pid, _ = os.wait()
        growing.discard(pid)
        killed += 1
        if time.monotonic() < end:
            growing.add(grow(arguments.mib_per_second))
    sys.stdout.write(f"{killed} killed\n")


if __name__ == "__main__":
    main()
