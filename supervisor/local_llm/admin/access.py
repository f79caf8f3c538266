"""Who may use /admin where no key is asked for: clients on this machine, themselves."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.types import Scope

from local_llm.errors import Forbidden

PROXIED = frozenset({b"x-forwarded-for", b"x-real-ip", b"forwarded", b"via"})
"""Set by proxies: who speaks through one on this machine may be anywhere."""


def check_local(scope: Scope) -> None:
    """Lets in who connects from this machine, and not for somebody else.

    A web page that the operator looks at is somebody else: its requests come from this machine, too. It has
    an `Origin`, or, by a name that it made resolve to 127.0.0.1 (DNS rebinding), a foreign `Host`.

    Raises:
        Forbidden: says what to do.
    """
    client = scope.get("client")
    headers = scope["headers"]
    for name, value in headers:
        if name in PROXIED:
            raise _forbidden(f"This request came through a proxy ({name.decode('latin-1')}).")
        if name == b"host" and not _is_loopback(_host_of("//" + value.decode("latin-1"))):
            raise _forbidden("This request names another host than localhost.")
        if name == b"origin" and not _is_loopback(_host_of(value.decode("latin-1"))):
            raise _forbidden("This request was made by a web page.")
    if client is None or not _is_loopback(client[0]):
        raise _forbidden("This request came from another machine.")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, where one socket serves both families
    return (mapped or address).is_loopback


def _forbidden(reason: str) -> Forbidden:
    return Forbidden(
        f"{reason} Without API keys, /admin answers only clients on the server's own machine. "
        "Set api_keys to use it from elsewhere."
    )
