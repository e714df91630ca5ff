"""Our own memory: what we have used stays in it, so that nothing of ours is waited for later."""

import ctypes
import os
import resource
from typing import Final

# include/uapi/asm-generic/mman.h.  Other architectures (powerpc, sparc, alpha) have other numbers,
# and refuse these: EINVAL.
MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4  # each page when it is used; to fetch all that could be, takes 40 MiB more

libc: Final = ctypes.CDLL(None, use_errno=True)


def lock_memory() -> None:
    """Have every page that we use, from now on or already, stay in memory.

    To be called when all that matters has run once: what was not in use by then costs nothing, and
    is locked when it comes to be used.

    Nothing is locked where RLIMIT_MEMLOCK binds us.  With the limit in force, mappings and stacks
    of later would be counted against it by their full size, and fail.

    Raises:  OSError; PermissionError, where we are bound by a limit.
    Source:  mlockall(2), since Linux 4.4; mm/mlock.c, can_do_mlock(), mlock_future_ok().
    """
    limit, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        lock_on_use()
        return
    # With a limit of 0, the kernel lets only those lock who are bound by none (CAP_IPC_LOCK).
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, most))
    try:
        lock_on_use()
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, most))


def lock_on_use() -> None:
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
