#!/usr/bin/python3
"""Holds memory, and once told to, lets a killer loose on itself or on a worker.

    python3 cast.py (--grow | --press) --hold-mib N [--worker-mib M] --ready FILE --go FILE

With --worker-mib it forks a worker that holds M.  The first FILE names the pids, as {"main": N,
"worker": N or null}.  Once the second is there: with --grow the worker, or the process itself if it
has none, takes memory without end; with --press all of them touch what they hold for ever, so that
where there is not enough room for it, everybody waits for memory.
"""

import argparse
import json
import mmap
import os
import time

PAGE_BYTES = mmap.PAGESIZE
THERE_AT_ONCE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE


def taken(mib: int) -> mmap.mmap:
    return mmap.mmap(-1, mib << 20, flags=THERE_AT_ONCE)


def grow() -> None:
    blocks = []
    while True:
        blocks.append(taken(2))
        time.sleep(0.02)


def press(memory: mmap.mmap) -> None:
    while True:
        for place in range(0, len(memory), PAGE_BYTES):
            memory[place] = (memory[place] + 1) & 255


def act(arguments: argparse.Namespace, memory: mmap.mmap, *, acts: bool) -> None:
    while not os.path.exists(arguments.go):
        time.sleep(0.05)
    if arguments.press:
        press(memory)
    if acts:
        grow()
    while True:
        time.sleep(60)


def main() -> None:
    parser = argparse.ArgumentParser()
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--grow", action="store_true")
    what.add_argument("--press", action="store_true")
    parser.add_argument("--hold-mib", type=int, required=True)
    parser.add_argument("--worker-mib", type=int)
    parser.add_argument("--ready", required=True)
    parser.add_argument("--go", required=True)
    arguments = parser.parse_args()
    worker = None
    if arguments.worker_mib is not None:
        worker = os.fork()
        if worker == 0:
            act(arguments, taken(arguments.worker_mib), acts=True)
    memory = taken(arguments.hold_mib)
    with open(arguments.ready + ".new", "w") as file:
        json.dump({"main": os.getpid(), "worker": worker}, file)
    os.rename(file.name, arguments.ready)
    act(arguments, memory, acts=worker is None)


if __name__ == "__main__":
    main()
