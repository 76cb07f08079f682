"""Sentences: what the report says in words, each from the numbers that it names.

Every function takes the language first. A sentence that does not hold for a run is not said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ACCEPTED, UNDECIDED, Condition, Rule
from aggregation.evidence.collect import WITHOUT_FLAGGED
from aggregation.evidence.confidence import CLEAR, CLOSE, FEW_RATERS, LIKELY, THIN
from aggregation.evidence.sides import enough
from aggregation.model.fit import Fit
from aggregation.report.language import Language

FEW_ACCOUNTS, MUCH = 10, 0.1
"""Where the list of doubts begins: up to so many accounts, from this share of the ratings."""

MOST_CERTAIN = 0.99
"""The highest chance that is told as a number."""


Doubt = tuple[str, list[str]]
"""What a reader should hold against the results, and the guideline_ids that it concerns."""


def answer(t: Language, constitution: Constitution, sides: Mapping[str, Any]) -> list[str]:
    """What was decided, how much each side agrees, where people stand, and how sure it is."""
    accepted, n = constitution.accepted, len(constitution.scores)
    said = [_accepted(t, len(accepted), n)]
    if sides["two"]:
        said += [*_agreement(t, accepted), standing(t, sides)]
    return [*said, *_confidence(t, accepted["confidence"].value_counts())]


def _accepted(t: Language, accepted: int, n: int) -> str:
    if accepted == n == 1:
        return t.gettext("The only guideline is accepted.")
    if accepted == n:
        return t.gettext("All %(n)s guidelines are accepted.", n=n)
    if not accepted:
        return t.ngettext(
            "The only guideline is not accepted.", "None of %(n)s guidelines is accepted.", n
        )
    return t.ngettext(
        "%(n)s of %(all)s guidelines is accepted.",
        "%(n)s of %(all)s guidelines are accepted.",
        accepted,
        all=n,
    )


def _agreement(t: Language, accepted: pd.DataFrame) -> list[str]:
    """The least that either side agrees with an accepted guideline, rounded down."""
    both = accepted[["helpful_rate_smaller", "helpful_rate_larger"]].dropna()
    if both.empty:
        return []
    least = t.percent(math.floor(100 * both.to_numpy().min() + 1e-9) / 100)
    if len(accepted) == 1:
        return [t.gettext("At least %(rate)s of each side found it helpful.", rate=least)]
    if len(both) == len(accepted):
        return [t.gettext("Each was found helpful by at least %(rate)s of each side.", rate=least)]
    return [
        t.gettext(
            "Those that both sides rated were found helpful by at least %(rate)s of each side.",
            rate=least,
        )
    ]


def standing(t: Language, sides: Mapping[str, Any]) -> str:
    """How many people stand where."""
    if sides["neither"]:
        return t.ngettext(
            "%(n)s person stands on one side, %(smaller)s on the other, %(neither)s on neither.",
            "%(n)s people stand on one side, %(smaller)s on the other, %(neither)s on neither.",
            sides["larger"],
            smaller=sides["smaller"],
            neither=sides["neither"],
        )
    return t.ngettext(
        "%(n)s person stands on one side, %(smaller)s on the other.",
        "%(n)s people stand on one side, %(smaller)s on the other.",
        sides["larger"],
        smaller=sides["smaller"],
    )


def _confidence(t: Language, counts: pd.Series) -> list[str]:
    n = {word: int(counts.get(word, 0)) for word in (CLEAR, CLOSE, THIN)}
    total = sum(n.values())
    if not total:
        return []
    words = {
        CLEAR: t.ngettext("%(n)s decision is clear", "%(n)s decisions are clear", n[CLEAR]),
        CLOSE: t.ngettext("%(n)s is a close call", "%(n)s are close calls", n[CLOSE]),
        THIN: t.ngettext(
            "%(n)s rests on fewer than %(few)s people of one side",
            "%(n)s rest on fewer than %(few)s people of one side",
            n[THIN],
            few=FEW_RATERS,
        ),
    }
    return [
        t.gettext("Of those accepted: %(parts)s.", parts=t.listed([words[w] for w in n if n[w]]))
    ]


def no_sides(t: Language, sides: Mapping[str, Any], rule: Rule, division: str) -> str:
    """Why no sides are shown, and what the list then is."""
    if enough(sides):
        why = t.gettext(
            "The ratings hardly divide these people: the sides that the model finds do not hold "
            "when they are tested on other ratings."
        )
    elif sides["smaller"]:
        where = standing(t, sides)
        why = t.gettext("The model finds no two sides here: %(where)s", where=where)
    else:
        why = t.gettext("The model finds no two sides here: nobody stands against the others.")
    if division != "none" and any(c.column == "p_both_sides" for c in rule.conditions):
        what = t.gettext(
            "The rule judges by both sides of dividing lines that it finds in the ratings itself. "
            "No sides are shown."
        )
    else:
        what = t.gettext("This list shows what is liked, not what bridges. No sides are shown.")
    return f"{why} {what}"


# the rule


def condition(t: Language, c: Condition) -> str:
    """A condition of a rule in words."""
    return t.gettext(
        "%(what)s %(compared)s %(bound)s",
        what=label(t, c),
        compared=compared(t, c),
        bound=_bound(t, c),
    )


def label(t: Language, c: Condition) -> str:
    """What a condition looks at, in words."""
    return {
        "n_ratings": t.gettext("ratings"),
        "helpful_rate": t.gettext("helpful rate"),
        "intercept": t.gettext("intercept"),
        "consensus_score": t.gettext("consensus"),
        "relative_raters": t.gettext("fully counted raters"),
        "n_smaller_side": t.gettext("fully counted raters on the smaller side"),
        "p_both_sides": t.gettext("probability that both sides find it helpful"),
        "above_rejection": t.gettext("intercept above the line of rejection"),
        "both_sides_rate": t.gettext("helpful rate of both sides that dislike it"),
        "embedding_size": t.gettext("size of the embedding"),
        "net_helpful": t.gettext("net helpful ratings of either side"),
        "net_helpful_share": t.gettext("share of net helpful ratings"),
        "intercept_without_most_active": t.gettext("intercept without the most active raters"),
    }.get(c.column, c.label)


def compared(t: Language, c: Condition) -> str:
    """A comparison in words."""
    return {
        ">": t.gettext("more than"),
        ">=": t.gettext("at least"),
        "<": t.gettext("less than"),
        "<=": t.gettext("at most"),
    }[c.comparison]


def _bound(t: Language, c: Condition) -> str:
    return t.percent(c.bound, 4) if c.column == "helpful_rate" else f"{c.bound:g}"


def verdict(t: Language, word: str) -> str:
    """A verdict in words."""
    return {
        ACCEPTED: t.gettext("accepted"),
        UNDECIDED: t.gettext("undecided"),
        "rejected": t.gettext("rejected"),
    }[word]


def reason(t: Language, c: Condition, value: float | None) -> str:
    """Why a guideline fails a condition."""
    if value is None:
        return t.gettext("no ratings, so no %(what)s", what=label(t, c))
    shown = c.shown(value) if c.decimals else t.number(round(value))
    if c.column == "helpful_rate":
        shown = t.percent(float(shown), len(shown))
    return t.gettext(
        "%(what)s %(value)s, needs %(compared)s %(bound)s",
        what=label(t, c),
        value=shown,
        compared=compared(t, c),
        bound=_bound(t, c),
    )


def of_sides(t: Language, card: Mapping[str, Any]) -> str:
    """What each side says of a guideline; nothing where a side did not rate it."""
    rates = card["helpful_rate_smaller"], card["helpful_rate_larger"]
    if any(map(pd.isna, rates)):
        return ""
    return t.gettext(
        "helpful to %(smaller)s of the smaller side, %(larger)s of the larger",
        smaller=t.percent(rates[0]),
        larger=t.percent(rates[1]),
    )


def chance(t: Language, p: float) -> str:
    """How likely a guideline is accepted again; resamples cannot tell 99 % from certainty."""
    if p > MOST_CERTAIN:
        return t.gettext(
            "over %(chance)s likely to be accepted again", chance=t.percent(MOST_CERTAIN)
        )
    return t.gettext("%(chance)s likely to be accepted again", chance=t.percent(p))


def cost(t: Language, card: Mapping[str, Any]) -> str:
    """What it would cost to turn the decision on a guideline; nothing where that is not known."""
    attack, accepted = card.get("cheapest_attack"), card["verdict"] == ACCEPTED
    if isinstance(attack, str) and attack:
        n = int(card["accounts_needed"])
        if accepted:
            return t.ngettext(
                "%(n)s new account would be enough to remove it",
                "%(n)s new accounts would be enough to remove it",
                n,
            )
        return t.ngettext(
            "%(n)s new account would be enough to add it",
            "%(n)s new accounts would be enough to add it",
            n,
        )
    if isinstance(attack, str) and accepted:
        return t.gettext("%(n)s new accounts would not be enough to remove it", n=100)
    return ""


# what to doubt


def doubts(
    t: Language,
    fit: Fit,
    constitution: Constitution,
    minima: pd.DataFrame,
    summary: Mapping[str, Any],
) -> list[Doubt]:
    """What a reader should hold against these results, the weightiest first."""
    return [
        *_of_confidence(t, constitution),
        *_of_the_fit(t, fit, minima),
        *_of_the_rule(t, constitution),
        *_of_manipulation(t, summary),
        *_of_the_raters(t, summary),
    ]


def _of_confidence(t: Language, constitution: Constitution) -> list[Doubt]:
    accepted, found = constitution.accepted, []
    of = {
        word: list(accepted.loc[accepted["confidence"] == word, "guideline_id"])
        for word in (THIN, CLOSE)
    }
    if n := len(of[THIN]):
        text = t.ngettext(
            "%(n)s accepted guideline was rated by fewer than %(few)s people of one side: what "
            "that side thinks of it is hardly known.",
            "%(n)s accepted guidelines were rated by fewer than %(few)s people of one side: what "
            "that side thinks of them is hardly known.",
            n,
            few=FEW_RATERS,
        )
        found.append((text, of[THIN]))
    if n := len(of[CLOSE]):
        if f"p_accept_{constitution.rule.name}" in accepted:
            text = t.ngettext(
                "%(n)s accepted guideline would have a chance below %(chance)s to be accepted "
                "again if as many other people had come.",
                "%(n)s accepted guidelines would have a chance below %(chance)s to be accepted "
                "again if as many other people had come.",
                n,
                chance=t.percent(LIKELY),
            )
        else:
            text = t.ngettext(
                "%(n)s accepted guideline would not be accepted if the bounds of the rule were a "
                "tenth stricter.",
                "%(n)s accepted guidelines would not be accepted if the bounds of the rule were a "
                "tenth stricter.",
                n,
            )
        found.append((text, of[CLOSE]))
    if n := len(kept := constitution.kept()):
        text = t.ngettext(
            "%(n)s accepted guideline would not be accepted anew: it was accepted before, and no "
            "number is more than %(slack)s beyond its bound.",
            "%(n)s accepted guidelines would not be accepted anew: they were accepted before, and "
            "no number is more than %(slack)s beyond its bound.",
            n,
            slack=t.percent(constitution.rule.slack),
        )
        found.append((text, list(kept["guideline_id"])))
    return found


def _of_the_fit(t: Language, fit: Fit, minima: pd.DataFrame) -> list[Doubt]:
    found: list[Doubt] = []
    if fit.method != "alternating":
        text = t.gettext(
            "The fit is that of the original notebook's gradient descent: nothing certifies that "
            "it has ended."
        )
        return [(text, [])]
    if not fit.settled:
        text = t.ngettext(
            "Only %(n)s start of the fit was made: a lower loss, perhaps with another "
            "constitution, may exist.",
            "Fewer than three of %(n)s starts of the fit reached the lowest loss: a lower one, "
            "perhaps with another constitution, may exist.",
            len(fit.starts),
        )
        found.append((text, []))
    rows = minima.to_dict("records")
    other = [m for m in rows if m["gained"] or m["lost"]]
    if other:
        lowest = other[0]
        text = t.ngettext(
            "The second-best fit that decides otherwise would accept %(n)s guideline instead of "
            "%(here)s, at a loss of %(loss)s instead of %(least)s. The lowest loss was taken.",
            "The second-best fit that decides otherwise would accept %(n)s guidelines instead of "
            "%(here)s, at a loss of %(loss)s instead of %(least)s. The lowest loss was taken.",
            lowest["accepted"],
            here=rows[0]["accepted"],
            loss=t.decimal(lowest["loss"], 6),
            least=t.decimal(rows[0]["loss"], 6),
        )
        found.append((text, [*lowest["gained"], *lowest["lost"]]))
    return found


def _of_the_rule(t: Language, constitution: Constitution) -> list[Doubt]:
    scores, by_name = constitution.scores, {c.name: c for c in constitution.rule.conditions}
    undecided = scores[scores["verdict"] == UNDECIDED]
    if undecided.empty:
        return []
    names = dict.fromkeys(failed[0]["name"] for failed in undecided["failed"] if len(failed))
    needs = t.gettext(" or ").join(condition(t, by_name[name]) for name in by_name if name in names)
    text = t.ngettext(
        "%(n)s guideline is undecided, neither accepted nor rejected. Condition not met: "
        "%(needs)s.",
        "%(n)s guidelines are undecided, neither accepted nor rejected. Condition not met: "
        "%(needs)s.",
        len(undecided),
        needs=needs,
    )
    return [(text, list(undecided["guideline_id"]))]


def _of_manipulation(t: Language, summary: Mapping[str, Any]) -> list[Doubt]:
    new = summary.get("new_guideline", {}).get("accounts_needed")
    if new is None or new > FEW_ACCOUNTS:
        return []
    text = t.ngettext(
        "%(n)s new account would be enough to have a new guideline accepted.",
        "%(n)s new accounts that work together would be enough to have a new guideline accepted.",
        int(new),
    )
    return [(text, [])]


def _of_the_raters(t: Language, summary: Mapping[str, Any]) -> list[Doubt]:
    found: list[Doubt] = []
    flagged = {name: n for name, n in summary.get("flagged_users", {}).items() if n}
    kinds = {
        "straight_liner": lambda n: t.ngettext(
            "%(n)s person gave the same rating to everything",
            "%(n)s people gave the same rating to everything",
            n,
        ),
        "clone": lambda n: t.ngettext(
            "%(n)s person rated everything just as somebody else did",
            "%(n)s people rated everything just as somebody else did",
            n,
        ),
        "burst": lambda n: t.ngettext(
            "%(n)s person rated faster than anybody reads",
            "%(n)s people rated faster than anybody reads",
            n,
        ),
    }
    if flagged:
        text = t.gettext(
            "Some rated in ways that people rarely do: %(kinds)s. They count like all others.",
            kinds=t.listed([kinds[name](n) for name, n in flagged.items()]),
        )
        turned: list[str] = []
        for other in summary.get("other_rules", ()):
            if other["rule"] == WITHOUT_FLAGGED:
                text += " " + t.gettext(
                    "Without them, %(gained)s more would be accepted, and %(lost)s of the accepted "
                    "would not.",
                    gained=len(other["gained"]),
                    lost=len(other["lost"]),
                )
                turned = [*other["gained"], *other["lost"]]
        found.append((text, turned))
    if (share := summary.get("most_active_share", 0.0)) >= MUCH:
        text = t.gettext(
            "The most active %(few)s of the people gave %(share)s of the ratings.",
            few=t.percent(0.01),
            share=t.percent(share),
        )
        found.append((text, []))
    if share := summary.get("reach", {}).get("left_out"):
        text = t.gettext(
            "An opinion group of %(share)s of the people agrees on guidelines, and none of these "
            "was accepted.",
            share=t.percent(share),
        )
        found.append((text, []))
    return found


# the data


def period(t: Language, rated_at: pd.Series) -> str:
    """When people rated; empty where no time is known."""
    known = rated_at.dropna()
    if known.empty:
        return ""
    first, last = known.min().date(), known.max().date()
    if first == last:
        return t.gettext("Rated on %(day)s.", day=t.day(first))
    return t.gettext("Rated from %(first)s to %(last)s.", first=t.day(first), last=t.day(last))


def ratings_given(t: Language, n_ratings: int, n_users: int) -> str:
    """How many ratings of how many people there are."""
    people = t.ngettext("%(n)s person", "%(n)s people", n_users)
    return t.ngettext(
        "%(n)s rating by %(people)s.", "%(n)s ratings by %(people)s.", n_ratings, people=people
    )


def n_ratings(t: Language, n: int) -> str:
    """So many ratings."""
    return t.ngettext("%(n)s rating", "%(n)s ratings", n)


def more(t: Language, n: int, *, cut: bool = False) -> str:
    """Where those are that a group does not show; `cut`: the page's own table has not all."""
    if cut:
        return t.ngettext(
            "%(n)s more is in the table for download.",
            "%(n)s more are in the table for download.",
            n,
        )
    return t.ngettext(
        "%(n)s more is in the table of all guidelines.",
        "%(n)s more are in the table of all guidelines.",
        n,
    )


def cut(t: Language, shown: int, n: int, most: int) -> str:
    """That not all `n` guidelines are shown, but the first `most` of each part of the bar."""
    if shown == n:
        return ""
    return t.gettext(
        "This page shows %(shown)s of %(n)s guidelines: the first %(most)s of each part of the "
        "bar, and examples of the others. The table for download has all.",
        shown=shown,
        n=n,
        most=most,
    )


def fitted(t: Language, fit: Fit) -> str:
    """How the model was fitted, and how it ended."""
    penalty = t.gettext(
        "Fitted with penalties %(intercept)s on squared intercepts and %(embedding)s on %(norm)s "
        "embeddings, per %(per)s.",
        intercept=fit.penalty.intercept,
        embedding=fit.penalty.embedding,
        norm=t.gettext("absolute") if fit.penalty.norm == "l1" else t.gettext("squared"),
        per=t.gettext("rating") if fit.penalty.per == "rating" else t.gettext("parameter"),
    )
    axes = t.ngettext("%(n)s axis", "%(n)s axes", fit.parameters.user_embedding.shape[1])
    loss = t.decimal(fit.objective, 6)
    if fit.method != "alternating":
        ended = t.gettext(
            "%(axes)s, by the gradient descent of the original notebook; it ends at a loss of "
            "%(loss)s, which nothing certifies.",
            axes=axes,
            loss=loss,
        )
        return f"{penalty} {ended}"
    values = {
        "axes": axes,
        "starts": t.ngettext("%(n)s start", "%(n)s starts", len(fit.starts)),
        "loss": loss,
        "residual": f"{fit.kkt_residual:.1e}",
    }
    if fit.converged:
        ended = t.gettext(
            "%(axes)s, from %(starts)s; the lowest loss is %(loss)s, certified by a residual of "
            "%(residual)s.",
            **values,
        )
    else:
        ended = t.gettext(
            "%(axes)s, from %(starts)s; the lowest loss is %(loss)s, not certified, with a "
            "residual of %(residual)s.",
            **values,
        )
    return f"{penalty} {ended}"


def page_name(t: Language, stage: str) -> str:
    """What the page of a stage is called."""
    return {
        "ingest": t.gettext("Data"),
        "train": t.gettext("Model"),
        "diagnostics": t.gettext("Checks"),
        "demographics": t.gettext("People"),
        "publish": t.gettext("Files"),
    }.get(stage, stage)


def other_fits(t: Language, n: int) -> str:
    """How many other minima of the fit decide otherwise on a guideline."""
    return t.ngettext(
        "%(n)s other minimum of the fit, at a higher loss, would decide otherwise.",
        "%(n)s other minima of the fit, at a higher loss, would decide otherwise.",
        n,
    )


def rule_name(t: Language, name: str) -> str:
    """What another way to decide is called."""
    if name == WITHOUT_FLAGGED:
        return t.gettext("this rule, without people who rate in rare ways")
    return t.gettext("the rule %(name)s", name=name)


def yardstick(t: Language, name: str) -> str:
    """What another measure of a guideline is called."""
    return {
        "helpful_rate": t.gettext("helpful rate"),
        "wilson_lower": t.gettext("lower bound of the helpful rate (Wilson)"),
        "group_informed_consensus": t.gettext("group-informed consensus (Polis)"),
        "lowest_group_rate": t.gettext("lowest helpful rate of an opinion group"),
        "pairwise_bridging": t.gettext("agreement of raters who disagree elsewhere"),
        "community_notes_intercept": t.gettext("intercept with the penalty of Community Notes"),
    }.get(name, name.replace("_", " "))


def held_back(t: Language, n: int, least: int) -> str:
    """How many numbers of people are not shown, and why."""
    if not n:
        return t.gettext(
            "Every answer was given by at least %(least)s people, so all numbers are shown.",
            least=least,
        )
    return t.ngettext(
        "%(n)s number is not shown (–), because fewer than %(least)s people gave that answer, or "
        "because the number would let that of such an answer be computed.",
        "%(n)s numbers are not shown (–), because fewer than %(least)s people gave that answer, or "
        "because the number would let that of such an answer be computed.",
        n,
        least=least,
    )
