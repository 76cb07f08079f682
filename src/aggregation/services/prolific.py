"""Prolific: the studies of an account, and who took part in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

import pandas as pd
from pydantic import AliasPath, BaseModel, Field, ValidationError

from aggregation.errors import AggregationError, AnswerError, RunError
from aggregation.params.schema import DemographicsSection
from aggregation.services.demographics import Cleaned, Row, body, parse
from aggregation.services.http import DEFAULT, Client, Policy
from aggregation.services.platform import Platform

URL = "https://api.prolific.com/api/v1"
Endpoint = Literal["successor", "deprecated"]

PAGE_SIZE, MAX_PAGES = 100, 1000


class Study(BaseModel):
    """A study, as far as it matters here."""

    id: str = Field(min_length=1)
    name: str = ""


class _Page(BaseModel):
    results: list[Study]
    following: str | None = Field(validation_alias=AliasPath("_links", "next", "href"))


@dataclass(frozen=True)
class Gathered:
    """What could be read of the studies, and what could not."""

    rows: dict[str, list[Row]] = field(repr=False)
    """study id -> its submissions; none of a study that failed."""
    studies: pd.DataFrame
    """study_id, name, number of submissions, failure (why there are none)."""

    def check(self) -> None:
        """Raise RunError, with the names, if any study failed."""
        failed = self.studies[self.studies["failure"] != ""]
        if failed.empty:
            return
        names = ", ".join(
            f"{s.name!r:.80} ({s.study_id:.80})" for s in failed.itertuples(index=False)
        )
        first = " ".join(failed["failure"].iloc[0].split())
        raise RunError(
            f"{len(failed)} of {len(self.studies)} studies failed: {names:.900}.\n"
            f"The first because: {first:.400}.\nThe others are done: mend these and run it again"
        )


class Prolific(Client):
    """Prolific's API. Raises ServiceError."""

    name = "Prolific"
    url_variable = "PROLIFIC_URL"
    scheme = "Token"
    key_variable = "PROLIFIC_TOKEN"
    key_from = "Prolific's settings (Go to API token page)"

    def __init__(self, policy: Policy = DEFAULT) -> None:
        super().__init__(URL, policy)

    def studies(self, states: Sequence[str]) -> list[Study]:
        """Studies in any of these states, from all pages, each once.

        Pages are asked for by number. The address that a page gives for the next one only says
        whether there is one: it is never requested, so it cannot lead the token elsewhere.
        """
        query = {
            "state": f"({'|'.join(state.lower() for state in states)})",  # as the original asks
            "page_size": str(PAGE_SIZE),
        }
        found: dict[str, Study] = {}
        for number in range(1, MAX_PAGES + 1):
            answer, n_found = self.get("studies/", query | {"page": str(number)}), len(found)
            try:
                page = _Page.model_validate_json(answer)
            except ValidationError as error:
                place = ".".join(map(str, error.errors()[0]["loc"])) or "the whole"
                raise AnswerError(
                    f"Prolific ({self.url}/studies/): its answer is no list of studies ({place}): "
                    "check the address"
                ) from None
            found |= {study.id: study for study in page.results}
            if not page.following:
                return list(found.values())
            if len(found) == n_found:
                break
        raise AnswerError(
            f"Prolific ({self.url}/studies/): the list of studies does not end: it names a next "
            f"page after all {len(found)} studies: try again later"
        )

    def demographics(self, study_id: str, endpoint: Endpoint = "successor") -> bytes:
        """The CSV of a study's submissions. Prolific has deprecated one of the two endpoints."""
        study = f"studies/{quote(study_id, safe='')}"
        if endpoint == "deprecated":
            return self.get(f"{study}/export/", accept="text/csv")
        # always the same filters: Prolific allows two sets of them a study
        path, filters = f"{study}/demographic-export/", b'{"filters": []}'
        return self.post(path, filters, accept="text/csv", safe=True)


def gather(prolific: Prolific, states: Sequence[str], endpoint: Endpoint = "successor") -> Gathered:
    """The submissions of all studies in these states. A study that fails does not lose the rest.

    Raises ServiceError only where the studies themselves cannot be listed.
    """
    rows: dict[str, list[Row]] = {}
    table = []
    for study in prolific.studies(states):
        failure = ""
        try:
            data = prolific.demographics(study.id, endpoint)
            rows[study.id] = parse(data, f"study {study.name!r:.80} ({study.id:.80})")
        except AggregationError as error:
            failure = str(error)
        table.append((study.id, study.name, len(rows.get(study.id, ())), failure))
    columns = ["study_id", "name", "submissions", "failure"]
    return Gathered(rows, pd.DataFrame(table, columns=columns))


def deliver(cleaned: Cleaned, wanted: DemographicsSection) -> str:
    """Post the submissions to the platform, if that is wanted; says what was done.

    `target: file` sends nothing, and without `confirm` it is a dry run that needs no key. Raises
    ServiceError.
    """
    n_rows = sum(len(rows) for rows in cleaned.studies.values())
    what = f"{n_rows} submissions of {len(cleaned.studies)} studies"
    if wanted.target == "file":
        return f"target: file. Nothing is sent, of {what}."
    if not cleaned.studies:
        return "There is no study: nothing is sent."
    to = Platform(wanted.environment)
    if not wanted.confirm:
        told = f"Dry run: {what} are not sent to {to.url}. To send them, set"
        return f"{told} demographics.confirm: true"
    to.post_demographics(body(cleaned))
    return f"Sent {what} to {to.url}."
