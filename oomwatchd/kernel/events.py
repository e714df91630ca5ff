"""The kernel's own news of processes: who runs another program, has another name or another owner,
and who was killed.

The connector is a netlink socket on which the kernel tells of every fork, exec and exit, of threads
too.  A filter that runs in the kernel lets through the few that concern us, so the others neither
wake us nor fill the buffer.

Source:  drivers/connector/cn_proc.c, include/uapi/linux/{connector,cn_proc,filter}.h, netlink(7).
"""

import errno
import os
import select
import signal
import socket
import struct
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from oomwatchd.model import Heard

NETLINK_CONNECTOR: Final = 11
CN_IDX_PROC: Final = 1
CN_VAL_PROC: Final = 1
NLMSG_DONE: Final = 3
PROC_CN_MCAST_LISTEN: Final = 1
PROC_CN_MCAST_IGNORE: Final = 2
SO_ATTACH_FILTER: Final = 26  # include/uapi/asm-generic/socket.h
SO_RCVBUFFORCE: Final = 33

FORK: Final = 0x00000001
EXEC: Final = 0x00000002
UID: Final = 0x00000004
COMM: Final = 0x00000200
EXIT: Final = 0x80000000

# A datagram: nlmsghdr (16 bytes), cn_msg (20 bytes), and proc_event: what, cpu, timestamp, and from
# byte 52 what the kind of event has.  The first two words are a thread and its process: of a fork
# the parent's, and the child's follow; of an exit, its status as wait(2) gives it.
WHAT_AT: Final = 36
THREAD_AT: Final = 52
PROCESS_AT: Final = 56
CHILD_THREAD_AT: Final = 60
EXIT_CODE_AT: Final = 60
CHILD_PROCESS_AT: Final = 64
EVENT: Final = struct.Struct("=I4xQIIII")  # from WHAT_AT on
DATAGRAM_MIN_BYTES: Final = WHAT_AT + EVENT.size
DATAGRAM_BYTES: Final = 4096

# One event takes about 0.75 KiB of it, so this is the news of a second at 10,000 a second.
BUFFER_BYTES: Final = 8 << 20
DRAIN_MAX: Final = 20_000  # events taken out at one time: 40 ms
ANSWER_SECONDS: Final = 0.25


class Silent(OSError):
    """The kernel takes the subscription and sends nothing: we are in another namespace than its."""


class ProcessEvents:
    """A subscription; *forks*: to hear of forks as well."""

    def __init__(self, *, forks: bool) -> None:
        """Raises:  OSError, where the kernel has no connector or refuses us; Silent."""
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_CONNECTOR)
        self._buffer = bytearray(DATAGRAM_BYTES)
        self._lost = False
        try:
            enlarge(self._socket)
            self._socket.bind((0, CN_IDX_PROC))
            self._ask(PROC_CN_MCAST_LISTEN)
            if not self._hears_itself():
                raise Silent(errno.EPERM, "the kernel sends no events into this namespace")
            self.filter(forks=forks)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def filter(self, *, forks: bool) -> None:
        """What is let through from now on."""
        attach(self._socket, program(forks=forks))

    def close(self) -> None:
        """Take the subscription back: until Linux 6.6 the kernel does not do so by itself, and goes
        on making events for nobody.
        """
        try:
            self._ask(PROC_CN_MCAST_IGNORE)
        except OSError:
            pass  # it had not even been granted
        finally:
            self._socket.close()

    def drain(self) -> Heard:
        """Take out what has come since; does not block."""
        pids: dict[int, int] = {}  # with the time of the exec, in ns, or 0
        forks: dict[int, int] = {}
        killed: list[int] = []
        events, self._lost = 0, False
        for what, nanoseconds, thread, process, child_thread, child in self._events():
            events += 1
            if what == FORK:
                if child_thread == child:
                    forks[child] = process
            elif what == EXEC:
                pids[process] = nanoseconds
            elif thread == process and what in (COMM, UID):
                pids.setdefault(process, 0)
            elif thread == process and what == EXIT:  # the filter lets none but these through
                killed.append(process)
        left = tuple([(parent, child) for child, parent in forks.items() if child not in pids])
        return Heard(pids, left, events, self._lost, tuple(killed))

    def _events(self) -> Iterator[tuple[int, ...]]:
        """Those in the buffer, up to a bound."""
        for _ in range(DRAIN_MAX):
            try:
                size = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost = True  # told once; what comes after it is whole again
                continue
            if size >= DATAGRAM_MIN_BYTES:
                yield EVENT.unpack_from(self._buffer, WHAT_AT)

    def _ask(self, operation: int) -> None:
        body = struct.pack("=I", operation)
        message = struct.pack("=IIIIHH", CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(body), 0) + body
        head = struct.pack("=IHHII", 16 + len(message), NLMSG_DONE, 0, 0, 0)
        self._socket.send(head + message)

    def _hears_itself(self) -> bool:
        """Whether we hear of the end of a thread of ours.

        The kernel's own answer to a subscription proves nothing: there is none in other namespaces
        than its first, and what comes may be for another subscriber.
        """
        thread = threading.Thread(target=threading.get_ident)
        thread.start()
        thread.join()
        until = time.monotonic() + ANSWER_SECONDS
        while select.select([self._socket], [], [], max(until - time.monotonic(), 0.0))[0]:
            for what, _nanoseconds, _thread, process, *_ in self._events():  # others' too
                if (what, process) == (EXIT, os.getpid()):
                    return True
            if time.monotonic() >= until:
                break
        return False


def enlarge(link: socket.socket) -> None:
    """Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it, as far as that goes."""
    try:
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    except PermissionError:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)


# -- the filter: classic BPF -----------------------------------------------------------------------

Instruction = tuple[int, int, int, int]  # code, steps if true, steps if false, operand
LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS: big-endian, so operands are turned round
COPY_TO_X: Final = 0x07  # BPF_MISC | BPF_TAX
JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_IF_EQUAL_X: Final = 0x1D  # BPF_JMP | BPF_JEQ | BPF_X
RETURN: Final = 0x06  # BPF_RET | BPF_K: so many bytes are let through
WHOLE: Final = 0xFFFFFFFF
NOTHING: Final = 0


def program(*, forks: bool) -> list[Instruction]:
    """Pass an exec; pass names, owners, ends by SIGKILL and, if wanted, forks of processes, but not
    of threads.
    """
    return [
        (LOAD_WORD, 0, 0, WHAT_AT),
        (JUMP_IF_EQUAL, 14, 0, socket.htonl(EXEC)),  # to 16
        (JUMP_IF_EQUAL, 0, 2, socket.htonl(EXIT)),  # to 3, or else to 5
        (LOAD_WORD, 0, 0, EXIT_CODE_AT),
        (JUMP_IF_EQUAL, 3, 12, socket.htonl(signal.SIGKILL)),  # to 8, or else to 17
        (JUMP_IF_EQUAL, 2, 0, socket.htonl(COMM)),  # 5: to 8
        (JUMP_IF_EQUAL, 1, 0, socket.htonl(UID)),  # to 8
        (JUMP_IF_EQUAL, 4 if forks else 9, 9, socket.htonl(FORK)),  # to 12, or else to 17
        (LOAD_WORD, 0, 0, THREAD_AT),  # 8
        (COPY_TO_X, 0, 0, 0),
        (LOAD_WORD, 0, 0, PROCESS_AT),
        (JUMP_IF_EQUAL_X, 4, 5, 0),
        (LOAD_WORD, 0, 0, CHILD_THREAD_AT),  # 12
        (COPY_TO_X, 0, 0, 0),
        (LOAD_WORD, 0, 0, CHILD_PROCESS_AT),
        (JUMP_IF_EQUAL_X, 0, 1, 0),
        (RETURN, 0, 0, WHOLE),  # 16
        (RETURN, 0, 0, NOTHING),  # 17
    ]


def attach(link: socket.socket, instructions: Sequence[Instruction]) -> None:
    """In place of the filter that *link* has; struct sock_fprog holds a pointer to the program."""
    code = array("B", b"".join(struct.pack("=HBBI", *one) for one in instructions))
    address, _size = code.buffer_info()
    link.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(instructions), address)
    )
