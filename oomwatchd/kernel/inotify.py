"""Being told at once when somebody changes the attributes of a directory.

systemd removes marks that it has not made itself, at a daemon-reload or when a property is set; the
system's manager as well as the users' ones.  The kernel tells of it by inotify, which needs neither
a connection to each of these managers nor a look every second.
"""

import ctypes
import os
import struct
from typing import Final

IN_ATTRIB: Final = 0x00000004  # include/uapi/linux/inotify.h
IN_Q_OVERFLOW: Final = 0x00004000
IN_IGNORED: Final = 0x00008000
IN_ONLYDIR: Final = 0x01000000
IN_DONT_FOLLOW: Final = 0x02000000
EVENT: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name behind it
BUFFER_BYTES: Final = 65536

libc: Final = ctypes.CDLL(None, use_errno=True)


class AttributeEvents:
    """Tells of changes to the attributes of the directories watched, xattrs among them."""

    def __init__(self) -> None:
        """Raises:  OSError, where the user's instances of inotify are used up."""
        self._fd = checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._paths: dict[int, str] = {}
        self._watches: dict[str, int] = {}

    def fileno(self) -> int:
        return self._fd

    def watch(self, path: str) -> None:
        """Raises:  OSError, if there is no such directory, or no more watches are to be had."""
        mask = IN_ATTRIB | IN_ONLYDIR | IN_DONT_FOLLOW
        watch = checked(libc.inotify_add_watch(self._fd, os.fsencode(path), mask))
        self._paths[watch] = path
        self._watches[path] = watch

    def unwatch(self, path: str) -> None:
        watch = self._watches.pop(path, None)
        if watch is not None and self._paths.pop(watch, None) is not None:
            libc.inotify_rm_watch(self._fd, watch)  # fails only if the directory has gone

    def drain(self) -> set[str]:
        """Which directories have changed since the last call; does not block.

        All of them, when there was too much to tell.
        """
        try:
            events = os.read(self._fd, BUFFER_BYTES)
        except BlockingIOError:
            return set()
        changed: set[str] = set()
        at = 0
        while at < len(events):
            watch, mask, _, length = EVENT.unpack_from(events, at)
            at += EVENT.size + length
            if mask & IN_Q_OVERFLOW:
                changed.update(self._watches)
            elif watch in self._paths and not length:  # one with a name is of a file within
                changed.add(self._paths[watch])
            if mask & IN_IGNORED:  # the directory has gone, and the number may come to mean another
                path = self._paths.pop(watch, None)
                if path is not None and self._watches.get(path) == watch:
                    del self._watches[path]
        return changed

    def close(self) -> None:
        os.close(self._fd)


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
