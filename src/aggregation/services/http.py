"""HTTP: requests to one service that keep its key safe.

The key goes to the service's own host only: no redirect is followed, and no address that a service
names is ever requested. Answers are limited in size and total time. A request that changes nothing
is repeated where that may help; one that does, only where the service surely did not take it.
Messages quote nothing that a service says, since it may repeat the key.
"""

from __future__ import annotations

import random
import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import requests
import urllib3

from aggregation.errors import (
    AccessError,
    AnswerError,
    BusyError,
    ParameterError,
    ServiceError,
    UnknownOutcomeError,
    UnreachableError,
)
from aggregation.services import setting

JSON = "application/json"
READ_SIZE = 1 << 16
MIN_MASKED = 16
ADDRESS = re.compile(
    r"(https://([\w.-]+|\[[0-9a-f:]+\])|http://(localhost|127\.0\.0\.1|\[::1\]))"
    r"(:[0-9]{1,5})?(/[\w.~%/-]*)?",
    re.ASCII,
)
"""Addresses that may get a key. Over plain http, only this machine itself."""
REFUSED = frozenset({400, 401, 403, 404, 405, 413, 415, 422, 429})
"""Statuses of a request that the service did not take. After any other error it may have."""


@dataclass(frozen=True)
class Policy:
    """Limits; seconds and bytes."""

    connect: float = 10.0
    """For a connection."""
    read: float = 60.0
    """Between two pieces of an answer: the platform gathers an export before its first byte."""
    deadline: float = 900.0
    """For a call with all its tries: an export of 200 MB at 2 Mbit/s."""
    tries: int = 6
    first_wait: float = 1.0
    """Longest wait before the second try; doubled from try to try. A random part of it is waited,
    so that many clients do not come back at once."""
    max_wait: float = 60.0
    max_bytes: int = 1 << 30
    """Of an answer, unpacked: five times the largest export that is expected."""


DEFAULT = Policy()


@dataclass(eq=False)
class _FailedError(Exception):
    """One try that failed."""

    kind: type[ServiceError]
    what: str
    remedy: str = "try again later"
    sent: bool = True
    """Whether the service may have acted on it."""
    again: bool = False
    """Whether another try may help."""
    wait: float = 0.0
    """Seconds that the service asks to wait before."""


class Client:
    """Requests to one service. Every failure is a ServiceError without the key.

    The constructor raises ParameterError for an unsafe address in the environment.
    """

    name: ClassVar[str]
    """As messages call the service."""
    url_variable: ClassVar[str]
    """Environment variable that holds another address."""
    scheme: ClassVar[str]
    """The word before the key in the authorization header."""
    key_variable: ClassVar[str]
    """Environment variable that holds the key."""
    key_from: ClassVar[str]
    """Where a person gets a key."""

    def __init__(self, url: str, policy: Policy = DEFAULT) -> None:
        self.url, self.policy = (setting(self.url_variable) or url).rstrip("/"), policy
        if not ADDRESS.fullmatch(self.url):
            raise ParameterError(
                f"{self.name}: the address in {self.url_variable} cannot be used: write it as "
                "https://host/path, without name, password, query or blanks"
            )

    def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = JSON) -> bytes:
        """The body of the answer. `path` is below the base address."""
        return self._call("GET", path, accept, safe=True, params=query)

    def post(self, path: str, body: bytes, accept: str = JSON, *, safe: bool = False) -> bytes:
        """Send JSON: once, unless it is `safe`, that is, changes nothing there.

        Raises UnknownOutcomeError where it may have arrived without a usable answer.
        """
        return self._call("POST", path, accept, safe=safe, data=body)

    def _call(self, method: str, path: str, accept: str, *, safe: bool, **content: Any) -> bytes:
        """Try until it works, cannot work, or must not be tried again."""
        end, key = time.monotonic() + self.policy.deadline, self._key()
        content["headers"] = {"accept": accept, "accept-encoding": "gzip", "content-type": JSON}
        where, number = f"{self.name} ({self.url}/{path})", 0
        while True:
            try:
                return self._try(method, path, key, end, content)
            except _FailedError as error:
                failed = error
            # Raised out here: an error keeps the one it is raised in, whose request has the key.
            if failed.sent and not safe:
                raise UnknownOutcomeError(
                    f"{where}: {failed.what}.\nIt is unknown whether what was sent arrived: look "
                    "before you send it again"
                )
            wait = min(self.policy.max_wait, self.policy.first_wait * 2**number)
            wait, number = max(random.uniform(0, wait), failed.wait), number + 1
            late = time.monotonic() + wait > end
            if not failed.again or number >= self.policy.tries or late:
                raise failed.kind(f"{where}: {failed.what}: {failed.remedy}")
            time.sleep(wait)

    def _try(self, method: str, path: str, key: str, end: float, content: dict[str, Any]) -> bytes:
        """Send it once, on a new connection: an old one may be dead, and hide what arrived."""
        left = max(end - time.monotonic(), 0.01)

        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["authorization"] = f"{self.scheme} {key}"
            return request

        session = requests.Session()
        # None: requests would read the whole body of a redirect, however large it is.
        session.get_redirect_target = lambda resp: None  # noqa: ARG005
        session.auth = authorize  # as a mere header, an entry in .netrc would replace it
        # A proxy would see a key that is not encrypted; to reach itself this machine needs none.
        session.trust_env = self.url.startswith("https:")
        try:
            with (
                session,
                session.request(
                    method,
                    f"{self.url}/{path}",
                    timeout=(min(self.policy.connect, left), min(self.policy.read, left)),
                    allow_redirects=False,
                    stream=True,
                    **content,
                ) as response,
            ):
                self._check(response)
                body = self._read(response, end)
        except (OSError, urllib3.exceptions.HTTPError, zlib.error) as error:
            raise _broken(error) from None
        # a shorter key is one for trying things, and may be a word of somebody's text
        return body.replace(key.encode(), b"***") if len(key) >= MIN_MASKED else body

    def _key(self) -> str:
        key = setting(self.key_variable)
        if not re.fullmatch(r"[!-~]{1,4096}", key):
            wrong = "holds blanks or characters that no key has" if key else "is not set"
            raise AccessError(
                f"{self.name} needs a key, and {self.key_variable} {wrong}.\n"
                f"Get one from {self.key_from}, and set it in the environment or in .env"
            )
        return key

    def _check(self, response: requests.Response) -> None:
        """Raise unless the status is good and the answer is no web page, such as one to sign in."""
        status, sent = response.status_code, response.status_code not in REFUSED
        what = f"status {status}"
        if status == 429 or status >= 500:
            raise _FailedError(BusyError, what, sent=sent, again=True, wait=_asked_wait(response))
        if status in (401, 403):
            what = f"{what}: it refuses the key in {self.key_variable}"
            raise _FailedError(AccessError, what, f"get one from {self.key_from}", sent)
        if response.is_redirect:
            what = f"{what}: a redirect, which would take the key elsewhere"
        if not 200 <= status < 300:
            raise _FailedError(AnswerError, what, "check address and data", sent)
        if "html" in response.headers.get("content-type", "").lower():
            raise _FailedError(AnswerError, "answers with a web page", "check the address")

    def _read(self, response: requests.Response, end: float) -> bytes:
        """The body, unpacked."""
        body, most = bytearray(), self.policy.max_bytes
        while len(body) <= most and (piece := response.raw.read1(READ_SIZE, decode_content=False)):
            body += piece
            if time.monotonic() > end:
                raise _FailedError(UnreachableError, "its answer takes too long")
        if response.headers.get("content-encoding") == "gzip" and len(body) <= most:
            unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: gzip
            body = unpack.decompress(body, most + 1)
            if len(body) <= most and not unpack.eof:
                raise zlib.error
        if len(body) > most:
            what = f"its answer is larger than {most:,} bytes"
            raise _FailedError(AnswerError, what, "check the address")
        return bytes(body)


def _broken(error: Exception) -> _FailedError:
    """What a broken connection means, and whether another try may help."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if type(error) is OSError or (
        isinstance(error, requests.exceptions.SSLError) and "verify failed" in str(error)
    ):
        what = "its certificate does not verify, so nothing was sent"
        remedy = "check the address, and REQUESTS_CA_BUNDLE in the environment"
        return _FailedError(UnreachableError, what, remedy, sent=False)
    if isinstance(error, requests.exceptions.InvalidURL) or isinstance(
        reason, (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.ProxyError)
    ):
        what, remedy = "cannot be reached", "check the address, the network and the proxy"
        return _FailedError(UnreachableError, what, remedy, sent=False, again=True)
    slow = isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError))
    what = "does not answer in time" if slow else "the connection broke"
    return _FailedError(UnreachableError, what, again=True)


def _asked_wait(response: requests.Response) -> float:
    """Seconds that a Retry-After header asks for; 0 if there is none that can be used."""
    try:
        return urllib3.Retry().parse_retry_after(response.headers.get("retry-after", "0"))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0
