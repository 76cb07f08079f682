"""Decisions: what follows from a model by the rule, and whether a run's files say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aggregation.data.cards import many
from aggregation.decisions.constitution import Constitution, select
from aggregation.decisions.payload import Payload, body, payload
from aggregation.decisions.table import table
from aggregation.evidence.minima import minima_table
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids
from aggregation.params import load_params
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import package, read_manifest
from aggregation.verify import reference_solver as recompute
from aggregation.verify.reference_data import World
from aggregation.verify.reference_solver import Point

SAME_LOSS, SAME_NUMBER = 1e-9, 1e-4
"""Numbers agree if losses differ by less than this, relative, and parameters by less, absolute:
the two implementations end at slightly different points of one minimum."""

SAME_SCORE = 1e-12
"""Scores of a published constitution agree if they differ by less."""

SAME_MINIMUM, AGREE, BATCH = 1e-7, 3, 8
"""Losses within this, relative, are one minimum; a search is settled if so many starts reach the
lowest, and makes so many more until it is. docs/method.md, "Search"."""


def decide(world: World, x: Point) -> Constitution:
    """Scores, recomputed, and the verdicts that follow, by the rule and by what it says.

    Raises InputError if these two do not agree.
    """
    p, rule = world.problem, world.params.rule
    guidelines, (f, h) = world.ids[1], x.embeddings
    n = np.bincount(p.guideline, minlength=p.size[1])
    rate = np.bincount(p.guideline, p.rating, p.size[1]) / n
    intercept = x.intercepts[1]
    columns: dict[str, Any] = {
        "guideline_id": pd.Series(guidelines, dtype="str"),
        "n_ratings": n,
        "helpful_rate": rate,
        "intercept": intercept,
        "embedding": h.tolist(),
        "consensus_score": (1.1 - rate) * intercept + rate - 0.1,
    }
    for word, of in (("negative", f[:, 0] < 0), ("positive", f[:, 0] > 0)):
        here = of[p.user]
        n_side = np.bincount(p.guideline[here], minlength=p.size[1])
        helpful = np.bincount(p.guideline[here], p.rating[here], p.size[1])
        columns[f"n_ratings_{word}"] = n_side
        columns[f"helpful_rate_{word}"] = np.where(
            n_side > 0, helpful / np.maximum(n_side, 1), np.nan
        )
    every = pd.Series(world.dataset.guidelines["guideline_id"], dtype="str", name="guideline_id")
    scores = pd.DataFrame(columns).set_index("guideline_id").reindex(every).reset_index()
    counts = [name for name in columns if name.startswith("n_ratings")]
    scores[counts] = scores[counts].fillna(0).astype("int64")
    return select(scores, rule.rule())


def verdicts(found: Constitution) -> dict[str, str]:
    """Verdict of each guideline."""
    return dict(zip(found.scores["guideline_id"], found.scores["verdict"], strict=True))


def evidence(found: Constitution, folder: RunFolder) -> tuple[bool, str]:
    """Scores, verdicts and reasons of every guideline, in their order, and the summary."""
    told = folder.read_table("evidence/guidelines.parquet")
    if list(told.columns) != list(found.scores.columns) or len(told) != len(found.scores):
        return False, "evidence/guidelines.parquet has other columns, or not one row a guideline"
    ids = list(found.scores["guideline_id"])
    for name in found.scores:
        for g, one, other in zip(ids, told[name], found.scores[name], strict=True):
            if _plain(one) != _plain(other):
                return False, f"{name} of guideline {g!r} is {_plain(one)}, not {_plain(other)}"
    words = list(found.scores["verdict"])
    counts = {word: words.count(word) for word in ("accepted", "undecided", "rejected")}
    if folder.read_json("evidence/summary.json") != {
        "rule": found.rule.as_json(),
        "verdicts": counts,
    }:
        return False, "evidence/summary.json has other numbers, or another rule"
    return True, ", ".join(f"{n} {word}" for word, n in counts.items())


def _plain(value: Any) -> Any:
    """A cell of a table, without the types of libraries; what is missing is None."""
    if isinstance(value, list | np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return None if pd.isna(value) else value


def own_body(world: World, x: Point, found: Constitution, folder: RunFolder) -> tuple[bool, str]:
    """Whether constitution.json is, byte for byte, the model and what the rule accepts."""
    (i, j), (f, h) = x.intercepts, x.embeddings
    ids = Ids(*(pd.Index(names, dtype="str") for names in world.ids))
    whole = payload(found, Parameters(np.float64(x.mu), i, f, j, h), ids)
    if body(whole).encode("utf-8") != folder.read_bytes("constitution.json"):
        return False, "constitution.json is not what model and rule give"
    n = len(whole.accepted_guideline_ids)
    return True, f"{n} accepted guidelines and the model, byte for byte"


def own_table(world: World, found: Constitution, folder: RunFolder) -> tuple[bool, str]:
    """Whether constitution.csv says of each guideline, byte for byte, what was recomputed."""
    text = "\ufeff" + table(found, world.dataset)
    if text.encode("utf-8") != folder.read_bytes("constitution.csv"):
        return False, "constitution.csv is not what data, model and rule give"
    return True, f"all {len(found.scores)} guidelines, byte for byte"


def decided(found: Constitution, body_given: Payload) -> tuple[bool, str]:
    """Whether a published constitution accepts what the rule does, with these scores, in order."""
    accepted, given = found.accepted, body_given.accepted_guideline_ids
    ids = list(accepted["guideline_id"])
    if sorted(given) != sorted(ids):
        return False, "it accepts other guidelines than the rule does"
    if given != ids:
        return False, "its accepted guidelines are in another order than their scores"
    if sorted(body_given.guideline_scores) != sorted(ids):
        return False, "it has scores of other guidelines than the accepted ones"
    for g, score in zip(ids, accepted["consensus_score"], strict=True):
        if abs(body_given.guideline_scores[g] - score) > SAME_SCORE:
            return False, f"it has another score of {g!r}"
    return True, f"the rule accepts exactly these {len(ids)} guidelines"


def minima(
    world: World,
    points: list[Point],
    fit: dict[str, Any],
    found: Constitution,
    folder: RunFolder,
) -> tuple[bool, str]:
    """Whether the other minima are what they claim, and would decide as evidence/ says."""
    ends, replayed = fit["minima"], fit["method"] == "gradient-descent"
    same = ("objective", "kkt_residual", "converged", "mu")
    if any(ends[0][name] != fit[name] for name in same):
        return False, "the first minimum of model/fit.json is not the fit"
    for number, (x, end) in enumerate(zip(points, ends, strict=True), start=1):
        loss, worst = (
            recompute.loss(world.problem, x),
            recompute.residual(world.problem, x, world.held),
        )
        apart = abs(loss / end["objective"] - 1), abs(worst - end["kkt_residual"])
        ended = replayed or worst <= world.params.train.tolerance  # a replay by a rule of its own
        if not all(a <= SAME_LOSS for a in apart) or end["converged"] is not ended:
            return False, f"minimum {number} has loss {loss:.9f} and KKT residual {worst:.1e}"
    number = len(points)
    told = folder.read_table("model/minima.parquet")
    own = {
        "minimum": np.repeat(np.arange(1, number + 1), len(world.ids[1])).tolist(),
        "guideline_id": world.ids[1] * number,
        "intercept": np.concatenate([x.intercepts[1] for x in points]).tolist(),
    }
    if {name: told[name].tolist() for name in told} != own:
        return False, "model/minima.parquet has other intercepts than model/guidelines.parquet"
    would = minima_table(found.scores, found.rule, told, ends).to_dict("records")
    if folder.read_json("evidence/minima.json") != would:
        return False, "evidence/minima.json says otherwise what they would accept"
    return True, f"{number}, with the losses that they claim, and what each would accept"


def searched(world: World, fit: dict[str, Any]) -> tuple[bool, str]:
    """Whether what the fit says of its search agrees with itself, and its blocks with the data.

    Which loss each start ended at is taken as written.
    """
    losses, train = np.array(fit["starts"], np.float64), world.params.train
    replayed = fit["method"] == "gradient-descent"

    def reached(loss: float, of: np.ndarray = losses) -> int:
        return int((np.abs(of - loss) <= SAME_MINIMUM * loss).sum())

    def agree(n: int) -> bool:
        return not replayed and reached(losses[:n].min(), losses[:n]) >= AGREE

    n = 1 if replayed else train.starts
    while not replayed and not agree(n) and n < min(train.max_starts, len(losses) + 1):
        n = min(n + BATCH, train.max_starts)
    settled = agree(len(losses))
    wrong = {
        "its starts": not losses.min() >= fit["objective"] * (1 - SAME_LOSS)
        or not n == len(losses) == len(fit["start_kinds"]) == len(fit["start_continuation"]),
        "n_minima": fit["n_minima"] != _distinct(losses),
        "settled": fit["settled"] is not settled,
        "how many starts reached a minimum": any(
            end["starts"] != reached(end["objective"]) for end in fit["minima"]
        ),
        "n_blocks": fit["n_blocks"] != recompute.blocks(world.problem),
        "warm_start": fit["warm_start"] is not (fit["start_kinds"][0] == "earlier model"),
    }
    if any(wrong.values()):
        return False, f"not so: {', '.join(name for name, bad in wrong.items() if bad)}"
    words = f"{many(len(losses), 'start')}, {'' if settled else 'not '}settled"
    return True, f"{words}; {many(fit['n_blocks'], 'block')} in the data"


def _distinct(losses: np.ndarray) -> int:
    """How many different minima these are the losses of."""
    lowest: list[float] = []
    for loss in sorted(losses.tolist()):
        if not lowest or loss > lowest[-1] * (1 + SAME_MINIMUM):
            lowest.append(loss)
    return len(lowest)


def report(folder: RunFolder) -> tuple[bool | None, str]:
    """Whether this package writes the report again as it stands."""
    from aggregation import __version__
    from aggregation.report.index import index_page
    from aggregation.runs.pages import demographics_counts, stages_shown

    params = load_params(folder.path / "params.yaml")
    names = ("run", "title", "question", "participants", "attribution")
    ratings, ids, _ = folder.model()
    page = index_page(
        folder.dataset(),
        ratings,
        ids,
        folder.fit(),
        folder.constitution(),
        folder.read_json("evidence/minima.json"),
        **{name: getattr(params, name) for name in names},
        near_misses=params.diagnostics.near_misses,
        penalty=params.train.weights(),
        demographics=demographics_counts(folder),
        stages=stages_shown(folder),
        version=__version__,
    )
    if page.encode("utf-8") == folder.read_bytes("report/index.html"):
        return True, "report/index.html is what data, model and evidence give"
    if read_manifest(folder).get("package", {}).get("sha256") != package():
        return None, "this version of the package writes report/index.html otherwise"
    return False, "report/index.html does not say what data, model and evidence say"
