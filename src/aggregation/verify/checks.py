"""Verify: what a run claims, recomputed from its own data by a second implementation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from aggregation.model import storage
from aggregation.runs.folder import RunFolder
from aggregation.verify import decisions
from aggregation.verify import reference_solver as recompute
from aggregation.verify.claims import Claim, Given, UnusableError, claim, files, plain, taken
from aggregation.verify.decisions import SAME_LOSS, SAME_NUMBER, SAME_SCORE, decide, verdicts
from aggregation.verify.reference_data import World, body_point, read_body, read_points, read_world
from aggregation.verify.reference_solver import Point

LOWER = 1e-7
"""A loss lower than another by more than this, relative, is another minimum."""

STARTS, MOST, SWEEPS = 8, 128, 2000
"""Starts of the second implementation's own search, at least; at most, while it has not come down
to the loss that is claimed; and sweeps of each."""

WORK = 6_000_000
"""Starts times ratings, beyond which it takes no more than `STARTS`: half a minute."""

LARGE = 2_000_000
"""With more ratings there is no search of its own: a start takes ten seconds a million."""

REPLAYED = Claim(
    "fit",
    holds=None,
    told="gradient descent claims no minimum: only --strict, which repeats it, can tell",
)

TIGHT = 1e-6
"""A fit whose KKT residual may be larger than this may end above its minimum."""

DIGITS = 3
"""Decimals of the copy of the model from which a descent must come back."""


def verify(
    folder: RunFolder, constitution: Path | None = None, *, repeated: bool = False
) -> Iterator[Claim]:
    """What the run claims, one by one, as it is found out; with a constitution, whether the
    run's data and rule give that one. Raises nothing for what is wrong: it is a claim that fails.

    `repeated`: the run is repeated as well, so what only that can tell is no open claim.
    """
    folder = Given(folder.path)
    try:
        yield plain(folder.path)
        yield from files(folder)
        world = taken("data", lambda: read_world(folder))
        if constitution is None:
            yield from _run(world, folder, repeated=repeated)
        else:
            yield from _other(world, folder, constitution, repeated=repeated)
    except UnusableError as error:
        yield error.claim


def _run(world: World, folder: RunFolder, *, repeated: bool) -> Iterator[Claim]:
    """Claims of the run's own model and of what follows from it."""
    fit = taken("model", lambda: folder.read_json("model/fit.json"))
    points = taken("model", lambda: read_points(world, folder, fit))
    x = points[0]
    yield claim("numbers", lambda: _numbers(world, fit, folder))
    yield claim("loss", lambda: _loss(world, x, fit))
    if world.held is not None:
        yield claim("held", lambda: _held(world, x))
    else:
        yield claim("balance", lambda: _balance(world, x, fit))
    if world.params.train.method == "alternating":
        yield claim("certificate", lambda: _certificate(world, x, fit))
        yield claim("fit", lambda: _again(world, x))
        yield claim("lowest minimum", lambda: _lowest(world, x, fit))
    elif not repeated:
        yield REPLAYED
    yield claim("search", lambda: decisions.searched(world, fit))
    found = taken("scores and verdicts", lambda: decide(world, x))
    yield claim("scores and verdicts", lambda: decisions.evidence(found, folder))
    yield claim("other minima", lambda: decisions.minima(world, points, fit, found, folder))
    yield claim("constitution.json", lambda: decisions.own_body(world, x, found, folder))
    yield claim("constitution.csv", lambda: decisions.own_table(world, found, folder))
    yield claim("report", lambda: decisions.report(folder))


def _other(world: World, folder: RunFolder, path: Path, *, repeated: bool) -> Iterator[Claim]:
    """Claims of a constitution from elsewhere, held against the run's data and rule."""
    body = taken("constitution", lambda: read_body(path))
    x = taken("constitution", lambda: body_point(world, body))
    if world.held is not None:
        yield claim("held", lambda: _held(world, x))
    if world.params.train.method == "gradient-descent":
        yield claim("model", lambda: _as_run(world, x, folder))
        yield claim("run's loss", lambda: _loss(world, x, folder.read_json("model/fit.json")))
        if not repeated:
            yield REPLAYED
    else:
        yield claim("certificate", lambda: _certificate(world, x))
        yield claim("fit", lambda: _again(world, x))
        yield claim("run's loss", lambda: _not_above(world, x, folder))
        yield claim("lowest minimum", lambda: _lowest(world, x))
    yield claim("verdicts", lambda: decisions.decided(decide(world, x), body))


def _numbers(world: World, fit: dict[str, Any], folder: RunFolder) -> tuple[bool, str]:
    """Whether model/ holds what a run writes there, all of it and no more, and of this data."""
    p, train = world.problem, world.params.train
    (ratings, ids, _), whole = folder.model(), folder.fit()
    if storage.values(whole, ratings, train.weights()).keys() != fit.keys():
        return False, "model/fit.json has other keys than a run writes"
    for name, table in storage.tables(whole, ids).items():
        if list(table) != list(folder.read_table(f"model/{name}.parquet")):
            return False, f"model/{name}.parquet has other columns than a run writes"
    found = {
        "n_ratings": len(p.rating),
        "n_users": p.size[0],
        "n_guidelines": p.size[1],
        "dimensions": train.dimensions,
        "penalty": asdict(train.weights()),
        "method": train.method,
    }
    wrong = [name for name, value in found.items() if fit[name] != value]
    if wrong:
        return False, f"model/fit.json has another {', '.join(wrong)}"
    return True, f"{len(p.rating):,} ratings by {p.size[0]:,} users of {p.size[1]:,} guidelines"


def _loss(world: World, x: Point, fit: dict[str, Any]) -> tuple[bool, str]:
    found = recompute.loss(world.problem, x)
    told = f"{found:.9f}, by the run {fit['objective']:.9f}"
    return abs(found / fit["objective"] - 1) <= SAME_LOSS, told


def _held(world: World, x: Point) -> tuple[bool, str]:
    """Whether what was not to move is, bit for bit, as the earlier model in data/ has it."""
    assert world.held is not None  # noqa: S101  # only asked where rows are held
    assert world.earlier is not None  # noqa: S101
    n, name = sum(int(mask.sum()) for mask in world.held), world.params.train.hold
    for mask, rows, i, f in zip(world.held, world.earlier, x.intercepts, x.embeddings, strict=True):
        if not np.array_equal(np.column_stack([i, f])[mask], rows[mask]):
            return False, f"{name} are not all as the earlier model in data/ has them"
    if x.mu != world.dataset.mu:
        return False, f"mu is {x.mu}, in the earlier model {world.dataset.mu}"
    return n > 0, f"mu and {n:,} {name} are those of the earlier model in data/"


def _balance(world: World, x: Point, fit: dict[str, Any]) -> tuple[bool, str]:
    apart = recompute.balance(world.problem, x)
    told = (
        f"penalties of users and guidelines apart by {apart:.1e}, by the run {fit['balance']:.1e}"
    )
    return abs(apart - fit["balance"]) <= SAME_LOSS, told


def _certificate(world: World, x: Point, fit: dict[str, Any] | None = None) -> tuple[bool, str]:
    worst = recompute.residual(world.problem, x, world.held)
    tolerance = world.params.train.tolerance
    told = f"KKT residual {worst:.1e}, allowed {tolerance:g}"
    if fit is None:
        return worst <= tolerance, told
    same = abs(worst - fit["kkt_residual"]) <= SAME_LOSS and fit["converged"] is True
    return worst <= tolerance and same, f"{told}, by the run {fit['kkt_residual']:.1e}"


def _again(world: World, x: Point) -> tuple[bool, str]:
    """Whether a descent from a coarse copy of the model comes back to it.

    Where the loss hardly rises in some direction it stops short of it, and where the fit was
    allowed to stop early it goes further: then decisions count.
    """
    p, early = world.problem, world.params.train.tolerance > TIGHT
    coarse = recompute.kept(
        Point(
            round(x.mu, DIGITS),
            (x.intercepts[0].round(DIGITS), x.intercepts[1].round(DIGITS)),
            (x.embeddings[0].round(DIGITS), x.embeddings[1].round(DIGITS)),
        ),
        x,
        world.held,
    )
    end = recompute.aligned(p, recompute.descend(p, coarse, 1e-8, SWEEPS, world.held), x)
    loss, apart = recompute.loss(p, end), _apart(end, x)
    told = (
        f"coordinate descent from the model rounded to {DIGITS} decimals ends at {loss:.9f}, "
        f"numbers apart by {apart:.0e}"
    )
    above = loss / recompute.loss(p, x) - 1
    if not (above if early else abs(above)) <= SAME_LOSS:
        return False, told
    if apart <= SAME_NUMBER:
        return True, told
    same = verdicts(decide(world, end)) == verdicts(decide(world, x))
    return same, f"{told}; {'the same' if same else 'other'} verdicts"


def _apart(one: Point, other: Point) -> float:
    """Largest difference of two numbers."""
    pairs = zip(
        (one.mu, *one.intercepts, *one.embeddings),
        (other.mu, *other.intercepts, *other.embeddings),
        strict=True,
    )
    return float(np.max([np.abs(a - b).max() for a, b in pairs]))


def _lowest(world: World, x: Point, fit: dict[str, Any] | None = None) -> tuple[bool | None, str]:
    """Whether a search of its own comes down to this loss, and not lower."""
    p = world.problem
    claimed, lowest = recompute.loss(p, x), np.inf
    listed = [end["objective"] for end in fit["minima"]] if fit else []
    if min(listed, default=claimed) < claimed * (1 - LOWER):
        return False, f"model/fit.json itself has a lower one, {min(listed):.9f}"
    if len(p.rating) > LARGE:
        return None, f"not searched: more than {LARGE:,} ratings"
    most = min(MOST, max(STARTS, WORK // len(p.rating)))
    ends = recompute.search(p, x, world.params.seed, SWEEPS, world.held)
    for number, (_, loss) in enumerate(islice(ends, most), start=1):
        lowest = min(lowest, loss)
        told = f"the lowest of {number} starts is {lowest:.9f}"
        if lowest < claimed * (1 - LOWER):
            return False, f"{told}, lower than {claimed:.9f}"
        if number >= STARTS and lowest <= claimed * (1 + LOWER):
            return True, told
    return None, f"its own search, {most} starts, only reached {lowest:.9f}, not {claimed:.9f}"


def _not_above(world: World, x: Point, folder: RunFolder) -> tuple[bool, str]:
    found, own = recompute.loss(world.problem, x), folder.read_json("model/fit.json")["objective"]
    told = f"loss {found:.9f}, by the run {own:.9f}"
    return found <= own * (1 + LOWER), told


def _as_run(world: World, x: Point, folder: RunFolder) -> tuple[bool, str]:
    """Whether a model that claims no minimum is the run's own, but for the signs of the axes."""
    own = read_points(world, folder, folder.read_json("model/fit.json"))[0]
    (f, h), (f_own, h_own) = x.embeddings, own.embeddings
    sign = np.where(np.sum(f * f_own, axis=0) + np.sum(h * h_own, axis=0) < 0, -1, 1)
    apart = _apart(Point(x.mu, x.intercepts, (f * sign, h * sign)), own)
    return apart <= SAME_SCORE, f"numbers apart from the run's own model by {apart:.0e}"
