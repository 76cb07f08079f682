"""Texts: how what strangers wrote is shown. Nothing of it becomes a tag, a link or a picture."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from aggregation.data.dataset import clean_text

MARKS = {
    "\u00ad": "soft hyphen",
    "\u061c": "ALM",
    "\u200b": "zero-width space",
    "\u200c": "ZWNJ",
    "\u200d": "ZWJ",
    "\u200e": "LRM",
    "\u200f": "RLM",
    "\u202a": "LRE",
    "\u202b": "RLE",
    "\u202c": "PDF",
    "\u202d": "LRO",
    "\u202e": "RLO",
    "\u2060": "word joiner",
    "\u2066": "LRI",
    "\u2067": "RLI",
    "\u2068": "FSI",
    "\u2069": "PDI",
    "\ufeff": "BOM",
}
"""Characters that nobody sees, some of which turn the direction of writing, and what is shown."""

JOINED = r"(?<=[^\x00-\u02ff\s])[\u200c\u200d](?=[^\x00-\u02ff\s])"
"""Joiners within emoji and within scripts that need them: they stay."""

UNSEEN = dict.fromkeys(map(ord, MARKS))

MOST_STACKED = 3
STACKED = re.compile(
    f"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{{{MOST_STACKED}}})"
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+)"
)
"""More marks on one letter than any language has: they cover the lines around."""

HIDDEN = re.compile(f"(?P<joined>{JOINED})|(?P<mark>[{''.join(MARKS)}])")

PREFIX = re.compile(r"\[([^\[\]\n]{1,200})\]:\s*(?=\S)")
"""`[condition]:` before a guideline, set off as on the platform's page."""


def marked(text: str) -> Markup:
    """The text, escaped, with characters that nobody sees, and stacked ones, shown as marks."""
    return _with_marks(str(escape(clean_text(text))))


def _with_marks(html: str) -> Markup:
    html = STACKED.sub(lambda m: m[1] + _mark(f"+{len(m[2])}"), html)
    html = HIDDEN.sub(lambda m: m["joined"] or _mark(MARKS[m["mark"]]), html)
    return Markup(html)  # noqa: S704  # both callers give HTML that is safe


def _mark(name: str) -> str:
    return f'<span class="mark">{name}</span>'


def markdown(text: str) -> Markup:
    """Markdown as HTML: emphasis, lists and code, no links, no pictures, nothing of HTML."""
    import bleach
    import mistune

    made = mistune.create_markdown(escape=True)(clean_text(text))
    kept = bleach.clean(str(made), TAGS, {}, strip=True)
    return _with_marks(re.sub(r">\s*\n\s*<", "><", kept).strip())


TAGS = {"p", "em", "strong", "ul", "ol", "li", "code", "pre", "blockquote", "br", "del"}
"""All that Markdown may make of a guideline."""


def split_condition(text: str) -> tuple[str, str]:
    """The condition before a guideline (or nothing), and the guideline."""
    found = PREFIX.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


def brief(text: str, longest: int) -> str:
    """The text on one line without what nobody sees, cut at a word where it is longer."""
    text = " ".join(clean_text(text[: 4 * longest]).translate(UNSEEN).split())
    if len(text) <= longest:
        return text
    return text[: longest + 1].rsplit(" ", 1)[0][:longest] + "…"
