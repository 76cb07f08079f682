"""Progress: a bar for a fit that takes longer than a second, in notebooks and on terminals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from aggregation.model.multistart import Watch


@contextmanager
def progress() -> Iterator[Watch]:
    """What `fit` takes as `watch`: shows sweeps, loss and residual, and leaves nothing behind."""
    with tqdm(delay=1, unit=" sweeps", leave=False, file=sys.stderr, mininterval=0.5) as bar:

        def watch(doing: str, sweeps: int, loss: float, residual: float) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.set_postfix_str(f"loss {loss:.7f}, residual {residual:.1e}", refresh=False)
            bar.update(sweeps - bar.n)

        yield watch
