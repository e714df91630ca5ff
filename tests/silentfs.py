"""A FUSE file system with one program in it, which falls silent: ``silentfs.py DIRECTORY PROGRAM``.

It says "ready" when it is mounted.  From SIGUSR1 on it answers nothing any more, and whoever wants
to know something of the program waits, in a state that no signal ends, until this server does: the
kernel then gives all of them an error.

Source:  include/uapi/linux/fuse.h; fs/fuse/dev.c, request_wait_answer().
"""

import ctypes
import errno
import os
import signal
import struct
import sys
from pathlib import Path
from typing import Final

MS_NOSUID, MS_NODEV = 2, 4
PR_SET_PDEATHSIG = 1
LOOKUP, FORGET, GETATTR, OPEN, READ, INIT, OPENDIR, BATCH_FORGET = 1, 2, 3, 14, 15, 26, 27, 42
ROOT, FILE = 1, 2  # node ids
REQUEST_BYTES: Final = 1 << 17
REQUEST: Final = struct.Struct("=IIQQIIII")
REPLY: Final = struct.Struct("=IiQ")
READ_ARGUMENTS: Final = struct.Struct("=QQI")  # file handle, offset, size

libc = ctypes.CDLL(None, use_errno=True)


class Server:
    def __init__(self, directory: str, program: Path) -> None:
        self.content = program.read_bytes()
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self.silent = False
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        flags = MS_NOSUID | MS_NODEV
        if libc.mount(b"silentfs", directory.encode(), b"fuse", flags, options.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def attributes(self, node: int) -> bytes:
        """What the kernel may not keep: it has to ask again each time."""
        mode = 0o40755 if node == ROOT else 0o100555
        return struct.pack("=6Q10I", node, len(self.content), *[0] * 7, mode, 1, *[0] * 3, 4096, 0)

    def answer(self, operation: int, node: int, arguments: bytes) -> bytes | None:
        """The answer's body; None for what is not carried out."""
        if operation == INIT:
            return struct.pack("=IIIIHHIIHHI28x", 7, 31, 65536, 0, 0, 0, 65536, 1, 0, 0, 0)
        if operation == LOOKUP:
            return struct.pack("=QQQQII", FILE, 0, 0, 0, 0, 0) + self.attributes(FILE)
        if operation == GETATTR:
            return bytes(16) + self.attributes(node)
        if operation in (OPEN, OPENDIR):
            return bytes(16)
        if operation == READ:
            _, offset, size = READ_ARGUMENTS.unpack_from(arguments)
            return self.content[offset : offset + size]
        return None

    def serve(self) -> None:
        while True:
            request = os.read(self.device, REQUEST_BYTES)
            _, operation, unique, node, *_ = REQUEST.unpack_from(request)
            if self.silent or operation in (FORGET, BATCH_FORGET):
                continue
            body = self.answer(operation, node, request[REQUEST.size :])
            error = -errno.ENOSYS if body is None else 0
            body = body or b""
            os.write(self.device, REPLY.pack(REPLY.size + len(body), error, unique) + body)


def main() -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # or those who wait would do so for ever
    server = Server(sys.argv[1], Path(sys.argv[2]))

    def fall_silent(_number: int, _frame: object) -> None:
        server.silent = True

    signal.signal(signal.SIGUSR1, fall_silent)
    os.write(1, b"ready\n")
    server.serve()


if __name__ == "__main__":
    main()
