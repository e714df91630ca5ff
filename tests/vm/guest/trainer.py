#!/usr/bin/python3
"""Touches all its memory again and again, so that what was swapped out has to come back.

    python3 trainer.py --mib N --state FILE [--go FILE] [--worker]

The first FILE names the pids, as {"main": N, "workers": [N, ...]}; it is there before the memory
is.  With --go it takes none until that FILE is there.  With --worker it has a child that does
nothing, and that the kernel kills first.
"""

import argparse
import json
import mmap
import os
import signal
import time


def worker() -> int:
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        os.execv("/bin/sleep", ["sleep", "infinity"])  # noqa: S606 - with no shell
    return pid


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--go")
    parser.add_argument("--worker", action="store_true")
    arguments = parser.parse_args()
    state = {"main": os.getpid(), "workers": [worker()] if arguments.worker else []}
    with open(arguments.state + ".new", "w") as file:
        json.dump(state, file)
    os.rename(file.name, arguments.state)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while arguments.go is not None and not os.path.exists(arguments.go):
        time.sleep(0.1)
    memory = mmap.mmap(-1, arguments.mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    number = 0
    while True:
        number = (number + 1) & 255
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = number


if __name__ == "__main__":
    main()
