"""Fit: the lowest minimum of the loss that a search finds, with a certificate.

`search` decides where to start and which end to keep, `sweeps` goes down from each start. Here:
what is asked and answered, which way the axes point, and refits with other weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from aggregation.data.cards import Card, Shown, many
from aggregation.errors import InputError
from aggregation.model.multistart import Callback, Found, Minimum, Settings, Start, search
from aggregation.model.parameters import Parameters, Penalty
from aggregation.model.ratings import Ratings, counts


@dataclass(frozen=True, repr=False)
class Fit(Shown):
    """The lowest stationary point found, and how it was found."""

    method: Literal["alternating", "gradient-descent"]
    parameters: Parameters
    """float64 NumPy arrays."""
    objective: float
    """The loss at `parameters`."""
    converged: bool
    """Whether `kkt_residual` <= the tolerance asked for; for gradient descent, whether its loss
    had stopped to move, which certifies nothing."""
    kkt_residual: float
    """Largest distance of zero from the subgradient of the loss, over all coordinates, each
    divided by its row's share of the ratings: in units of rating error, 0 at a stationary point."""
    balance: float | None
    """Largest relative difference, over the axes, of the penalties that users and guidelines
    carry: 0 at a stationary point, whatever path led there. None where rows were fixed."""
    sweeps: int
    """Of all starts and moves together; for gradient descent, its steps."""
    starts: tuple[Start, ...]
    """Every start and where it ended; with a warm start, the first is the warm start."""
    settled: bool
    """Whether the lowest loss of the starts was reached from at least three."""
    minima: tuple[Minimum, ...]
    """The lowest minima found, the fit first; axes point as in `parameters`."""
    n_minima: int
    """How many different minima the starts ended in."""
    moves: int
    """How many single rows were moved to find a lower one."""
    n_blocks: int
    """Blocks of users and guidelines that share no rating: 1 if all is connected. Nothing relates
    the axes of different blocks."""
    history: np.ndarray
    """[sweeps, starts]: the loss of every start after each sweep at the full penalty."""

    @property
    def warm_start(self) -> bool:
        """Whether the first start is an earlier model."""
        return self.starts[0].kind == "earlier model"

    def summary(self) -> pd.DataFrame:
        """One row per start, the lowest first: what it was, the loss it ended at."""
        table = pd.DataFrame(
            {
                "start": [k + 1 for k in range(len(self.starts))],
                "from": [start.kind for start in self.starts],
                "penalty": [
                    "continuation" if start.continuation else "full" for start in self.starts
                ],
                "loss": [f"{start.objective:.8f}" for start in self.starts],
                "above the fit": [
                    f"{round(start.objective - self.objective, 8) + 0.0:.8f}"  # no -0.00000000
                    for start in self.starts
                ],
            }
        )
        order = np.argsort([start.objective for start in self.starts], kind="stable")
        return table.iloc[order].reset_index(drop=True)

    def certificate(self) -> str:
        """What is known of this fit, in a few lines."""
        return "\n".join([*(words for _, words in self._found()), *self._doubts()])

    def _found(self) -> list[tuple[str, str]]:
        """Where the descent ended and what the search did, by name."""
        ended = f"loss {self.objective:.8f}, KKT residual {self.kkt_residual:.1e}"
        if self.balance is not None:
            ended += f", penalties of users and guidelines apart by {self.balance:.1e}"
        if self.method == "gradient-descent":
            return [("end", ended)]
        searched = (
            f"{many(len(self.starts), 'start')} ended in "
            f"{many(self.n_minima, 'minimum', 'minima')}; {self.minima[0].starts:,} of them in "
            f"this one; single rows moved: {self.moves:,}"
        )
        return [("end", ended), ("search", searched)]

    def _doubts(self) -> tuple[str, ...]:
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
        return tuple(doubt for doubt, holds in doubts.items() if holds)

    def _card(self) -> Card:
        p = self.parameters
        users, axes = p.user_embedding.shape
        if self.method == "gradient-descent":
            how, standing = "gradient descent", "stopped" if self.converged else "did not stop"
        else:
            how = "alternating minimisation"
            standing = "converged" if self.converged else "not converged"
            standing += ", settled" if self.settled else ", not settled"
        size = (
            f"{many(users, 'user')}, {many(len(p.guideline_intercept), 'guideline')}, "
            f"{many(axes, 'axis', 'axes')}; mu {float(p.mu):.3f}"
        )
        return Card(
            f"Fit by {how}: loss {self.objective:.8f}, {standing}",
            (*self._found(), ("model", size)),
            self._doubts(),
            (".summary()", ".certificate()", ".parameters", ".minima"),
        )


def fit(
    ratings: Ratings,
    penalty: Penalty | None = None,
    settings: Settings | None = None,
    warm_start: Parameters | None = None,
    hold: Literal["users", "guidelines"] | None = None,
    callback: Callback | None = None,
) -> Fit:
    """Minimise the loss of `model.loss` over all parameters.

    Starts are drawn uniformly from [0, 1), as the original's, seeded, or are singular vectors; see
    `search`. A `warm_start`, NaN where unknown, is the first start: its mu and the guidelines
    that it knows, the others drawn. It also fixes sign and order of the axes; without one, an axis
    points to the side with more users (in every block, see `Ratings.blocks`), and axes are sorted
    by the penalty that the users carry on them.

    `hold` keeps mu and all users (or guidelines) that the warm start knows as they are, and
    minimises over the rest: new guidelines scored against fixed users.

    A failure to converge is data: see `Fit.converged`. `callback` is told of the progress. Raises
    InputError for ratings that no model fits, more axes than rows, or a `hold` without a
    warm start.
    """
    penalty, settings = penalty or Penalty(), settings or Settings()
    ratings.check()
    _check_axes(ratings, settings.dimensions)
    fixed = None
    if hold is not None:
        from aggregation.model.alternating import Fixed

        known = _known(warm_start)
        if warm_start is None or known is None:
            raise InputError(f"train.hold: {hold} needs an earlier model with mu; there is none")
        users, guidelines = known
        fixed = Fixed(users & (hold == "users"), guidelines & (hold == "guidelines"))
    if settings.method == "gradient-descent":
        found = _replay(ratings, penalty, settings, warm_start, callback)
    else:
        found = search(ratings, penalty, settings, warm_start, fixed, callback)
    user_block, guideline_block = ratings.blocks()
    blocks = (user_block, guideline_block)
    minima = tuple(
        minimum
        if fixed is not None
        else replace(
            minimum, parameters=_oriented(minimum.parameters, ratings, penalty, warm_start, blocks)
        )
        for minimum in found.minima
    )
    best = minima[0]
    return Fit(
        method=settings.method,
        parameters=best.parameters,
        objective=best.objective,
        converged=best.converged,
        kkt_residual=best.kkt_residual,
        balance=None if fixed is not None else _balance(best.parameters, ratings, penalty),
        sweeps=found.sweeps,
        starts=found.starts,
        settled=found.settled,
        minima=minima,
        n_minima=found.n_minima,
        moves=found.moves,
        n_blocks=int(user_block.max()) + 1,
        history=found.history,
    )


def _replay(
    ratings: Ratings,
    penalty: Penalty,
    settings: Settings,
    warm_start: Parameters | None,
    callback: Callback | None,
) -> Found:
    """The original's descent from its kind of start: the earlier model, else uniform draws."""
    from aggregation.model.alternating import Sweeper
    from aggregation.model.gradient_descent import descend

    u, g, d = ratings.n_users, ratings.n_guidelines, settings.dimensions
    random = np.random.default_rng(settings.seed)
    drawn = [random.random(shape) for shape in ((u, d), (g, d), u, g)]
    start = Parameters(np.float64(0.0), drawn[2], drawn[0], drawn[3], drawn[1])
    if warm_start is not None:
        known = zip(warm_start.arrays(), start.arrays(), strict=True)
        start = Parameters(*(np.where(np.isnan(new), old, new) for new, old in known))

    def told(steps: int, objective: float) -> None:
        if callback is not None:
            callback("gradient descent", steps, objective, float("nan"))

    end = descend(ratings, start, penalty, told)
    objective, residual = Sweeper(ratings, penalty).measure(end.parameters)
    p = Parameters(*(np.asarray(x, np.float64) for x in end.parameters.arrays()))
    kind = "uniform" if warm_start is None else "earlier model"
    return Found(
        minima=(Minimum(objective, residual, end.stopped, 1, p),),
        n_minima=1,
        starts=(Start(kind, False, objective),),
        settled=False,
        moves=0,
        sweeps=len(end.losses),
        history=end.losses[:, None].astype(np.float64),
    )


def _check_axes(ratings: Ratings, dimensions: int) -> None:
    most = min(ratings.n_users, ratings.n_guidelines)
    if dimensions > most:
        raise InputError(
            f"train.dimensions is {dimensions}, but {ratings.n_users} users and "
            f"{ratings.n_guidelines} guidelines can carry {most} at most: lower it"
        )


def _known(warm_start: Parameters | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Which users and which guidelines a warm start knows; None if it has no mu."""
    if warm_start is None or not np.isfinite(warm_start.mu):
        return None
    users = np.column_stack([warm_start.user_intercept, warm_start.user_embedding])
    guidelines = np.column_stack([warm_start.guideline_intercept, warm_start.guideline_embedding])
    return np.isfinite(users.sum(axis=1)), np.isfinite(guidelines.sum(axis=1))


def _carried(p: Parameters, ratings: Ratings, penalty: Penalty) -> tuple[np.ndarray, np.ndarray]:
    """The penalty that users and that guidelines carry on each axis, [D] and [D]."""
    d = p.user_embedding.shape[1]
    sides = (
        (ratings.user, ratings.n_users, p.user_embedding),
        (ratings.guideline, ratings.n_guidelines, p.guideline_embedding),
    )
    shares = (penalty.shares(counts(row, size, ratings.weight), d) for row, size, _ in sides)
    users, guidelines = (
        (b[:, None] * penalty.size(f)).sum(axis=0)
        for (_, b), (_, _, f) in zip(shares, sides, strict=True)
    )
    return users, guidelines


def _balance(p: Parameters, ratings: Ratings, penalty: Penalty) -> float:
    users, guidelines = _carried(p, ratings, penalty)
    both = users + guidelines
    return float(np.max(np.abs(users - guidelines) / np.where(both > 0, both, 1)))


def _oriented(
    p: Parameters,
    ratings: Ratings,
    penalty: Penalty,
    warm_start: Parameters | None,
    blocks: tuple[np.ndarray, np.ndarray],
) -> Parameters:
    """Fix order and sign of the axes (see `fit`); the loss is blind to both."""
    users, guidelines = p.user_embedding, p.guideline_embedding
    leads = []  # the first that is not a tie decides
    if warm_start is None:
        order = np.argsort(-_carried(p, ratings, penalty)[0], kind="stable")
        users, guidelines = users[:, order], guidelines[:, order]
    else:
        of_users = np.nan_to_num(warm_start.user_embedding)
        of_guidelines = np.nan_to_num(warm_start.guideline_embedding)
        order = _matched(of_users.T @ users + of_guidelines.T @ guidelines)
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


def _matched(match: np.ndarray) -> np.ndarray:
    """For each earlier axis, the axis most like it; `match` [earlier axis, axis]."""
    free, order = np.abs(match), np.zeros(len(match), dtype=int)
    for axis in range(len(match)):
        order[axis] = np.argmax(free[axis])
        free[:, order[axis]] = -1.0
    return order
