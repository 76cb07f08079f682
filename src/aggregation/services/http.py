"""HTTP: requests to one service, made so that a key can be trusted to them.

The key goes to the service's own host and nowhere else: TLS is verified, plain http is refused but
on this machine itself, and a redirect to another host is not followed. Answers are bounded in time
and size. A GET is tried again when that may help; a POST only where it surely did not arrive.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

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
from aggregation.files import atomic_write
from aggregation.services.address import NOWHERE, loopback, origin, plain
from aggregation.services.wire import UNDER_WAY, Exchange, session

REDIRECTS, FOLLOWED = (301, 302, 303, 307, 308), 5
TOO_MANY, UNAUTHORIZED, FORBIDDEN, FAILED = 429, 401, 403, 500
PIECE = 1 << 16


@dataclass(frozen=True)
class Service:
    """Who is asked, and with what right."""

    name: str
    """As messages call it."""
    url: str
    """Base address."""
    scheme: str
    """The word before the key in the authorization header."""
    variable: str
    """Environment variable that holds the key."""
    key: str = field(repr=False)
    key_from: str
    """Where a person gets a key."""


@dataclass(frozen=True)
class Policy:
    """Limits; seconds and bytes."""

    connect: float = 10.0
    """For a connection: more means that nobody is there."""
    read: float = 60.0
    """Between two pieces of an answer: an export is gathered before its first byte."""
    deadline: float = 900.0
    """For a call with all its tries: an export of 200 MB at 2 Mbit/s."""
    tries: int = 6
    first_wait: float = 1.0
    """Before the second try, at most; doubled from try to try, and a random part of it waited, so
    that many clients do not come back at once."""
    longest_wait: float = 60.0
    most_bytes: int = 1 << 31
    """Of an answer, unpacked: ten times the largest export that is expected."""


DEFAULT = Policy()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


class _AgainError(Exception):
    """A try that failed where another may not. `sent`: the request may have arrived."""

    def __init__(self, error: ServiceError, *, sent: bool, wait: float = 0.0) -> None:
        super().__init__()
        self.error, self.sent, self.wait = error, sent, wait


class Client:
    """Requests to one service. Every failure is a ServiceError that never holds the key."""

    def __init__(self, service: Service, policy: Policy = DEFAULT) -> None:
        _check(service)
        self.service, self.policy, self.url = service, policy, service.url
        self._session = session(f"{service.scheme} {service.key}")
        # A proxy would see a key that is not encrypted; to reach itself this machine needs none.
        self._session.trust_env = service.url.startswith("https:")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "application/json"
    ) -> bytes:
        """The body of the answer. `path` is below the base address, or an address of its host."""
        answer = self._call("GET", path, query, None, accept, b"".join)
        return answer.body

    def download(self, path: str, query: Mapping[str, str] | None, target: Path) -> str:
        """The JSON answer as the file `target`, whole or not at all; returns its sha256, in hex."""
        with atomic_write(target) as partial, partial.open("wb") as file:

            def keep(pieces: Iterator[bytes]) -> bytes:
                file.seek(0)  # what an earlier try left
                file.truncate()
                digest, last = hashlib.sha256(), b""
                for piece in pieces:
                    file.write(piece)
                    digest.update(piece)
                    last = piece.rstrip()[-1:] or last
                if last not in (b"}", b"]"):  # HTTP alone does not always tell
                    raise AnswerError(
                        f"{self.service.name} ({path}): its answer is cut off, or no JSON: "
                        "try again later"
                    )
                return digest.hexdigest().encode()

            digest = self._call("GET", path, query, None, "application/json", keep).body
        return digest.decode()

    def post(self, path: str, body: bytes, *, accept: str = "application/json") -> Answer:
        """Send JSON once. UnknownOutcomeError where it may have arrived without a usable answer."""
        return self._call("POST", path, None, body, accept, b"".join)

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        accept: str,
        take: Callable[[Iterator[bytes]], bytes],
    ) -> Answer:
        """Try until it works, or cannot, or must not be tried again."""
        end = time.monotonic() + self.policy.deadline
        url = self._url(path)
        for number in range(self.policy.tries):
            try:
                return self._try(method, url, query, body, accept, take, end)
            except _AgainError as error:
                again = error
            # Raised out here: an error keeps the one it is raised in, whose request has the key.
            if method == "POST" and again.sent:
                raise UnknownOutcomeError(
                    f"{self._where(url)}: {_first(again.error)}.\n"
                    "Nobody knows whether what was sent arrived: look before you send it again"
                )
            most = min(self.policy.longest_wait, self.policy.first_wait * 2**number)
            wait = max(random.uniform(0, most), again.wait)
            if number + 1 == self.policy.tries or time.monotonic() + wait > end:
                raise again.error
            time.sleep(wait)
        raise AssertionError("unreachable")

    def _try(
        self,
        method: str,
        url: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        accept: str,
        take: Callable[[Iterator[bytes]], bytes],
        end: float,
    ) -> Answer:
        headers = {"accept": accept, "accept-encoding": "gzip, deflate"}
        if body is not None:
            headers["content-type"] = "application/json"
            self._session.close()  # an old connection may be dead: who knows then what arrived
        exchange = Exchange(self.policy.read, end)
        UNDER_WAY.set(exchange)
        answered = False
        try:
            for _ in range(FOLLOWED):
                left = max(end - time.monotonic(), 0.01)
                with self._session.request(
                    method,
                    url,
                    params=query,
                    data=body,
                    headers=headers,
                    timeout=(min(self.policy.connect, left), min(self.policy.read, left)),
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    answered = True
                    if response.status_code in REDIRECTS:
                        url, query = self._redirected(method, url, response), None
                        continue
                    self._judge(method, url, response)
                    try:
                        self._expect(url, response, accept)
                        return Answer(response.status_code, take(self._pieces(url, response)))
                    except AnswerError as error:
                        unusable = error
                    raise _AgainError(unusable, sent=True) if method == "POST" else unusable
            raise AnswerError(f"{self._where(url)}: redirects in a circle: check the address")
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            broken = self._broken(url, error, exchange, answered=answered)
        except OSError:
            if answered:  # not of the connection: the disk, for one
                raise
            broken = UnreachableError(
                f"{self._where(url)}: the trusted certificates cannot be read: check "
                "REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE in the environment"
            )
        raise broken

    def _pieces(self, url: str, response: requests.Response) -> Iterator[bytes]:
        """The body as it comes, unpacked, up to the size allowed."""
        size = 0
        while piece := response.raw.read1(PIECE, decode_content=True):
            size += len(piece)
            if size > self.policy.most_bytes:
                raise AnswerError(
                    f"{self._where(url)}: its answer is larger than {self.policy.most_bytes:,} "
                    "bytes: that is no answer of this service; check the address"
                )
            yield piece

    def _judge(self, method: str, url: str, response: requests.Response) -> None:
        """Raise unless the status is good."""
        status = response.status_code
        if 200 <= status < 300:
            return
        where = f"{self._where(url)}: status {status}"
        if status in (UNAUTHORIZED, FORBIDDEN):
            raise AccessError(
                f"{where}: it refuses the key in {self.service.variable}.\n"
                f"Get one from {self.service.key_from}, and set it in the environment or in .env"
            )
        if status == TOO_MANY:
            wait = retry_after(response.headers.get("retry-after"))
            remedy = f"wait {wait:g} s" if wait is not None else "wait a while"
            error = BusyError(f"{where}: too many requests, also after waiting: {remedy}")
            raise _AgainError(error, sent=False, wait=wait or 0.0)
        if status >= FAILED:
            error = BusyError(f"{where}: the service failed: try again later")
            raise _AgainError(error, sent=True)
        said = self._said(response)
        raise AnswerError(f"{where}: it refuses this {method}: check address and data{said}")

    def _said(self, response: requests.Response) -> str:
        """The beginning of what the service wrote, harmless."""
        said = b""
        try:
            for piece in self._pieces("", response):
                said += piece
                if len(said) > PIECE:
                    break
        except (ServiceError, requests.RequestException, urllib3.exceptions.HTTPError):
            return ""
        text = said.decode("utf-8", "replace")  # not cut: half a key would not be found
        text = re.sub(r"<[^>]*>|[^\w .,;:!?()/'-]+", " ", text.replace(self.service.key, "***"))
        text = " ".join(text.split())[:200]
        return f".\nIt says: {text}" if text else ""

    def _expect(self, url: str, response: requests.Response, accept: str) -> None:
        """Raise unless the body is of the kind that was asked for."""
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == accept or (accept == "*/*" and kind != "text/html"):
            return
        raise AnswerError(
            f"{self._where(url)}: answers with {kind[:60] or 'no content type'} instead of "
            f"{accept}: check the address"
        )

    def _redirected(self, method: str, url: str, response: requests.Response) -> str:
        try:
            target = urljoin(url, response.headers.get("location", ""))
        except ValueError:
            target = NOWHERE
        if method == "GET" and origin(target) == origin(url):
            return target
        raise AnswerError(
            f"{self._where(url)}: redirects to {origin(target)}, which would get the key: "
            "not followed. Check the address"
        )

    def _broken(
        self, url: str, error: Exception, exchange: Exchange, *, answered: bool
    ) -> ServiceError | _AgainError:
        """What a broken connection means, and whether another try may help."""
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
            return UnreachableError(
                f"{self._where(url)}: its certificate does not verify: nothing was sent. Check the "
                "address, and who stands between"
            )
        if time.monotonic() >= exchange.end:
            what = f"its answer was not whole after {self.policy.deadline:g} s: try again later"
        elif answered:
            what = "the connection broke in the middle of its answer: try again later"
        elif not exchange.sent:
            what = "cannot be reached: check the address and the network"
        elif isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
            what = f"does not answer within {self.policy.read:g} s: try again later"
        else:
            what = "broke the connection without an answer: try again later"
        return _AgainError(UnreachableError(f"{self._where(url)}: {what}"), sent=exchange.sent)

    def _url(self, path: str) -> str:
        url = path if "://" in path else f"{self.service.url.rstrip('/')}/{path.lstrip('/')}"
        if origin(url) != origin(self.service.url):
            raise AnswerError(
                f"{self.service.name} names an address of another host, {origin(url)}, which "
                "would get the key: not followed"
            )
        return url

    def _where(self, url: str) -> str:
        return f"{self.service.name} ({plain(url)})"


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date; None: nothing usable."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max((then - datetime.now(UTC if then.tzinfo else None)).total_seconds(), 0.0)


def _check(service: Service) -> None:
    """Raise unless address and key are fit to be used."""
    if origin(service.url) == NOWHERE:
        raise ParameterError(f"{service.name}: {service.url!r:.80} is no http(s) address")
    parts = urlsplit(service.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ParameterError(f"{service.name}: {plain(service.url)!r} is no http(s) address")
    if parts.scheme == "http" and not loopback(parts.hostname):
        raise ParameterError(
            f"{service.name}: {plain(service.url)} would send the key without encryption: use https"
        )
    if not service.key:
        raise AccessError(
            f"{service.name} needs a key, and {service.variable} is not set.\n"
            f"Get one from {service.key_from}, and set it in the environment or in .env"
        )
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", service.key):
        raise AccessError(
            f"{service.name}: the key in {service.variable} holds blanks or characters that no "
            "key has: copy it again"
        )


def _first(error: Any) -> str:
    """The error's message without service and remedy."""
    return str(error).split("): ", maxsplit=1)[-1].split(": ", maxsplit=1)[0]
