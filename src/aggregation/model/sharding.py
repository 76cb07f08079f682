"""Sharding: one fit on many devices and machines, with the same bits on any number of them.

The users are cut into a fixed number of shards of about as many ratings each. A shard has its own
layout of both sides, of one shape for all. In a sweep every shard's users are solved for the
guideline side, on whatever device the shard lies, by a thread for each core; what they add to the
guidelines is gathered and added in the order of the shards. So the result depends on their number,
but not on who computed what. The work on a shard is compiled by itself: within a larger program XLA
would round it otherwise, depending on how many shards a device has, and would use one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from aggregation.errors import InputError
from aggregation.model.alternating import (
    MANY,
    QUICK,
    Ends,
    State,
    advanced,
    check_finite,
    extrapolated,
    first_state,
)
from aggregation.model.block_update import Guess, Part, Rows, Terms, solved_users
from aggregation.model.parameters import Array, Parameters, Penalty
from aggregation.model.processes import Processes, cores
from aggregation.model.ratings import Ratings
from aggregation.model.sparse_layout import (
    Layout,
    Side,
    Sums,
    aligned,
    different,
    lanes_for,
    layout,
)

RATINGS_PER_CHECKPOINT = 2e9
"""Ratings that are swept over between two checkpoints: about ten seconds of two cores."""

Arrays = list[np.ndarray]


class Checkpoint(Protocol):
    """Where a fit is kept while it is at work, so that another one can go on from there."""

    def save(self, descent: int, common: Arrays, shards: Mapping[int, Arrays]) -> None:
        """Keep a descent: what all processes have, and the shards of this one."""

    def load(self, descent: int, shards: range) -> tuple[Arrays, dict[int, Arrays]] | None:
        """What was kept last of a descent, of all and of these shards; None: nothing."""


def check_devices(shards: int, processes: Processes) -> None:
    """Raise InputError where so many shards cannot be dealt out to all devices."""
    n = processes.count * jax.local_device_count()
    if shards % n:
        raise InputError(
            f"shards is {shards}, but there are {n} devices: choose a multiple of them, such as "
            f"{n * max(2, shards // n)}"
        )


class ShardedSweeper:
    """Sweeps over the ratings of all processes; each gives those of its own users."""

    def __init__(
        self,
        ratings: Ratings,
        penalty: Penalty,
        shards: int,
        processes: Processes,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        check_devices(shards, processes)
        devices = jax.local_devices()
        self.processes, self.checkpoint, self.descents = processes, checkpoint, 0
        local = shards // processes.count
        self.mine = range(processes.index * local, (processes.index + 1) * local)
        self.n = int(processes.total(np.array(len(ratings)))[0])
        self.cuts = cuts(ratings, shards, self.n, processes.before(len(ratings)), self.mine)
        self.rows = int(-processes.least(-np.diff(self.cuts).max())[0])
        n_users = int(processes.total(np.array(ratings.n_users))[0])
        values = np.unique(processes.joined(different(ratings.helpful)))
        lanes = (lanes_for(self.rows), lanes_for(ratings.n_guidelines))
        self.threads = ThreadPoolExecutor(cores())

        def laid(k: int) -> Layout:
            return layout(self._shard(ratings, k), None, values, lanes)

        lays = dict(enumerate(self.threads.map(laid, range(local))))
        count = processes.total(np.sum([lay.guidelines.count for lay in lays.values()], axis=0))
        squares = in_order(processes.joined(np.array([lay.squares for lay in lays.values()])))
        nobody = np.zeros((1, 1), bool)
        # Of the whole: what the guideline side and the loss need. The rest lies in the shards.
        self.terms = Terms(
            lay=Layout(None, None, None, squares, lays[0].bits),  # type: ignore[arg-type]
            users=None,  # type: ignore[arg-type]
            guidelines=Rows(count, count.mean(axis=0), nobody),
            fixed_mu=np.bool_(False),
            intercept=np.float64(penalty.intercept),
            embedding=np.array([penalty.embedding]),
            tolerance=np.float64(0.0),
            penalty=replace(penalty, intercept=0.0, embedding=0.0),
        )
        mean = np.array([self.n / n_users])
        self.devices = [devices[k * len(devices) // local] for k in range(local)]
        shapes = _shapes(lays.values(), processes)

        def placed(k: int) -> Terms:
            lay = _padded(lays.pop(k), shapes, self.rows, ratings.n_guidelines)
            rows = Rows(lay.users.count, mean, nobody)
            mine = replace(self.terms, lay=lay, users=rows, guidelines=None)
            with jax.enable_x64(True):
                return jax.device_put(mine, self.devices[k])

        self.shards = [*self.threads.map(placed, range(local))]

    def _shard(self, ratings: Ratings, k: int) -> Ratings:
        """The ratings of one shard; its users count from 0, and there are as many as in any."""
        # Of the same type: else NumPy makes a wider copy of all users.
        a, b = np.searchsorted(ratings.user, self.cuts[k : k + 2].astype(ratings.user.dtype))
        user = ratings.user[a:b] - np.int32(self.cuts[k])
        return Ratings(
            user, ratings.guideline[a:b], ratings.helpful[a:b], self.rows, ratings.n_guidelines
        )

    def sweep(
        self,
        start: Parameters,
        tolerance: float,
        max_sweeps: int,
        *,
        strength: np.ndarray | float = 1.0,
        callback: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
    ) -> Ends:
        """As `Sweeper.sweep`; `start` and what is returned have the users of this process.

        Goes on from the checkpoint of this descent, the first or a later one, if there is one.
        """
        with jax.enable_x64(True):
            embedding = self.terms.embedding * np.asarray(strength, np.float64)
            terms = replace(self.terms, embedding=embedding)
            shards = [replace(shard, embedding=embedding) for shard in self.shards]
            state, users, history = self._begin(start)
            every = max(1, round(RATINGS_PER_CHECKPOINT / self.n))
            while True:
                objective, residual = np.asarray(state.objective), np.asarray(state.residual)
                done = bool((residual <= tolerance).all()) or len(history) >= max_sweeps
                if len(history) and (done or len(history) % every == 0):
                    self._keep(state, users, history)
                if done:
                    break
                state, users = self._swept(terms, shards, state, users)
                history = np.concatenate([history, np.asarray(state.objective)[None]])
                check_finite(np.asarray(state.objective), np.asarray(state.residual))
                if callback is not None:
                    callback(len(history), np.asarray(state.objective), np.asarray(state.residual))
            self.descents += 1
            return Ends(self._parameters(state, users), objective, residual, history)

    def _begin(self, start: Parameters) -> tuple[State, list[Arrays], np.ndarray]:
        """The state to sweep from, the users of each shard, and the lowest losses so far."""
        sides = (start.user_intercept, start.user_embedding)
        nobody = {"user_intercept": sides[0][:0], "user_embedding": sides[1][:0]}
        state = first_state(replace(start, **nobody))  # the shards have the users
        kept = None
        if self.checkpoint is not None:
            kept = self.checkpoint.load(self.descents, self.mine)
        if kept is not None:
            (history, *leaves), shards = kept
            state = jax.tree.unflatten(jax.tree.structure(state), leaves)
            return state, [shards[k] for k in self.mine], history
        users = []
        for a, b in zip(self.cuts[:-1], self.cuts[1:], strict=True):
            own = (np.asarray(x)[a:b] for x in sides)
            more = self.rows - (b - a)
            users.append([np.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)) for x in own])
        return state, users, np.empty((0, len(start.mu)))

    def _swept(
        self, terms: Terms, shards: list[Terms], state: State, users: list[Arrays]
    ) -> tuple[State, list[Arrays]]:
        """One sweep. What decides how it goes on is the first process's, to the bit: a machine of
        another make may round otherwise.
        """
        lead, solve = self._lead, _shard_of_few if self.n < MANY else _shard_of_many
        guess = jax.tree.map(lead, _extrapolated(terms, state))

        def solved(shard: Terms, near: Arrays, device: object) -> tuple[Array, ...]:
            with jax.enable_x64(True):
                here = jax.device_put((guess, near), device)
                return jax.block_until_ready(solve(shard, *here))

        found = list(self.threads.map(solved, shards, users, self.devices))
        added = self.processes.joined(np.stack([np.asarray(x) for *_, x, _ in found]))
        residual = -self.processes.least(-np.max([np.asarray(x) for *_, x in found], axis=0))
        state, ok = _advanced(terms, state, guess, in_order(added), residual)
        ok, objective, residual = (lead(x) for x in (ok, state.objective, state.residual))
        state = replace(state, objective=objective, residual=residual)
        if ok.all():
            return state, [list(new[:2]) for new in found]
        return state, [
            [np.where(ok, np.asarray(x), np.asarray(y)) for x, y in zip(new[:2], old, strict=True)]
            for new, old in zip(found, users, strict=True)
        ]

    def _lead(self, x: Array) -> np.ndarray:
        """The first process's."""
        return self.processes.gathered(np.asarray(x))[0]

    def _keep(self, state: State, users: list[Arrays], history: np.ndarray) -> None:
        if self.checkpoint is not None:
            common = [history, *map(np.asarray, jax.tree.leaves(state))]
            own = {k: [*map(np.asarray, x)] for k, x in zip(self.mine, users, strict=True)}
            self.checkpoint.save(self.descents, common, own)

    def _parameters(self, state: State, users: list[Arrays]) -> Parameters:
        sizes = np.diff(self.cuts)
        intercept, embedding = (
            np.concatenate([np.asarray(x[:n]) for x, n in zip(of, sizes, strict=True)])
            for of in zip(*users, strict=True)
        )
        p = jax.tree.map(np.asarray, state.parameters)
        return replace(p, user_intercept=intercept, user_embedding=embedding)


def cuts(ratings: Ratings, shards: int, n: int, before: int, mine: range) -> np.ndarray:
    """[len(mine) + 1]: the first user of each of the shards `mine`, and the end.

    Shard k of `shards` begins with the first user whose first rating is number k n / shards or a
    later one, of all n; `before` of them are other processes'.
    """
    first = np.cumsum(ratings.per_user()) - ratings.per_user() + before
    return np.append(np.searchsorted(first, [k * n / shards for k in mine]), ratings.n_users)


def in_order(x: np.ndarray) -> np.ndarray:
    """Sum over the first axis, one after the other."""
    total = np.zeros(x.shape[1:])
    for one in x:
        total += one
    return total


def _shapes(lays: Iterable[Layout], processes: Processes) -> np.ndarray:
    """[2, 3]: the most lines, blocks and further pieces of any shard, of users, of guidelines."""
    own = [
        [(len(s.entries), len(s.start) - 1, len(s.more_place)) for s in (lay.users, lay.guidelines)]
        for lay in lays
    ]
    return -processes.least(-np.max(own, axis=0))


def _padded(lay: Layout, shapes: np.ndarray, users: int, guidelines: int) -> Layout:
    """A layout with lines, blocks and pieces of no ratings, to have the `shapes` of all."""

    def side(of: Side, shape: np.ndarray, others: int) -> Side:
        lines, blocks, pieces = shape.tolist()
        entries = aligned((lines, of.entries.shape[1]), of.entries.dtype.type)
        entries[: len(of.entries)], entries[len(of.entries) :] = of.entries, others << lay.bits
        more = pieces - len(of.more_place)
        return replace(
            of,
            entries=entries,
            # one block more than any shard needs, which is empty and has sums of 0
            start=np.pad(of.start, (0, blocks + 2 - len(of.start)), mode="edge"),
            more_place=np.pad(
                of.more_place, (0, more), constant_values=blocks * of.entries.shape[1]
            ),
            more_row=np.pad(of.more_row, (0, more)),
        )

    return replace(
        lay,
        users=side(lay.users, shapes[0], guidelines),
        guidelines=side(lay.guidelines, shapes[1], users),
    )


_extrapolated = jax.jit(extrapolated, compiler_options=QUICK)


def _solved_shard(terms: Terms, guess: Guess, near: Arrays) -> tuple[Array, Array, Array, Array]:
    """Intercepts and embeddings of a shard's users, and what they add: a flat sum, a residual."""
    before = Parameters(guess.mu, near[0], near[1], guess.intercept, guess.embedding)
    intercept, embedding, part = solved_users(terms, guess, before)
    flat = [x.reshape(-1, x.shape[-1]) for x in (*vars(part.sums).values(), part.totals)]
    return intercept, embedding, jnp.concatenate(flat), part.residual


_shard_of_many = jax.jit(_solved_shard)
_shard_of_few = jax.jit(_solved_shard, compiler_options=QUICK)


@partial(jax.jit, compiler_options=QUICK)
def _advanced(
    terms: Terms, state: State, guess: Guess, added: Array, residual: Array
) -> tuple[State, Array]:
    """`advanced` with what all shards have added, flat; the state has no users."""
    g, d, s = guess.embedding.shape
    *sums, totals = jnp.split(added, np.cumsum([g, g * d, g * d, g * d * d]))
    shapes = ((g, s), (g, d, s), (g, d, s), (g, d, d, s))
    sums = Sums(*(x.reshape(shape) for x, shape in zip(sums, shapes, strict=True)))
    nobody = state.parameters
    p = Parameters(
        guess.mu, nobody.user_intercept, nobody.user_embedding, guess.intercept, guess.embedding
    )
    return advanced(terms, replace(state, sweeps=0), p, Part(sums, totals, residual))
