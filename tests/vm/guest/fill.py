#!/usr/bin/python3
"""Fills the memory without being a candidate itself, so that another process must die.

    python3 fill.py --leave-mib N --ready FILE --go FILE

Fills up to N MiB of available memory and makes the first FILE; once the second is there, goes on
until the kernel has killed something, and ends.
"""

import argparse
import ctypes
import mmap
import os
import time

LOCK_NOW = 1  # MCL_CURRENT
THERE_AT_ONCE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE


def number(path: str, name: str) -> int:
    with open(path) as file:
        return next(int(line.split()[1]) for line in file if line.split()[0] == name)


def taken(mib: int) -> mmap.mmap:
    return mmap.mmap(-1, mib << 20, flags=THERE_AT_ONCE)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--leave-mib", type=int, required=True)
    parser.add_argument("--ready", required=True)
    parser.add_argument("--go", required=True)
    arguments = parser.parse_args()
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    ctypes.CDLL(None).mlockall(LOCK_NOW)
    kills = number("/proc/vmstat", "oom_kill")
    available_mib = number("/proc/meminfo", "MemAvailable:") >> 10
    blocks = [taken(max(1, available_mib - arguments.leave_mib))]
    with open(arguments.ready, "w"):
        pass
    while not os.path.exists(arguments.go):
        time.sleep(0.05)
    while number("/proc/vmstat", "oom_kill") == kills:
        blocks.append(taken(1))


if __name__ == "__main__":
    main()
