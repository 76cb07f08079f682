"""Platform: exports, constitutions and demographics, as its open API takes and gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from aggregation.errors import AnswerError, UnknownOutcomeError
from aggregation.services import setting
from aggregation.services.http import Answer, Client, Service

URLS = {
    "production": "https://api.energize.ai/api/openapi",
    "development": "https://dev.api.energize.ai/api/openapi",
}


def service(
    environment: Literal["production", "development"] = "production", base_url: str | None = None
) -> Service:
    """The platform at `base_url`, else at AGGREGATION_PLATFORM_URL, else of that environment."""
    return Service(
        name="the platform",
        url=(base_url or setting("AGGREGATION_PLATFORM_URL") or URLS[environment]).rstrip("/"),
        scheme="Bearer",
        variable="AGGREGATION_PLATFORM_KEY",
        key=setting("AGGREGATION_PLATFORM_KEY"),
        key_from="the platform's settings page (API keys)",
    )


class Platform(Client):
    """The platform's API. Raises ServiceError."""

    def download_export(self, target: Path, flags: Mapping[str, bool]) -> str:
        """`GET /exports` into the file `target`; returns its sha256."""
        return self.download("exports", _query(flags), target)

    def export(self, flags: Mapping[str, bool]) -> dict[str, Any]:
        """`GET /exports`, parsed."""
        body = self.get("exports", _query(flags))
        try:
            export = json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError):
            export = None
        if not isinstance(export, dict):
            raise AnswerError(
                f"the platform ({self.url}/exports): answers with no whole JSON object"
            )
        return export

    def post_constitution(self, body: bytes) -> Answer:
        """`POST /constitution`; the platform answers `{"success": true}`."""
        answer = self.post("constitution", body)
        try:
            success = json.loads(answer.body).get("success")
        except (ValueError, AttributeError, RecursionError):
            success = None
        if success is not True:
            raise UnknownOutcomeError(
                f"the platform ({self.url}/constitution): status {answer.status}, but it does not "
                "say that it succeeded.\nNobody knows whether it took the constitution: look "
                "before you send it again"
            )
        return answer

    def post_demographics(self, body: bytes) -> Answer:
        """`POST /prolific/demographics`."""
        return self.post("prolific/demographics", body, accept="*/*")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _query(flags: Mapping[str, bool]) -> dict[str, str]:
    """All five flags, spelt out."""
    names = ("topics", "guidelines", "ratings", "users", "mu")
    return {name: "true" if flags.get(name, False) else "false" for name in names}
