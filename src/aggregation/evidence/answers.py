"""Answers: who found a guideline helpful, by what users declared of themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aggregation.data.suppression import MIN_CELL_SIZE, suppressed
from aggregation.decisions.scores import wilson
from aggregation.evidence.groups import group_counts
from aggregation.model.ratings import Ids, Ratings


def by_answer(
    scores: pd.DataFrame, ratings: Ratings, ids: Ids, answers: pd.DataFrame
) -> pd.DataFrame:
    """Scores with by_answer: of each guideline a list of question, answer, n, helpful_rate, low and
    high (its 95 % Wilson interval); lowest_answer and lowest_answer_rate, "" and NaN without any.

    `answers`: user_id, question, answer. Left out are numbers of fewer than 10 people and those
    from which one could be computed (`data.suppression`); users without an answer count as one of
    these numbers.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in range(ratings.n_guidelines)]
    for question, said in answers.groupby("question"):
        kinds = pd.Categorical(said["answer"])
        member = np.full(ratings.n_users, len(kinds.categories))  # the last: no answer
        member[ids.users.get_indexer(pd.Index(said["user_id"]))] = kinds.codes
        n, helpful = group_counts(ratings, member)
        low, high = wilson(helpful, n)
        for g, cells in enumerate(found):
            given = {k: int(count) for k, count in enumerate(n[:, g]) if count}
            held = suppressed(given, MIN_CELL_SIZE)
            for k in sorted(given):
                if held is None or k in held or k == len(kinds.categories):
                    continue
                name = {"question": question, "answer": str(kinds.categories[k]), "n": given[k]}
                rates = {"helpful_rate": helpful[k, g] / n[k, g], "low": low[k, g]}
                cells.append(name | rates | {"high": high[k, g]})
    lowest = [min(cells, key=lambda c: c["helpful_rate"]) if cells else None for cells in found]
    found.append([])  # for guidelines without ratings
    lowest.append(None)
    rows = ids.guidelines.get_indexer(pd.Index(scores["guideline_id"]))
    worst = [lowest[k] for k in rows]
    return scores.assign(
        by_answer=pd.Series([found[k] for k in rows], scores.index, dtype=object),
        lowest_answer=[f"{c['question']}: {c['answer']}" if c else "" for c in worst],
        lowest_answer_rate=[c["helpful_rate"] if c else np.nan for c in worst],
    )
