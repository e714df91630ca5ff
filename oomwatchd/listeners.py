"""Sockets that listen: one for the network, one for root alone."""

import errno
import os
import socket
from pathlib import Path
from typing import Any, Final

from oomwatchd.model import Address

BACKLOG: Final = 1024  # in the kernel: a full one would make a new client try again after 1 s


def found(address: Address) -> Any:
    """What getaddrinfo(3) has of *address*: of several the first, and IPv4 before IPv6."""
    all_of_them = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return min(all_of_them, key=lambda one: one[0] != socket.AF_INET)


def resolved(address: Address) -> Address:
    """*address* by its number: to listen there asks nobody.  Finding it may take long.

    Raises: OSError, whose strerror names the address.
    """
    try:
        return Address(found(address)[4][0], address.port)
    except OSError as error:
        raise not_listening(address, error) from error


def not_listening(address: Address, error: OSError) -> OSError:
    host = f"[{address.host}]" if ":" in address.host else address.host
    reason = f"cannot listen on {host}:{address.port}: {error.strerror}"
    return OSError(error.errno, reason)


def listen_tcp(address: Address, *, share_port_with: socket.socket | None = None) -> socket.socket:
    """A socket that listens on one address of the host, for localhost that is 127.0.0.1.

    *share_port_with* is our own older listener on the same port: 127.0.0.1:9847 may become
    0.0.0.0:9847 while both are open.

    Raises: OSError, whose strerror names the address.
    """
    listener = None
    try:
        family, kind, _, _, name = found(address)
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port_with is not None:  # the kernel lets both, of one user, agree to share
            for sharing in (share_port_with, listener):
                sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(name)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise not_listening(address, error) from error
    return listener


def listen_unix(path: Path) -> socket.socket:
    """A socket that root alone may connect to; what a crash has left at *path* is replaced.

    Raises: OSError, whose strerror names the path; also when another daemon answers there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        os.fchmod(listener.fileno(), 0o600)  # bind takes it over: never open to others, not once
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = f"cannot listen on {path}: {error.strerror or error}"
        raise OSError(error.errno, reason) from error
    return listener


def _remove_stale(path: Path) -> None:
    if not path.is_socket():
        return  # nothing there, or something that bind will refuse to replace
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)  # do not wait: a live daemon with a full queue gives EAGAIN
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "another oomwatchd runs and answers there")
