"""glibc's allocator, set for a process that runs for months and should stay as small as it was.

Its own rules suit short programs. A thread has an arena of its own, whose free memory the others cannot
use; and the first large block that is freed (a request's body) raises the size from which blocks are
given back to the system at once, up to 32 MB. With its own rules this process grew by 0.5 MB a minute
while the number and size of its objects stayed as they were (`tracemalloc` over minutes of `make chaos`).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_OWN_MAPPING_BYTES = 128 << 10
_TRIM_BYTES = 256 << 10


def stay_small() -> None:
    """Sets it for this process, not for its children. With another C library it does nothing."""
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        # Set by hand, it no longer rises.
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
