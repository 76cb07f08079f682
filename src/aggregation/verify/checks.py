"""Checks: what a run's folder claims, recomputed from its own data/ by the reference solver.

A check reads what it needs and answers for one claim. Whatever a damaged or forged file makes a
library raise fails the claims that need this file, never the whole verification.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aggregation.data.dataset import Dataset
from aggregation.data.fingerprint import fingerprints
from aggregation.decisions.constitution import Constitution, select
from aggregation.decisions.payload import Payload
from aggregation.decisions.rules import COMMUNITY_NOTES_STATUS
from aggregation.decisions.scores import with_columns, with_unrated
from aggregation.errors import AggregationError, InputError
from aggregation.evidence.note_status import status_columns
from aggregation.evidence.two_sides import two_sides, with_two_sides
from aggregation.files import checksum_holds, sha256
from aggregation.model.parameters import Parameters, Penalty, from_tables
from aggregation.model.ratings import Ids, Ratings
from aggregation.params.loading import load_params
from aggregation.params.schema import Params
from aggregation.runs.folder import RunFolder
from aggregation.runs.stages import OUTLIVE
from aggregation.verify import reference_solver as solver
from aggregation.verify.compare import named_files, read, same
from aggregation.verify.reference_solver import Point, Problem

LOSS_TOLERANCE = 1e-9
"""Relative: losses and residuals of one point differ by less between the two implementations."""

MINIMUM_TOLERANCE = 1e-7
"""Relative: a loss that is lower by more belongs to another minimum. docs/method.md, "Search"."""

STARTS, SWEEPS = 8, 2000
"""Starts of the search for a lower minimum, and sweeps of each at most."""

MAX_SEARCHED_RATINGS = 2_000_000
"""With more ratings there is no search: a start takes ten seconds a million."""

SIDES = (("users", "user_id"), ("guidelines", "guideline_id"))
"""Tables of the two sides and their ids."""

RECEIPTS = ("source/receipt.json", "published/receipt.json", "published/known.json")
"""What says when something was asked of the platform or sent to it, and under which address."""

NOTE = (
    "note   Nobody can recompute the commit and its dirty flag, timing.json, receipts and the "
    "addresses in them."
)
NOTE_WITHOUT_STRICT = (
    f"{NOTE} Only --strict compares the source, notebooks, pages, tables for people, the other "
    "minima, the evidence beside the verdicts and the search."
)
"""What a verification says nothing about."""


@dataclass(frozen=True)
class Claim:
    """One statement of a run."""

    what: str
    holds: bool | None
    """None: open, it cannot be told here."""
    told: str

    def __str__(self) -> str:
        word = {True: "holds", False: "FAILS", None: "open "}[self.holds]
        told = "".join(c if c.isprintable() else "\ufffd" for c in self.told)
        return f"{word}  {self.what}: {told[:400]}"


Told = tuple[bool | None, str]
"""Whether a claim holds, and details."""


def claim(what: str, check: Callable[[], Told]) -> Claim:
    """The claim as `check` finds it. It fails where `check` raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # overflows of numbers that no run writes
            holds, told = check()
    except Exception as error:  # whatever a damaged file makes any library raise
        return failure(what, error)
    return Claim(what, None if holds is None else bool(holds), told)


def failure(what: str, error: Exception) -> Claim:
    """The claim that fails because of `error`."""
    words = " ".join(str(error).split())
    if not isinstance(error, AggregationError):
        words = f"a file holds what no run writes ({words})"
    return Claim(what, holds=False, told=f"cannot be checked: {words}")


def contents(path: Path) -> list[Path]:
    """Everything in a folder and below, but folders; linked folders too."""
    return [p for p in sorted(path.rglob("*")) if p.is_symlink() or not p.is_dir()]


def plain_files(path: Path) -> Claim:
    """Whether a folder holds nothing but files, so that whatever is opened has an end."""
    odd = [str(p.relative_to(path)) for p in contents(path) if not p.is_file()]
    told = f"nothing was opened, since these are no files: {', '.join(odd)}"
    return Claim("plain files", not odd, told if odd else "no pipes, devices or linked folders")


def verify(
    folder: RunFolder, constitution: Path | None = None, *, strict: bool = False
) -> Iterator[Claim]:
    """The claims of a run, one by one as they are checked. Raises nothing for what is wrong.

    With `constitution`, a published JSON file, also whether the run's data and rule give it.
    `strict`: the run is repeated as well (see `rerun`), so what only a rerun can tell is no open
    claim.
    """
    path, plain = folder.path, plain_files(folder.path)
    yield plain
    if not plain.holds:
        return
    yield claim("files", lambda: _files(path))
    yield claim("no others", lambda: _others(path))
    try:
        data, fit = read_data(folder), read(path, "model/fit.json")
        x = _model(data, path, fit["mu"])
    except Exception as error:  # whatever a damaged file makes any library raise
        yield failure("data and model", error)
        return
    train = data.params.train
    yield claim("data and model", lambda: _belong(data, path, fit))
    yield claim("loss", lambda: _loss(data, x, fit))
    if train.hold is not None:
        yield claim("fixed", lambda: _fixed(data, x))
    if train.method == "alternating":
        yield claim("KKT residual", lambda: _residual(data, x, fit))
        yield claim("lowest minimum", lambda: _lowest(data, x))
    elif not strict:
        told = "gradient descent claims no minimum: only --strict, which repeats it, can tell"
        yield Claim("fit", holds=None, told=told)
    yield claim("scores and verdicts", lambda: _evidence(data, x, path))
    yield claim(
        "constitution.json", lambda: _payload(data, x, path / "constitution.json", own=True)
    )
    if constitution is not None:
        yield claim("published constitution", lambda: _payload(data, x, constitution))
    if receipts := [n for n in RECEIPTS if (path / n).exists()]:
        told = f"what {', '.join(receipts)} say, and the address in them, nobody can check here"
        yield Claim("receipts", holds=None, told=told)
    if data.params.demographics is not None:
        yield Claim("demographics", holds=None, told="as Prolific answered then, only once")


# files


def _files(path: Path) -> Told:
    manifest = read(path, "manifest.json")
    if not checksum_holds(manifest):
        return False, "manifest.json was changed since it was written"
    named = named_files(manifest)
    wrong = [n for n in named if not (path / n).is_file() or sha256(path / n) != named[n]]
    if wrong:
        return False, f"{len(wrong)} of {len(named)} changed or gone: {', '.join(wrong)}"
    return True, f"all {len(named)} have the hashes in manifest.json"


def _others(path: Path) -> Told:
    known = {"manifest.json", "timing.json", *named_files(read(path, "manifest.json"))}
    others = []
    for name in (p.relative_to(path) for p in contents(path)):
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and name.parts[0] not in OUTLIVE and name.as_posix() not in known:
            others.append(name.as_posix())
    if others:
        return False, f"not the run's, manifest.json does not name them: {', '.join(others)}"
    return True, "manifest.json names every file, but hidden ones"


# data and model


@dataclass(frozen=True)
class Data:
    """A run's parameters and data, with rows sorted by id."""

    params: Params
    dataset: Dataset
    ids: tuple[list[str], list[str]]
    """Users and guidelines with ratings."""
    problem: Problem
    earlier: Parameters | None
    """With `train.hold`, the earlier model in data/: NaN where it does not know a row."""


def read_data(folder: RunFolder) -> Data:
    """The data of a run. Raises whatever a damaged file makes a library raise."""
    params, dataset = load_params(folder.path / "params.yaml"), folder.dataset()
    train, w = params.train, params.train.weights()
    columns = [dataset.ratings[key].to_numpy(dtype=object) for _, key in SIDES]
    (users, user), (rated, guideline) = (np.unique(c, return_inverse=True) for c in columns)
    value, size = dataset.ratings["helpful"].to_numpy(np.float64), (len(users), len(rated))
    pairs = np.unique(user * len(rated) + guideline)
    if not 0 < len(pairs) == len(value) or not ((value >= 0) & (value <= 1)).all():
        raise InputError("there is no rating, one is there twice, or is not between 0 and 1")
    p = Problem(user, guideline, value, size, w.intercept, w.embedding, w.norm, w.per)
    ids, earlier = (list(users), list(rated)), None
    if train.hold is not None:
        index = Ids(*(pd.Index(side, dtype="str") for side in ids))
        tables = (dataset.users, dataset.guidelines)
        earlier = from_tables(*tables, dataset.mu, index, train.dimensions)
        if earlier is None:
            raise InputError("data/ holds no earlier model, so nothing can be fixed")
        users, guidelines = (np.isfinite(intercept) for intercept, _ in earlier.sides())
        fixed = (users & (train.hold == "users"), guidelines & (train.hold == "guidelines"))
        p = replace(p, fixed=fixed)
    return Data(params, dataset, ids, p, earlier)


def _model(data: Data, path: Path, mu: float) -> Point:
    """The model in model/."""
    tables = (read(path, f"model/{name}.parquet").set_index(key) for name, key in SIDES)
    return _point(data, mu, *((t["intercept"].to_dict(), t["embedding"].to_dict()) for t in tables))


def _point(data: Data, mu: float, *sides: tuple[dict[str, Any], dict[str, Any]]) -> Point:
    """A model from the intercepts and embeddings by id, of users and of guidelines."""
    arrays, axes = [], data.params.train.dimensions
    for (intercepts, embeddings), ids, (name, _) in zip(sides, data.ids, SIDES, strict=True):
        if not (intercepts.keys() == embeddings.keys() == set(ids)):
            raise InputError(f"the model's {name} are not exactly those of the ratings")
        i = np.array([intercepts[k] for k in ids], np.float64)
        f = np.array([embeddings[k] for k in ids], np.float64)
        if f.shape != (len(ids), axes) or not np.isfinite([mu, i.sum(), f.sum()]).all():
            raise InputError(f"a number of the model's {name} is missing, too much or not finite")
        arrays.append((i, f))
    (i, f), (j, h) = arrays
    return Point(float(mu), (i, j), (f, h))


def _belong(data: Data, path: Path, fit: dict[str, Any]) -> Told:
    """Whether data/ is what the manifest says was read, and model/ was fitted to it as asked."""
    p, train = data.problem, data.params.train
    if read(path, "manifest.json")["tables"] != fingerprints(data.dataset):
        return False, "data/ holds other content than manifest.json says"
    told = {"method": train.method, "dimensions": train.dimensions, "converged": True}
    told |= {"penalty": asdict(train.weights()), "n_ratings": len(p.rating)}
    told |= {"n_users": p.size[0], "n_guidelines": p.size[1]}
    told |= {key: fit["minima"][0][key] for key in ("objective", "kkt_residual", "mu")}
    if wrong := [name for name, value in told.items() if not same(fit[name], value)]:
        return False, f"model/fit.json has another {', '.join(wrong)}"
    return True, f"{len(p.rating):,} ratings by {p.size[0]:,} users of {p.size[1]:,} guidelines"


def _loss(data: Data, x: Point, fit: dict[str, Any]) -> Told:
    found = solver.loss(data.problem, x)
    told = f"{found:.9f}, by the run {fit['objective']:.9f}"
    return abs(found / fit["objective"] - 1) <= LOSS_TOLERANCE, told


def _fixed(data: Data, x: Point) -> Told:
    """Whether the rows that `train.hold` fixes are, bit for bit, those of the earlier model."""
    earlier, fixed, name = data.earlier, data.problem.fixed, data.params.train.hold
    assert earlier is not None and fixed is not None  # noqa: S101, PT018
    side = ("users", "guidelines").index(str(name))
    rows, n, (i, f) = fixed[side], int(fixed[side].sum()), earlier.sides()[side]
    pairs = [(x.mu, earlier.mu), (x.intercepts[side][rows], i[rows])]
    if not all(np.array_equal(a, b) for a, b in [*pairs, (x.embeddings[side][rows], f[rows])]):
        return False, f"mu or {name} are not all as the earlier model in data/ has them"
    return n > 0, f"mu and {n:,} {name} are those of the earlier model in data/"


def _residual(data: Data, x: Point, fit: dict[str, Any] | None = None) -> Told:
    """Whether the point is a stationary one. `fit`: and has the residual that the run claims."""
    found, tolerance = solver.residual(data.problem, x), data.params.train.tolerance
    told = f"{found:.1e}, allowed {tolerance:g}"
    claimed = found if fit is None else fit["kkt_residual"]
    told += "" if fit is None else f", by the run {claimed:.1e}"
    return found <= tolerance and abs(found - claimed) <= LOSS_TOLERANCE, told


def _lowest(data: Data, x: Point) -> Told:
    """Whether no own start ends at a lower loss."""
    p, claimed, lowest = data.problem, solver.loss(data.problem, x), np.inf
    if len(p.rating) > MAX_SEARCHED_RATINGS:
        return None, f"not searched: more than {MAX_SEARCHED_RATINGS:,} ratings"
    for end in solver.search(p, x, data.params.seed, STARTS, SWEEPS):
        lowest = min(lowest, solver.loss(p, end))
        if lowest < claimed * (1 - MINIMUM_TOLERANCE):
            return False, f"an own start ends at {lowest:.9f}, lower than {claimed:.9f}"
    return True, f"the lowest of {STARTS} own starts is {lowest:.9f}"


# decisions


def decide(data: Data, x: Point) -> Constitution:
    """Scores and verdicts that follow from a model by the rule."""
    p, (f, h), j = data.problem, x.embeddings, x.intercepts[1]
    n = np.bincount(p.guideline, minlength=p.size[1])
    rate = np.bincount(p.guideline, p.rating, p.size[1]) / n
    scores = pd.DataFrame(
        {
            "n_ratings": n,
            "helpful_rate": rate,
            "intercept": j,
            "embedding": h.tolist(),
            "consensus_score": (1.1 - rate) * j + rate - 0.1,
        },
        index=pd.Index(data.ids[1], dtype="str", name="guideline_id"),
    )
    sign = np.sign(f[:, 0])
    larger = 1 if np.count_nonzero(sign > 0) >= np.count_nonzero(sign < 0) else -1
    for word, of in (("smaller", -larger), ("larger", larger)):
        here = (sign == of)[p.user].astype(float)
        scores[f"n_ratings_{word}"] = n_side = np.bincount(p.guideline, here, p.size[1])
        helpful = np.bincount(p.guideline, here * p.rating, p.size[1])
        scores[f"helpful_rate_{word}"] = helpful / np.where(n_side > 0, n_side, np.nan)
    scores = scores.reset_index()
    ratings = Ratings(p.user.astype(np.int32), p.guideline.astype(np.int32), p.rating, *p.size)
    ids = Ids(*(pd.Index(side, dtype="str") for side in data.ids))
    scores = with_two_sides(scores, two_sides(ratings), ids)
    rule = data.params.rule.rule()
    if rule.name == COMMUNITY_NOTES_STATUS.name:
        penalty = Penalty(p.intercept, p.embedding, p.norm, p.per)
        model = Parameters(np.float64(x.mu), x.intercepts[0], f, j, h)
        at = data.dataset.ratings["rated_at"]
        scores = with_columns(scores, ids, status_columns(ratings, model, penalty, at, rule))
    scores = with_unrated(scores, data.dataset.guidelines["guideline_id"])
    return select(scores, rule)


def _evidence(data: Data, x: Point, path: Path) -> Told:
    """Whether every guideline has its scores, verdict and reasons, in order, and the summary."""
    found, told = decide(data, x), read(path, "evidence/guidelines.parquet")
    ids = found.scores["guideline_id"]
    if list(told["guideline_id"]) != list(ids):
        return False, "evidence/guidelines.parquet has other guidelines, or another order"
    for name, own in found.scores.items():
        for guideline, one, other in zip(ids, told[name], own, strict=True):
            if not same(one, other):
                return False, f"{name} of guideline {guideline!r} is {one}, not {other}"
    verdicts = found.verdicts()
    summary = {"rule": found.rule.as_json(), "verdicts": verdicts}
    told = read(path, "evidence/summary.json")
    if not same({name: told[name] for name in summary}, summary):
        return False, "evidence/summary.json has other numbers, or another rule"
    return True, ", ".join(f"{n} {word}" for word, n in verdicts.items())


def _payload(data: Data, x: Point, path: Path, *, own: bool = False) -> Told:
    """Whether a constitution, of this run or from elsewhere, is what data and rule give.

    One from elsewhere may hold another minimum that is as low, where the method ends at minima.
    """
    if not path.is_file():  # a pipe or a device may have no end
        raise InputError(f"{path.name} is no file, or is not there")
    c, p = Payload.model_validate_json(path.read_bytes()), data.problem
    users = (c.user_intercepts, c.user_embeddings)
    model = _point(data, c.mu, users, (c.guideline_intercepts, c.guideline_embeddings))
    if own or data.params.train.method == "gradient-descent":
        if not all(np.array_equal(a, b) for a, b in zip(model.arrays(), x.arrays(), strict=True)):
            return False, "it holds another model than model/"
    else:
        if solver.loss(p, model) > solver.loss(p, x) * (1 + MINIMUM_TOLERANCE):
            return False, f"its loss is {solver.loss(p, model):.9f}, above the run's"
        stationary, told = _residual(data, model)
        if not stationary:
            return False, f"its KKT residual is {told}"
        if p.fixed is not None and not (told := _fixed(data, model))[0]:
            return told
    accepted = decide(data, model).accepted.sort_values("guideline_id")
    scores = dict(zip(accepted["guideline_id"], accepted["consensus_score"], strict=True))
    if c.accepted_guideline_ids != list(scores):
        return False, "it accepts other guidelines than the rule does, or in another order"
    if not same(c.guideline_scores, scores):
        return False, "it has other scores of the accepted guidelines"
    return True, f"the rule accepts exactly these {len(scores)} guidelines"
