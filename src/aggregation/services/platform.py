"""Platform: exports, constitutions and demographics, as its open API takes and gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from aggregation.errors import UnknownOutcomeError
from aggregation.services.http import DEFAULT, Client, Policy

Environment = Literal["production", "development"]
URLS: dict[Environment, str] = {
    "production": "https://api.energize.ai/api/openapi",
    "development": "https://dev.api.energize.ai/api/openapi",
}


class Platform(Client):
    """The platform's API. Raises ServiceError."""

    name = "the platform"
    url_variable = "AGGREGATION_PLATFORM_URL"
    scheme = "Bearer"
    key_variable = "AGGREGATION_PLATFORM_KEY"
    key_from = "the platform's settings page (API keys)"

    def __init__(self, environment: Environment = "production", policy: Policy = DEFAULT) -> None:
        super().__init__(URLS[environment], policy)

    def export(self, flags: Mapping[str, bool]) -> bytes:
        """`GET /exports`: the JSON text. The flags are spelled as in the original notebook."""
        return self.get("exports", {name: "True" for name, wanted in flags.items() if wanted})

    def post_constitution(self, body: bytes) -> None:
        """`POST /constitution`; the platform answers `{"success": true}`."""
        answer = self.post("constitution", body)
        try:
            success = json.loads(answer)["success"] is True
        except (ValueError, TypeError, KeyError, RecursionError):
            success = False
        if not success:
            raise UnknownOutcomeError(
                f"the platform ({self.url}/constitution): it does not say that it succeeded.\n"
                "It is unknown whether it took the constitution: look before you send it again"
            )

    def post_demographics(self, body: bytes) -> None:
        """`POST /prolific/demographics`."""
        self.post("prolific/demographics", body)
