"""Suppression: which numbers of people are not shown, since they are few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

MIN_CELL_SIZE = 10
"""Fewest people of whom a number is shown."""


def suppressed(cells: Mapping[Value, int], least: int) -> set[Value] | None:
    """Values whose numbers are not shown; None where not even the values can be.

    With h values held back, the total gives away their sum s. As each of them is at least 1, each
    is at most s - (h - 1): that has to be `least` or more, else all are known to be few. So the
    smallest are held back, up to a number that suffices, and with a value all others of its number:
    then exchanging the numbers of any two values held back changes nothing that is shown. As those
    numbers are not all the same, not even who knows this rule can compute one.
    """
    few = max((n for n in cells.values() if n < least), default=0)
    if cells and not few:
        return set()
    for bound in sorted(n for n in set(cells.values()) if n >= few):
        held = {value: n for value, n in cells.items() if n <= bound}
        most = sum(held.values()) - (len(held) - 1)
        if most >= least and len(set(held.values())) > 1:
            return set(held)
    return None
