"""Ratings: the integer-coded arrays that a fit works on, and how a Dataset becomes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Ratings:
    """All ratings as arrays, sorted by user, then guideline.

    `user` and `guideline` are int32 [n], rows of the parameter arrays; `helpful` is float64 [n]
    in [0, 1]. Ids never enter: they stay in `Ids`.
    """

    user: np.ndarray
    guideline: np.ndarray
    helpful: np.ndarray
    n_users: int
    n_guidelines: int

    def __len__(self) -> int:
        return len(self.helpful)

    def per_user(self) -> np.ndarray:
        """Number of ratings of each user, int64 [n_users]."""
        return np.bincount(self.user, minlength=self.n_users)

    def per_guideline(self) -> np.ndarray:
        """Number of ratings of each guideline, int64 [n_guidelines]."""
        return np.bincount(self.guideline, minlength=self.n_guidelines)


@dataclass(frozen=True)
class Ids:
    """Which id stands at which row of the parameter arrays. Sorted as text."""

    users: pd.Index
    guidelines: pd.Index


def encode(ratings: pd.DataFrame) -> tuple[Ratings, Ids]:
    """Code the columns user_id, guideline_id, helpful of a ratings table as integers.

    Rows are put in one canonical order (ids sorted as text), so that the order in which ratings
    were read changes no bit of what follows. Users and guidelines without ratings get no row:
    the loss says nothing about them.

    Raises ValueError where a (user, guideline) pair occurs twice or a rating lies outside [0, 1].
    """
    users = pd.Index(sorted(ratings["user_id"].unique()), dtype="str", name="user_id")
    guidelines = pd.Index(
        sorted(ratings["guideline_id"].unique()), dtype="str", name="guideline_id"
    )
    user = users.get_indexer(pd.Index(ratings["user_id"])).astype(np.int32)
    guideline = guidelines.get_indexer(pd.Index(ratings["guideline_id"])).astype(np.int32)
    helpful = ratings["helpful"].to_numpy(dtype=np.float64)
    if not ((helpful >= 0) & (helpful <= 1)).all():
        bad = helpful[~((helpful >= 0) & (helpful <= 1))][0]
        raise ValueError(f"a rating is {bad}: ratings must lie in [0, 1]")
    order = np.lexsort((guideline, user))
    user, guideline, helpful = user[order], guideline[order], helpful[order]
    twice = (np.diff(user) == 0) & (np.diff(guideline) == 0)
    if twice.any():
        at = int(np.argmax(twice))
        raise ValueError(
            f"user {users[user[at]]!r} rated guideline {guidelines[guideline[at]]!r} more than "
            "once: keep one rating of each pair with ratings.duplicates: last"
        )
    return Ratings(user, guideline, helpful, len(users), len(guidelines)), Ids(users, guidelines)
