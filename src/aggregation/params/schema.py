"""Schema: the sections of a parameter file, their keys, types, limits and defaults.

The docstring of a key is its meaning in docs/parameters.md. Where keys are settings of the core,
types, limits, defaults and docstrings are those of its dataclasses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from aggregation.data.cards import Card
from aggregation.data.choices import Choices
from aggregation.data.dataset import HELPFUL, Dataset
from aggregation.data.simulation import World
from aggregation.decisions.rules import RULES, Rule
from aggregation.model.multistart import Settings
from aggregation.model.parameters import ALIGNED, COMMUNITY_NOTES, Parameters, Penalty, from_tables
from aggregation.model.ratings import Ids


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, str_max_length=100_000
    )


def places(
    section: type[Section], at: tuple[str, ...] = ()
) -> dict[tuple[str, ...], type[Section]]:
    """A section and all within: keys from the top down, and after a key with a choice of sections
    the `kind` or `name` of one -> section.
    """
    found = {at: section}
    for key, field in section.model_fields.items():
        for part in _sections_in(field.annotation):
            chosen = part.model_fields.get("kind") or part.model_fields.get("name")
            values = get_args(chosen.annotation) if chosen else ()
            choice = values if len(values) == 1 else ()
            found |= places(part, (*at, key, *choice))
    return found


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]


def _section_of(core: type, *left_out: str, **more: Any) -> Any:
    """A section with the fields of a dataclass of the core: names, types, limits, defaults; `more`
    comes first.

    It has the dataclass's name and module, by which `reference` finds the docstrings.
    """
    types = get_type_hints(core, include_extras=True)
    keys: Any = {f.name: (types[f.name], f.default) for f in fields(core) if f.name not in left_out}
    return create_model(core.__name__, __base__=Section, __module__=core.__module__, **more, **keys)


class SimulatedSource(_section_of(World, kind=Literal["simulated"])):
    """A planted deliberation (see docs/method.md). Every page says that it is simulated."""

    def world(self) -> World:
        """These settings."""
        return World(**self.model_dump(exclude={"kind"}))


class PlatformFileSource(Section):
    """What the platform lets people download, on disk."""

    kind: Literal["platform-file"]
    path: str
    """The answer of `GET /exports` or the tree of topics (one JSON file), or the folder of the
    three CSV files. Which one it is shows."""


class PlatformSource(Section):
    """The platform itself, over HTTP. The key comes from the environment or from `.env`."""

    kind: Literal["platform"]
    environment: Literal["production", "development"] = "production"
    """Which of the platform's two addresses; `AGGREGATION_PLATFORM_URL` overrides both."""
    topics: bool = True
    """Ask for topics."""
    guidelines: bool = True
    """Ask for guidelines, with the embeddings and intercepts of the last published model."""
    ratings: bool = True
    """Ask for ratings."""
    users: bool = True
    """Ask for users, with the embeddings and intercepts of the last published model."""
    mu: bool = True
    """Ask for the level of the last published model."""
    offline: bool = False
    """Read the export that an earlier run of this name saved, and ask nobody."""

    def flags(self) -> dict[str, bool]:
        """What to ask `GET /exports` for."""
        return self.model_dump(include={"topics", "guidelines", "ratings", "users", "mu"})


class PolisSource(Section):
    """A folder of a Polis export: comments.csv and votes.csv or participants-votes.csv."""

    kind: Literal["polis"]
    path: str
    """The folder."""
    moderation: Literal["all", "lenient", "strict"] = "lenient"
    """Statements to keep: `all`; `lenient`: all but those that moderators rejected; `strict`: only
    those that they accepted."""
    meta: Literal["drop", "keep"] = "drop"
    """Statements about the conversation itself."""
    votes: Literal["auto", "log", "matrix"] = "auto"
    """`log`: votes.csv, the last vote on a statement counts; `matrix`: participants-votes.csv;
    `auto`: the log where there is one."""
    agree: Literal["infer", 1, -1] = "infer"
    """Which number means agree. `infer` checks the votes against the export's own totals."""


class RatingColumns(Section):
    """Names of the columns in the ratings file."""

    user_id: str | None = "user_id"
    """Who rated. null, with `layout: wide`: every row is another person."""
    guideline_id: str = "guideline_id"
    """What was rated."""
    value: str = "rating"
    """The rating itself, in the words of `ratings.values`."""
    rated_at: str | None = None
    """When: ISO 8601, or seconds or milliseconds since 1970. With several ratings of a pair the
    latest counts; without times, the last in the file."""


class GuidelineColumns(Section):
    """Names of the columns in the guidelines file."""

    guideline_id: str = "guideline_id"
    """The same ids as in the ratings file."""
    text: str = "text"
    """The guideline."""
    topic: str | None = None
    """The title of its topic."""
    author_id: str | None = None
    """The user who wrote it."""


class UserColumns(Section):
    """Names of the columns in the users file."""

    user_id: str = "user_id"
    """The same ids as in the ratings file."""
    answers: list[str] = []
    """Columns with what users declared of themselves, such as an age group. Support is shown by
    each answer; no number of fewer than 10 people is."""


class TableSource(Section):
    """Any CSV, Excel or Parquet file. `aggregation init RATINGS` writes this section.

    Ids are text, without spaces around them; in a column of whole numbers, 1.0 is 1.
    """

    kind: Literal["table"]
    path: str
    """The ratings: .csv, .tsv, .txt, any of them packed as .gz, .xlsx or .parquet."""
    layout: Literal["long", "wide"] = "long"
    """`long`: one rating a row. `wide`: one person a row, one column a guideline, as survey tools
    give it; the column's name is the guideline's id, and an empty cell is no rating."""
    other_columns: list[str] = []
    """With `layout: wide`: columns that are neither guidelines nor named in `columns`."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """What parts the cells of a row. Default: the one of `,` `;` tab `|` that fits."""
    encoding: str | None = None
    """Such as utf-8 or cp1252. Default: found from the file."""
    columns: RatingColumns = RatingColumns()
    """Which column of the ratings file holds what."""
    guidelines: str | None = None
    """The guidelines, in a file of the same kinds. Without one, an id is its own text."""
    unmatched: Literal["error", "drop"] = "error"
    """When more than 1 % of the ratings are of guidelines that this file does not have."""
    guideline_columns: GuidelineColumns = GuidelineColumns()
    """Which column of the guidelines file holds what."""
    users: str | None = None
    """What users declared of themselves, in a file of the same kinds, one row a user."""
    user_columns: UserColumns = UserColumns()
    """Which column of the users file holds what."""


class CommunityNotesSource(Section):
    """A folder of Community Notes' public files: notes, ratings (all parts), noteStatusHistory and
    userEnrollment, as .tsv or .zip.
    """

    kind: Literal["community-notes"]
    path: str
    """The folder."""
    groups: list[int] = []
    """Only ratings by users of these modeling groups (`modelingGroup` of userEnrollment). Empty:
    all."""


Source = (
    SimulatedSource
    | PlatformFileSource
    | PlatformSource
    | PolisSource
    | TableSource
    | CommunityNotesSource
)

Value = Literal["helpful", "not_helpful"] | Annotated[float, Field(ge=0, le=1)] | None
Values = dict[Annotated[str, BeforeValidator(str)], Value]

POLIS_VALUES = {"agree": 1.0, "disagree": 0.0, "pass": None}
"""What the words of a Polis export mean, unless `ratings.values` says otherwise."""

NOTES_VALUES = {"HELPFUL": 1.0, "SOMEWHAT_HELPFUL": 0.5, "NOT_HELPFUL": 0.0}
"""What the words of Community Notes mean, unless `ratings.values` says otherwise."""

WORDS = {"polis": POLIS_VALUES, "community-notes": NOTES_VALUES}
"""By kind of source, where they are not the platform's."""

_CHOICES = _section_of(Choices, "values")
_SETTINGS = _section_of(Settings, "seed")


class RatingsSection(_CHOICES):
    """What counts as a rating."""

    values: Values | None = None
    """What each of the source's words means: helpful, not_helpful, null (leave out) or a number
    from 0 to 1. Default for polis: agree helpful, disagree not_helpful, pass null; for
    community-notes: HELPFUL 1, SOMEWHAT_HELPFUL 0.5, NOT_HELPFUL 0; elsewhere helpful and
    not_helpful stand for themselves. Any other word found is an error."""
    flagged: Literal["keep", "drop"] = "keep"
    """`drop`: leave out users who rate in ways that people rarely do: all alike, exactly as
    somebody else, or faster than anybody reads. Every run counts them."""

    def choices(self, kind: str) -> Choices:
        """These settings for a source of this kind."""
        words = WORDS.get(kind, HELPFUL) if self.values is None else self.values
        numbers = {k: HELPFUL[v] if isinstance(v, str) else v for k, v in words.items()}
        return Choices(numbers, **self.model_dump(exclude={"values", "flagged"}))


class TrainSection(_SETTINGS):
    """How the model is fitted."""

    penalty: Literal["aligned", "community-notes"] = "aligned"
    """`aligned`, the original's: every rating counts alike, absolute embeddings. `community-notes`:
    every parameter counts alike, squared embeddings. The next four can change either."""
    intercept_penalty: float = Field(default=ALIGNED.intercept, gt=0)
    """lambda_i. Original: 0.15."""
    embedding_penalty: float = Field(default=ALIGNED.embedding, gt=0)
    """lambda_f. Original: 0.03."""
    embedding_norm: Literal["l1", "l2"] | None = None
    """Absolute or squared embeddings. Default: the penalty's own."""
    penalty_per: Literal["rating", "parameter"] | None = None
    """What counts alike in the penalty. Default: the penalty's own."""
    warm_start: bool = True
    """Where the source brings an earlier model, start from it too."""
    hold: Literal["users", "guidelines"] | None = None
    """Keep the level and all users (or guidelines) that the earlier model knows fixed, and fit only
    the rest: new guidelines scored against fixed users."""

    def weights(self) -> Penalty:
        """The penalty itself."""
        base = ALIGNED if self.penalty == "aligned" else COMMUNITY_NOTES
        norm, per = self.embedding_norm or base.norm, self.penalty_per or base.per
        return Penalty(self.intercept_penalty, self.embedding_penalty, norm, per)

    def earlier_model(self, dataset: Dataset, ids: Ids) -> Parameters | None:
        """The earlier model that the source brought, unless there is none or it is not wanted."""
        if not self.warm_start and self.hold is None:
            return None
        return from_tables(dataset.users, dataset.guidelines, dataset.mu, ids, self.dimensions)

    def settings(self, seed: int) -> Settings:
        """The search's settings."""
        return Settings(**self.model_dump(include=_SETTINGS.model_fields.keys()), seed=seed)


class DiagnosticsSection(Section):
    """What is computed to judge the decisions by."""

    depth: Literal["quick", "full"] = "quick"
    """`quick`: sides, opinion groups, other measures of agreement. `full`: also what resampled
    users would decide, what manipulation costs, how well ratings can be predicted: a minute."""
    replicates: int = Field(default=200, ge=20, le=10_000)
    """How often the users are resampled, with `depth: full`."""
    near_misses: int = Field(default=12, ge=0)
    """How many guidelines of each group that was not accepted to show in full."""


def _accepted_in(given: Any) -> Any:
    """The ids of the accepted guidelines in the file of a constitution, where a path is given."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(Path(given).expanduser().read_bytes())["accepted_guideline_ids"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it holds no accepted_guideline_ids"
        raise ValueError(f"{given}: is no constitution.json ({why}): check the path") from None


class RuleSection(Section):
    """When a guideline is accepted: all conditions hold. The first that fails decides otherwise."""

    defaults: ClassVar[Rule]
    name: str
    """The rule."""
    slack: float = Field(default=0.0, ge=0, le=0.5)
    """A guideline that was accepted before stays accepted while each number is within this share of
    its bound, so that a list that is published often does not flicker."""
    accepted_before: Annotated[list[str], BeforeValidator(_accepted_in)] = []
    """Guidelines that were accepted before: their ids, or the path of a constitution.json."""

    def rule(self) -> Rule:
        """The rule itself, with these bounds."""
        given = self.model_dump(exclude={"name"})
        slack, before = given.pop("slack"), tuple(given.pop("accepted_before"))
        return replace(self.defaults.with_bounds(**given), slack=slack, accepted_before=before)


def rule_section(rule: Rule) -> type[RuleSection]:
    """The section of a rule: its name, and the bound of each condition."""
    keys: Any = {"name": (Literal[rule.name], rule.name)}
    for c in rule.conditions:
        about = f"{c.label.capitalize()}: {c.words} this, else {c.otherwise}."
        kind = float if c.decimals else int
        bound = Field(default=kind(c.bound), ge=c.least, le=c.most, description=about)
        keys[c.name] = (kind, bound)
    section = create_model("RuleSection", __base__=RuleSection, __module__=__name__, **keys)
    section.defaults = rule
    return section


def rule_key(rules: Mapping[str, Rule]) -> Any:
    """The type of the key `rule`: the section of the rule that its name says, or of the first."""

    def named(given: Any) -> Any:
        return {"name": next(iter(rules))} | given if isinstance(given, dict) else given

    options = Union[tuple(map(rule_section, rules.values()))]  # noqa: UP007
    spec = Field(discriminator="name", default={}, validate_default=True)
    return Annotated[options, spec, BeforeValidator(named)]


class ReportSection(Section):
    """How the report for everybody is written."""

    language: Literal["en", "de"] = "en"
    """Of its words, numbers and dates. Guidelines stay as they were written."""
    markdown: bool = False
    """Guidelines are Markdown: emphasis, lists and code are shown as such; links, pictures and HTML
    are not."""


class _Target(Section):
    target: Literal["file", "platform"] = "file"
    """`file`: into the run's folder, nothing is sent. `platform`: to the platform as well, see
    `confirm`."""
    environment: Literal["production", "development"] = "production"
    """Which of the platform's two addresses; `AGGREGATION_PLATFORM_URL` overrides both."""
    confirm: bool = False
    """Send it. Without, a dry run says what would change."""


class PublishSection(_Target):
    """Where the constitution goes."""

    force: bool = False
    """Send it although a guard says no (no guideline accepted, more than half of the accepted ones
    gone, fewer ratings than before). Needs a `reason`."""
    reason: str = ""
    """Why it was forced; kept in the receipt."""

    @model_validator(mode="after")
    def _reasoned(self) -> PublishSection:
        if self.force and not self.reason.strip():
            raise ValueError("force needs a reason: publish.reason")
        return self


StudyState = Literal[
    "UNPUBLISHED", "SCHEDULED", "PUBLISHING", "ACTIVE", "PAUSED", "AWAITING REVIEW", "COMPLETED"
]


class DemographicsSection(_Target):
    """Who took part, as Prolific knows it. The token comes from the environment variable
    `PROLIFIC_TOKEN` or from `.env`, as does another address, `PROLIFIC_URL`. Without this
    section the stage is left out.
    """

    states: list[StudyState] = Field(default=["ACTIVE", "COMPLETED"], min_length=1)
    """Studies in any of these states are asked for."""
    endpoint: Literal["successor", "deprecated"] = "successor"
    """Which of Prolific's two exports of demographics."""
    left_out: list[str] = ["RETURNED", "TIMED-OUT", "REJECTED"]
    """Submissions of these statuses are left out. Who withdrew consent always is."""


class Params(Section):
    """One run: the keys at the top of the file."""

    run: str = Field(pattern=r"^[\w][\w.-]{0,99}$")
    """The folder under outputs/: letters, digits, `_`, `-`, `.`"""
    title: str = ""
    """Headline of the report. Default: the source's own title."""
    question: str = ""
    """What the users were asked, for the report. Default: the source's own description."""
    participants: str = ""
    """Who took part and how they were found, for the report."""
    attribution: str = ""
    """Who gathered the data, and its licence, for the report."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random."""
    source: Source = Field(discriminator="kind")
    """Where the deliberation comes from; `kind` decides which keys it has."""
    ratings: RatingsSection = RatingsSection()
    train: TrainSection = TrainSection()
    diagnostics: DiagnosticsSection = DiagnosticsSection()
    rule: rule_key(RULES)  # type: ignore[valid-type]
    report: ReportSection = ReportSection()
    demographics: DemographicsSection | None = None
    """Who took part; null: nobody is asked."""
    publish: PublishSection = PublishSection()

    def _repr_html_(self) -> str:
        """All of them, one row for each section."""
        values = {k: json.dumps(v, ensure_ascii=False) for k, v in self.model_dump().items()}
        rows = tuple((key, text.replace('"', "")) for key, text in values.items())
        return Card(f"Parameters of run {self.run}", rows, longest=400).html()
