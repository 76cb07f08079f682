"""Settings: the limits of the fields of a dataclass, as their annotations say."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from aggregation.errors import InputError


def check_fields(settings: Any) -> None:
    """Raise InputError where a field of a dataclass is not what its annotation allows."""
    try:
        TypeAdapter(type(settings)).validate_python(vars(settings))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]} is {first['input']!r}: {first['msg']}") from None
