"""Plots: the figures of the notebooks and the report, as pictures with alt text.

Guidelines are marked by their number in the constitution, never by their text: texts are long,
in any script, and written by strangers.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import pandas as pd
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aggregation.decisions.rules import ACCEPTED, REJECTED, UNDECIDED, Rule
from aggregation.evidence.sides import Perspectives
from aggregation.model.ratings import Ids, Ratings

HELPFUL_COLOUR, NOT_HELPFUL_COLOUR, USERS_COLOUR = "#0072B2", "#D55E00", "#009E73"
QUIET = "#8a8a8a"
"""Blue, vermilion and green of Okabe and Ito (2008), which the colour-blind tell apart; a grey."""

P = ParamSpec("P")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}
"""On top of Matplotlib's defaults; a matplotlibrc of the user's or the folder's does not count."""

WIDTH, DPI = 7.2, 160
"""Inches and dots per inch: at the report's 720 pixels, text is 11 pixels or larger."""


@dataclass(frozen=True)
class Picture:
    """A PNG and the words for those who cannot see it. Shows itself in a notebook."""

    png: bytes
    alt: str

    def data_uri(self) -> str:
        """The picture as a URI that needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, object]]:
        data = {"image/png": base64.b64encode(self.png).decode("ascii"), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def _styled(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """Draws the same way whatever settings of Matplotlib there are, and leaves them as they are."""

    @wraps(draw)
    def styled(*args: P.args, **given: P.kwargs) -> Picture:
        with rc_context():
            rcdefaults()
            rcParams.update(STYLE)
            return draw(*args, **given)

    return styled


@_styled
def loss_curve(history: pd.DataFrame) -> Picture:
    """How far each start is above the lowest loss found, after each sweep.

    `history` has the columns sweep, start (from 1), loss.
    """
    table = history.pivot(index="sweep", columns="start", values="loss")
    lowest, best = float(table.iloc[-1].min()), table.iloc[-1].idxmin()
    floor = 1e-9
    other = min(set(table.columns) - {best}, default=None)  # one entry in the legend for them all
    figure, (axes,) = _figure(1, height=3.4)
    for start in table.columns:
        won = start == best
        axes.plot(
            table.index,
            np.maximum(table[start] - lowest, floor),
            color=HELPFUL_COLOUR if won else QUIET,
            linewidth=2.2 if won else 1,
            zorder=3 if won else 2,
            label="lowest start" if won else "other starts" if start == other else None,
        )
    axes.set(yscale="log", xlabel="sweep", ylabel=f"loss above the lowest\n(cut off at {floor:g})")
    axes.legend()
    ends = table.iloc[-1]
    same = int((ends < lowest + 1e-6).sum())
    return _picture(
        figure,
        f"Loss of {ends.size} starts over {len(table)} sweeps. The lowest ends at {lowest:.6f}; "
        f"{same} of {ends.size} starts end within 0.000001 of it, the highest at {ends.max():.6f}.",
    )


@_styled
def embedding(scores: pd.DataFrame, users: pd.DataFrame) -> Picture:
    """Guidelines (above) and users (below) on the first axis: intercept against embedding.

    `scores` in the order of the constitution, with verdicts; accepted ones carry their number.
    """
    rated = scores[scores["intercept"].notna()]
    figure, (top, bottom) = _figure(
        2, height=7.4, top=0.75, shared=True, ratios=(3, 2), gaps=(0.16, 0)
    )
    x = _first(rated["embedding"])
    marks = {
        ACCEPTED: ("o", HELPFUL_COLOUR, 26),
        REJECTED: ("o", QUIET, 18),
        UNDECIDED: ("x", QUIET, 18),
    }
    for verdict in (REJECTED, UNDECIDED, ACCEPTED):
        shape, colour, size = marks[verdict]
        of = (rated["verdict"] == verdict).to_numpy()
        if of.any():
            face: dict[str, Any] = (
                {"facecolors": colour if verdict == ACCEPTED else "none"} if shape == "o" else {}
            )
            edge: dict[str, Any] = {"edgecolors": colour} if shape == "o" else {"color": colour}
            top.scatter(
                x[of],
                rated["intercept"][of],
                s=size,
                marker=shape,
                linewidths=1,
                zorder=4 if verdict == ACCEPTED else 3,
                label=f"{verdict} ({of.sum()})",
                **face,
                **edge,
            )
    # A few users far out would squeeze everybody else: they are shown at the edge, and counted.
    where = _first(users["embedding"])
    low, high = np.quantile(where, [0.01, 0.99])
    low, high = min(low, x.min()) - 0.05, max(high, x.max()) + 0.05
    beyond = (where < low) | (where > high)
    for of, shape, size in ((~beyond, "o", 9), (beyond, "D", 16)):
        bottom.scatter(
            np.clip(where[of], low, high),
            users["intercept"][of],
            s=size,
            marker=shape,
            color=USERS_COLOUR,
            alpha=0.5,
            linewidths=0,
        )
    top.set(ylabel="guideline intercept\n(helpful to all sides)", title="Guidelines")
    bottom.set(
        ylabel="user intercept\n(leniency)",
        xlabel="embedding on the axis (0: neutral)",
        title=f"Users ({len(users)})"
        + (f", {beyond.sum()} of them beyond the edge (diamonds)" if beyond.any() else ""),
    )
    figure.legend(*top.get_legend_handles_labels(), loc="upper center", ncols=3)
    accepted = (rated["verdict"] == ACCEPTED).to_numpy()
    _number(top, np.column_stack([x[accepted], rated["intercept"][accepted]]))
    reach = np.abs(x[accepted]).max() if accepted.any() else 0.0
    return _picture(
        figure,
        f"Scatter plot of {len(rated)} guidelines above and {len(users)} users below, intercept "
        f"against embedding. {accepted.sum()} accepted guidelines are numbered; their embeddings "
        f"lie within {reach:.2f} of 0, those of all guidelines within {np.abs(x).max():.2f}.",
    )


@_styled
def bridging(scores: pd.DataFrame, rule: Rule) -> Picture:
    """Intercept against helpful rate: what bridging accepts, and what a majority alone would."""
    rated = scores[scores["intercept"].notna()]
    accepted = rated["verdict"] == ACCEPTED
    liked = rule.liked(rated)
    least_rate, least = rule.bound("min_helpful_rate"), rule.bound("min_intercept")
    groups = (
        (~accepted & ~liked, QUIET, "o", "others"),
        (~accepted & liked, NOT_HELPFUL_COLOUR, "D", "helpful rate alone would do"),
        (accepted, HELPFUL_COLOUR, "o", "accepted"),
    )
    figure, (axes,) = _figure(1, height=4.6, top=0.5)
    for of, colour, shape, label in groups:
        axes.scatter(
            100 * rated["helpful_rate"][of],
            rated["intercept"][of],
            s=26,
            marker=shape,
            facecolors="none" if colour == QUIET else colour,
            edgecolors=colour,
            linewidths=1,
            label=f"{label} ({of.sum()})",
        )
    axes.axvline(100 * rule.bound("min_helpful_rate"), color="#444", linewidth=1, linestyle="--")
    axes.axhline(rule.bound("min_intercept"), color="#444", linewidth=1, linestyle="--")
    axes.set(xlabel="helpful rate (percent of ratings)", ylabel="guideline intercept")
    figure.legend(loc="upper center", ncols=3, columnspacing=1.2, handletextpad=0.2)
    return _picture(
        figure,
        f"Scatter plot of {len(rated)} guidelines, intercept against helpful rate, with the rule's "
        f"bounds at {least_rate:.0%} and {least:g}. Of {liked.sum()} with "
        f"a helpful rate of at least {least_rate:.0%}, {accepted.sum()} are accepted.",
    )


@_styled
def activity(ratings: Ratings) -> Picture:
    """How many ratings each user gave and each guideline got."""
    figure, panels = _figure(1, 2, height=3.2, top=0.4)
    counts = {"user": ratings.per_user(), "guideline": ratings.per_guideline()}
    for axes, (side, count) in zip(panels, counts.items(), strict=True):
        edges = np.unique(np.round(np.geomspace(1, count.max() + 1, 22)))
        axes.hist(
            count,
            bins=edges.tolist() if len(edges) > 1 else [0.5, 1.5],
            color=HELPFUL_COLOUR,
            edgecolor="white",
        )
        axes.axvline(np.median(count), color=NOT_HELPFUL_COLOUR, linewidth=1.6)
        axes.set(xscale="log", xlabel=f"ratings per {side}", ylabel=f"number of {side}s")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(f"median {np.median(count):g}", color=NOT_HELPFUL_COLOUR, fontsize=11)
    told = "; ".join(
        f"ratings per {side}: {c.min()} to {c.max()}, median {np.median(c):g}"
        for side, c in counts.items()
    )
    return _picture(figure, f"Two histograms. {told}.")


@_styled
def range_of_perspectives(found: Perspectives, ids: Ids, guidelines: pd.DataFrame) -> Picture:
    """Small histograms of helpful and not helpful ratings along the axis, one per guideline.

    `guidelines` has the columns guideline_id, number, n_ratings; the rows must be rated ones.
    """
    rows = ids.guidelines.get_indexer(pd.Index(guidelines["guideline_id"]))
    across, down = 3, max(-(-len(rows) // 3), 1)
    height = 1.5 * down + 0.9
    figure, panels = _figure(down, across, height=height, top=0.35, gaps=(0.5, 0.22))
    ticks = [found.edges[0], (found.edges[0] + found.edges[-1]) / 2, found.edges[-1]]
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    told = zip(panels, rows, guidelines["number"], guidelines["n_ratings"], strict=False)
    for axes, row, number, n in told:
        helpful, both = found.helpful[row], found.helpful[row] + found.not_helpful[row]
        line: dict[str, Any] = {"fill": True, "edgecolor": "white", "linewidth": 0.5}
        axes.stairs(helpful, found.edges, color=HELPFUL_COLOUR, **line)
        axes.stairs(both, found.edges, baseline=helpful, color=NOT_HELPFUL_COLOUR, **line)
        axes.set_title(f"no. {number}: {n} ratings", fontsize=10, loc="left")
        axes.tick_params(labelsize=9)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.set_xticks(ticks, [f"{tick:.2f}" for tick in ticks])
        axes.grid(visible=False, axis="x")
    figure.supxlabel("embedding of the users on the axis", y=0.1 / height, va="bottom", fontsize=11)
    figure.supylabel("ratings (blue helpful, orange not helpful)", fontsize=11)
    if not len(rows):
        figure.suptitle("no guidelines to show")
    return _picture(
        figure,
        f"{len(rows)} histograms of helpful and not helpful ratings in {len(found.edges) - 1} "
        "buckets of the users' embedding; the report tells each in numbers.",
    )


def _figure(
    rows: int,
    columns: int = 1,
    *,
    height: float,
    top: float = 0.3,
    shared: bool = False,
    ratios: Sequence[float] | None = None,
    gaps: tuple[float, float] = (0.3, 0.25),
) -> tuple[Figure, list[Axes]]:
    """A figure of `height` inches with axes in it, `gaps` (down, across) in heights and widths.

    Margins are fixed, in inches: layouts that matplotlib solves cost half a second a figure.
    """
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=shared, height_ratios=ratios)
    figure.subplots_adjust(
        left=0.95 / WIDTH,
        right=1 - 0.1 / WIDTH,
        bottom=0.62 / height,
        top=1 - top / height,
        hspace=gaps[0],
        wspace=gaps[1],
    )
    return figure, list(panels.ravel())


def _picture(figure: Figure, alt: str) -> Picture:
    for axes in figure.axes:
        _spread(axes)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(out.getvalue(), alt)


def _spread(axes: Axes) -> None:
    """Where all numbers are the same but for rounding, show them as the same."""
    for limits, widen in ((axes.get_xlim(), axes.set_xlim), (axes.get_ylim(), axes.set_ylim)):
        if limits[1] - limits[0] < 1e-6:
            middle = sum(limits) / 2
            widen(middle - 0.05, middle + 0.05)


def _first(embeddings: pd.Series) -> np.ndarray:
    return np.array([e[0] for e in embeddings], dtype=float)


def _number(axes: Axes, points: np.ndarray) -> None:
    """Write 1, 2, ... beside the points [P, 2], with a line from each number to its point."""
    if not len(points):
        return
    _spread(axes)
    axes.figure.draw_without_rendering()  # pyright: ignore[reportAttributeAccessIssue]
    unit = DPI / 72
    pixels = axes.transData.transform(points)
    frame = axes.get_window_extent()
    bounds = (frame.y0 + 6 * unit, frame.y1 - 6 * unit)
    for k, (x, y) in enumerate(place_labels(pixels, 11 * unit, 28 * unit, bounds)):
        axes.annotate(
            str(k + 1),
            xy=tuple(points[k]),
            xytext=((x - pixels[k, 0]) / unit, (y - pixels[k, 1]) / unit),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9.5,
            color="#222",
            zorder=5,
            arrowprops={"arrowstyle": "-", "color": "#777", "linewidth": 0.6, "shrinkB": 2},
        )


def place_labels(
    points: np.ndarray, height: float, gap: float, bounds: tuple[float, float]
) -> np.ndarray:
    """Centres [P, 2] of labels `height` high, in two columns `gap` left and right of all points.

    The left half of the points goes to the left column. Within a column labels keep the order of
    their points, `height` apart at least and otherwise as near as least squares allow, so no two
    overlap. A column that would leave the `bounds` is moved inside, by its upper end.
    """
    from scipy.optimize import isotonic_regression  # takes longer to load than all else here

    order = np.lexsort((points[:, 1], points[:, 0]))
    centres = np.empty_like(points, dtype=float)
    left, right = order[: len(order) // 2], order[len(order) // 2 :]
    if np.ptp(points[:, 0]) < gap:  # one above the other: deal them out, so that lines stay short
        by_height = np.argsort(points[:, 1], kind="stable")
        left, right = by_height[::2], by_height[1::2]
    for column, x in ((left, points[:, 0].min() - gap), (right, points[:, 0].max() + gap)):
        if not len(column):
            continue
        upward = column[np.argsort(points[column, 1], kind="stable")]
        steps = height * np.arange(len(upward))
        y = isotonic_regression(points[upward, 1] - steps).x + steps
        y = y + max(bounds[0] - y[0], 0)
        centres[upward, 0] = x
        centres[upward, 1] = y - max(y[-1] - bounds[1], 0)
    return centres
