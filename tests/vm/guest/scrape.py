#!/usr/bin/python3
"""Scrapes the metrics again and again, to see whether they still come while memory runs out.

    python3 scrape.py --seconds S --results FILE

FILE gets a JSON list with one object a scrape: when it began, how long it took, whether the answer
was whole, and how much memory was available then.
"""

import argparse
import ctypes
import json
import os
import socket
import time

LOCK_NOW_AND_LATER = 3  # MCL_CURRENT | MCL_FUTURE
ADDRESS = ("127.0.0.1", 9847)
REQUEST = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n"
GIVE_UP_SECONDS = 30.0


def answered() -> bool:
    """Whether a scrape gives a whole answer."""
    try:
        with socket.create_connection(ADDRESS, GIVE_UP_SECONDS) as connection:
            connection.sendall(REQUEST)
            received = bytearray()
            while data := connection.recv(65536):
                received += data
    except OSError:
        return False
    return b" 200 " in received[:32] and b"\noomwatchd_build_info{" in received


def available_mib() -> int:
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("MemAvail"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--results", required=True)
    arguments = parser.parse_args()
    # It must measure the daemon, so it must not itself wait for memory.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-999")
    ctypes.CDLL(None).mlockall(LOCK_NOW_AND_LATER)
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    results = []
    start = time.monotonic()
    while (began := time.monotonic() - start) < arguments.seconds:
        available = available_mib()
        whole = answered()
        took = time.monotonic() - start - began
        results.append(
            {
                "began_seconds": round(began, 2),
                "took_seconds": round(took, 3),
                "whole": whole,
                "available_mib": available,
            }
        )
        time.sleep(max(0.0, 0.5 - took))
    with open(arguments.results + ".new", "w") as file:
        json.dump(results, file)
    os.rename(file.name, arguments.results)


if __name__ == "__main__":
    main()
