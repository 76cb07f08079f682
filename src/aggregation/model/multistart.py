"""Multistart: find the lowest of many local minima, and say how sure that is.

f = 0 is always a minimum, and where a start ends decides which constitution comes out. So there are
many starts, half of them by continuation: the embedding penalty grows to its full strength
(graduated non-convexity, Blake and Zisserman 1987). They end when the lowest loss has been reached
several times, or it is clear that it will not be; then the lowest end is improved. docs/method.md
has the measurements behind each choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval

from aggregation.model.initialization import Point, starting_points
from aggregation.model.parameters import Parameters, Penalty, filled
from aggregation.model.processes import ALONE, Processes
from aggregation.model.ratings import SAMPLE, Ratings, counts, drawn

if TYPE_CHECKING:  # what needs JAX is imported when a fit begins
    from aggregation.model.alternating import Sweeper
    from aggregation.model.sharding import Checkpoint

STARTS_PER_BATCH = 8
"""Starts that are solved side by side; also how many minima are kept at most."""

AGREEING_STARTS = 3
"""The search ends when this many starts have reached the lowest loss."""

LOSS_TOLERANCE = 1e-7
"""Losses that differ by less than this, relative, are one minimum."""

CONTINUATION = ((1 / 3, 10), (2 / 3, 10))
"""Strength of the embedding penalty, and sweeps with it, before its full strength."""

MAX_MOVES, SWEEPS_PER_MOVE = 1024, 3
"""Moves of single guidelines at most, and the sweeps that show whether a move holds."""

FEW_ROWS = 24
"""An axis that fewer rows of a side carry (participation ratio) has many minima close together."""

HOPS, SWEEPS_PER_HOP = 800, 15
"""Hops between such minima, and the sweeps that show whether a hop leads lower."""

CARRYING_REDRAWN, OTHERS_REDRAWN = 3, 8
"""Rows that a hop draws anew, on average: of those that carry the axis, and of the others."""

MAX_IDLE = 10
"""Batches of hops that lead no lower before one that leads higher is followed."""

RATINGS_MOVED = 2e7
"""Moves or hops times ratings, at most: where there are many ratings, a single guideline rarely
holds up a minimum, and to try all takes most of the time."""

RATINGS_OF_A_GUIDELINE, RATINGS_OF_A_USER = 50, 20
"""In a sample: of a guideline on average, so there are no more guidelines than give that; of a user
at least. Unless there are too few such ratings."""

CLOSE_LOSS = 0.02
"""Minima of a sample whose loss is by more than this above the lowest, relative, are not the lowest
of all ratings or of a resample: losses of millions of ratings differ by less."""

RATINGS_TO_SHARD, SHARDS = 5e7, 16
"""From so many ratings the users are cut into so many shards, unless the settings say otherwise."""

MAX_CONTINUED = 3
"""Minima of a sample that are followed on all ratings."""

POLISH = 1e-3
"""The lowest minima are solved to this share of the tolerance, so that reported digits do not
depend on the start."""

USERS = ("user_intercept", "user_embedding")
"""Fields of `Parameters` with a row for each user."""

GUIDELINES = ("guideline_intercept", "guideline_embedding")
"""Fields with one for each guideline. A descent starts from them: it solves the users first."""

Callback = Callable[[str, int, float, float], None]
"""Called now and then with the step, sweeps so far, the lowest loss of the batch, its residual."""


@dataclass(frozen=True)
class Settings:
    """How the model is fitted."""

    method: Literal["alternating", "gradient-descent"] = "alternating"
    """`alternating`: exact minimisation with a certificate. `gradient-descent`: the original's,
    which stops far from the optimum; only to reproduce old decisions."""
    dimensions: Annotated[int, Interval(ge=1, le=8)] = 1
    """Number of axes."""
    starts: Annotated[int, Interval(ge=1, le=256)] = 8
    """Starts before the first look at where they ended; no more than `max_starts`."""
    max_starts: Annotated[int, Interval(ge=1, le=4096)] = 32
    """Starts at most; the search ends before when three of them reach the lowest loss."""
    moves: bool = True
    """Whether to try to lower the lowest minimum by moving single guidelines, or a few rows at once
    where few carry an axis. With `starts: 1`, `max_starts: 1`, `moves: false` a fit is one descent.
    """
    shards: Annotated[int, Interval(ge=1, le=4096)] | None = None
    """Parts of the users that cores, devices and machines share out: a multiple of the number of
    devices. The same number gives the same bits on any number of them. `null`: 16 where fifty
    million ratings and more are searched on 1, 2, 4, 8 or 16 devices, else 1."""
    tolerance: Annotated[float, Interval(gt=0, lt=1)] = 1e-6
    """Largest KKT residual of a fit that counts as converged."""
    max_sweeps: Annotated[int, Ge(1)] = 5000
    """Give up on a start after this many sweeps."""
    seed: int = 0
    """Seed of the random starts."""


@dataclass(frozen=True)
class Start:
    """One start and where it ended."""

    kind: str
    """See `initialization.Point`."""
    continuation: bool
    objective: float


@dataclass(frozen=True)
class Minimum:
    """Where descents ended."""

    objective: float
    """The loss."""
    kkt_residual: float
    """Largest distance of zero from the subgradient of the loss, over all coordinates, each
    divided by its row's share of the ratings: in units of rating error, 0 at a stationary point."""
    converged: bool
    """Whether `kkt_residual` is at most the tolerance; after gradient descent, whether its loss
    had stopped to move, which certifies nothing."""
    starts: int
    """How many starts ended there; 0: found by moving rows of another one."""
    parameters: Parameters
    """float64 NumPy arrays."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    minima: tuple[Minimum, ...]
    """The lowest ones, lowest first; at most `STARTS_PER_BATCH`."""
    n_minima: int
    """How many different minima the starts ended in."""
    starts: tuple[Start, ...]
    """Every start and where it ended; a warm start is the first."""
    settled: bool
    """Whether the lowest loss of the starts was reached from at least `AGREEING_STARTS`."""
    moves: int
    """How many times rows were moved to find a lower minimum."""
    sweeps: int
    """Of all starts and moves together; for gradient descent, its steps."""
    history: np.ndarray
    """[sweeps, starts]: the lowest loss so far of every start, at the full penalty."""
    sample: int
    """How many ratings were searched where there are too many to search all; 0: all. The minima
    are always those of all ratings; `starts` and `history` are as far above the lowest as they
    were on the sample."""
    continued: bool
    """Whether the lowest minimum of the sample is where the earlier model led, so that all ratings
    were fitted from the earlier model and from minima close to it only."""


def search(
    ratings: Ratings,
    penalty: Penalty,
    settings: Settings,
    warm_start: Parameters | None = None,
    fixed: Parameters | None = None,
    callback: Callback | None = None,
    processes: Processes = ALONE,
    checkpoint: Checkpoint | None = None,
) -> Found:
    """Find the lowest minimum of `parameters.loss`; `fit.fit` says what the arguments mean.

    `fixed`: mu and the rows that keep their values, NaN in all others. The minima that are found
    have the users of `ratings`, those of this process.
    """
    from aggregation.model.alternating import Sweeper

    sharded = (settings.shards or 1) > 1 or processes.count > 1
    many = len(ratings) >= 2 * SAMPLE and settings.max_starts > 1 and fixed is None
    if sharded or many:
        return _sampled(ratings, penalty, settings, warm_start, callback, processes, checkpoint)
    work = _Work(Sweeper(ratings, penalty, fixed=fixed), settings, fixed, callback)
    points = starting_points(ratings, settings.dimensions, settings.seed, warm_start)
    starts: list[Start] = []
    ends: list[Minimum] = []
    curves: list[np.ndarray] = []
    losses = np.zeros(0)
    size, settled = min(settings.starts, settings.max_starts), False
    while size > 0 and not settled:
        batch = [next(points) for _ in range(size)]
        work.doing = f"starts {len(starts) + 1} to {len(starts) + size}"
        found, history = work.descend(batch)
        ends += found
        curves += history
        starts += [
            Start(point.kind, point.continuation, end.objective)
            for point, end in zip(batch, found, strict=True)
        ]
        losses = np.array([start.objective for start in starts])
        settled = _reached(losses, losses.min()) >= AGREEING_STARTS
        size = min(STARTS_PER_BATCH, settings.max_starts - len(starts))
    distinct = _distinct(ends)
    lowest = _improved(work, ratings, distinct, settled=settled) if settings.moves else distinct
    lowest = lowest[:STARTS_PER_BATCH]
    if settings.max_starts > 1:
        work.doing = "polishing"
        fine, _ = work.sweep([end.parameters for end in lowest], settings.tolerance * POLISH)
        pairs = zip(fine, lowest, strict=True)
        lowest = _distinct([min(pair, key=lambda end: end.kkt_residual) for pair in pairs])
    return Found(
        minima=tuple(replace(m, starts=_reached(losses, m.objective)) for m in lowest),
        n_minima=len(distinct),
        starts=tuple(starts),
        settled=settled,
        moves=work.moves,
        sweeps=work.sweeps,
        history=_side_by_side(curves),
        sample=0,
        continued=False,
    )


def _sampled(
    ratings: Ratings,
    penalty: Penalty,
    settings: Settings,
    warm_start: Parameters | None,
    callback: Callback | None,
    processes: Processes,
    checkpoint: Checkpoint | None,
) -> Found:
    """The search on the ratings of some users, and its lowest minima followed on all ratings.

    A descent needs no users to start from, so the guidelines of a sample's minimum are a start,
    and one that is near. If the lowest of them is where an earlier model leads, then this model
    takes its place, and minima far above it are not followed. Every process searches the same
    sample.
    """
    some, chosen, rated = _sample(ratings, settings.seed, processes)
    earlier = None
    if warm_start is not None:
        users = {name: processes.joined(getattr(warm_start, name)[chosen]) for name in USERS}
        guidelines = {name: getattr(warm_start, name)[rated] for name in GUIDELINES}
        earlier = replace(warm_start, **users, **guidelines)
    found = search(some, penalty, replace(settings, shards=1), earlier, callback=callback)

    sweeper = _sweeper(ratings, penalty, settings.shards, processes, checkpoint)
    work = _Work(sweeper, replace(settings, starts=1), None, callback)
    zeros = (np.zeros(ratings.n_users), np.zeros((ratings.n_users, settings.dimensions)))
    users = dict(zip(USERS, zeros, strict=True))
    near = [replace(p, **users) for p in _guideline_sides(found, rated, processes)]
    sample = len(some) if len(some) < sweeper.n else 0
    # What the first process found decides, as above.
    losses = processes.gathered([m.objective for m in found.minima[:MAX_CONTINUED]])[0]
    first = processes.gathered(found.starts[0].objective)[0]
    continued = False
    if sample and warm_start is not None and _reached(first, losses[0]):
        continued = True
        close = (losses <= losses[0] * (1 + CLOSE_LOSS)).sum()
        near = [_completed(warm_start, near[0]), *near[1:close]]

    followed = []
    for k, point in enumerate(near):
        work.doing = f"all ratings, minimum {k + 1}"
        ends, _ = work.sweep([point], settings.tolerance * POLISH)
        reached = found.minima[k].starts if k < len(found.minima) else 0
        followed.append(replace(ends[0], starts=reached))
    minima = _distinct(followed)
    above = minima[0].objective - found.minima[0].objective
    return Found(
        minima=tuple(minima),
        n_minima=found.n_minima,
        starts=tuple(replace(s, objective=s.objective + above) for s in found.starts),
        settled=found.settled,
        moves=found.moves,
        sweeps=found.sweeps + work.sweeps,
        history=found.history + above,
        sample=sample,
        continued=continued,
    )


def _sample(
    ratings: Ratings, seed: int, processes: Processes
) -> tuple[Ratings, np.ndarray, np.ndarray]:
    """About `SAMPLE` ratings of all processes where they lie densest, all where there are not many
    more; which of this one's users they are by, bool [n_users]; of which guidelines, bool.

    Rows with few ratings have many minima close together, which says nothing of those of all
    ratings. So it is the guidelines with most ratings, and users with enough ratings of them.
    """
    popular = np.ones(ratings.n_guidelines, bool)
    chosen = np.ones(int(processes.total(np.array(ratings.n_users))[0]), bool)
    if processes.total(np.array(len(ratings)))[0] >= 2 * SAMPLE:
        per_guideline = processes.total(ratings.per_guideline())
        order = np.argsort(-per_guideline, kind="stable")
        needed = int(np.searchsorted(np.cumsum(per_guideline[order]), 2 * SAMPLE)) + 1
        most = max(SAMPLE // RATINGS_OF_A_GUIDELINE, needed)
        popular[order[most:]] = False
        weight = popular[ratings.guideline] if len(popular) > most else None
        per_user = processes.joined(counts(ratings.user, ratings.n_users, weight))
        enough = per_user >= RATINGS_OF_A_USER
        enough |= per_user[enough].sum() < SAMPLE
        chosen = enough & drawn(per_user * enough, SAMPLE, seed)
    first = processes.before(ratings.n_users)
    mine = chosen[first : first + ratings.n_users]
    some = ratings.of_users(mine, popular)
    if processes.count == 1:
        return some, mine, popular
    user = some.user + np.int32(processes.before(some.n_users))
    user, guideline, helpful = map(processes.joined, (user, some.guideline, some.helpful))
    return Ratings(user, guideline, helpful, int(chosen.sum()), some.n_guidelines), mine, popular


def _guideline_sides(found: Found, rated: np.ndarray, processes: Processes) -> list[Parameters]:
    """Where to start on all ratings: the lowest minima that the first process found, since
    machines of another make may round otherwise. Guidelines that were not `rated` there are zero.
    """
    minima = [m.parameters for m in found.minima[:MAX_CONTINUED]]
    stacked = (np.stack([getattr(p, name) for p in minima]) for name in ("mu", *GUIDELINES))
    mu, intercept, embedding = (processes.gathered(x)[0] for x in stacked)
    side = np.zeros((len(mu), len(rated), 1 + embedding.shape[2]))
    side[:, rated] = np.concatenate([intercept[..., None], embedding], axis=2)
    users = minima[0].sides()[0]
    return [Parameters(m, *users, x[:, 0], x[:, 1:]) for m, x in zip(mu, side, strict=True)]


def _completed(earlier: Parameters, near: Parameters) -> Parameters:
    """The earlier model, and what it does not know as in `near`, whose axes are turned to match."""
    from scipy.optimize import linear_sum_assignment

    f = near.guideline_embedding
    match = np.nan_to_num(earlier.guideline_embedding).T @ f
    order = linear_sum_assignment(-np.abs(match))[1]
    sign = np.where(match[np.arange(len(order)), order] < 0, -1, 1)
    return filled(earlier, replace(near, guideline_embedding=f[:, order] * sign))


def _sweeper(
    ratings: Ratings,
    penalty: Penalty,
    shards: int | None,
    processes: Processes,
    checkpoint: Checkpoint | None,
) -> Sweeper:
    import jax

    if shards is None:
        fits = SHARDS % jax.local_device_count() == 0 and ratings.weight is None
        shards = SHARDS if processes.count == 1 and len(ratings) >= RATINGS_TO_SHARD and fits else 1
    if shards == 1 and processes.count == 1:
        from aggregation.model.alternating import Sweeper

        return Sweeper(ratings, penalty)
    from aggregation.model.sharding import ShardedSweeper

    # It sweeps alike, which is all that is asked of it.
    return ShardedSweeper(ratings, penalty, shards, processes, checkpoint)  # type: ignore[return-value]


class _Work:
    """Sweeps over any number of points, a batch at a time; counts them and tells the callback."""

    def __init__(
        self,
        sweeper: Sweeper,
        settings: Settings,
        fixed: Parameters | None,
        callback: Callback | None,
    ) -> None:
        self.sweeper = sweeper
        self.settings, self.fixed, self.callback = settings, fixed, callback
        lanes = min(STARTS_PER_BATCH, settings.starts, settings.max_starts)
        self.lanes = lanes  # one shape, compiled once
        self.doing, self.sweeps, self.moves = "", 0, 0

    def descend(self, points: list[Point]) -> tuple[list[Minimum], list[np.ndarray]]:
        """Sweep to the tolerance, by continuation where a point asks for it."""
        where = [point.parameters for point in points]
        if self.fixed is not None:
            where = [filled(self.fixed, p) for p in where]
        grows = [point.continuation for point in points]
        if any(grows):
            for share, sweeps in CONTINUATION:
                ends, _ = self.sweep(where, 0.0, sweeps, np.where(grows, share, 1.0))
                where = [
                    end.parameters if grow else p
                    for p, end, grow in zip(where, ends, grows, strict=True)
                ]
        return self.sweep(where)

    def sweep(
        self,
        points: list[Parameters],
        tolerance: float | None = None,
        max_sweeps: int | None = None,
        strength: np.ndarray | None = None,
    ) -> tuple[list[Minimum], list[np.ndarray]]:
        """Ends and histories of all points; `strength` [points] of the embedding penalty."""
        tolerance = self.settings.tolerance if tolerance is None else tolerance
        strength = np.ones(len(points)) if strength is None else strength
        ends: list[Minimum] = []
        curves: list[np.ndarray] = []
        for rows in self._batches(len(points)):
            found = self.sweeper.sweep(
                _stacked([points[k] for k in rows]),
                tolerance,
                max_sweeps or self.settings.max_sweeps,
                strength=strength[rows],
                callback=self._told,
            )
            self.sweeps += len(found.history)
            losses, residuals = found.objective.tolist(), found.residual.tolist()
            ends += [
                Minimum(loss, residual, residual <= self.settings.tolerance, 0, p)
                for loss, residual, p in zip(
                    losses, residuals, _unstacked(found.parameters), strict=True
                )
            ]
            curves += list(found.history.T)
        return ends[: len(points)], curves[: len(points)]

    def guidelines_for(self, points: list[Parameters]) -> list[Parameters]:
        """The points with their guideline sides solved for their users."""
        solved: list[Parameters] = []
        for rows in self._batches(len(points)):
            solved += _unstacked(self.sweeper.guidelines(_stacked([points[k] for k in rows])))
        return solved[: len(points)]

    def _batches(self, n: int) -> Iterator[np.ndarray]:
        """Rows 0 to n - 1, as many at a time as there are lanes; the last row fills the rest."""
        for at in range(0, n, self.lanes):
            yield np.minimum(np.arange(at, at + self.lanes), n - 1)

    def _told(self, sweeps: int, objective: np.ndarray, residual: np.ndarray) -> None:
        if self.callback is not None:
            k = int(np.argmin(objective))
            self.callback(self.doing, self.sweeps + sweeps, float(objective[k]), float(residual[k]))


def _improved(
    work: _Work, ratings: Ratings, pool: list[Minimum], *, settled: bool
) -> list[Minimum]:
    """The pool, and what moving rows of the lowest minimum leads to, lowest first."""
    sides = zip(ratings.sides(), pool[0].parameters.sides(), strict=True)
    users, guidelines = (_carrying(f, counts(row, rows)) for (row, rows), (_, f) in sides)
    if settled or work.fixed or min(users, guidelines) >= FEW_ROWS:
        work.doing = "moving single guidelines"
        points = _moved(work, ratings, pool[0].parameters)
    else:
        work.doing = "hopping between minima"
        points = _hopped(work, ratings, pool[0], users=users < guidelines)
    return _distinct(pool + work.sweep(points)[0])


def _carrying(f: np.ndarray, count: np.ndarray) -> float:
    """How many rows carry the axis that fewest do: (sum n |f|)^2 / sum (n |f|)^2."""
    strength = count[:, None] * np.abs(f)
    total, squares = strength.sum(axis=0), (strength**2).sum(axis=0)
    return float((total[total > 0] ** 2 / squares[total > 0]).min(initial=np.inf))


def _moved(work: _Work, ratings: Ratings, p: Parameters) -> list[Parameters]:
    """`p` with one guideline's embedding zeroed, turned or raised from zero, wherever that holds
    for a while: a move that does not leads back to `p`.
    """
    f = p.guideline_embedding
    rows = np.argsort(-ratings.per_guideline(), kind="stable")
    rows = rows[~work.sweeper.terms.guidelines.fixed[rows, 0]]
    moves: list[tuple[int, int, float]] = []  # row, axis, new value
    for axis in np.flatnonzero((f != 0).any(axis=0)):
        size = float(np.median(np.abs(f[:, axis][f[:, axis] != 0])))
        for row in rows:
            old = float(f[row, axis])
            new = (0.0, -old) if old else (size, -size)
            moves += [(int(row), int(axis), value) for value in new]
    moves = moves[: min(MAX_MOVES, int(RATINGS_MOVED / len(ratings)))]
    work.moves += len(moves)
    points = []
    for row, axis, value in moves:
        changed = f.copy()
        changed[row, axis] = value
        points.append(replace(p, guideline_embedding=changed))
    ends, _ = work.sweep(points, 0.0, SWEEPS_PER_MOVE)
    return [
        end.parameters
        for (row, axis, _), end in zip(moves, ends, strict=True)
        if np.sign(end.parameters.guideline_embedding[row, axis]) != np.sign(f[row, axis])
    ]


def _hopped(work: _Work, ratings: Ratings, here: Minimum, *, users: bool) -> list[Parameters]:
    """The lowest points that basin hopping finds (Wales and Doye 1997, doi:10.1021/jp970984n).

    A hop draws the embeddings of a few rows of one side anew and sweeps for a while. A batch of
    hops starts from one point; its lowest end is the next batch's if it is lower, or if none was
    for long.
    """
    random = np.random.default_rng([work.settings.seed, 1])
    name = "user_embedding" if users else "guideline_embedding"
    found: list[Minimum] = []
    idle = 0
    for _ in range(0, min(HOPS, int(RATINGS_MOVED / len(ratings))), work.lanes):
        f = getattr(here.parameters, name)
        carries = f != 0
        carrying = np.maximum(carries.sum(axis=0), 1)
        others = np.maximum((~carries).sum(axis=0), 1)
        chance = np.where(carries, CARRYING_REDRAWN / carrying, OTHERS_REDRAWN / others)
        size = np.sqrt((f**2).sum(axis=0) / carrying)
        points = []
        for _ in range(work.lanes):
            redrawn = random.random(f.shape) < np.minimum(chance, 1 / 2)
            new = np.where(redrawn, size * random.standard_normal(f.shape), f)
            points.append(replace(here.parameters, **{name: new}))
        work.moves += len(points)
        points = work.guidelines_for(points) if users else points
        ends, _ = work.sweep(points, max_sweeps=SWEEPS_PER_HOP)
        found = _distinct(found + ends)[:STARTS_PER_BATCH]
        near = LOSS_TOLERANCE * here.objective
        away = [end for end in ends if abs(end.objective - here.objective) > near]
        lowest = min(away, key=lambda end: end.objective, default=here)
        idle += 1
        if lowest.objective < here.objective or idle > MAX_IDLE:
            here, idle = lowest, 0
    return [end.parameters for end in found]


def _distinct(ends: list[Minimum]) -> list[Minimum]:
    """One of each minimum, lowest first."""
    out: list[Minimum] = []
    for end in sorted(ends, key=lambda end: end.objective):
        if not out or end.objective > out[-1].objective * (1 + LOSS_TOLERANCE):
            out.append(end)
    return out


def _reached(losses: np.ndarray, objective: float) -> int:
    """How many losses are this one."""
    return int((np.abs(losses - objective) <= LOSS_TOLERANCE * objective).sum())


def _stacked(points: list[Parameters]) -> Parameters:
    """Side by side: arrays ending in [S]."""
    arrays = zip(*(p.arrays() for p in points), strict=True)
    return Parameters(*(np.stack(x, axis=-1) for x in arrays))


def _unstacked(points: Parameters) -> list[Parameters]:
    return [Parameters(*(x[..., k] for x in points.arrays())) for k in range(points.mu.shape[-1])]


def _side_by_side(curves: list[np.ndarray]) -> np.ndarray:
    """[sweeps, starts]; a curve that ended earlier stays where it ended."""
    longest = max(len(curve) for curve in curves)
    return np.stack([np.pad(c, (0, longest - len(c)), mode="edge") for c in curves], axis=1)
