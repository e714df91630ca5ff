"""What the daemon tells systemd: sd_notify(3), which is one datagram to one socket.

Not by pystemd: importing it costs 5.7 MiB of memory, in a daemon that is there for lack of memory.
"""

import os
import socket
from collections.abc import Iterable, Mapping


class Notifier:
    def __init__(self, environment: Mapping[str, str]) -> None:
        """*environment* as systemd sets it: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(0)  # a service manager that hangs must not hang us
            self._address = "\0" + address[1:] if address[0] == "@" else address
        self._status = ""
        self.watchdog_seconds = watchdog_seconds(environment, os.getpid())

    def news(self, assignments: Iterable[str]) -> list[str]:
        """What of *assignments* `send` would send."""
        return [one for one in assignments if one != self._status]

    def send(self, *assignments: str) -> bool:
        """Send ``READY=1`` and the like in one message; False if it could not be delivered.

        A STATUS that has been delivered already is left out.
        """
        news = self.news(assignments)
        if self._socket is None or not news:
            return True
        try:
            self._socket.sendto("\n".join(news).encode(), self._address)
        except OSError:  # not worth dying for: without WATCHDOG=1, systemd will see to it
            return False
        self._status = next((one for one in news if one.startswith("STATUS=")), self._status)
        return True


def watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """Within what time systemd wants to hear WATCHDOG=1; None if it does not.

    Source:  sd_watchdog_enabled(3).
    """
    period = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", str(pid))
    if not period.isdecimal() or int(period) == 0 or meant_for != str(pid):
        return None
    return int(period) / 1e6
