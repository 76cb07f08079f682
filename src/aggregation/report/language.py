"""Language: the words, numbers and dates of a page.

English texts stand in the code and the templates; `locale/<code>.po` holds their translations
(gettext's format, read by Babel), so that a translator needs to change one text file.
"""

from __future__ import annotations

import gettext
import io
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from babel import Locale
from babel.dates import format_date
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

from aggregation.data.cards import English

LANGUAGES = ("en", "de")
"""Those that a report can be in."""

UNKNOWN = "–"
"""What stands for a number that is not known."""


@dataclass(frozen=True)
class Language(English):
    """A language, by its code of ISO 639-1."""

    code: str = "en"

    @cached_property
    def catalogue(self) -> gettext.NullTranslations:
        """The translations; none for English."""
        if self.code == "en":
            return gettext.NullTranslations()
        text = files("aggregation.report").joinpath(f"locale/{self.code}.po").read_bytes()
        binary = io.BytesIO()
        write_mo(binary, read_po(io.BytesIO(text), locale=self.code))
        binary.seek(0)
        return gettext.GNUTranslations(binary)

    def gettext(self, message: str, **values: Any) -> str:
        """The message in this language, with `values` in place of its %(names)s."""
        return self.catalogue.gettext(message) % self._shown(values)

    def ngettext(self, one: str, other: str, n: int, **values: Any) -> str:
        """The same for a number `n` of things, which is %(n)s."""
        return self.catalogue.ngettext(one, other, n) % self._shown(values | {"n": n})

    def _shown(self, values: dict[str, Any]) -> dict[str, Any]:
        return {k: self.number(int(v)) if _whole(v) else v for k, v in values.items()}

    def number(self, n: int) -> str:
        """A whole number, with marks between thousands."""
        return _number(self.code, int(n))

    def decimal(self, x: float, digits: int = 2) -> str:
        """A number with so many decimals."""
        if pd.isna(x):
            return UNKNOWN
        pattern = f"#,##0.{'0' * digits}" if digits else "#,##0"
        return format_decimal(x, pattern, locale=self.code)

    def percent(self, share: float, digits: int = 0) -> str:
        """A share in percents, whole ones unless `digits` says otherwise."""
        return UNKNOWN if pd.isna(share) else _percent(self.code, round(share, digits + 2))

    def points(self, share: float) -> str:
        """A difference of shares in percentage points, with its sign."""
        if pd.isna(share):
            return UNKNOWN
        points = round(100 * share)
        return ("+" if points > 0 else "−" if points < 0 else "") + self.number(abs(points))

    def day(self, day: date) -> str:
        """A date in words."""
        return format_date(day, "long", locale=self.code)

    def listed(self, words: list[str]) -> str:
        """Words in a row, with commas between them."""
        return ", ".join(words)

    @property
    def direction(self) -> str:
        """Of writing: ltr or rtl."""
        return Locale.parse(self.code).text_direction


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer)


@cache
def _number(code: str, n: int) -> str:
    return format_decimal(n, locale=code)


@cache
def _percent(code: str, share: float) -> str:
    return format_percent(share, locale=code, decimal_quantization=False)
