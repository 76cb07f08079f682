"""Choices: what to do with raw ratings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge


@dataclass(frozen=True)
class Choices:
    """What to do with raw ratings."""

    values: Mapping[str, float | None]
    """The source's words -> a number, or None: leave out."""
    duplicates: Literal["last", "first", "error"] = "last"
    """When a user rated a guideline more than once."""
    self_ratings: Literal["keep", "drop"] = "keep"
    """Ratings of guidelines by their own authors."""
    min_per_user: Annotated[int, Ge(1)] = 1
    """Leave out users with fewer ratings."""
    min_per_guideline: Annotated[int, Ge(1)] = 1
    """Leave out ratings of guidelines that have fewer."""
    minima: Literal["repeat", "once"] = "repeat"
    """`repeat`: apply both minima until neither takes away more. `once`: guidelines, then users,
    then guidelines again, as Community Notes does; some users are left with fewer ratings."""
