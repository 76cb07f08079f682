"""The tables of `benchmarks/README.md` and the plot of growth, from the results of `bench.py`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from worlds import LOWEST

HEAD = """# Benchmarks

`make bench` runs everything (three hours, 24 GB of memory, 40 GB of disk), `make bench ONLY="scale
refits"` some of it. `baselines` needs `pip install optax torch` besides. Every measurement runs in
a process of its own; each line says the machine's load when it began. Times depend on the machine:
what one run measured side by side can be compared, two runs cannot.

The bars are those the solver was built to; a line that misses its bar says so.
"""


BY_HAND = "\n## Evidence\n"
"""From here on the README holds what other scripts measured, written by hand."""


def write(results: dict, folder: Path) -> str:
    """Write README.md and growth.png into `folder`; gives the README back."""
    parts = [HEAD]
    for section, found in results.items():
        title, columns, rows = SECTIONS[section](found["rows"])
        loads = [row["load"] for row in found["rows"].values()]
        parts.append(
            f"\n## {title}\n\n{found['machine']}; load when measurements began "
            f"{min(loads)} to {max(loads)}\n\n{table(columns, rows)}\n"
        )
        if section == "scale":
            grow(results, folder / "growth.png")
            parts.append(
                "\n![Seconds over the number of ratings](growth.png)\n\nOnly lines of one kind "
                "can be compared: layout and fit, the dashed ones, and the way to the report are "
                "from runs of their own.\n"
            )
    readme = folder / "README.md"
    by_hand = readme.read_text("utf-8").partition(BY_HAND)[1:] if readme.exists() else ()
    text = "".join([*parts, *by_hand])
    readme.write_text(text, encoding="utf-8")
    return text


def table(columns: list[str], rows: list[list]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def within(value: float, bar: float, text: str, *, least: bool = False) -> str:
    """The value, and whether it misses the bar."""
    missed = value < bar if least else value > bar
    return f"**{text}, misses it**" if missed else text


def quality(rows: dict) -> tuple:
    """Default search, 20 seeds."""
    columns = ["moderation all", "ratings", "lowest loss", "highest", "bar", "KKT residual"]
    columns += ["accepted sets", "accepted", "settled", "starts", "s a fit"]
    lines = []
    for name, r in rows.items():
        line = [name, f"{r['ratings']:,}", f"{r['lowest']:.9f}"]
        line.append(within(r["highest"], LOWEST[name], f"{r['highest']:.9f}"))
        line += [LOWEST[name], within(r["residual"], 1e-6, f"{r['residual']:.0e}")]
        line += [within(r["sets"], 1, str(r["sets"])), ", ".join(map(str, r["accepted"]))]
        lines.append([*line, f"{r['settled']} of 20", r["starts"], f"{r['seconds']:.2f}"])
    return "The default search from 20 seeds", columns, lines


def sweeps(rows: dict) -> tuple:
    """Plain, with either device, with both."""
    ways = ("plain", "shifted", "extrapolated", "both")
    names = list(dict.fromkeys(key.rsplit(" ", 1)[0] for key in rows))
    lines = []
    for name in names:
        found = [rows[f"{name} {how}"]["sweeps"] for how in ways]
        lines.append([name, *found, f"{found[0] / found[-1]:.1f}"])
    title = "Sweeps until eight uniform starts have a KKT residual of 1e-6"
    return title, ["", *ways, "times fewer"], lines


def against_original(rows: dict) -> tuple:
    """Loop against loop."""
    columns = ["", "original: steps", "loss", "ms a step (100 timed)", "s in all"]
    columns += ["ours: sweeps", "ms", "times faster (bar 20,000)", "with our layout"]
    lines = []
    for name, r in rows.items():
        line = [name, f"{r['steps']:,}", f"{r['loss']:.4f}", f"{r['step_ms']:.1f}"]
        times = r["original_s"] / r["ours_ms"] * 1e3
        with_layout = r["original_s"] / (r["ours_ms"] + r["layout_ms"]) * 1e3
        line += [f"{r['original_s']:.0f}", r["sweeps"], f"{r['ours_ms']:.2f}"]
        line += [within(times, 2e4, f"{times:,.0f}", least=True), f"{with_layout:,.0f}"]
        lines.append(line)
    return "To the loss where the original stops (its loop, dense, not compiled)", columns, lines


def first_call(rows: dict) -> tuple:
    """Fresh processes."""
    bars = {"cold": 1, "warm": 1}
    lines = [
        [key, within(r["first_s"], bars[key], f"{r['first_s']:.2f}"), bars[key]]
        + [f"{r['again_s']:.2f}"]
        for key, r in rows.items()
        if key in bars
    ]
    columns = ["compilation cache", "s, first fit", "bar", "s, next fit"]
    return "First fit of a process, 8 starts, vtaiwan.uberx", columns, lines


def scale(rows: dict) -> tuple:
    """From 1e5 to 1e8 ratings."""
    columns = ["ratings", "layout s", "fit s", "sweeps", "KKT residual", "loss", "at f = 0"]
    columns += ["ns a rating and half pass", "least pass, 1 number", "2 numbers", "times", "GB"]
    columns += ["GB at 16 B + 1 GB"]
    lines = []
    for r in rows.values():
        n, big = r["ratings"], r["ratings"] > 5e6
        bars = (90, 90) if n > 5e7 else (3, 3) if big else (9, 9)
        room = 16e-9 * n + 1
        line = [f"{n:,}", within(r["layout_s"], bars[0], f"{r['layout_s']:.2f}")]
        line += [within(r["fit_s"] + (n > 5e7) * r["layout_s"], bars[1], f"{r['fit_s']:.2f}")]
        line += [r["sweeps"], f"{r['residual']:.0e}", f"{r['loss']:.5f}"]
        line += [f"{r['without_embeddings']:.5f}", within(r["ns"], 5, f"{r['ns']:.2f}")]
        line += [f"{r['one_ns']:.2f}", f"{r['both_ns']:.2f}"]
        line += [f"{r['ns'] / r['one_ns']:.1f}, {r['ns'] / r['both_ns']:.1f}"]
        line += [within(r["peak_gb"], room, f"{r['peak_gb']:.2f}"), f"{room:.2f}"]
        lines.append(line)
    return (
        "One start by continuation, to a KKT residual of 1e-4, on simulated ratings",
        columns,
        lines,
    )


def billion(rows: dict) -> tuple:
    """A sweep of a billion."""
    columns = ["ratings", "layout s", "s a sweep", "ns a rating and half pass"]
    columns += ["bytes a rating and side", "GB, but for the files (bar 24)"]
    lines = [
        [f"{r['ratings']:,}", f"{r['layout_s']:.0f}", f"{r['sweep_s']:.1f}", f"{r['ns']:.2f}"]
        + [f"{r['bytes']:.2f}", within(r["anonymous_gb"], 24, f"{r['anonymous_gb']:.1f}")]
        for r in rows.values()
    ]
    return "One sweep of pre-coded ratings in memory-mapped files", columns, lines


def size(rows: dict) -> tuple:
    """From a file to the report."""
    steps = ["start", "read", "save", "encode", "fit", "evidence", "report", "all", "GB"]
    lines = [
        [f"{r['ratings']:,}", *(f"{r[step]:.2f}" if step in r else "" for step in steps)]
        for r in rows.values()
    ]
    title = "From Parquet, shuffled, ids of 64 and 19 characters, to the report; in one process"
    return title, ["ratings", *steps], lines


def notes(rows: dict) -> tuple:
    """From Community Notes' files to codes."""
    columns = ["ratings", "TSV, GB", "s", "bar", "GB", "bar"]
    lines = []
    for r in rows.values():
        s, gb = f"{r['seconds']:.1f}", f"{r['GB']:.1f}"
        large = r["ratings"] > 5e7
        told = [within(r["seconds"], 60, s), 60, within(r["GB"], 6, gb), 6]
        told = told if large else [s, "", gb, ""]
        lines.append([f"{r['ratings']:,}", f"{r['files_gb']:.1f}", *told])
    return "From Community Notes' files to coded ratings, repeated pairs resolved", columns, lines


def daily(rows: dict) -> tuple:
    """New ratings beside a start from scratch."""
    steps = ("new_read", "new_append", "new_reindex", "new_fit", "read", "encode", "fit")
    columns = ["ratings", "read 1 %", "append", "reindex", "fit", "read all", "encode", "fit"]
    columns += ["share (25 %)", "loss apart", "guidelines apart", "accepted", "otherwise", "GB"]
    lines = []
    for r in rows.values():
        share = sum(r[step] for step in steps[:4]) / sum(r[step] for step in steps[4:])
        line = [f"{r['ratings']:,}", *(f"{r[step]:.2f}" for step in steps)]
        line += [within(share, 0.25, f"{share:.0%}")]
        line += [f"{r[name]:.0e}" for name in ("loss_apart", "guidelines_apart")]
        lines.append([*line, f"{r['accepted']:,}", r["otherwise"], f"{r['GB']:.1f}"])
    return "New ratings, one in a hundred: seconds", columns, lines


def baselines(rows: dict) -> tuple:
    """Ours and general optimisers."""
    columns = ["ratings", "", "s to within 1e-4 of our loss", "times ours", "ended at", "after s"]
    lines = []
    for r in rows.values():
        ours = r["methods"]["ours, one descent"]["reached_s"]
        for name, m in r["methods"].items():
            rate = f", rate {m['rate']}" if m.get("rate") else ""
            reached = m["reached_s"]
            line = [f"{r['ratings']:,}", name + rate]
            line += [f"{reached:.2f}", f"{reached / ours:.1f}"] if reached else ["not reached", ""]
            lines.append([*line, f"{m['loss']:.6f}", f"{m['took_s']:.1f}"])
    title = (
        "The same loss by what one would use instead, one start, compiled, the best of its rates"
    )
    return title, columns, lines


def refits(rows: dict) -> tuple:
    """Bootstrap."""
    lines = [
        [name, within(r["seconds"], 10, f"{r['seconds']:.1f}"), 10, f"{r['fits_s']:.0f}"]
        + [f"{r['converged']} of 200", f"{r['residual']:.0e}"]
        for name, r in rows.items()
    ]
    columns = ["", "s, 200 refits, warm", "bar", "s, 200 fits", "converged", "KKT residual"]
    return "Bootstrap weights", columns, lines


def axes(rows: dict) -> tuple:
    """Several axes."""
    columns = ["deliberation, axes", "s, 8 starts", "s, compiled", "loss", "KKT residual"]
    columns += ["balance", "sweeps"]
    lines = [
        [key, f"{r['first_s']:.2f}", f"{r['again_s']:.2f}", f"{r['loss']:.6f}"]
        + [within(r["residual"], 1e-6, f"{r['residual']:.0e}"), f"{r['balance']:.0e}", r["sweeps"]]
        for key, r in rows.items()
    ]
    return "Several axes", columns, lines


def grow(results: dict, path: Path) -> None:
    """Seconds over ratings, both logarithmic, beside what is linear in ratings."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")

    def draw(section: str, seconds: Callable[[dict], float | None], label: str, mark: str) -> None:
        rows = results.get(section, {"rows": {}})["rows"].values()
        points = [(r["ratings"], seconds(r)) for r in rows if seconds(r)]
        if points:
            ax.loglog(*zip(*points, strict=True), mark, label=label)

    draw("size", lambda r: r["all"] if "report" in r else None, "file to report", "-D")
    draw("scale", lambda r: r["layout_s"], "layout", "-s")
    draw("scale", lambda r: r["fit_s"], "fit, one start", "-o")
    draw("billion", lambda r: r["sweep_s"], "one sweep of a billion", "P")
    beside = list(results.get("baselines", {"rows": {}})["rows"].values())[:1]
    for name in (name for row in beside for name in row["methods"] if "search" not in name):
        draw("baselines", lambda r, n=name: r["methods"][n]["reached_s"], f"to 1e-4: {name}", "--^")
    rows = list(results["scale"]["rows"].values())
    n = np.array([r["ratings"] for r in rows])
    ax.loglog(n, rows[-1]["fit_s"] * n / n[-1], "k:", label="linear, through the last fit")
    ax.set(xlabel="ratings", ylabel="seconds", title="Growth with the number of ratings")
    ax.legend(fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


SOLVER = (first_call, against_original, sweeps, refits, axes, scale)
SECTIONS = {f.__name__: f for f in (*SOLVER, billion, size, notes, daily, baselines, quality)}
