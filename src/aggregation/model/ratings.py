"""Ratings: the integer-coded arrays that a fit works on, and how a Dataset becomes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from aggregation.data.categories import CHUNK, categories, used
from aggregation.errors import InputError
from aggregation.model.processes import ALONE, Processes, cores

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

SAMPLE = 500_000
"""Ratings that are searched first where there are many more."""


@dataclass(frozen=True)
class Ratings:
    """All ratings as arrays, sorted by user, then guideline.

    `user` and `guideline` are int32 [n], rows of the parameter arrays; `helpful` [n] holds floats
    in [0, 1], of any width. Ids never enter: they stay in `Ids`.
    """

    user: np.ndarray
    guideline: np.ndarray
    helpful: np.ndarray
    n_users: int
    n_guidelines: int
    weight: np.ndarray | None = None
    """float64 [n]: how often each rating counts, at least 0; None: once each. To weigh users,
    give each of their ratings the user's weight."""

    def __len__(self) -> int:
        return len(self.helpful)

    def sides(self) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """Users' (row of each rating, number of rows), and guidelines'."""
        return (self.user, self.n_users), (self.guideline, self.n_guidelines)

    def per_user(self) -> np.ndarray:
        """Number of ratings of each user, int64 [n_users]."""
        return self._per_user

    def per_guideline(self) -> np.ndarray:
        """Number of ratings of each guideline, int64 [n_guidelines]."""
        return self._per_guideline

    # Counted once, since many ask and of many ratings it takes a while; nobody may change them.
    @cached_property
    def _per_user(self) -> np.ndarray:
        return _fixed_counts(self.user, self.n_users)

    @cached_property
    def _per_guideline(self) -> np.ndarray:
        return _fixed_counts(self.guideline, self.n_guidelines)

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where the ratings of each user begin, and where the last ones end: [n_users + 1]."""
        return np.append(0, np.cumsum(self.per_user()))

    def parts(self) -> list[tuple[slice, slice]]:
        """Users (rows) and their ratings, about `CHUNK` of them at a time; the last users may have
        none.
        """
        bounds = np.minimum(np.arange(0, len(self) + CHUNK, CHUNK), len(self))
        cuts = np.unique(np.searchsorted(self._starts, bounds))
        return [(slice(a, b), slice(*self._starts[[a, b]])) for a, b in pairwise(cuts)]

    def matrix(self, values: np.ndarray) -> csr_array:
        """A value of each rating, [n], as a sparse matrix [n_users, n_guidelines]; not a copy."""
        from scipy.sparse import csr_array

        starts = self._starts
        if len(self) <= np.iinfo(self.guideline.dtype).max:
            starts = starts.astype(self.guideline.dtype)  # of two types SciPy copies both
        return csr_array((values, self.guideline, starts), shape=(self.n_users, self.n_guidelines))

    def check(self) -> None:
        """Raise InputError unless a model can be fitted to these ratings."""
        if len(self) == 0:
            raise InputError("there are no ratings to fit: see what the filters left, and why")
        if not (len(self.user) == len(self.guideline) == len(self)):
            raise InputError("user, guideline and helpful must have the same length")
        for name, (row, size) in zip(("user", "guideline"), self.sides(), strict=True):
            if row.min() < 0 or row.max() >= size:
                raise InputError(f"a rating's {name} is no row from 0 to {size - 1}")
        if (self.user[1:] < self.user[:-1]).any():
            raise InputError("the ratings are not sorted by user: code a table with encode")
        if not (self.helpful.min() >= 0 and self.helpful.max() <= 1):  # NaN is neither
            raise InputError("a rating is missing or outside [0, 1]")
        if self.weight is not None:
            if np.shape(self.weight) != (len(self),):
                raise InputError(
                    f"weight has shape {np.shape(self.weight)}: give one for each of the "
                    f"{len(self)} ratings"
                )
            check_weights(self.weight)

    def of_users(self, chosen: np.ndarray, guidelines: np.ndarray | None = None) -> Ratings:
        """The ratings of the users bool [n_users], of the guidelines bool [n_guidelines] (all)."""
        kept = chosen[self.user]
        rated, n = self.guideline[kept], self.n_guidelines
        if guidelines is not None:
            known = guidelines[rated]
            kept[kept] = known
            rated = (np.cumsum(guidelines, dtype=np.int32) - 1)[rated[known]]
            n = int(guidelines.sum())
        return Ratings(
            (np.cumsum(chosen, dtype=np.int32) - 1)[self.user[kept]],
            rated,
            self.helpful[kept],
            int(chosen.sum()),
            n,
            None if self.weight is None else self.weight[kept],
        )

    def blocks(self, processes: Processes = ALONE) -> tuple[np.ndarray, np.ndarray]:
        """Which block each user and each guideline belongs to: int [n_users], [n_guidelines].

        Two blocks share no rating, even over others: nothing relates their axes' signs. Blocks
        are numbered from 0, the one with most ratings first; users and guidelines without
        ratings have -1. With several `processes`, the users of all.
        """
        first = processes.before(self.n_users)
        n_users = int(processes.total(np.array(self.n_users))[0])
        # the lowest user that each is known to share a block with
        user = np.arange(first, first + self.n_users, dtype=np.int32)
        guideline, changed = np.full(self.n_guidelines, n_users, np.int32), True
        per_user = self.per_user()
        parts = [  # who rated, and which of the ratings are theirs
            (users.start + np.flatnonzero(per_user[users]), theirs)
            for users, theirs in self.parts()
        ]
        while changed:
            for who, theirs in parts:
                label = np.repeat(user[who], per_user[who])
                np.minimum.at(guideline, self.guideline[theirs], label)
            guideline = processes.least(guideline)
            before = user.copy()
            for who, theirs in parts:
                first_of = self._starts[who] - theirs.start
                user[who] = np.minimum.reduceat(guideline[self.guideline[theirs]], first_of)
            changed = bool(processes.total(np.array((user != before).any(), int))[0])
            changed &= len(np.unique(guideline[guideline < n_users])) > 1
        rated = processes.total(self.per_guideline())
        size = np.bincount(guideline, rated, minlength=n_users + 1)
        number = np.full(n_users + 1, -1)
        order = np.argsort(-size, kind="stable")[: (size > 0).sum()]
        number[order] = np.arange(len(order))
        return number[processes.joined(user)], number[guideline]


def drawn(per_user: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Which users are drawn until they have n ratings, bool [n_users]."""
    order = np.random.default_rng(seed).permutation(len(per_user))
    upto = int(np.searchsorted(np.cumsum(per_user[order]), n)) + 1
    chosen = np.zeros(len(per_user), bool)
    chosen[order[:upto]] = True
    return chosen


def counts(row: np.ndarray, size: int, weight: np.ndarray | None = None) -> np.ndarray:
    """(Weighted) number of ratings of each row, float64 [size].

    In chunks: `np.bincount` makes an int64 copy of all that it is given.
    """
    total = np.zeros(size)
    for at in range(0, len(row), 1 << 22):
        here = slice(at, at + (1 << 22))
        total += np.bincount(row[here], None if weight is None else weight[here], size)
    return total


def _fixed_counts(row: np.ndarray, size: int) -> np.ndarray:
    found = counts(row, size).astype(np.int64)
    found.flags.writeable = False
    return found


def check_weights(weight: np.ndarray) -> None:
    """Raise InputError unless these are weights: [n], or [n, R] for R replicates."""
    if not (np.isfinite(weight).all() and weight.min() >= 0):
        raise InputError("a weight is negative or not a number: weights are at least 0")
    if not (weight.max(axis=0) > 0).all():
        raise InputError("all weights are 0: at least one rating has to count")


@dataclass(frozen=True)
class Ids:
    """Which id stands at which row of the parameter arrays. Sorted as text."""

    users: pd.Index
    guidelines: pd.Index

    def sides(self) -> tuple[tuple[str, pd.Index], tuple[str, pd.Index]]:
        """Users' column name and ids, and guidelines'."""
        return ("user_id", self.users), ("guideline_id", self.guidelines)


def encode(ratings: pd.DataFrame) -> tuple[Ratings, Ids]:
    """Code the columns user_id, guideline_id, helpful of a ratings table as integers.

    Ids are text, as such or as categories. Rows are put in one canonical order (ids sorted as
    text), so that the order in which ratings were read changes no bit of what follows. Users and
    guidelines without ratings get no row: the loss says nothing about them.

    Raises InputError where an id is missing or no text, a (user, guideline) pair occurs twice, or a
    rating lies outside [0, 1].
    """
    user, users = _codes(ratings["user_id"])
    guideline, guidelines = _codes(ratings["guideline_id"])
    helpful = ratings["helpful"].to_numpy(dtype=np.float64)
    bad = ~((helpful >= 0) & (helpful <= 1))  # NaN is neither
    if bad.any():
        raise InputError(f"a rating is {helpful[bad][0]}: ratings must lie in [0, 1]")
    pair = user.astype(np.int64) * len(guidelines) + guideline
    if not (pair[1:] > pair[:-1]).all():
        order = np.argsort(pair)
        user, guideline, helpful, pair = user[order], guideline[order], helpful[order], pair[order]
        again = np.diff(pair) == 0
        if again.any():
            at = int(np.argmax(again))
            raise InputError(
                f"user {users[user[at]]!r:.80} rated guideline {guidelines[guideline[at]]!r:.80} "
                "more than once: keep one rating of each pair"
            )
    return Ratings(user, guideline, helpful, len(users), len(guidelines)), Ids(users, guidelines)


def append(ratings: Ratings, ids: Ids, new: pd.DataFrame) -> tuple[Ratings, Ids]:
    """Add the rows of a ratings table, as `encode` takes it, to coded ratings.

    Where a user rated a guideline before, the new rating takes the old one's place. The result is
    that of `encode` on all rows, without reading and sorting the old ones again. Raises InputError
    as `encode`, for ratings with weights and for ids that are not sorted.
    """
    if ratings.weight is not None:
        raise InputError("these ratings have weights: append to them first, then weigh all")
    if not all(side.is_monotonic_increasing for _, side in ids.sides()):
        raise InputError("the ids are not sorted: append to what encode gives")
    added, of_added = encode(new)
    if not len(ratings):
        return added, of_added
    sides, places, rows = [], [], []
    pairs = zip(ids.sides(), of_added.sides(), added.sides(), strict=True)
    for (_, known), (_, found), (row, _) in pairs:
        both, of_known, of_found = _united(known, found)
        sides.append(both)
        places.append(of_known)
        rows.append(of_found[row])
    (users_at, guidelines_at), (user, guideline) = places, rows

    def rated(at: np.ndarray) -> np.ndarray:
        return guidelines_at[ratings.guideline[np.minimum(at, len(ratings) - 1)]]

    # Where the new ratings go: among their users' old ones, by bisection.
    starts = np.append(0, np.cumsum(ratings.per_user()))
    at, end = (starts[np.searchsorted(users_at, user, side)] for side in ("left", "right"))
    last = end
    while (at < end).any():
        middle = (at + end) // 2
        before = (at < end) & (rated(middle) < guideline)
        at, end = np.where(before, middle + 1, at), np.where(before, end, np.minimum(middle, end))
    again = (at < last) & (rated(at) == guideline)
    kind = ratings.helpful.dtype  # as narrow as it was, if that holds the new ratings
    kind = kind if (added.helpful.astype(kind) == added.helpful).all() else np.dtype(np.float64)
    users, guidelines = sides
    per_user = counts(user[~again], len(users)).astype(np.int64)
    per_user[users_at] += ratings.per_user()
    goes = at[~again]
    helpful = _inserted(ratings.helpful.astype(kind, copy=False), goes, added.helpful[~again])
    helpful[at[again] + np.searchsorted(goes, at[again], "right")] = added.helpful[again]
    return Ratings(
        np.repeat(np.arange(len(users), dtype=np.int32), per_user),
        _inserted(ratings.guideline, goes, guideline[~again], guidelines_at),
        helpful,
        len(users),
        len(guidelines),
    ), Ids(users, guidelines)


def _united(known: pd.Index, found: pd.Index) -> tuple[pd.Index, np.ndarray, np.ndarray]:
    """Sorted ids with those of others, and where they stand there, int32: all of `known`, and of
    `found`.
    """
    import pandas as pd

    at = known.get_indexer(found)
    new = found[at < 0]
    before = known.searchsorted(new)
    both = pd.Index(np.insert(known.to_numpy(), before, new), dtype=known.dtype, name=known.name)
    of_known = np.arange(len(known), dtype=np.int32)
    of_known += np.searchsorted(before, of_known, "right").astype(np.int32)
    of_found = of_known[at]
    of_found[at < 0] = before + np.arange(len(new))
    return both, of_known, of_found


def _inserted(
    column: np.ndarray, at: np.ndarray, new: np.ndarray, place: np.ndarray | None = None
) -> np.ndarray:
    """`np.insert` into the column, of which the old values are `place[old]` if that is given.

    `at` is sorted. It works part by part, in no more memory than what it gives, on all cores.
    """
    goes = at + np.arange(len(at))  # where the new ones are in the end
    out = np.empty(len(column) + len(at), column.dtype)

    def insert(begin: int) -> None:
        into = out[begin : begin + CHUNK]
        a, b = np.searchsorted(goes, (begin, begin + CHUNK))
        old = np.ones(len(into), bool)
        old[goes[a:b] - begin] = False
        source = np.cumsum(old) + (begin - a - 1)  # a new one takes that of the old one before it
        part = column.take(source, mode="clip")
        into[:] = part if place is None else place.take(part, mode="clip")
        into[goes[a:b] - begin] = new[a:b]

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(insert, range(0, len(out), CHUNK)))
    return out


def _codes(ids: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """The place of each id among the different ones, int32 [n], and these, sorted as text."""
    import pandas as pd

    if ids.isna().any():
        row = int(np.argmax(ids.isna()))
        raise InputError(f"row {row} (counted from 0) has no {ids.name}: leave it out")
    different = ids.cat.categories if isinstance(ids.dtype, pd.CategoricalDtype) else ids
    mixed = [] if different.dtype == "str" else different
    other = next((one for one in mixed if not isinstance(one, str)), None)
    if other is not None:
        raise InputError(
            f"{ids.name} holds {other!r:.80}, which is no text: convert the ids with astype(str)"
        )
    ids = used(categories(ids))
    return ids.cat.codes.to_numpy(np.int32), ids.cat.categories.rename(ids.name)
