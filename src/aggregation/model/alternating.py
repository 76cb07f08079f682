"""Alternating minimisation: exact, accelerated and compiled, several starts side by side.

A sweep takes the guideline side x = (mu, intercepts, embeddings), solves all users for it, and then
the guideline side for these users: x -> T(x), and the loss falls. Anderson's extrapolation guesses
the next x from the last few. docs/method.md derives every formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aggregation.errors import InputError
from aggregation.model.block_update import (
    Guess,
    Part,
    Rows,
    Terms,
    fixed_sum,
    measured,
    part,
    solved_users,
)
from aggregation.model.parameters import Array, Parameters, Penalty, known_rows
from aggregation.model.ratings import Ratings
from aggregation.model.shifts import solved
from aggregation.model.sparse_layout import layout, row_sums

SWEEPS_PER_CALL = 100
"""Sweeps per compiled call at most: between calls the callback is told."""

RATINGS_PER_CALL = 2e8
"""Ratings times starts that one compiled call sweeps over: about a second."""

QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}
"""Compiler options: compiled in half the time, and up to a quarter slower at work."""

MANY = 1_000_000
"""Ratings from which it pays to compile for longer."""

MEMORY = 6
"""Sweeps that the extrapolation looks back on. Measured on the six deliberations of the tests."""

ROUNDING = 1e-14
"""Losses that differ by less, relative, differ by rounding."""


@dataclass(frozen=True)
class Ends:
    """Where S starts ended; all float64 NumPy."""

    parameters: Parameters
    """Arrays ending in [S]."""
    objective: np.ndarray
    """[S]"""
    residual: np.ndarray
    """[S]: KKT residual, see `fit.Fit`."""
    history: np.ndarray
    """[sweeps, S]: lowest loss so far."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """S starts side by side: arrays end in an axis [S]."""

    parameters: Parameters
    """Users solved for their guideline side."""
    image: Guess
    """T(x) of that guideline side."""
    shifted: Guess
    """T(x) shifted: where to go on from, unless that led higher."""
    objective: Array
    residual: Array
    steps: Array
    """int32 [S]: how many differences are remembered; -1 before the first sweep."""
    change: Array
    """[MEMORY, P, S]: differences of T(x) - x between the last sweeps."""
    image_change: Array
    """[MEMORY, P, S]: differences of T(x)."""
    gram: Array
    """[MEMORY, MEMORY, S]: weighted products of `change` with itself."""
    sweeps: Array
    history: Array
    """[SWEEPS_PER_CALL, S]"""


class Sweeper:
    """Ratings laid out once, to sweep over from many starts.

    `weights` [n, W] give each of W = S starts its own. `fixed`: the rows in which nothing is NaN
    keep the values they start from, and mu does too.
    """

    def __init__(
        self,
        ratings: Ratings,
        penalty: Penalty,
        *,
        weights: np.ndarray | None = None,
        fixed: Parameters | None = None,
    ) -> None:
        users, guidelines = np.zeros(ratings.n_users, bool), np.zeros(ratings.n_guidelines, bool)
        if fixed is not None:
            users, guidelines = known_rows(fixed)
        with jax.enable_x64(True):
            lay = jax.device_put(layout(ratings, weights))  # takes the arrays over, no copy
            self.terms = Terms(
                lay=lay,
                users=_rows(lay.users.count, users),
                guidelines=_rows(lay.guidelines.count, guidelines),
                fixed_mu=users.any() or guidelines.any(),
                intercept=np.float64(penalty.intercept),
                embedding=np.array([penalty.embedding]),
                tolerance=np.float64(0.0),
                penalty=replace(penalty, intercept=0.0, embedding=0.0),
            )
        self.n = len(ratings)

    def sweep(
        self,
        start: Parameters,
        tolerance: float,
        max_sweeps: int,
        *,
        strength: np.ndarray | float = 1.0,
        callback: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
    ) -> Ends:
        """Sweep from `start`, arrays ending in [S], until all residuals are at most `tolerance`.

        The first sweep solves the users for the start's guidelines. `strength` multiplies
        lambda_f, all or each start's [S]. Gives up after `max_sweeps`. `callback` is told the
        number of sweeps, and losses and residuals [S]. Raises InputError if a loss overflows.
        """
        with jax.enable_x64(True):
            terms = replace(
                self.terms,
                embedding=self.terms.embedding * np.asarray(strength, np.float64),
                tolerance=np.float64(tolerance),
            )
            state = first_state(start)
            s = len(state.objective)
            sweeps = _sweeps_of_few if self.n < MANY else _sweeps_of_many
            per_call = int(np.clip(RATINGS_PER_CALL / (self.n * s), 1, SWEEPS_PER_CALL))
            history = [np.empty((0, s))]
            done = 0
            while True:
                limit = min(per_call, max_sweeps - done)
                state = sweeps(terms, np.int32(limit), state)
                history.append(np.asarray(state.history)[: int(state.sweeps)])
                done += int(state.sweeps)
                objective, residual = np.asarray(state.objective), np.asarray(state.residual)
                check_finite(objective, residual)
                if callback is not None:
                    callback(done, objective, residual)
                if (residual <= tolerance).all() or done >= max_sweeps:
                    parameters = jax.tree.map(np.asarray, state.parameters)
                    return Ends(parameters, objective, residual, np.concatenate(history))

    def measure(self, p: Parameters) -> tuple[float, float]:
        """Loss and KKT residual at one point, arrays without [S]."""
        with jax.enable_x64(True):
            at = Parameters(*(np.asarray(x, np.float64)[..., None] for x in p.arrays()))
            loss, residual, _ = _at(self.terms, at, users=True)
            check_finite(loss, residual)
            return float(loss[0]), float(residual[0])

    def guidelines(self, users: Parameters) -> Parameters:
        """The guideline side and mu solved for these users and their mu, arrays ending in [S]."""
        with jax.enable_x64(True):
            _, _, image = _at(self.terms, users, users=False)
            solved = map(np.asarray, (image.mu, image.intercept, image.embedding))
            return Parameters(next(solved), users.user_intercept, users.user_embedding, *solved)


def _rows(count: Array, fixed: np.ndarray) -> Rows:
    return Rows(count, np.asarray(count).mean(axis=0), fixed[:, None])


def check_finite(*numbers: Array) -> None:
    """Raise InputError unless losses and residuals are finite: sweeps over NaN would never end."""
    if not all(np.isfinite(x).all() for x in numbers):
        raise InputError(
            "the loss is not finite: a number of the warm start, a weight or a penalty is too large"
        )


def first_state(p: Parameters) -> State:
    """The state of starts that have not swept yet, arrays ending in [S].

    NumPy's arrays: JAX compiles even a `zeros`, and the first fit would wait for a dozen of these.
    Every dtype is spelt out: a type that changes after the first call would compile it anew.
    """
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)
    g, d, s = p.guideline_embedding.shape
    memory = np.zeros((MEMORY, 1 + g + g * d, s))
    guess = Guess(p.mu, p.guideline_intercept, p.guideline_embedding)
    return State(
        parameters=p,
        image=guess,
        shifted=guess,
        objective=np.full(s, np.inf),
        residual=np.full(s, np.inf),
        steps=np.full(s, -1, np.int32),
        change=memory,
        image_change=memory,
        gram=np.zeros((MEMORY, MEMORY, s)),
        sweeps=np.int32(0),
        history=np.zeros((SWEEPS_PER_CALL, s)),
    )


def _sweeps(terms: Terms, limit: Array, state: State) -> State:
    """Sweep until every start is stationary, `limit` times at most."""

    def going(state: State) -> Array:
        return (state.sweeps < limit) & (state.residual > terms.tolerance).any()

    def sweep(state: State) -> State:
        guess = extrapolated(terms, state)
        intercept, embedding, users = solved_users(terms, guess, state.parameters)
        p = Parameters(guess.mu, intercept, embedding, guess.intercept, guess.embedding)
        return advanced(terms, state, p, users)[0]

    return jax.lax.while_loop(going, sweep, replace(state, sweeps=jnp.zeros((), jnp.int32)))


_sweeps_of_many = jax.jit(_sweeps, donate_argnames="state")
_sweeps_of_few = jax.jit(_sweeps, donate_argnames="state", compiler_options=QUICK)


def advanced(terms: Terms, state: State, p: Parameters, users: Part) -> tuple[State, Array]:
    """The state after a sweep that solved the users of `p` for its guideline side; bool [S]: which
    starts took it. The others keep what they had, and forget the sweeps before.
    """
    guess = Guess(p.mu, p.guideline_intercept, p.guideline_embedding)
    objective, residual, image, shifted = measured(terms, guess, users)
    # Without a memory the guess is T(x) itself, and cannot be worse but by rounding.
    ok = (objective <= state.objective * (1 + ROUNDING)) | (state.steps <= 0)
    kept = jax.tree.map(
        lambda new, old: jnp.where(ok, new, old),
        (p, image, shifted, objective, residual),
        (state.parameters, state.image, state.shifted, state.objective, state.residual),
    )
    before = state.parameters
    x = Guess(before.mu, before.guideline_intercept, before.guideline_embedding).flat()
    image_change = shifted.flat() - state.shifted.flat()
    change = (shifted.flat() - guess.flat()) - (state.shifted.flat() - x)
    slot = jnp.arange(MEMORY)[:, None] == state.steps % MEMORY
    slot &= ok & (state.steps >= 0)

    def remember(memory: Array, newest: Array) -> Array:
        return jnp.where(ok, jnp.where(slot[:, None], newest, memory), 0.0)

    changes = remember(state.change, change)
    products = _products(changes, _weight(before, terms.guidelines.count) * change)
    gram = remember(state.gram, products)
    after = State(
        *kept,
        steps=jnp.where(ok, state.steps + 1, 0),
        change=changes,
        image_change=remember(state.image_change, image_change),
        gram=jnp.where(slot, products[:, None], gram),
        sweeps=state.sweeps + 1,
        history=state.history.at[state.sweeps].set(kept[3]),
    )
    return after, ok


def _weight(p: Parameters, count: Array) -> Array:
    """[P, S]: the number of ratings behind each number of the guideline side."""
    g, d, s = p.guideline_embedding.shape
    count = jnp.broadcast_to(count, (g, s))
    by_axis = jnp.broadcast_to(count[:, None], (g, d, s)).reshape(g * d, s)
    return jnp.concatenate([count.sum(axis=0)[None], count, by_axis])


def extrapolated(terms: Terms, state: State) -> Guess:
    """Anderson's extrapolation (Walker and Ni 2011, doi:10.1137/10078356X), each start by itself:

        T(x) - sum_j gamma_j (change of T)_j,  gamma = argmin |f - sum_j gamma_j (change of f)_j|

    with f = T(x) - x, T shifted, its rows weighted by their numbers of ratings. With a lasso an
    embedding whose sign it would change stays at T(x): the loss has a kink at zero. Without a
    memory it is T(x) as it was before the shift, which cannot lead higher.
    """
    p, shifted = state.parameters, state.shifted
    weight = _weight(p, terms.guidelines.count)
    f = shifted.flat() - Guess(p.mu, p.guideline_intercept, p.guideline_embedding).flat()
    gamma = solved(state.gram, _products(state.change, weight * f))
    guess = shifted.unflat(shifted.flat() - (state.image_change * gamma[:, None]).sum(axis=0))
    if terms.penalty.norm == "l1":
        same = jnp.sign(guess.embedding) == jnp.sign(shifted.embedding)
        guess = replace(guess, embedding=jnp.where(same, guess.embedding, shifted.embedding))
    return jax.tree.map(lambda x, y: jnp.where(state.steps > 0, x, y), guess, state.image)


def _products(memory: Array, x: Array) -> Array:
    """[MEMORY, S], one after the other: all at once would be the largest array of a fit."""
    return jax.lax.map(lambda change: fixed_sum(change * x), memory)


@partial(jax.jit, static_argnames="users", compiler_options=QUICK)
def _at(terms: Terms, p: Parameters, *, users: bool) -> tuple[Array, Array, Guess]:
    """Loss, KKT residual and T(x) at `p`; without `users` the residual leaves them out."""
    lay, guess = terms.lay, Guess(p.mu, p.guideline_intercept, p.guideline_embedding)
    sums = row_sums(lay, lay.users, *vars(guess).values())
    return measured(terms, guess, part(terms, p, sums if users else None))[:3]
