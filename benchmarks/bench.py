"""Measure the solver: `make bench`, or `make bench ONLY="scale refits"` for some of it.

Every measurement runs in a process of its own. The results are printed and kept in
`benchmarks/results.json`, from which `benchmarks/README.md` and `growth.png` are made.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from worlds import LOWEST, real, simulated

HERE = Path(__file__).resolve().parent
SCALES = ((2_000, 1_000, 10**5), (10_000, 2_000, 10**6), (100_000, 20_000, 10**7))
SCALES = (*SCALES, (1_000_000, 100_000, 10**8))
SEEDS = 20
WORLD = ("user", "guideline", "helpful")


def best_of(times: int, run) -> float:
    """Seconds of the quickest of some calls."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)


# What one process measures: each takes words and returns a dictionary.


def quality(name: str) -> dict:
    """The default search from many seeds: losses, residuals, accepted sets."""
    from aggregation import ALIGNED_2023, Settings, fit, score, select

    ratings, ids = real(name)
    losses, residuals, sets, seconds, starts, settled = [], [], [], [], [], []
    for seed in range(SEEDS):
        began = time.perf_counter()
        found = fit(ratings, settings=Settings(seed=seed))
        seconds.append(time.perf_counter() - began)
        scores = select(score(ratings, ids, found.parameters), ALIGNED_2023).scores
        sets.append(tuple(sorted(scores.loc[scores["verdict"] == "accepted", "guideline_id"])))
        losses.append(found.objective)
        residuals.append(found.kkt_residual)
        starts.append(len(found.starts))
        settled.append(found.settled)
    return {
        "ratings": len(ratings),
        "lowest": min(losses),
        "highest": max(losses),
        "residual": max(residuals),
        "sets": len(set(sets)),
        "accepted": sorted({len(one) for one in sets}),
        "seconds": float(np.median(seconds)),
        "starts": int(np.median(starts)),
        "settled": sum(settled),
    }


def sweeps(name: str, how: str) -> dict:
    """Sweeps until eight uniform starts are stationary to 1e-6: plain, with shifts, with
    extrapolation, or with both, as they are.
    """
    import jax
    import jax.numpy as jnp

    from aggregation import Parameters, Penalty
    from aggregation.model import alternating as module, block_update

    def best(_: object, state: module.State) -> block_update.Guess:
        """The shifted one, unless that led higher."""
        ahead = state.steps > 0
        return jax.tree.map(lambda x, y: jnp.where(ahead, x, y), state.shifted, state.image)

    if how in ("plain", "extrapolated"):
        none = jnp.zeros(1), jnp.zeros((1, 1))
        block_update.shift = lambda *_: (*none, *none)
    if how in ("plain", "shifted"):
        module.extrapolated = best
    ratings, _ = real(name)
    draw = np.random.default_rng(0).random((ratings.n_guidelines, 2, 8))
    users = np.zeros((ratings.n_users, 8))
    mean = np.full(8, ratings.helpful.mean())
    start = Parameters(mean, users, users[:, None], draw[:, 0], draw[:, 1:])
    ends = module.Sweeper(ratings, Penalty()).sweep(start, 1e-6, 5000)
    return {"sweeps": len(ends.history), "residual": float(ends.residual.max())}


def against_original(name: str) -> dict:
    """The original's steps to where it stopped, and ours to the same loss: loop against loop.

    Both begin with uniform draws. What each prepares (a dense matrix, a layout) is not its loop.
    """
    from original import seconds_per_step

    from aggregation import Penalty, Settings, fit
    from aggregation.model.alternating import Sweeper

    ratings, _ = real(name)
    stopped = fit(ratings, settings=Settings(method="gradient-descent"))
    sweeper = Sweeper(ratings, Penalty())
    start = first_point(ratings)
    lower = sweeper.sweep(start, 0.0, 60).history[:, 0] <= stopped.objective
    needed = int(np.argmax(lower)) + 1
    assert lower.any()
    ours = best_of(20, lambda: sweeper.sweep(start, 0.0, needed))
    laid = best_of(20, lambda: Sweeper(ratings, Penalty()))
    step = seconds_per_step(ratings, 100)
    return {
        "steps": stopped.sweeps,
        "loss": stopped.objective,
        "step_ms": 1e3 * step,
        "original_s": step * stopped.sweeps,
        "sweeps": needed,
        "ours_ms": 1e3 * ours,
        "layout_ms": 1e3 * laid,
    }


def first_point(ratings):
    """A uniform start, as arrays ending in [1]."""
    from aggregation.model.initialization import starting_points

    point = next(starting_points(ratings, 1, 0, None)).parameters
    return type(point)(*(np.asarray(x)[..., None] for x in point.arrays()))


def first_call(name: str) -> dict:
    """The first fit of a process."""
    from aggregation import Settings, fit
    from aggregation.model import alternating as sweeps

    ratings, _ = real(name)
    eight = Settings(max_starts=8, moves=False)
    assert sweeps  # its imports are the process's, not the fit's
    began = time.perf_counter()
    found = fit(ratings, settings=eight)
    first = time.perf_counter() - began
    again = best_of(3, lambda: fit(ratings, settings=eight))
    return {"first_s": first, "again_s": again, "starts": len(found.starts)}


def world(users: str, guidelines: str, n: str, folder: str) -> dict:
    """Simulated ratings, left in a folder."""
    made = simulated(int(users), int(guidelines), int(n))
    for name in WORLD:
        np.save(Path(folder) / name, getattr(made, name))
    return {"ratings": len(made)}


def scale(users: str, guidelines: str, n: str) -> dict:
    """Layout, one start to 1e-4, a pass beside the least pass there can be, peak memory."""
    from aggregation import Penalty, Ratings
    from aggregation.model.alternating import Sweeper
    from aggregation.model.multistart import CONTINUATION

    with tempfile.TemporaryDirectory() as folder:  # made elsewhere: its memory is not the solver's
        command = [sys.executable, __file__, "--measure", "world", users, guidelines, n, folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        arrays = [np.load(Path(folder) / f"{name}.npy") for name in WORLD]
    ratings = Ratings(*arrays, int(users), int(guidelines))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    sweeper = Sweeper(ratings, Penalty())
    laid = time.perf_counter() - began
    lead = first_point(ratings)
    flat = replace(lead, guideline_embedding=0 * lead.guideline_embedding)
    sweeper.sweep(lead, 0.0, 1)  # compiles
    began = time.perf_counter()
    for strength, most in CONTINUATION:
        lead = sweeper.sweep(lead, 0.0, most, strength=strength).parameters
    ends = sweeper.sweep(lead, 1e-4, 5000)
    fitted = time.perf_counter() - began
    done = sum(most for _, most in CONTINUATION) + len(ends.history)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    passes = 3 if len(ratings) > 2e7 else 10
    full = best_of(3, lambda: sweeper.sweep(lead, 0.0, passes)) / passes
    one, both = (least_pass(sweeper.terms.lay, numbers) for numbers in (1, 2))
    return {
        "ratings": len(ratings),
        "layout_s": laid,
        "fit_s": fitted,
        "sweeps": done,
        "residual": float(ends.residual.max()),
        "loss": float(ends.objective.min()),
        "without_embeddings": float(sweeper.sweep(flat, 0.0, 30).objective.min()),
        "ns": 1e9 * full / 2 / len(ratings),
        "one_ns": 1e9 * one / 2 / len(ratings),
        "both_ns": 1e9 * both / 2 / len(ratings),
        "peak_gb": peak / 1e6,
        "before_gb": before / 1e6,
    }


def least_pass(lay, numbers: int) -> float:
    """Seconds to fetch what every rating's other row has (one number, or intercept and embedding),
    and to add it up by row, over the same entries, on both sides.
    """
    import jax
    import jax.numpy as jnp

    def gather(side, table):
        lanes, blocks = side.entries.shape[1], len(side.start) - 1

        def add(line, state):
            buffer, total = state
            fetched = table[side.entries[line] >> lay.bits]
            buffer = jax.lax.dynamic_update_index_in_dim(buffer, fetched, line & 1, axis=0)
            fetched = jax.lax.dynamic_index_in_dim(buffer, line & 1, axis=0, keepdims=False)
            return buffer, total + fetched

        def walk(block, sums):
            none = jnp.zeros((2, lanes, numbers)), jnp.zeros((lanes, numbers))
            _, here = jax.lax.fori_loop(side.start[block], side.start[block + 1], add, none)
            return jax.lax.dynamic_update_slice_in_dim(sums, here, block * lanes, axis=0)

        none = jnp.zeros((blocks * lanes, numbers))
        return jax.lax.fori_loop(jnp.int32(0), jnp.int32(blocks), walk, none)

    total = 0.0
    with jax.enable_x64(True):
        for side, others in ((lay.users, lay.guidelines), (lay.guidelines, lay.users)):
            size = (len(others.count) + 1, numbers)
            table = jax.device_put(np.random.default_rng(0).random(size))
            compiled = jax.jit(gather).lower(side, table).compile()
            total += best_of(5, lambda c=compiled, s=side, t=table: c(s, t).block_until_ready())
    return total


def refits(name: str) -> dict:
    """200 bootstrap refits, warm, and the same number of single fits by extrapolation."""
    from aggregation import Settings, fit, refit

    ratings, _ = real(name)
    one = Settings(starts=1, max_starts=1, moves=False)
    near = fit(ratings, settings=Settings(max_starts=8, moves=False)).parameters
    weights = np.random.default_rng(0).poisson(1.0, (len(ratings), 200)).astype(float)
    refit(ratings, weights[:, :8], near)
    began = time.perf_counter()
    found = refit(ratings, weights, near)
    seconds = time.perf_counter() - began
    single = replace(ratings, weight=weights[:, 0])
    fit(single, settings=one)
    alone = best_of(3, lambda: fit(single, settings=one))
    return {
        "seconds": seconds,
        "converged": int(found.converged.sum()),
        "residual": float(found.kkt_residual.max()),
        "fits_s": 200 * alone,
    }


def axes(name: str, dimensions: str) -> dict:
    """The default search with several axes."""
    from aggregation import Settings, fit

    ratings, _ = real(name)
    settings = Settings(dimensions=int(dimensions), max_starts=8, moves=False)
    began = time.perf_counter()
    found = fit(ratings, settings=settings)
    first = time.perf_counter() - began
    return {
        "first_s": first,
        "again_s": best_of(1, lambda: fit(ratings, settings=settings)),
        "loss": found.objective,
        "residual": found.kkt_residual,
        "balance": found.balance,
        "sweeps": found.sweeps,
    }


def size(n: str) -> dict:
    """From Parquet to the report."""
    from size import measured

    return measured(int(n))


def notes(n: str) -> dict:
    """From Community Notes' files to coded ratings."""
    from size import measured

    return measured(int(n), notes=True)


def daily(n: str) -> dict:
    """One in a hundred ratings are new: added and fitted again, beside all from scratch."""
    from daily import measured

    return measured(int(n))


def billion(users: str, guidelines: str, each: str) -> dict:
    """One sweep over pre-coded ratings in memory-mapped files; memory that is not the files'."""
    from aggregation import Penalty, Ratings
    from aggregation.model.alternating import Sweeper

    u, g, k = int(users), int(guidelines), int(each)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"user": np.int32, "guideline": np.int32, "helpful": np.float16}
        files = {name: Path(folder) / f"{name}.npy" for name in kinds}
        arrays = {
            name: np.lib.format.open_memmap(files[name], "w+", kind, (u * k,))
            for name, kind in kinds.items()
        }
        random, step = np.random.default_rng(0), 100_000
        for at in range(0, u, step):
            here = slice(at * k, (at + step) * k)
            arrays["user"][here] = np.repeat(np.arange(at, at + step, dtype=np.int32), k)
            which = (g * random.random((step, k), np.float32) ** 1.5).astype(np.int32)
            arrays["guideline"][here] = np.sort(np.minimum(which, g - 1), axis=1).ravel()
            arrays["helpful"][here] = random.random(step * k, np.float32) < 0.7
        del arrays
        ratings = Ratings(*(np.load(file, mmap_mode="r") for file in files.values()), u, g)
        peak = anonymous_peak()
        began = time.perf_counter()
        sweeper = Sweeper(ratings, Penalty())
        laid, start = time.perf_counter() - began, first_point(ratings)
        seconds = best_of(2, lambda: sweeper.sweep(start, 0.0, 1))  # the first one compiles
        entries = [side.entries for side in (sweeper.terms.lay.users, sweeper.terms.lay.guidelines)]
        return {
            "ratings": len(ratings),
            "layout_s": laid,
            "sweep_s": seconds,
            "ns": 1e9 * seconds / 2 / len(ratings),
            "bytes": sum(e.nbytes for e in entries) / 2 / len(ratings),
            "anonymous_gb": peak(),
        }


def anonymous_peak():
    """A function that says the most memory, in GB, that was the process's own and no file's."""
    most, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            told = Path("/proc/self/status").read_text().partition("RssAnon:")[2]
            most[0] = max(most[0], int(told.split()[0]) / 1e6)

    threading.Thread(target=watch, daemon=True).start()

    def peak() -> float:
        stop.set()
        return most[0]

    return peak


def baselines(users: str, guidelines: str, n: str, seconds: str) -> dict:
    """Seconds to within 1e-4 of our loss, for what one would use instead, and where each ends.

    Needs PyTorch and optax, which the project itself does not: `pip install torch optax`.
    """
    from baselines import BASELINES, watched

    from aggregation import Penalty, fit, loss

    ratings = simulated(int(users), int(guidelines), int(n))
    fit(ratings)  # compiles
    began = time.perf_counter()
    found = fit(ratings)
    whole = time.perf_counter() - began
    target = found.objective + 1e-4
    one_descent(ratings, target)  # compiles
    rows = {"ours, one descent": one_descent(ratings, target)}
    rows["ours, the whole search"] = {"reached_s": whole, "loss": found.objective, "took_s": whole}
    for name, (run, rates) in BASELINES.items():
        tried = []
        for rate in rates:
            end = watched(run, ratings, rate, target, float(seconds))
            end["loss"] = float(loss(end.pop("parameters"), ratings, Penalty()))
            tried.append(end | {"rate": rate})
        rows[name] = min(tried, key=lambda end: (end["reached_s"] or np.inf, end["loss"]))
    return {"ratings": len(ratings), "methods": rows}


def one_descent(ratings, target: float) -> dict:
    """Layout, and one start by continuation to a residual of 1e-4; the sweeps take equal times."""
    from aggregation import Penalty
    from aggregation.model.alternating import Sweeper
    from aggregation.model.multistart import CONTINUATION

    began = time.perf_counter()
    sweeper, lead = Sweeper(ratings, Penalty()), first_point(ratings)
    for strength, most in CONTINUATION:
        lead = sweeper.sweep(lead, 0.0, most, strength=strength).parameters
    led = time.perf_counter() - began
    ends = sweeper.sweep(lead, 1e-4, 5000)
    took = time.perf_counter() - began
    below = np.flatnonzero(ends.history[:, 0] <= target)
    share = (below[0] + 1) / len(ends.history) if len(below) else np.nan
    reached = led + share * (took - led) if len(below) else None
    return {"reached_s": reached, "took_s": took, "loss": float(ends.objective[0])}


# What is measured, in which order.


def plan_of(section: str) -> list[tuple[str, tuple[str, ...], dict[str, str]]]:
    """(key, words, environment) of every process of a section."""
    if section == "quality":
        return [(name, (name,), {}) for name in LOWEST]
    if section == "sweeps":
        ways = ("plain", "shifted", "extrapolated", "both")
        return [(f"{n} {how}", (n, how), {}) for n in LOWEST for how in ways]
    if section == "against_original":
        return [(name, (name,), {}) for name in ("brexit-consensus", "vtaiwan.uberx")]
    if section == "first_call":
        warm = {"JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp()}
        warm["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        words = ("vtaiwan.uberx",)
        return [("cold", words, {}), ("filling the cache", words, warm), ("warm", words, warm)]
    if section == "scale":
        return [(str(n), tuple(map(str, (u, g, n))), {}) for u, g, n in SCALES]
    if section == "size":
        return [(str(n), (str(n),), {}) for _, _, n in SCALES]
    if section == "notes":
        return [(str(n), (str(n),), {}) for _, _, n in SCALES[1:]]
    if section == "daily":
        return [(str(n), (str(n),), {}) for _, _, n in SCALES[2:]]
    if section == "billion":
        return [("1e9", ("10000000", "1000000", "100"), {})]
    if section == "baselines":
        sizes = zip(SCALES, ("30", "60", "120", "300"), strict=True)
        return [(str(n), (*map(str, (u, g, n)), limit), {}) for (u, g, n), limit in sizes]
    if section == "refits":
        return [("vtaiwan.uberx", ("vtaiwan.uberx",), {})]
    return [
        (f"{n} {d}", (n, str(d)), {})
        for n in ("brexit-consensus", "scoop-hivemind.taxes")
        for d in (2, 4, 8)
    ]


SECTIONS = (
    "first_call",
    "against_original",
    "sweeps",
    "refits",
    "axes",
    "scale",
    "billion",
    "size",
    "notes",
    "daily",
    "baselines",
    "quality",
)


def main() -> None:
    """Run the sections that are asked for, or all."""
    unknown = set(sys.argv[1:]) - set(SECTIONS)
    if unknown:
        sys.exit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    store = HERE / "results.json"
    results = json.loads(store.read_text()) if store.exists() else {}
    for section in sys.argv[1:] or SECTIONS:
        missing = [name for name in ("optax", "torch") if find_spec(name) is None]
        if section == "baselines" and missing:
            print(f"baselines is left out: pip install {' '.join(missing)}")
            continue
        found = {}
        for key, words, environment in plan_of(section):
            began, load = time.perf_counter(), os.getloadavg()[0]
            done = subprocess.run(
                [sys.executable, __file__, "--measure", section, *words],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[key] = json.loads(done.stdout.splitlines()[-1]) | {"load": round(load, 2)}
            print(f"{section} {key}: {time.perf_counter() - began:.0f} s {found[key]}", flush=True)
            results[section] = {"machine": _machine(), "rows": found}
            results = {name: results[name] for name in SECTIONS if name in results}
            store.write_text(json.dumps(results, indent=1) + "\n")
    from table import write

    print(write(results, HERE))


def _machine() -> str:
    import jax

    return f"{os.cpu_count()} cores, Python {platform.python_version()}, JAX {jax.__version__}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(globals()[sys.argv[2]](*sys.argv[3:])))
    else:
        main()
