"""Prolific: the studies of an account, and who took part in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from aggregation.errors import AggregationError, AnswerError, RunError
from aggregation.services import setting
from aggregation.services.demographics import Cleaned, Row, body, parse
from aggregation.services.http import Client, Service
from aggregation.services.platform import Platform

URL = "https://api.prolific.com/api/v1"
Endpoint = Literal["successor", "deprecated"]

PAGE_SIZE = "100"
NAMED = 10
"""Failed studies that an error names; the table before it has all."""


def service(base_url: str | None = None) -> Service:
    """Prolific at `base_url`, else at its own address."""
    return Service(
        name="Prolific",
        url=(base_url or URL).rstrip("/"),
        scheme="Token",
        variable="PROLIFIC_TOKEN",
        key=setting("PROLIFIC_TOKEN"),
        key_from="Prolific's settings (Go to API token page)",
    )


class Study(BaseModel):
    """A study, as far as it matters here."""

    id: str = Field(min_length=1)
    name: str = ""


class _Link(BaseModel):
    href: str | None = None


class _Links(BaseModel):
    next: _Link


class _Page(BaseModel):
    results: list[Study]
    links: _Links = Field(alias="_links")


@dataclass(frozen=True)
class Gathered:
    """What the studies told, and which did not."""

    studies: list[Study]
    rows: dict[str, list[Row]] = field(repr=False)
    """study id -> its submissions."""
    failures: dict[str, str]
    """study id -> why its submissions are missing."""

    def summary(self) -> pd.DataFrame:
        """One row a study: its name, the submissions read, and why there are none."""
        table = [
            (s.id, s.name, len(self.rows.get(s.id, ())), self.failures.get(s.id, ""))
            for s in self.studies
        ]
        return pd.DataFrame(table, columns=["study_id", "name", "submissions", "failure"])

    def check(self) -> None:
        """Raise RunError, with the names, if any study failed."""
        failed = [f"{s.name!r:.80} ({s.id:.80})" for s in self.studies if s.id in self.failures]
        if not failed:
            return
        more = f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        first = " ".join(next(iter(self.failures.values())).split())[:400]
        raise RunError(
            f"{len(failed)} of {len(self.studies)} studies failed: "
            f"{', '.join(failed[:NAMED])}{more}.\nThe first because: {first}.\n"
            "The others are done: mend these and run it again"
        )


class Prolific(Client):
    """Prolific's API. Raises ServiceError."""

    def studies(self, states: Sequence[str]) -> list[Study]:
        """Studies in any of these states, from all pages, each once."""
        joined = f"({'|'.join(state.lower() for state in states)})"  # as the original asks
        answer = self.get("studies/", {"state": joined, "page_size": PAGE_SIZE})
        found: dict[str, Study] = {}
        while True:
            page = self._page(answer)
            known = len(found)
            found |= {study.id: study for study in page.results}
            following = page.links.next.href
            if not following:
                return list(found.values())
            if len(found) == known:
                raise AnswerError(
                    f"Prolific ({self.url}/studies/): a page of the list of studies brings no new "
                    f"study, and names a next page, after {known} studies: try again later"
                )
            answer = self.get(following)

    def demographics(self, study_id: str, endpoint: Endpoint = "successor") -> bytes:
        """The CSV of a study's submissions. Prolific has deprecated one of the two endpoints."""
        study = f"studies/{quote(study_id, safe='')}"
        if endpoint == "deprecated":
            return self.get(f"{study}/export/", accept="text/csv")
        # always the same filters: Prolific allows two sets of them a study
        filters = b'{"filters": []}'
        return self.post(f"{study}/demographic-export/", filters, accept="text/csv").body

    def _page(self, answer: bytes) -> _Page:
        try:
            return _Page.model_validate_json(answer)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise AnswerError(
                f"Prolific ({self.url}/studies/): its answer is no list of studies "
                f"({place}: {first['msg']:.120}): check the address"
            ) from None


def gather(prolific: Prolific, states: Sequence[str], endpoint: Endpoint = "successor") -> Gathered:
    """The submissions of all studies in these states. A study that fails does not lose the rest.

    Raises ServiceError only where the studies themselves cannot be listed.
    """
    studies = prolific.studies(states)
    rows: dict[str, list[Row]] = {}
    failures: dict[str, str] = {}
    for study in studies:
        try:
            data = prolific.demographics(study.id, endpoint)
            rows[study.id] = parse(data, f"study {study.name!r:.80} ({study.id:.80})")
        except AggregationError as error:
            failures[study.id] = str(error)
    return Gathered(studies, rows, failures)


def deliver(
    cleaned: Cleaned, service: Service, *, target: Literal["file", "platform"], confirm: bool
) -> str:
    """Post the submissions to the platform, if that is wanted; says what was done.

    `target: file` sends nothing, and without `confirm` it is a dry run that needs no key. Raises
    ServiceError; what the platform said stays untold, for it may repeat what it was sent.
    """
    n_rows = sum(len(rows) for rows in cleaned.studies.values())
    what = f"{n_rows} submissions of {len(cleaned.studies)} studies"
    if target == "file":
        return f"target: file. Nothing is sent, of {what}."
    if not cleaned.studies:
        return "There is no study: nothing is sent."
    if not confirm:
        return (
            f"Dry run: {what} are not sent to {service.url}. To send them, set "
            "demographics.confirm: true"
        )
    with Platform(service) as platform:
        try:
            answer = platform.post_demographics(body(cleaned))
        except AnswerError as error:
            raise AnswerError(str(error).splitlines()[0]) from None
    return f"Sent {what} to {platform.url}: status {answer.status}."
