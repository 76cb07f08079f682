"""Processes: several processes that fit one model together, each with the ratings of its own users.

What they tell one another is gathered in their order and added in it, so every process has the same
numbers. JAX does the talking; a single process needs none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregation.errors import RunError


@dataclass(frozen=True)
class Processes:
    """Process number `index` of `count`. Each has the users that follow those of the one before."""

    index: int = 0
    count: int = 1

    def gathered(self, x: np.ndarray | Sequence[float] | float) -> list[np.ndarray]:
        """The array of every process, in order; their first axes may have different lengths.

        Raises RunError if another process has ended.
        """
        mine = np.atleast_1d(x)
        if self.count == 1:
            return [mine]
        import jax
        from jax.experimental.multihost_utils import process_allgather

        try:
            with jax.enable_x64(True):
                lengths = process_allgather(np.array(len(mine)))
                padded = np.zeros((int(max(lengths)), *mine.shape[1:]), mine.dtype)
                padded[: len(mine)] = mine
                found = np.asarray(process_allgather(padded))
        except (RuntimeError, ValueError) as error:  # JAX raises either when a connection closes
            reason = str(error).strip().splitlines()[-1][:200]
            raise RunError(
                f"another process has ended, or cannot be reached ({reason}). What it said tells "
                "why; start all of them again: they go on from the last checkpoint"
            ) from None
        return [found[k, : lengths[k]] for k in range(self.count)]

    def joined(self, x: np.ndarray) -> np.ndarray:
        """The arrays of all processes one after the other."""
        return np.concatenate(self.gathered(x))

    def total(self, x: np.ndarray) -> np.ndarray:
        """Elementwise sum of the arrays of all processes."""
        return np.sum(self.gathered(x), axis=0)

    def least(self, x: np.ndarray) -> np.ndarray:
        """Elementwise minimum of the arrays of all processes."""
        return np.min(self.gathered(x), axis=0)

    def before(self, n: int) -> int:
        """Sum of the numbers `n` of the processes before this one."""
        return int(np.sum(self.gathered(n)[: self.index]))

    def texts(self, mine: Sequence[str]) -> list[str]:
        """The texts of all processes one after the other."""
        encoded = [text.encode("utf-8") for text in mine]
        lengths = self.joined(np.array([len(text) for text in encoded], np.int64))
        whole = self.joined(np.frombuffer(b"".join(encoded), np.uint8)).tobytes()
        ends = np.cumsum(lengths).tolist()
        starts = [0, *ends[:-1]]
        return [whole[a:b].decode("utf-8") for a, b in zip(starts, ends, strict=True)]


ALONE = Processes()
"""One process with all users."""


def cores() -> int:
    """How many cores this process may use."""
    mine = getattr(os, "sched_getaffinity", None)  # Linux
    return len(mine(0)) if mine else os.cpu_count() or 1
