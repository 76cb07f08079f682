"""Search: the loss has many local minima; find the lowest, and say how sure that is.

f = 0 is always one of them, and where a start ends decides which constitution comes out. So: many
starts, half of them by continuation: a penalty that grows to its full strength (graduated
non-convexity, Blake and Zisserman 1987), until the lowest end has been reached several times; and
where few rows carry an axis, single rows are moved. docs/method.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from aggregation.model.initialization import Point, holding, plan
from aggregation.model.parameters import Parameters, Penalty
from aggregation.model.ratings import Ratings

if TYPE_CHECKING:  # sweeps loads JAX, a second that stages which do not fit need not wait
    from aggregation.model.alternating import Ends, Fixed

BATCH = 8
"""Starts that are solved side by side."""

AGREE = 3
"""So many starts must reach the lowest loss before the search ends."""

SAME = 1e-7
"""Losses that differ by less than this, relative, are one minimum."""

CONTINUATION = ((1 / 3, 15), (2 / 3, 15))
"""Strength of the embedding penalty, and sweeps with it, before its full strength."""

FEW = 24
"""An axis that fewer rows of a side carry (participation ratio) has many minima close together."""

KEPT, ROUNDS = 4, 16
"""There, rows are moved in so many of the lowest ends, and at most so many ends in all."""

MOVES, HOLD = 1024, 3
"""At most so many moves of an end; so many sweeps show whether a move holds."""

POLISH = 1e-3
"""The lowest ends are solved to this share of the tolerance, so that the path to them shows in no
digit that anybody reads."""

Callback = Callable[[str, int, float, float], None]
"""Called now and then with what is done, sweeps so far, lowest loss of these, its residual."""


@dataclass(frozen=True)
class Settings:
    """How to search."""

    method: Literal["alternating", "gradient-descent"] = "alternating"
    """gradient-descent: the original's, one start, no search; see `descent`."""
    dimensions: int = 1
    starts: int = 8
    """Starts before the first look at their ends."""
    max_starts: int = 256
    """Starts at most, if the lowest loss is not reached from three before."""
    moves: bool = True
    """Whether to try to lower the lowest ends by moving single rows."""
    tolerance: float = 1e-6
    """Bound on the KKT residual (see `fit.Fit`)."""
    max_sweeps: int = 5000
    """Give up on a start after so many."""
    seed: int = 0


@dataclass(frozen=True)
class Start:
    """One start and where it ended."""

    kind: str
    """earlier model, uniform, or the k-th singular vector of the ratings or of the residuals."""
    continuation: bool
    """Whether the penalty grew to its full strength."""
    objective: float


@dataclass(frozen=True)
class Minimum:
    """One local minimum."""

    objective: float
    kkt_residual: float
    converged: bool
    starts: int
    """How many starts ended there; 0: found by moving single rows of another one."""
    parameters: Parameters


@dataclass(frozen=True)
class Found:
    """What a search found."""

    minima: tuple[Minimum, ...]
    """The lowest ones, lowest first; at most `BATCH`."""
    n_minima: int
    """How many different ends there were."""
    starts: tuple[Start, ...]
    settled: bool
    """Whether the lowest loss of all starts was reached from `AGREE` of them."""
    moves: int
    """How many single rows were moved."""
    sweeps: int
    """All sweeps of the search."""
    history: np.ndarray
    """[sweeps, starts]: lowest loss so far of each start, at the full penalty."""


@dataclass(frozen=True)
class _End:
    objective: float
    residual: float
    parameters: Parameters


def search(
    ratings: Ratings,
    penalty: Penalty,
    settings: Settings,
    warm_start: Parameters | None = None,
    fixed: Fixed | None = None,
    callback: Callback | None = None,
) -> Found:
    """Find the lowest minimum of `model.loss`; `fit.fit` says what the arguments mean."""
    work = _Work(ratings, penalty, settings, fixed, callback)
    endless = plan(ratings, settings.dimensions, settings.seed, warm_start)
    starts: list[Start] = []
    ends: list[_End] = []
    curves: list[np.ndarray] = []
    size, settled = settings.starts, False
    while True:
        points = [next(endless) for _ in range(size)]
        if warm_start is not None and fixed is not None:
            points = [holding(point, warm_start, fixed) for point in points]
        work.doing = f"starts {len(starts) + 1} to {len(starts) + size}"
        found, history = work.descend(points)
        ends += found
        curves += history
        starts += [
            Start(point.kind, point.continuation, end.objective)
            for point, end in zip(points, found, strict=True)
        ]
        losses = np.array([start.objective for start in starts])
        settled = _reached(losses, losses.min()) >= AGREE
        size = min(BATCH, settings.max_starts - len(starts))
        if settled or size <= 0:
            break
    distinct = _distinct(ends)
    lowest = (_improved(work, ratings, distinct) if settings.moves else distinct)[:BATCH]
    if settings.max_starts > 1:
        work.doing = "polishing"
        fine, _ = work.sweep([end.parameters for end in lowest], settings.tolerance * POLISH)
        lowest = [
            min(pair, key=lambda end: end.residual) for pair in zip(fine, lowest, strict=True)
        ]
    minima = _distinct(lowest)
    return Found(
        minima=tuple(
            Minimum(
                end.objective,
                end.residual,
                end.residual <= settings.tolerance,
                _reached(losses, end.objective),
                end.parameters,
            )
            for end in minima
        ),
        n_minima=len(distinct),
        starts=tuple(starts),
        settled=settled,
        moves=work.moves,
        sweeps=work.sweeps,
        history=_side_by_side(curves),
    )


class _Work:
    """Sweeps over any number of points, `BATCH` at a time; counts, and tells who watches."""

    def __init__(
        self,
        ratings: Ratings,
        penalty: Penalty,
        settings: Settings,
        fixed: Fixed | None,
        callback: Callback | None,
    ) -> None:
        from aggregation.model.alternating import Sweeper

        self.sweeper = Sweeper(ratings, penalty, fixed=fixed)
        self.settings, self.callback = settings, callback
        self.fixed = {
            "user_embedding": np.zeros(ratings.n_users, bool) if fixed is None else fixed.users,
            "guideline_embedding": (
                np.zeros(ratings.n_guidelines, bool) if fixed is None else fixed.guidelines
            ),
        }
        self.lanes = min(BATCH, settings.starts)  # one shape, compiled once
        self.doing, self.sweeps, self.moves = "", 0, 0

    def descend(self, points: list[Point]) -> tuple[list[_End], list[np.ndarray]]:
        """Sweep to the tolerance, by continuation where that is asked for."""
        where = [point.parameters for point in points]
        if any(point.continuation for point in points):
            for share, sweeps in CONTINUATION:
                strength = [share if point.continuation else 1.0 for point in points]
                ends, _ = self.sweep(where, 0.0, sweeps, strength)
                where = [
                    end.parameters if point.continuation else point.parameters
                    for point, end in zip(points, ends, strict=True)
                ]
        return self.sweep(where)

    def sweep(
        self,
        points: list[Parameters],
        tolerance: float | None = None,
        max_sweeps: int | None = None,
        strength: list[float] | None = None,
    ) -> tuple[list[_End], list[np.ndarray]]:
        """Ends and histories of all points."""
        tolerance = self.settings.tolerance if tolerance is None else tolerance
        max_sweeps = self.settings.max_sweeps if max_sweeps is None else max_sweeps
        strength = strength or [1.0] * len(points)
        ends: list[_End] = []
        curves: list[np.ndarray] = []
        for at in range(0, len(points), self.lanes):
            batch = list(range(at, min(at + self.lanes, len(points))))
            padded = batch + [batch[-1]] * (self.lanes - len(batch))
            found = self.sweeper.sweep(
                _stacked([points[k] for k in padded]),
                tolerance,
                max_sweeps,
                strength=np.array([strength[k] for k in padded]),
                callback=self._told,
            )
            self.sweeps += len(found.history)
            ends += _split(found)[: len(batch)]
            curves += list(found.history.T[: len(batch)])
        return ends, curves

    def guidelines_for(self, points: list[Parameters]) -> list[Parameters]:
        """The points with their guideline sides solved for their users."""
        solved: list[Parameters] = []
        for at in range(0, len(points), self.lanes):
            batch = points[at : at + self.lanes]
            padded = batch + [batch[-1]] * (self.lanes - len(batch))
            solved += _unstacked(self.sweeper.guidelines(_stacked(padded)))[: len(batch)]
        return solved

    def _told(self, sweeps: int, objective: np.ndarray, residual: np.ndarray) -> None:
        if self.callback is not None:
            k = int(np.argmin(objective))
            self.callback(self.doing, self.sweeps + sweeps, float(objective[k]), float(residual[k]))


def _improved(work: _Work, ratings: Ratings, pool: list[_End]) -> list[_End]:
    """The pool, and what moving single rows leads to, lowest first.

    Single guidelines of the lowest end are moved. Where few rows carry an axis, one row can hold
    up a minimum: there users are moved too, again and again, and in the next lowest ends as well.
    """
    done: list[_End] = []
    while len(done) < ROUNDS:
        end = next((e for e in pool[:KEPT] if not any(e is other for other in done)), None)
        if end is None or (done and not _few(end.parameters, ratings)):
            break
        done.append(end)
        work.doing = f"moving single rows, end {len(done)}"
        moved = _moved(work, ratings, end.parameters)
        pool = _distinct(pool + work.sweep(moved)[0])
    return pool


def _few(p: Parameters, ratings: Ratings) -> bool:
    """Whether fewer than `FEW` rows of a side carry an axis: (sum n |f|)^2 / sum (n |f|)^2."""
    for count, f in (
        (ratings.per_user(), p.user_embedding),
        (ratings.per_guideline(), p.guideline_embedding),
    ):
        strength = count[:, None] * np.abs(f)
        total = strength.sum(axis=0)
        if ((total > 0) & (total**2 < FEW * (strength**2).sum(axis=0))).any():
            return True
    return False


def _moved(work: _Work, ratings: Ratings, p: Parameters) -> list[Parameters]:
    """`p` with one embedding zeroed, turned or raised from zero, wherever that holds for a while:
    a move that does not leads back to `p`.
    """
    sides = [("guideline_embedding", p.guideline_embedding, ratings.per_guideline())]
    if _few(p, ratings):
        sides.append(("user_embedding", p.user_embedding, ratings.per_user()))
    hold: list[Parameters] = []
    for name, f, count in sides:
        fixed = work.fixed[name]
        moves: list[tuple[int, int, float]] = []  # row, axis, new value
        for axis in np.flatnonzero((f != 0).any(axis=0)):
            size = float(np.median(np.abs(f[:, axis][f[:, axis] != 0])))
            for row in np.argsort(-count, kind="stable"):
                if not fixed[row]:
                    old = float(f[row, axis])
                    new = (0.0, -old) if old else (size, -size)
                    moves += [(int(row), int(axis), value) for value in new]
        moves = moves[:MOVES]
        work.moves += len(moves)
        points = []
        for row, axis, value in moves:
            changed = f.copy()
            changed[row, axis] = value
            points.append(replace(p, **{name: changed}))
        if name == "user_embedding":
            points = work.guidelines_for(points)
        ends, _ = work.sweep(points, 0.0, HOLD)
        for (row, axis, _), end in zip(moves, ends, strict=True):
            if np.sign(getattr(end.parameters, name)[row, axis]) != np.sign(f[row, axis]):
                hold.append(end.parameters)
    return hold


def _distinct(ends: list[_End]) -> list[_End]:
    """One end for each minimum, lowest first."""
    out: list[_End] = []
    for end in sorted(ends, key=lambda end: end.objective):
        if not out or end.objective > out[-1].objective * (1 + SAME):
            out.append(end)
    return out


def _reached(losses: np.ndarray, objective: float) -> int:
    return int((np.abs(losses - objective) <= SAME * objective).sum())


def _stacked(points: list[Parameters]) -> Parameters:
    """Side by side: arrays ending in [S]."""
    return Parameters(
        *(np.stack(x, axis=-1) for x in zip(*(p.arrays() for p in points), strict=True))
    )


def _unstacked(points: Parameters) -> list[Parameters]:
    return [Parameters(*(x[..., k] for x in points.arrays())) for k in range(points.mu.shape[-1])]


def _split(ends: Ends) -> list[_End]:
    return [
        _End(float(objective), float(residual), parameters)
        for objective, residual, parameters in zip(
            ends.objective, ends.residual, _unstacked(ends.parameters), strict=True
        )
    ]


def _side_by_side(curves: list[np.ndarray]) -> np.ndarray:
    """[sweeps, starts]; a curve that ended earlier stays where it ended."""
    longest = max(len(curve) for curve in curves)
    return np.stack([np.pad(c, (0, longest - len(c)), mode="edge") for c in curves], axis=1)
