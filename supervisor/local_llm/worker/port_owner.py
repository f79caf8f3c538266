"""Who listens on a worker's port, where the worker cannot prove itself by its key."""

from __future__ import annotations

import psutil

# Several may listen on one port by different addresses; the most specific one is who is reached.
# (::ffff:127.0.0.1 is how Java binds to 127.0.0.1.)
_ADDRESSES = ("127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - looked for, not bound


def stranger_on(port: int, root: int) -> str | None:
    """Whether somebody else listens. Walks through /proc: for a thread.

    Args:
        port: on the loopback.
        root: a process id; what runs below it is no stranger.

    Returns:
        None if a process below `root` listens, else who it is instead, to follow "its worker".
    """
    by_address: dict[str, set[int | None]] = {}
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port:
            by_address.setdefault(each.laddr.ip, set()).add(each.pid)
    listeners = next((by_address[each] for each in _ADDRESSES if each in by_address), set())
    try:
        below = {process.pid for process in psutil.Process(root).children(recursive=True)}
    except psutil.NoSuchProcess:
        below = set()
    if listeners & below:
        return None
    others = ", ".join(_shown(pid) for pid in listeners if pid is not None) or "a process of somebody else"
    return (
        f"does not listen on its port {port} itself, {others} does: a server in a container, or of a service "
        "manager, is not below its command"
    )


def _shown(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"process {pid}"
