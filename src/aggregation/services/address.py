"""Address: what of a URL says who gets a key, and what of it may be shown."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

NOWHERE = "no address"


def loopback(host: str) -> bool:
    """Whether the host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin(url: str) -> str:
    """Scheme, host and port; NOWHERE for an address that cannot be read."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return NOWHERE
    return f"{parts.scheme}://{parts.hostname}:{port}"


def plain(url: str) -> str:
    """Without query, and without a name and password that somebody put in."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rsplit('@', maxsplit=1)[-1]}{parts.path}"[:200]
