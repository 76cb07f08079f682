"""Wire: connections that know when a request has left, and that end with its deadline.

urllib3's timeouts begin anew with every piece that comes, so that an answer which drips, byte by
byte, in its headers even, has no end; and its limit for connecting holds for sending as well.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


@dataclass
class Exchange:
    """One request under way."""

    read: float
    """Seconds between two pieces of the answer."""
    end: float
    """When it has to be over, on the monotonic clock."""
    sent: bool = False
    """Whether any of it may have left."""

    def left(self) -> float:
        """Seconds until the end; raises TimeoutError after it."""
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the deadline is over")
        return seconds


UNDER_WAY: ContextVar[Exchange] = ContextVar("UNDER_WAY")
"""urllib3 makes connections by itself, and has no other way to tell them this."""


class _Timed(io.RawIOBase):
    """What comes from a socket until the deadline."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        exchange = UNDER_WAY.get()
        self._sock.settimeout(min(exchange.read, exchange.left()))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Timed(sock, self.fp.detach()))


class _Watched(http.client.HTTPConnection):
    response_class = _Response
    debuglevel = 0  # a level set for all connections would print the authorization header

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:
        connected = self.sock is not None
        if not connected:
            self.connect()
        exchange = UNDER_WAY.get()
        self.sock.settimeout(exchange.left())
        exchange.sent = True
        super().endheaders(message_body, encode_chunked=encode_chunked)


class _Http(_Watched, HTTPConnection):
    pass


class _Https(_Watched, HTTPSConnection):
    pass


POOLS = {  # by type(), for as class statements they clash with urllib3's protocols of types
    "http": type("_HttpPool", (HTTPConnectionPool,), {"ConnectionCls": _Http}),
    "https": type("_HttpsPool", (HTTPSConnectionPool,), {"ConnectionCls": _Https}),
}


class _Adapter(HTTPAdapter):
    """Makes such connections, through a proxy as well."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Called by requests."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Called by requests."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


class _Authorization(AuthBase):
    """Sets the authorization header; being there, it keeps .netrc from setting another one."""

    def __init__(self, header: str) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["authorization"] = self._header
        return request


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: requests would read the whole body of a redirect, however large it is."""
        del resp
        return None


def session(authorization: str) -> requests.Session:
    """A session that sends that header, over such connections, and follows no redirect."""
    made = _Session()
    made.auth = _Authorization(authorization)
    made.mount("http://", _Adapter())
    made.mount("https://", _Adapter())
    return made
