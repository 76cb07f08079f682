"""Progress: a bar for a fit that takes longer than a second, in notebooks and on terminals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from aggregation.model.multistart import Callback


@contextmanager
def progress() -> Iterator[Callback]:
    """A callback of `fit` that shows sweeps, loss and residual, and clears the bar at the end."""
    with tqdm(delay=1, unit=" sweeps", leave=False, file=sys.stderr, mininterval=0.5) as bar:

        def callback(doing: str, sweeps: int, loss: float, residual: float) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.set_postfix_str(f"loss {loss:.7f}, residual {residual:.1e}", refresh=False)
            bar.update(sweeps - bar.n)

        yield callback
