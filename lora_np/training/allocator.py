"""Keep freed memory in the process: on Linux half of a training step was page faults.

glibc returns large blocks to the system when they are freed and gets them again, zeroed
page by page, at the next step. Two settings stop that. They hold for the whole process,
so nothing here runs on import: the command line and the training loop call it.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def tune_allocator() -> bool:
    """Ask glibc to keep large freed blocks; True if it took the settings.

    A no-op that returns False on other systems and with other C libraries.

    >>> tune_allocator() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    kept = mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(kept)
