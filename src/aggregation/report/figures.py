"""Figures: the plots of the notebooks and the report, as pictures with alt text.

Guidelines are marked by their number in the constitution, never by their text: texts are long,
in any script, and written by strangers.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aggregation.decisions.rules import ACCEPTED, REJECTED, UNDECIDED, Rule
from aggregation.evidence.sides import Perspectives
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids, Ratings
from aggregation.report.environment import conditions_on

HELPFUL_COLOUR, NOT_HELPFUL_COLOUR, USERS_COLOUR = "#0072B2", "#D55E00", "#009E73"
OTHERS_COLOUR = "#8a8a8a"
"""Blue, vermilion and green of Okabe and Ito (2008), which the colour-blind tell apart; a grey."""

WIDTH, DPI = 7.2, 160
"""Inches and dots per inch: at the report's 720 pixels, text is 11 pixels or larger."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
    "svg.hashsalt": "aggregation",
    "figure.subplot.left": 0.95 / WIDTH,
    "figure.subplot.right": 1 - 0.1 / WIDTH,
}

styled = style.context(["default", STYLE])
"""Decorator of the figures: the user's own settings of Matplotlib change none of them."""

PANEL = 1.35
"""Height of a small histogram and its label, in heights of its longest bar."""

MOST_PANELS = 54
"""Small histograms in one picture, which keeps it below 4,000 pixels."""

LOSS_FLOOR = 1e-9
"""Losses nearer to the lowest are drawn at this distance: the axis is logarithmic."""


@dataclass(frozen=True, repr=False)
class Picture:
    """A figure of matplotlib and its alt text. Shows itself in a notebook."""

    figure: Figure
    alt: str

    @cached_property
    def png(self) -> bytes:
        """As PNG."""
        return self._saved("png", Software=None)

    @cached_property
    def svg(self) -> bytes:
        """As SVG, for print."""
        return self._saved("svg", Date=None, Creator=None)

    def _saved(self, kind: str, **metadata: None) -> bytes:
        out = io.BytesIO()
        with style.context(["default", STYLE]):
            self.figure.savefig(out, format=kind, dpi=DPI, metadata=metadata)
        return out.getvalue()

    def __repr__(self) -> str:
        return f"<Picture: {self.alt}>"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, object]]:
        png = base64.b64encode(self.png).decode("ascii")
        data = {"image/png": png, "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


@styled
def loss_curve(history: np.ndarray) -> Picture:
    """How far each start is above the lowest loss found, after each sweep.

    `history` [sweeps, starts]: the loss of every start after each sweep, as in `Fit.history`.
    """
    sweeps, ends = np.arange(1, len(history) + 1), history[-1]
    best, lowest = ends.argmin(), ends.min()
    above = np.maximum(history - lowest, LOSS_FLOOR)
    figure, (axes,) = _figure(height=3.4)
    line: dict[str, Any] = {"color": OTHERS_COLOUR, "linewidth": 1, "label": "other starts"}
    for curve in np.delete(above, best, axis=1).T:
        axes.plot(sweeps, curve, **line)
        line["label"] = None  # one entry in the legend for them all
    axes.plot(sweeps, above[:, best], color=HELPFUL_COLOUR, linewidth=2.2, label="lowest start")
    axes.set(yscale="log", xlabel="sweep")
    axes.set_ylabel(f"loss above the lowest\n(cut off at {LOSS_FLOOR:g})")
    axes.legend()
    return _picture(
        figure,
        f"Loss of {ends.size} starts over {len(sweeps)} sweeps. The lowest ends at {lowest:.6f}; "
        f"{(ends < lowest + 1e-6).sum()} of {ends.size} starts end within 0.000001 of it, the "
        f"highest at {ends.max():.6f}.",
    )


@styled
def embedding(scores: pd.DataFrame, parameters: Parameters) -> Picture:
    """Guidelines (above) and users (below) on the first axis: intercept against embedding.

    `scores` in the order of the constitution, with verdicts; accepted ones carry their number.
    """
    rated = scores[scores["intercept"].notna()]
    shape: dict[str, Any] = {"height_ratios": (3, 2), "hspace": 0.16}
    figure, (top, bottom) = _figure(2, height=7.4, top=0.75, sharex=True, gridspec_kw=shape)
    x, y = np.array([e[0] for e in rated["embedding"]], float), rated["intercept"].to_numpy()
    marks: dict[str, dict[str, Any]] = {
        REJECTED: {"s": 18, "facecolors": "none", "edgecolors": OTHERS_COLOUR, "zorder": 3},
        UNDECIDED: {"s": 18, "marker": "x", "color": OTHERS_COLOUR, "zorder": 3},
        ACCEPTED: {"s": 26, "color": HELPFUL_COLOUR, "zorder": 4},
    }
    for verdict, mark in marks.items():
        of = (rated["verdict"] == verdict).to_numpy()
        if of.any():
            label = f"{verdict} ({of.sum()})"
            top.scatter(x[of], y[of], label=label, linewidths=1, **mark)
    # A few users far out would squeeze everybody else: they are shown at the edge, and counted.
    where = parameters.user_embedding[:, 0]
    low, high = np.quantile(where, [0.01, 0.99])
    low, high = min(low, x.min()) - 0.05, max(high, x.max()) + 0.05
    beyond = (where < low) | (where > high)
    dots: dict[str, Any] = {"color": USERS_COLOUR, "alpha": 0.5, "linewidths": 0}
    shown = np.clip(where, low, high)
    for of, marker, size in ((~beyond, "o", 9), (beyond, "D", 16)):
        bottom.scatter(shown[of], parameters.user_intercept[of], s=size, marker=marker, **dots)
    title = f"Users ({len(where)})"
    if beyond.any():
        title += f", {beyond.sum()} of them beyond the edge (diamonds)"
    top.set(ylabel="guideline intercept\n(helpful to all sides)", title="Guidelines")
    bottom.set(ylabel="user intercept\n(leniency)", title=title)
    bottom.set_xlabel("embedding on the axis (0: neutral)")
    figure.legend(*top.get_legend_handles_labels(), loc="upper center", ncols=3)
    accepted = (rated["verdict"] == ACCEPTED).to_numpy()
    _number(figure, top, np.column_stack([x[accepted], y[accepted]]))
    return _picture(
        figure,
        f"Scatter plot of {len(rated)} guidelines above and {len(where)} users below, intercept "
        f"against embedding. {accepted.sum()} accepted guidelines are numbered; their embeddings "
        f"lie within {np.abs(x[accepted]).max(initial=0):.2f} of 0, those of all guidelines within "
        f"{np.abs(x).max():.2f}.",
    )


@styled
def bridging(scores: pd.DataFrame, rule: Rule) -> Picture:
    """Intercept against helpful rate: what the rule accepts, and what a majority alone would.

    Dashed lines are the bounds of the rule on either.
    """
    rated = scores[scores["intercept"].notna()]
    accepted = (rated["verdict"] == ACCEPTED).to_numpy()
    rates, intercepts = (conditions_on(rule, name) for name in ("helpful_rate", "intercept"))
    liked = rule.liked(rated) & ~accepted & bool(rates)
    groups = [
        (~accepted & ~liked, OTHERS_COLOUR, "o", "others"),
        (liked, NOT_HELPFUL_COLOUR, "D", "helpful rate alone would do"),
        (accepted, HELPFUL_COLOUR, "o", "accepted"),
    ]
    figure, (axes,) = _figure(height=4.6, top=0.5)
    for of, colour, marker, label in groups if rates else (groups[0], groups[2]):
        face = "none" if label == "others" else colour
        mark: dict[str, Any] = {"marker": marker, "facecolors": face, "edgecolors": colour}
        x, y = 100 * rated["helpful_rate"][of], rated["intercept"][of]
        axes.scatter(x, y, s=26, linewidths=1, label=f"{label} ({of.sum()})", **mark)
    line: dict[str, Any] = {"color": "#444", "linewidth": 1, "linestyle": "--"}
    for condition in rates:
        axes.axvline(100 * condition.bound, **line)
    for condition in intercepts:
        axes.axhline(condition.bound, **line)
    axes.set(xlabel="helpful rate (percent of ratings)", ylabel="guideline intercept")
    figure.legend(loc="upper center", ncols=3, columnspacing=1.2, handletextpad=0.2)
    bounds = ", ".join(str(condition) for condition in (*rates, *intercepts)) or "none"
    counts = f"{accepted.sum()} guidelines are accepted"
    if rates:
        counts += f", {liked.sum()} more would be by helpful rate alone"
    return _picture(
        figure,
        f"Scatter plot of {len(rated)} guidelines, intercept against helpful rate. Bounds of the "
        f"rule: {bounds}. {counts}.",
    )


@styled
def activity(ratings: Ratings) -> Picture:
    """How many ratings each user gave and each guideline got."""
    figure, panels = _figure(1, 2, height=3.2, top=0.4, gridspec_kw={"wspace": 0.25})
    counts = {"user": ratings.per_user(), "guideline": ratings.per_guideline()}
    told = []
    for axes, (side, count) in zip(panels, counts.items(), strict=True):
        median = f"median {np.median(count):g}"
        edges = np.unique(np.round(np.geomspace(1, count.max() + 1, 22)))
        bins = edges.tolist() if len(edges) > 1 else [0.5, 1.5]
        axes.hist(count, bins=bins, color=HELPFUL_COLOUR, edgecolor="white")
        axes.axvline(np.median(count), color=NOT_HELPFUL_COLOUR, linewidth=1.6)
        axes.set(xscale="log", xlabel=f"ratings per {side}", ylabel=f"number of {side}s")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(median, color=NOT_HELPFUL_COLOUR, fontsize=11)
        told.append(f"ratings per {side}: {count.min()} to {count.max()}, {median}")
    return _picture(figure, f"Two histograms. {'; '.join(told)}.")


@styled
def planned(table: pd.DataFrame) -> Picture:
    """Share of the guidelines that is decided, by number of users; a line for each activity.

    `table`: of `evidence.planning.plan`.
    """
    figure, (axes,) = _figure(height=3.6)
    told = []
    for marker, (each, rows) in zip(cycle("os^Dv"), table.groupby("ratings_each"), strict=False):
        axes.plot(rows["users"], 100 * rows["decided"], marker=marker, label=f"{each} ratings each")
        told.append(f"with {each} ratings each up to {rows['decided'].max():.0%}")
    axes.set(xscale="log", xlabel="users", ylabel="decided (percent of guidelines)", ylim=(0, 103))
    axes.set_xticks(users := sorted(set(table["users"])), [f"{n:,}" for n in users])
    axes.minorticks_off()
    axes.legend()
    return _picture(figure, f"Share of guidelines decided by number of users: {'; '.join(told)}.")


@styled
def calibration(table: pd.DataFrame) -> Picture | None:
    """How often ratings were helpful, by how probable that was held to be. On the diagonal,
    predictions are right on average; larger marks stand for more ratings.

    `table`: the second of `evidence.prediction.prediction`. None where it is empty.
    """
    if table.empty:
        return None
    n, off = table["n"] / table["n"].sum(), (table["predicted"] - table["observed"]).abs()
    figure, (axes,) = _figure(height=4.2)
    axes.plot([0, 100], [0, 100], color=OTHERS_COLOUR, linestyle="--", label="right on average")
    axes.scatter(
        100 * table["predicted"],
        100 * table["observed"],
        s=20 + 600 * n,
        color=HELPFUL_COLOUR,
        alpha=0.8,
        label="held-out ratings",
    )
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axes.set(xlabel="predicted helpful (percent)", ylabel="observed (percent)")
    axes.legend(markerscale=0.5)
    told = f"off by {100 * (n * off).sum():.1f} percentage points on average"
    return _picture(figure, f"Predicted and observed share of helpful ratings: {told}.")


@styled
def range_of_perspectives(found: Perspectives, ids: Ids, guidelines: pd.DataFrame) -> Picture:
    """Small histograms of helpful and not helpful ratings along the axis, one per guideline.

    `guidelines` has the columns guideline_id, number, n_ratings; the rows must be rated ones. The
    first 54 are drawn, and the picture says how many are left out.
    """
    left_out = max(len(guidelines) - MOST_PANELS, 0)
    guidelines = guidelines[:MOST_PANELS]
    rows = ids.guidelines.get_indexer(pd.Index(guidelines["guideline_id"]))
    across, down = 3, max(-(-len(rows) // 3), 1)
    height = 1.3 * down + 1.1
    figure, columns = _figure(1, across, height=height, top=0.15, gridspec_kw={"wspace": 0.08})
    figure.subplots_adjust(left=0.08)
    for k, axes in enumerate(columns):  # one for all above each other: axes are what takes time
        axes.set_visible(k < max(len(rows), 1))
        axes.set(ylim=(0, down * PANEL), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.set_xticks(ticks := np.linspace(found.edges[0], found.edges[-1], 3))
        axes.set_xticklabels([f"{tick:.2f}" for tick in ticks], fontsize=9)
    bars: dict[str, Any] = {"fill": True, "edgecolor": "white", "linewidth": 0.5}
    told = zip(rows, guidelines["number"], guidelines["n_ratings"], strict=True)
    for k, (row, number, n) in enumerate(told):
        axes, base = columns[k % across], (down - 1 - k // across) * PANEL
        both = found.helpful[row] + found.not_helpful[row]
        highest = max(both.max(), 1e-9)
        middle, top = base + found.helpful[row] / highest, base + both / highest
        axes.stairs(middle, found.edges, baseline=base, color=HELPFUL_COLOUR, **bars)
        axes.stairs(top, found.edges, baseline=middle, color=NOT_HELPFUL_COLOUR, **bars)
        axes.axhline(base, color="#444", linewidth=0.8)
        label = f"no. {number}: {n} ratings, bars to {highest:,.0f}"
        axes.text(found.edges[0], base + 1.06, label, fontsize=9)
    figure.supxlabel("embedding of the users on the axis", y=0.1 / height, va="bottom", fontsize=11)
    figure.supylabel("ratings (blue helpful,\norange not helpful)", x=0, fontsize=11)
    if not len(rows):
        figure.suptitle("no guidelines to show")
    rest = f"{left_out:,} more are left out" if left_out else ""
    figure.text(0.99, 0.1 / height, rest, ha="right", va="bottom", fontsize=9)
    return _picture(
        figure,
        f"{len(rows)} histograms of helpful and not helpful ratings in {len(found.edges) - 1} "
        f"buckets of the users' embedding{rest and '; '}{rest}. The report gives each in numbers.",
    )


def _figure(
    rows: int = 1, columns: int = 1, *, height: float, top: float = 0.3, **subplots: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `height` inches with axes in it, and a margin `top` in inches above them.

    Margins are fixed: layouts that matplotlib solves cost half a second a figure.
    """
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    panels = figure.subplots(rows, columns, squeeze=False, **subplots)
    figure.subplots_adjust(bottom=0.62 / height, top=1 - top / height)
    return figure, list(panels.ravel())


def _picture(figure: Figure, alt: str) -> Picture:
    for axes in figure.axes:
        _spread(axes)
    return Picture(figure, alt)


def _spread(axes: Axes) -> None:
    """Widen limits that lie together: numbers that differ by rounding only look the same."""
    for limits, widen in ((axes.get_xlim(), axes.set_xlim), (axes.get_ylim(), axes.set_ylim)):
        if limits[1] - limits[0] < 1e-6:
            middle = sum(limits) / 2
            widen(middle - 0.05, middle + 0.05)


def _number(figure: Figure, axes: Axes, points: np.ndarray) -> None:
    """Write 1, 2, ... beside the points [P, 2], with a line from each number to its point; only the
    first ones where there is no room for all.
    """
    if not len(points):
        return
    _spread(axes)
    figure.draw_without_rendering()
    point = DPI / 72
    frame = axes.get_window_extent()
    bounds = (frame.y0 + 6 * point, frame.y1 - 6 * point)
    points = points[: 2 * int((bounds[1] - bounds[0]) / (11 * point))]  # as many as have room
    labels = place_labels(axes.transData.transform(points), 11 * point, 28 * point, bounds)
    for k, (at, label) in enumerate(zip(points, labels, strict=True), start=1):
        axes.annotate(
            str(k),
            xy=tuple(at),
            xytext=tuple(label),
            textcoords="figure pixels",
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
