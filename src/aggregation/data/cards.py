"""Cards: a short summary of a value, as HTML in a notebook and as text. All text is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

MAX_TEXT_LENGTH = 200
"""Characters of a text that a card shows, unless it says otherwise."""

MAX_FACTS = 20
"""Facts that a card shows."""


@dataclass(frozen=True)
class Card:
    """A headline, facts by name, doubts, and the calls that tell more."""

    headline: str
    facts: tuple[tuple[str, str], ...] = ()
    doubts: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    longest: int = MAX_TEXT_LENGTH

    def html(self) -> str:
        """The card as HTML; every text escaped, and cut where it is too long."""
        rows = [
            # A cell of its own keeps a text that turns the direction of writing to itself.
            f'<tr><th scope="row" style="{LEFT};white-space:nowrap">{self._safe(name)}</th>'
            f'<td style="{LEFT}">{self._safe(value)}</td></tr>'
            for name, value in self.facts[:MAX_FACTS]
        ]
        if len(self.facts) > MAX_FACTS:
            rows.append(f'<tr><td colspan="2">and {len(self.facts) - MAX_FACTS} more</td></tr>')
        parts = [f"<p><strong>{self._safe(self.headline)}</strong></p>"]
        doubts = (doubt[:1].upper() + doubt[1:] + "." for doubt in self.doubts[:MAX_FACTS])
        parts += [f"<p>{self._safe(doubt)}</p>" for doubt in doubts]
        parts += [f'<table style="overflow-wrap:anywhere">{"".join(rows)}</table>'] if rows else []
        calls = ", ".join(f"<code>{self._safe(call)}</code>" for call in self.more)
        parts += [f"<p>More: {calls}</p>"] if calls else []
        return f"<div>{''.join(parts)}</div>"

    def line(self) -> str:
        """Headline and doubts as one line of text; what cannot be shown is written as code."""
        words = (self.headline, *self.doubts[:MAX_FACTS])
        text = "; ".join(short(word, self.longest) for word in words)
        return f"<{''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)}>"

    def _safe(self, text: str) -> str:
        return escape(short(text, self.longest))


LEFT = "text-align:left;vertical-align:top"
"""JupyterLab aligns cells to the right otherwise."""


class Shown:
    """A value that shows itself by its card, in notebooks and as text."""

    def _card(self) -> Card:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return self._card().html()

    def __repr__(self) -> str:
        return self._card().line()


def short(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """The text on one line, cut where it is longer, and saying so."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[:longest] + " ..."


class English:
    """Sentences as they stand in the code; `report.language` gives the same in other languages."""

    def gettext(self, message: str, **values: object) -> str:
        """The message with `values` in place of its %(names)s."""
        return message % {k: f"{v:,}" if isinstance(v, int) else v for k, v in values.items()}

    def ngettext(self, one: str, other: str, n: int, **values: object) -> str:
        """The same for a number `n` of things, which is %(n)s."""
        return self.gettext(one if n == 1 else other, **values, n=n)


def many(n: int, noun: str, nouns: str = "") -> str:
    """`1 rating`, `1,234 ratings`."""
    return f"{n:,} {noun if n == 1 else nouns or noun + 's'}"
