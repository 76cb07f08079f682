"""Warnings: where a deliberation cannot show what bridges, whatever its numbers say."""

from __future__ import annotations

from collections.abc import Sequence

from aggregation.data.cards import English
from aggregation.data.cleaning import PASSED
from aggregation.data.dataset import Dataset

FEW_USERS, FEW_RATINGS = 10, 5
"""Fewer people say nothing of sides; fewer ratings say nothing of a guideline."""

ENGLISH = English()

MUCH_LOST = 0.05
"""Share of the ratings read that are left out, from which it is worth a warning."""


def warnings(
    dataset: Dataset,
    n_blocks: int = 1,
    division: str | None = None,
    language: English = ENGLISH,
    left_out: Sequence[str] = (),
) -> list[str]:
    """What a reader has to know first, in sentences; mostly nothing.

    `n_blocks`: of the fit. `division`: that of `evidence.prediction.division`. `language`: in which
    the sentences are. `left_out`: evidence that could not be had: `resamples`,
    `cold refits`, `pairs of users`.
    """
    t, ratings = language, dataset.ratings
    n_users, alike = ratings["user_id"].nunique(), ratings["helpful"].nunique() == 1
    sizes = ratings.groupby("guideline_id").size().to_numpy()
    few = int((sizes < FEW_RATINGS).sum())
    told = {
        t.ngettext(
            "Only %(n)s person has rated: this says what they like, not what bridges.",
            "Only %(n)s people have rated: this says what they like, not what bridges.",
            n_users,
        ): n_users < FEW_USERS,
        t.gettext(
            "Every rating is the same: nothing tells users or guidelines apart, so these "
            "verdicts say nothing of what bridges."
        ): alike,
        t.gettext(
            "These ratings show hardly any division: what the axes say of a rating does not "
            "hold when it is tested on other ratings. So the sides say little here, and what "
            "is accepted is what is liked."
        ): not alike and division == "none" and n_users >= FEW_USERS,
        t.ngettext(
            "The only guideline has fewer than %(least)s ratings: nothing can be said of it.",
            "%(few)s of %(n)s guidelines have fewer than %(least)s ratings: nothing can be "
            "said of them.",
            len(sizes),
            few=few,
            least=FEW_RATINGS,
        ): 2 * few > len(sizes),
        t.gettext(
            "The ratings fall into %(n)s blocks of users and guidelines that share no rating: "
            "nothing relates the sides of one block to those of another.",
            n=n_blocks,
        ): n_blocks > 1,
        t.gettext(
            "What other users would decide, what manipulation costs and how much single users "
            "change is not known: the rule reads numbers that are not resampled."
        ): "resamples" in left_out,
        t.gettext(
            "Refits of resampled users began at the fit's own minima alone: with so many "
            "ratings, other starts take too long."
        ): "cold refits" in left_out,
        t.gettext(
            "There are too many users to compare each pair of them. It is not known who rates "
            "exactly as somebody else, or what people agree on who otherwise disagree."
        ): "pairs of users" in left_out,
    }
    return [text for text, holds in told.items() if holds] + lost(dataset, language)


def lost(dataset: Dataset, language: English = ENGLISH) -> list[str]:
    """A sentence on ratings that were left out, if these are many; passes are no ratings."""
    read = sum(c.n for c in dataset.counts if (c.table, c.action) == ("ratings", "read"))
    dropped = [c for c in dataset.counts if (c.table, c.action) == ("ratings", "dropped") and c.n]
    gone = [c for c in dropped if not c.reason.endswith(PASSED)]
    n = sum(c.n for c in gone)
    if n < max(MUCH_LOST * read, 1):
        return []
    why = "; ".join(f"{c.n:,}: {c.reason}" for c in sorted(gone, key=lambda c: -c.n))
    told = language.gettext(
        "%(n)s of %(read)s ratings were left out (%(why)s).", n=n, read=read, why=why
    )
    return [told]
