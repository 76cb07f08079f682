"""Verify: what a run claims, recomputed from its own data by a second implementation."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aggregation import recompute
from aggregation.claims import Claim, claim, files
from aggregation.errors import AggregationError, InputError
from aggregation.folder import RunFolder
from aggregation.manifest import package, read_manifest
from aggregation.params import Params, load_params
from aggregation.recompute import Held, Point, Problem

SAME_LOSS, SAME_NUMBER = 1e-9, 1e-4
"""Numbers agree if losses differ by less than this, relative, and parameters by less, absolute:
the two implementations end at slightly different points of one minimum."""

LOWER = 1e-7
"""A loss lower than the run's by more than this, relative, is another minimum."""

STARTS, SWEEPS = 8, 2000
"""Starts of the second implementation's own search, and sweeps of each."""

LARGE = 2_000_000
"""With more ratings there is no search of its own: a start takes ten seconds a million."""

KEYS = ["accepted_guideline_ids", "guideline_scores", "guideline_intercepts", "user_intercepts"]
KEYS += ["guideline_embeddings", "user_embeddings", "mu"]


@dataclass(frozen=True)
class _World:
    """A run's data, as arrays in an order of their own."""

    params: Params
    users: list[str]
    guidelines: list[str]
    unrated: list[str]
    problem: Problem
    held: Held


def verify(folder: RunFolder, constitution: Path | None = None) -> Iterator[Claim]:
    """What the run claims, one by one, as it is found out; with a constitution, whether the
    run's data and rule give that one. Raises nothing for what is wrong: it is a claim that fails.
    """
    if constitution is None:
        yield from files(folder)
    try:
        world = _world(folder)
    except (AggregationError, OSError, LookupError, TypeError, ValueError) as error:
        yield Claim("data", holds=False, told=f"cannot be used: {error}")
        return
    if constitution is not None:
        yield from _published(world, constitution)
        return
    try:
        fit, point = folder.read_json("model/fit.json"), _point(world, folder)
    except (AggregationError, OSError, LookupError, TypeError, ValueError) as error:
        yield Claim("model", holds=False, told=f"cannot be used: {error}")
        return
    yield claim("numbers", lambda: _numbers(world, fit))
    yield from _model(world, point, fit)
    yield claim("scores and verdicts", lambda: _evidence(world, point, folder))
    yield claim("constitution.json", lambda: _own_body(world, point, folder))
    yield claim("constitution.csv", lambda: _csv(world, point, folder))
    yield claim("report", lambda: _report(folder))


def _world(folder: RunFolder) -> _World:
    params = load_params(folder.path / "params.yaml")
    ratings = folder.read_table("data/ratings.parquet")
    users, user = np.unique(ratings["user_id"].to_numpy(dtype=object), return_inverse=True)
    rated, guideline = np.unique(ratings["guideline_id"].to_numpy(object), return_inverse=True)
    pairs = np.unique(user * len(rated) + guideline)
    value = ratings["helpful"].to_numpy(np.float64)
    if len(pairs) != len(ratings) or not ((value >= 0) & (value <= 1)).all():
        raise InputError("a rating is there twice, or is not between 0 and 1")
    asked = folder.read_table("data/guidelines.parquet")["guideline_id"]
    if not set(rated) <= set(asked):
        raise InputError("a guideline was rated that is not in data/guidelines.parquet")
    w = params.train.weights()
    size = len(users), len(rated)
    problem = Problem(user, guideline, value, size, w.intercept, w.embedding, w.norm, w.per)
    held = _held(params, folder, list(users), list(rated))
    return _World(params, list(users), list(rated), sorted(set(asked) - set(rated)), problem, held)


def _held(params: Params, folder: RunFolder, users: list[str], guidelines: list[str]) -> Held:
    """Rows that an earlier model knew and that were not to move."""
    masks = []
    for name, key, ids in (("users", "user_id", users), ("guidelines", "guideline_id", guidelines)):
        table = folder.read_table(f"data/{name}.parquet")
        known = set(table.loc[table["intercept"].notna() & table["embedding"].notna(), key])
        held = params.train.hold == name
        masks.append(np.array([held and i in known for i in ids]))
    return (masks[0], masks[1]) if params.train.hold else None


def _point(world: _World, folder: RunFolder) -> Point:
    """The model of the run's tables, in the order of `world`."""
    sides = []
    for name, key, ids in (
        ("users", "user_id", world.users),
        ("guidelines", "guideline_id", world.guidelines),
    ):
        table = folder.read_table(f"model/{name}.parquet").set_index(key)
        if sorted(table.index) != sorted(ids):
            raise InputError(f"model/{name}.parquet does not hold exactly those who are in data/")
        rows = table.loc[ids]
        sides.append((rows["intercept"].to_numpy(np.float64), np.stack(list(rows["embedding"]))))
    (i, f), (j, h) = sides
    return Point(float(folder.read_json("model/fit.json")["mu"]), (i, j), (f, h))


def _numbers(world: _World, fit: dict[str, Any]) -> tuple[bool, str]:
    p = world.problem
    train = world.params.train
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


def _model(world: _World, x: Point, fit: dict[str, Any]) -> Iterator[Claim]:
    p, held, tolerance = world.problem, world.held, world.params.train.tolerance
    found = recompute.loss(p, x)
    off = abs(found / fit["objective"] - 1)
    yield Claim("loss", off <= SAME_LOSS, f"{found:.9f}, by the run {fit['objective']:.9f}")
    if fit["method"] == "gradient-descent":
        yield Claim("certificate", holds=None, told="gradient descent claims none")
        return
    worst = recompute.residual(p, x, held)
    agrees = worst <= tolerance and abs(worst - fit["kkt_residual"]) <= SAME_LOSS
    yield Claim(
        "certificate",
        agrees and fit["converged"] is True,
        f"KKT residual {worst:.1e}, by the run {fit['kkt_residual']:.1e}, allowed {tolerance:g}",
    )
    if held is None:
        apart = recompute.balance(p, x)
        same = abs(apart - fit["balance"]) <= SAME_LOSS
        told = f"penalties of the two sides apart by {apart:.1e}, by the run {fit['balance']:.1e}"
        yield Claim("balance", same, told)
    yield claim("fit", lambda: _again(world, x, found))
    yield claim("lowest minimum", lambda: _lower(world, found))


def _again(world: _World, x: Point, found: float) -> tuple[bool, str]:
    """Whether a descent from a coarse copy of the model comes back to it."""
    p, held, told = world.problem, world.held, ""
    for digits in (1, 2, 3):
        coarse = Point(
            round(x.mu, digits) if held is None else x.mu,
            _rounded(x.intercepts, digits, held),
            _rounded(x.embeddings, digits, held),
        )
        end = recompute.descend(p, coarse, 1e-8, SWEEPS, held)
        arrays = zip(
            (*end.intercepts, *end.embeddings), (*x.intercepts, *x.embeddings), strict=True
        )
        apart = max(abs(end.mu - x.mu), *(float(np.abs(a - b).max()) for a, b in arrays))
        told = (
            f"coordinate descent from the model rounded to {digits} decimals ends at "
            f"{recompute.loss(p, end):.9f}, numbers apart by {apart:.0e}"
        )
        if apart <= SAME_NUMBER and abs(recompute.loss(p, end) / found - 1) <= SAME_LOSS:
            return True, told
    return False, told


def _rounded(
    arrays: tuple[np.ndarray, np.ndarray], digits: int, held: Held
) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays rounded, but for the rows that are held."""
    one, other = (np.round(a, digits) for a in arrays)
    if held is not None:
        one[held[0]], other[held[1]] = arrays[0][held[0]], arrays[1][held[1]]
    return one, other


def _lower(world: _World, found: float) -> tuple[bool | None, str]:
    """Whether a search of its own finds no lower minimum."""
    p = world.problem
    if world.held is not None:
        return None, "rows were held, so there is no search to repeat"
    if len(p.rating) > LARGE:
        return None, f"not searched: more than {LARGE:,} ratings"
    train = world.params.train
    end = recompute.search(p, train.dimensions, STARTS, world.params.seed, SWEEPS)
    lowest = recompute.loss(p, end)
    return lowest >= found * (1 - LOWER), f"the lowest of {STARTS} starts is {lowest:.9f}"


def _scored(world: _World, x: Point) -> dict[str, dict[str, Any]]:
    """Scores and verdict of every guideline, by id."""
    p, rule, found = world.problem, world.params.rule, {}
    n = np.bincount(p.guideline, minlength=p.size[1])
    rate = np.bincount(p.guideline, p.rating, p.size[1]) / n
    side = np.sign(x.embeddings[0][:, 0])[p.user]
    for k, g in enumerate(world.guidelines):
        i = x.intercepts[1][k]
        fine = bool(i > rule.min_intercept and rate[k] >= rule.min_helpful_rate)
        enough = bool(n[k] >= rule.min_ratings)
        found[g] = {
            "n_ratings": int(n[k]),
            "helpful_rate": float(rate[k]),
            "intercept": float(i),
            "consensus_score": float((1.1 - rate[k]) * i + rate[k] - 0.1),
            "verdict": "undecided" if not enough else "accepted" if fine else "rejected",
        }
    for word, sign in (("negative", -1), ("positive", 1)):
        of = side == sign
        n = np.bincount(p.guideline[of], minlength=p.size[1])
        helpful = np.bincount(p.guideline[of], p.rating[of], p.size[1])
        for k, g in enumerate(world.guidelines):
            found[g][f"n_ratings_{word}"] = int(n[k])
            found[g][f"helpful_rate_{word}"] = helpful[k] / n[k] if n[k] else np.nan
    sides = {f"n_ratings_{w}": 0 for w in ("negative", "positive")}
    return found | {g: {"n_ratings": 0, "verdict": "undecided", **sides} for g in world.unrated}


def _evidence(world: _World, x: Point, folder: RunFolder) -> tuple[bool, str]:
    scored = _scored(world, x)
    table = folder.read_table("evidence/guidelines.parquet").set_index("guideline_id")
    if sorted(table.index) != sorted(scored):
        return False, "evidence/guidelines.parquet does not hold exactly the guidelines of data/"
    embeddings = dict(zip(world.guidelines, x.embeddings[1].tolist(), strict=True))
    for g, row in zip(table.index, table.to_dict("records"), strict=True):
        for name in scored[world.guidelines[0]]:
            if not _same(row[name], scored[g].get(name, np.nan)):
                return False, f"{name} of guideline {g!r} is {row[name]}, not {scored[g].get(name)}"
        if g in embeddings and list(row["embedding"]) != embeddings[g]:
            return False, f"embedding of guideline {g!r} is not that of the model"
    words = [s["verdict"] for s in scored.values()]
    counts = {word: words.count(word) for word in ("accepted", "undecided", "rejected")}
    summary = folder.read_json("evidence/summary.json")
    if summary != {"rule": world.params.rule.model_dump(), "verdicts": counts}:
        return False, "evidence/summary.json has other numbers, or another rule"
    return True, ", ".join(f"{n} {word}" for word, n in counts.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-12 or (np.isnan(one) and np.isnan(other))
    return one == other


def _body(path: Path) -> dict[str, Any]:
    """A constitution's JSON; a key that is there twice is an error."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise InputError("a key is there twice")
        return dict(pairs)

    body = json.loads(path.read_bytes(), object_pairs_hook=once)
    if sorted(body) != sorted(KEYS):
        raise InputError("it has not exactly the seven keys of a constitution")
    return body


def _body_point(world: _World, body: dict[str, Any]) -> Point:
    """The model in a constitution, in the order of `world`."""
    sides = []
    for name, ids in (("user", world.users), ("guideline", world.guidelines)):
        i, f = body[f"{name}_intercepts"], body[f"{name}_embeddings"]
        if not (sorted(i) == sorted(f) == sorted(ids)):
            raise InputError(f"its {name}s are not those of the ratings")
        sides.append((np.array([i[k] for k in ids], float), np.array([f[k] for k in ids], float)))
    (i, f), (j, h) = sides
    return Point(float(body["mu"]), (i, j), (f, h))


def _decided(world: _World, x: Point, body: dict[str, Any]) -> str:
    """What is wrong with the accepted guidelines and their scores; empty: nothing."""
    scored = _scored(world, x)
    accepted = {g: s for g, s in scored.items() if s["verdict"] == "accepted"}
    if sorted(body["accepted_guideline_ids"]) != sorted(accepted):
        return "accepts other guidelines than the rule does"
    if sorted(body["guideline_scores"]) != sorted(accepted):
        return "has scores of other guidelines than the accepted ones"
    for g, value in body["guideline_scores"].items():
        if not abs(value - accepted[g]["consensus_score"]) <= 1e-12:
            return f"has another score of {g!r}"
    return ""


def _own_body(world: _World, x: Point, folder: RunFolder) -> tuple[bool, str]:
    body = _body(folder.path / "constitution.json")
    own = _body_point(world, body)
    pairs = zip((*own.intercepts, *own.embeddings), (*x.intercepts, *x.embeddings), strict=True)
    if own.mu != x.mu or not all(np.array_equal(a, b) for a, b in pairs):
        return False, "has other parameters than the model"
    if wrong := _decided(world, x, body):
        return False, wrong
    order = [body["guideline_scores"][g] for g in body["accepted_guideline_ids"]]
    if order != sorted(order, reverse=True) or list(body) != KEYS:
        return False, "is in another order than the constitution"
    return True, f"{len(order)} accepted guidelines and the model, number for number"


def _published(world: _World, path: Path) -> Iterator[Claim]:
    """Whether the data give this constitution."""
    try:
        body = _body(path)
        x = _body_point(world, body)
    except (AggregationError, OSError, LookupError, TypeError, ValueError) as error:
        yield Claim("constitution", holds=False, told=f"{path} cannot be of these data: {error}")
        return
    p, train = world.problem, world.params.train
    found, worst = recompute.loss(p, x), recompute.residual(p, x, world.held)
    if train.method == "gradient-descent":
        yield Claim("certificate", holds=None, told="gradient descent claims none")
    else:
        told = f"loss {found:.9f}, KKT residual {worst:.1e}, allowed {train.tolerance:g}"
        yield Claim("certificate", bool(worst <= train.tolerance), told)
        yield claim("lowest minimum", lambda: _lower(world, found))
    wrong = _decided(world, x, body)
    n = len(body["accepted_guideline_ids"])
    yield Claim("verdicts", not wrong, wrong or f"the rule accepts exactly these {n} guidelines")


def _csv(world: _World, x: Point, folder: RunFolder) -> tuple[bool, str]:
    """Whether the table for people says of each guideline what was recomputed."""
    scored = _scored(world, x)
    text = folder.read_bytes("constitution.csv").decode("utf-8-sig")
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    found = {row["guideline_id"].removeprefix("'"): row for row in rows}
    if len(rows) != len(scored) or sorted(found) != sorted(g.removeprefix("'") for g in scored):
        return False, "does not hold exactly the guidelines of data/"
    texts = folder.read_table("data/guidelines.parquet").set_index("guideline_id")["text"]
    for g, score in scored.items():
        row = found[g.removeprefix("'")]
        if row["verdict"] != score["verdict"] or row["text"].removeprefix("'") != texts[
            g
        ].removeprefix("'"):
            return False, f"has another text or verdict of {g!r}"
        for name in ("n_ratings", "helpful_rate", "intercept", "consensus_score"):
            value = score.get(name)
            if row[name] != ("" if value is None else f"{value:.6g}"):
                return False, f"has another {name} of {g!r}"
    return True, f"all {len(rows)} guidelines, as recomputed"


def _report(folder: RunFolder) -> tuple[bool | None, str]:
    """Whether this package writes the report again as it stands."""
    from aggregation.report.index import index_page

    if read_manifest(folder).get("package", {}).get("sha256") != package():
        return None, "made by another version of this package: only its hash was checked"
    params = load_params(folder.path / "params.yaml")
    names = ("run", "title", "question", "participants", "attribution")
    words = {name: getattr(params, name) for name in names}
    page = index_page(folder, **words, near_misses=params.diagnostics.near_misses)
    if page.encode("utf-8") != folder.read_bytes("report/index.html"):
        return False, "report/index.html does not say what data, model and evidence say"
    return True, "report/index.html is what data, model and evidence give"
