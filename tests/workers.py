"""Workers that say what a test wants; real child processes, each with the program given."""

import select
import sys
import time

from oomwatchd.systemd.manager import Manager, Reply, Spawn, spawned

PATIENCE_SECONDS = 20.0

LINK = "import json, os, signal, socket, sys; link = socket.socket(fileno=0)\n"
# Says of everyone that it has been moved; and ends when the link does.
MOVES = """
while packet := link.recv(65536):
    rule, pid, start = json.loads(packet)
    scope = f"/oomwatchd.slice/oomwatchd-{rule}-{pid}.scope"
    link.send(json.dumps([pid, start, "moved", scope, 1, ""]).encode())
"""
HANGS = "link.recv(65536)\nwhile True: signal.pause()\n"
# Neither does it answer, nor does it end when asked to.
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nlink.recv(65536)\nlink = None\n" + HANGS
DIES = "link.recv(65536)\nos._exit(1)\n"
ENDS_AT_ONCE = "link.close()\n"
BABBLES = "link.recv(65536)\nlink.send(b'what?')\nsignal.pause()\n"
TELLS_UNASKED = 'link.send(b\'[1, 2, "moved", "", 1, ""]\')\nsignal.pause()\n'
REFUSES = """
while packet := link.recv(65536):
    rule, pid, start = json.loads(packet)
    link.send(json.dumps([pid, start, "failed", "", 0, "systemd said no"]).encode())
"""


def worker(program: str) -> Spawn:
    return lambda: spawned([sys.executable, "-c", LINK + program])


def answered(manager: Manager, poll: select.epoll, now_seconds: float) -> list[Reply]:
    """What `tend` gives, once *poll* has told that there is something."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        poll.poll(max(until - time.monotonic(), 0.0))
        if replies := manager.tend(now_seconds):
            return replies
    raise AssertionError("no reply")
