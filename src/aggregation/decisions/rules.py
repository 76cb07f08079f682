"""Rules: the conditions under which a guideline is accepted, as data.

The parameter file, verdicts, reasons, comparisons and reports all follow from the conditions, so a
new rule is one more entry of `RULES`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    Scores = pd.DataFrame | Mapping[str, np.ndarray]
    """Columns by name; as arrays they may have any shape."""

ACCEPTED, UNDECIDED, REJECTED = "accepted", "undecided", "rejected"

COMPARISONS = {
    ">": (operator.gt, "more than"),
    ">=": (operator.ge, "at least"),
    "<": (operator.lt, "less than"),
    "<=": (operator.le, "at most"),
}


@dataclass(frozen=True)
class Condition:
    """`column` of the scores, compared with `bound`. A missing number fails."""

    name: str
    """Its key in the parameter file, such as `min_intercept`."""
    column: str
    comparison: Literal[">", ">=", "<", "<="]
    bound: float
    otherwise: Literal["undecided", "rejected"] = "rejected"
    """Verdict on a guideline for which this is the first condition that fails."""
    decimals: int = 2
    """Decimals that a reason shows at least; 0 for counts."""
    least: float | None = None
    most: float | None = None
    """Range of bounds that a parameter file may set."""
    called: str = ""
    """The column in words, where its name is not enough."""

    def holds(self, scores: Scores) -> np.ndarray:
        """Whether it holds, bool for each row of `scores`."""
        compare, _ = COMPARISONS[self.comparison]
        return compare(np.asarray(scores[self.column], np.float64), self.bound)

    def reason(self, value: float) -> str:
        """Why a guideline with this value fails."""
        if np.isnan(value):
            return f"no ratings, so no {self.label}"
        noun = self.label.removesuffix("s") if value == 1 else self.label
        told = f"{noun} {self.shown(value)}" if self.decimals else f"{value:,.0f} {noun}"
        return f"{told}, needs {self.words} {self.bound:g}"

    def shown(self, value: float) -> str:
        """The value with as few decimals as show on which side of the bound it lies."""
        return apart(value, self.bound, self.decimals)

    @property
    def label(self) -> str:
        """The column in words."""
        return self.called or self.column.removeprefix("n_").replace("_", " ")

    @property
    def words(self) -> str:
        """The comparison in words."""
        return COMPARISONS[self.comparison][1]

    def __str__(self) -> str:
        return f"{self.label} {self.words} {self.bound:g}"


@dataclass(frozen=True)
class Rule:
    """A guideline is accepted if all conditions hold; else its first failed one decides."""

    name: str
    conditions: tuple[Condition, ...]
    slack: float = 0.0
    """A guideline of `accepted_before` stays accepted while the rule with all bounds eased by this
    share accepts it (hysteresis)."""
    accepted_before: tuple[str, ...] = ()
    """guideline_ids."""

    def bound(self, name: str) -> float:
        """The bound of the condition called `name`. Raises KeyError if there is none."""
        return self.bounds[name]

    @property
    def bounds(self) -> dict[str, float]:
        """Bounds by the names of the conditions."""
        return {c.name: c.bound for c in self.conditions}

    def with_bounds(self, **bounds: float) -> Rule:
        """The rule with other bounds. Raises KeyError for a condition that it does not have."""
        if unknown := bounds.keys() - self.bounds.keys():
            raise KeyError(f"{self.name} has no condition {min(unknown)}: {', '.join(self.bounds)}")
        changed = (replace(c, bound=bounds.get(c.name, c.bound)) for c in self.conditions)
        return replace(self, conditions=tuple(changed))

    def verdicts(self, scores: Scores) -> np.ndarray:
        """The verdict on each row: that of the first condition that fails, else accepted.

        `slack` counts where `scores` has the column guideline_id.
        """
        verdict: Any = ACCEPTED
        for condition in reversed(self.conditions):
            verdict = np.where(condition.holds(scores), verdict, condition.otherwise)
        if self.slack and "guideline_id" in scores:
            before = np.isin(scores["guideline_id"], self.accepted_before)
            kept = before & (self._eased().verdicts(scores) == ACCEPTED)
            verdict = np.where(kept, ACCEPTED, verdict)
        return verdict

    def _eased(self) -> Rule:
        """The rule with every bound easier by the share `slack`, and none itself."""
        eased = (
            replace(c, bound=c.bound * (1 + self.slack * (1 if "<" in c.comparison else -1)))
            for c in self.conditions
        )
        return replace(self, conditions=tuple(eased), slack=0.0)

    def liked(self, scores: pd.DataFrame) -> np.ndarray:
        """Which rows the number of ratings and the helpful rate alone would accept; bool."""
        simple = [c for c in self.conditions if c.column in ("n_ratings", "helpful_rate")]
        return np.all([np.ones(len(scores), bool), *(c.holds(scores) for c in simple)], axis=0)

    def as_json(self) -> dict[str, Any]:
        """As plain values; `from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rule:
        """The rule that `as_json` wrote. Raises KeyError or TypeError for anything else."""
        conditions = tuple(Condition(**c) for c in values["conditions"])
        return cls(values["name"], conditions, values["slack"], tuple(values["accepted_before"]))

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(map(str, self.conditions))}"


ALIGNED_2023 = Rule(
    "aligned-2023",
    (
        Condition("min_ratings", "n_ratings", ">=", 5, "undecided", decimals=0, least=1),
        Condition("min_intercept", "intercept", ">", 0.375, decimals=3),
        Condition("min_helpful_rate", "helpful_rate", ">=", 0.8, least=0, most=1),
    ),
)
"""`produce_constitution` of the original notebook, with its bounds."""

_SURE = {"least": 0, "most": 1, "called": "probability that both sides find it helpful"}

ROBUST = Rule(
    "robust",
    (
        Condition(
            *("min_raters", "relative_raters", ">=", 18, "undecided"),
            decimals=1,
            least=0,
            called="fully counted raters",
        ),
        Condition(
            *("min_smaller_side", "n_smaller_side", ">=", 3, "undecided"),
            decimals=1,
            least=0,
            called="fully counted raters on the smaller side",
        ),
        Condition("reject_probability", "p_both_sides", ">", 0.05, **_SURE),
        Condition("min_probability", "p_both_sides", ">=", 0.94, "undecided", **_SURE),
    ),
)
"""Both sides of the main dividing lines surely find it helpful: docs/method.md, "Two sides"."""

COMMUNITY_NOTES_STATUS = Rule(
    "community-notes",
    (
        Condition("min_ratings", "n_ratings", ">=", 5, "undecided", decimals=0, least=1),
        Condition(
            *("min_above_rejection", "above_rejection", ">", 0.0),
            decimals=3,
            called="intercept above the line of rejection",
        ),
        Condition(
            *("min_both_sides_rate", "both_sides_rate", ">", 0.3),
            least=0,
            most=1,
            called="helpful rate of both sides that dislike it",
        ),
        Condition("min_intercept", "intercept", ">=", 0.40, "undecided", decimals=3),
        Condition("max_embedding", "embedding_size", "<=", 0.5, "undecided", least=0),
        Condition(
            *("min_net_helpful", "net_helpful", ">=", 4, "undecided"),
            decimals=0,
            least=0,
            called="net helpful ratings of either side",
        ),
        Condition(
            *("min_net_helpful_share", "net_helpful_share", ">=", 0.05, "undecided"),
            least=0,
            most=1,
            called="share of net helpful ratings",
        ),
        Condition(
            *("min_intercept_without_most_active", "intercept_without_most_active", ">="),
            *(0.37, "undecided"),
            decimals=3,
        ),
    ),
)
"""The status that the core model of Community Notes' published scorer gives, as far as it needs no
private data; bounds of mf_core_scorer.py and mf_base_scorer.py, 2026-07. `evidence.note_status` has
the numbers.
"""

RULES = {rule.name: rule for rule in (ALIGNED_2023, ROBUST, COMMUNITY_NOTES_STATUS)}
"""The rules that a parameter file can name."""


def apart(value: float, limit: float, least: int) -> str:
    """The value with as few decimals, `least` of them at least, as show on which side it lies."""
    for digits in range(least, 16):
        text = f"{value:.{digits}f}"
        if np.sign(float(text) - limit) == np.sign(value - limit):
            return text
    return repr(value)
