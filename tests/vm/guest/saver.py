#!/usr/bin/python3
"""Writes "saved" on a line of its own to FILE each time it gets SIGUSR1, and lives on.

    python3 saver.py FILE

FILE is there, and empty, once it would.
"""

import signal
import sys


def save(_number: int, _frame: object) -> None:
    with open(sys.argv[1], "a") as file:
        file.write("saved\n")


def main() -> None:
    signal.signal(signal.SIGUSR1, save)
    open(sys.argv[1], "w").close()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
