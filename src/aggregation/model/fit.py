"""Fit: the lowest minimum of the loss that a search finds, and what is known of it.

`multistart` decides where to start and which end to keep; `alternating` goes down from each start.
Here is what is asked and answered, and which way the axes point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from aggregation.data.cards import Card, Shown, many
from aggregation.data.settings import check_fields
from aggregation.errors import InputError
from aggregation.model.multistart import USERS, Callback, Found, Settings, search
from aggregation.model.parameters import Parameters, Penalty, known_rows
from aggregation.model.processes import ALONE, Processes
from aggregation.model.ratings import Ratings, counts

if TYPE_CHECKING:
    from aggregation.model.sharding import Checkpoint


@dataclass(frozen=True, repr=False)
class Fit(Shown, Found):
    """The lowest stationary point found, and how it was found.

    The first of `minima` is the fit; the axes of all of them point as in `parameters`.
    """

    method: Literal["alternating", "gradient-descent"]
    penalty: Penalty
    """Of the loss that was minimised."""
    balance: float | None
    """Largest relative difference, over the axes, of the penalties that users and guidelines
    carry: 0 at a stationary point, whatever path led there. None where rows were fixed."""
    n_blocks: int
    """Blocks of users and guidelines that share no rating: 1 if all is connected. Nothing relates
    the axes of different blocks."""

    @property
    def parameters(self) -> Parameters:
        """Those of the lowest minimum."""
        return self.minima[0].parameters

    @property
    def objective(self) -> float:
        """The loss at `parameters`."""
        return self.minima[0].objective

    @property
    def kkt_residual(self) -> float:
        """See `Minimum`."""
        return self.minima[0].kkt_residual

    @property
    def converged(self) -> bool:
        """See `Minimum`."""
        return self.minima[0].converged

    @property
    def warm_start(self) -> bool:
        """Whether the first start is an earlier model."""
        return self.starts[0].kind == "earlier model"

    def summary(self) -> pd.DataFrame:
        """One row per start, the lowest first: what it was, the loss it ended at."""
        loss = pd.Series([start.objective for start in self.starts])
        table = pd.DataFrame(
            {
                "start": loss.index + 1,
                "from": [start.kind for start in self.starts],
                "penalty": ["grows" if start.continuation else "full" for start in self.starts],
                "loss": loss.map("{:.8f}".format),
                "above the fit": (loss - self.objective).clip(lower=0).map("{:.8f}".format),
            }
        )
        return table.iloc[np.argsort(loss, kind="stable")].reset_index(drop=True)

    def doubts(self) -> list[str]:
        """What speaks against this fit, as sentences without their full stops."""
        replayed = self.method == "gradient-descent"
        doubts = {
            "gradient descent certifies nothing: its residual is not small": replayed,
            "its residual is above the tolerance: this is no minimum": not (
                replayed or self.converged
            ),
            "fewer than three starts reached the lowest loss: a lower one may exist": not (
                replayed or self.settled
            ),
            "some users or guidelines are fixed as an earlier model has them": self.balance is None,
            f"the ratings fall into {self.n_blocks} blocks of users and guidelines that share "
            "none: nothing relates the sides of one to those of another": self.n_blocks > 1,
        }
        return [doubt for doubt, holds in doubts.items() if holds]

    def _card(self) -> Card:
        users, axes = self.parameters.user_embedding.shape
        guidelines = len(self.parameters.guideline_intercept)
        facts = {
            "model": f"{many(users, 'user')}, {many(guidelines, 'guideline')}, "
            f"{many(axes, 'axis', 'axes')}; mu {float(self.parameters.mu):.3f}",
            "KKT residual": f"{self.kkt_residual:.1e}",
        }
        how, standing = "gradient descent", "stopped" if self.converged else "did not stop"
        if self.method == "alternating":
            how, standing = "alternating minimisation", "" if self.converged else "not "
            standing += "converged, " + ("settled" if self.settled else "not settled")
            facts["search"] = (
                f"{many(len(self.starts), 'start')} ended in "
                f"{many(self.n_minima, 'minimum', 'minima')}; {self.minima[0].starts:,} of them "
                f"in this one; rows moved: {self.moves:,}"
            )
            if self.sample:
                start = "the earlier model" if self.continued else "the lowest minima"
                facts["searched"] = f"{self.sample:,} ratings, then all of them from {start}"
                if self.warm_start and not self.continued:
                    facts["searched"] += ": one is lower than where the earlier model leads"
        return Card(
            f"Fit by {how}: loss {self.objective:.8f}, {standing}",
            tuple(facts.items()),
            tuple(self.doubts()),
            (".summary()", ".parameters", ".minima"),
        )


def fit(
    ratings: Ratings,
    penalty: Penalty | None = None,
    settings: Settings | None = None,
    warm_start: Parameters | None = None,
    hold: Literal["users", "guidelines"] | None = None,
    callback: Callback | None = None,
    processes: Processes = ALONE,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Minimise `parameters.loss` over all parameters.

    Starts are uniform draws from [0, 1), as the original's, seeded, or singular vectors; see
    `initialization`. `warm_start`, NaN where unknown, is the first start: its mu and the guidelines
    that it knows, the others drawn. It also decides sign and order of the axes; without one, an
    axis points to the side with more users (in every block, see `Ratings.blocks`), and axes are
    sorted by the penalty that the users carry on them.

    Of a million ratings and more a sample is searched, and all are fitted from its lowest minima,
    or from the warm start if that is where the search ends: see `Fit.continued`.

    `hold` keeps mu and all users (or guidelines) that the warm start knows as they are, and
    minimises over the rest: new guidelines scored against fixed users. `callback` is told of the
    progress.

    With several `processes`, each gives the ratings and the warm start of its own users, and each
    gets the same fit, of all. `checkpoint` keeps it while it is at work. docs/method.md, "Shards".

    A failure to converge is data: see `Fit.converged`. Raises InputError for ratings that no model
    fits, more axes than rows, a warm start of other shape or with infinite numbers, a `hold`
    without a warm start or with gradient descent, shards with weights or with either of these, and
    a loss that overflows.
    """
    penalty, settings = penalty or Penalty(), settings or Settings()
    check_fields(penalty)
    check_fields(settings)
    if not isinstance(ratings, Ratings):
        raise InputError(
            f"fit takes Ratings, not a {type(ratings).__name__}: code a table with encode, or give "
            "it to deliberate"
        )
    ratings.check()
    n_users = int(processes.total(np.array(ratings.n_users))[0])
    most = min(n_users, ratings.n_guidelines)
    if settings.dimensions > most:
        raise InputError(
            f"dimensions is {settings.dimensions}, but {many(n_users, 'user')} and "
            f"{many(ratings.n_guidelines, 'guideline')} can carry {most} at most: lower it"
        )
    if warm_start is not None:
        warm_start.check("warm_start", ratings, unknown=True)
        if warm_start.user_embedding.shape[1] != settings.dimensions:
            raise InputError(
                f"warm_start has {warm_start.user_embedding.shape[1]} axes, but dimensions is "
                f"{settings.dimensions}"
            )
    if (settings.shards or 1) > 1:
        _check_sharded(ratings, settings, hold)
    fixed = None if hold is None else _fixed(warm_start, hold, settings)
    if settings.method == "gradient-descent":
        from aggregation.model.gradient_descent import replay

        found = replay(ratings, penalty, settings, warm_start, callback)
    else:
        found = search(
            ratings, penalty, settings, warm_start, fixed, callback, processes, checkpoint
        )
    blocks, balance = ratings.blocks(processes), None
    if fixed is None:
        count = (
            processes.joined(counts(ratings.user, ratings.n_users, ratings.weight)),
            processes.total(counts(ratings.guideline, ratings.n_guidelines, ratings.weight)),
        )
        warm_start = warm_start and _of_all(warm_start, processes)
        whole = [_of_all(m.parameters, processes) for m in found.minima]
        balance = _balance(whole[0], count, penalty)
        minima = (
            replace(m, parameters=_oriented(p, count, penalty, warm_start, blocks))
            for m, p in zip(found.minima, whole, strict=True)
        )
        found = replace(found, minima=tuple(minima))
    return Fit(
        **vars(found),
        method=settings.method,
        penalty=penalty,
        balance=balance,
        n_blocks=int(blocks[0].max()) + 1,
    )


def _check_sharded(ratings: Ratings, settings: Settings, hold: str | None) -> None:
    """Raise InputError where a fit cannot be cut into shards."""
    for name, given in (
        ("hold", hold is not None),
        ("gradient descent", settings.method == "gradient-descent"),
        ("weights", ratings.weight is not None),
    ):
        if given:
            raise InputError(f"shards is {settings.shards}: {name} needs shards: 1")


def _of_all(p: Parameters, processes: Processes) -> Parameters:
    """Parameters of this process's users as those of the users of all processes."""
    return replace(p, **{name: processes.joined(getattr(p, name)) for name in USERS})


def _fixed(warm_start: Parameters | None, hold: str, settings: Settings) -> Parameters:
    """The warm start's mu and the rows to hold, NaN in all others."""
    if settings.method == "gradient-descent":
        raise InputError(f"hold is {hold!r}: gradient descent holds nothing, use alternating")
    if warm_start is None or np.isnan(warm_start.mu):
        raise InputError(f"hold is {hold!r}: that needs a warm start with mu, and there is none")
    arrays, any_fixed = [], False
    sides = zip(("users", "guidelines"), known_rows(warm_start), warm_start.sides(), strict=True)
    for name, known, (i, f) in sides:
        keep = known & (name == hold)
        any_fixed |= keep.any()
        arrays += [np.where(keep, i, np.nan), np.where(keep[:, None], f, np.nan)]
    if not any_fixed:
        raise InputError(f"hold is {hold!r}: the warm start knows none of them")
    return Parameters(warm_start.mu, *arrays)


Counts = tuple[np.ndarray, np.ndarray]
"""(Weighted) numbers of ratings of all users, and of all guidelines."""


def _carried(p: Parameters, number: Counts, penalty: Penalty) -> list[np.ndarray]:
    """The penalty that users and that guidelines carry on each axis, [D] and [D]."""
    carried = []
    for count, (_, f) in zip(number, p.sides(), strict=True):
        _, b = penalty.shares(count, count.mean(), f.shape[1])
        carried.append((b[:, None] * penalty.size(f)).sum(axis=0))
    return carried


def _balance(p: Parameters, number: Counts, penalty: Penalty) -> float:
    users, guidelines = _carried(p, number, penalty)
    both = users + guidelines
    return float(np.max(np.abs(users - guidelines) / np.where(both > 0, both, 1)))


def _oriented(
    p: Parameters,
    number: Counts,
    penalty: Penalty,
    warm_start: Parameters | None,
    blocks: tuple[np.ndarray, np.ndarray],
) -> Parameters:
    """Fix order and sign of the axes (see `fit`); the loss is blind to both."""
    users, guidelines = p.user_embedding, p.guideline_embedding
    leads = []  # the first that is not a tie decides
    if warm_start is None:
        order = np.argsort(-_carried(p, number, penalty)[0], kind="stable")
        users, guidelines = users[:, order], guidelines[:, order]
    else:
        from scipy.optimize import linear_sum_assignment

        of_users = np.nan_to_num(warm_start.user_embedding)
        of_guidelines = np.nan_to_num(warm_start.guideline_embedding)
        match = of_users.T @ users + of_guidelines.T @ guidelines  # [earlier axis, axis]
        order = linear_sum_assignment(-np.abs(match))[1]
        users, guidelines = users[:, order], guidelines[:, order]
        same = _by_block(of_users * users, blocks[0]) + _by_block(
            of_guidelines * guidelines, blocks[1]
        )
        leads.append(same)
    leads += [
        _by_block(np.sign(users), blocks[0]),
        _by_block(users, blocks[0]),
        _by_block(guidelines, blocks[1]),
    ]
    sign = np.select([lead != 0 for lead in leads], [np.sign(lead) for lead in leads], 1.0)
    return replace(
        p,
        user_embedding=users * sign[blocks[0]] + 0.0,  # + 0.0: no negative zeros
        guideline_embedding=guidelines * sign[blocks[1]] + 0.0,
    )


def _by_block(x: np.ndarray, block: np.ndarray) -> np.ndarray:
    """[blocks, D]: sums of the rows of each block; rows without ratings are 0."""
    out = np.zeros((int(block.max()) + 1, x.shape[1]))
    np.add.at(out, block, x)
    return out
