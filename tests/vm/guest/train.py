#!/usr/bin/python3
"""A training run: holds memory, forks workers, starts a shell when told to, and lives on.

    python3 train.py --hold-mib N [--workers N] --state FILE

The workers, one if not told otherwise, are forked at once.  SIGUSR1: fork one more, and start a
shell.  FILE then names the pids, as {"main": N, "workers": [N, ...], "shells": [N, ...]}; it is
there once the memory is held.
"""

import argparse
import json
import mmap
import os
import signal
import subprocess


def held(mib: int) -> mmap.mmap:
    """That much memory of its own, all of it there."""
    return mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)


def worker() -> int:
    pid = os.fork()
    if pid == 0:
        memory = held(1)
        while memory:
            signal.pause()
    return pid


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hold-mib", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--state", required=True)
    arguments = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    workers = [worker() for _ in range(arguments.workers)]
    shells: list[int] = []
    memory = held(arguments.hold_mib)
    while memory:
        state = {"main": os.getpid(), "workers": workers, "shells": shells}
        with open(arguments.state + ".new", "w") as file:
            json.dump(state, file)
        os.rename(file.name, arguments.state)
        signal.sigwait([signal.SIGUSR1])
        workers.append(worker())
        shells.append(subprocess.Popen(["/bin/sh", "-c", "while :; do sleep 3600; done"]).pid)


if __name__ == "__main__":
    main()
