"""How numbers and other people's words are shown: one place, so that the terminal, Markdown and the page agree.

Every function returns plain text; what was not measured or does not apply is "–".
"""

from __future__ import annotations

import re
import unicodedata

NONE = "–"
MINUS = "−"
_ESCAPE_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, movement
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC and its kin: titles, links
    r"|\x1b[ -/]*[0-~]?"  # any other
)
_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#|~!&])")


def plain(text: str, *, line: bool = False) -> str:
    """Return `text` without terminal escapes, control characters and marks that turn the writing direction.

    Newlines and tabs stay, unless one `line` is asked for: then every run of white space becomes a space.
    """
    text = _ESCAPE_SEQUENCES.sub("", text)
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            kept.append("\ufffd")
        elif character in "\n\t" or (category != "Cc" and character not in _DIRECTION_MARKS):
            kept.append(character)
    text = "".join(kept)
    return " ".join(text.split()) if line else text


def markdown(text: str) -> str:
    """Return `text` as one line that Markdown shows literally, in a table's cell too."""
    return _MARKUP.sub(r"\\\1", plain(text, line=True))


def short(text: str, length: int) -> str:
    text = plain(text, line=True)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def score(value: float | None, unit: str) -> str:
    """Return a metric's value: shares as percent with one decimal, points of a scale from 0 to 100 ("points", as BLEU
    has them) with one decimal, others with three significant digits."""
    if value is None:
        return NONE
    return f"{_signless(100 * value, 1)} %" if unit == "share" else _number(value, unit)


def bounds(low: float | None, high: float | None, unit: str) -> str:
    """Return an interval, "35.1 to 50.2", in the unit that `score` shows."""
    if low is None or high is None:
        return "n/a"
    if unit == "share":
        return f"{_signless(100 * low, 1)} to {_signless(100 * high, 1)}"
    return f"{_number(low, unit)} to {_number(high, unit)}"


def change(value: float | None, unit: str) -> str:
    """Return a difference with its sign; of shares in percentage points."""
    if value is None:
        return NONE
    if unit in ("share", "points"):
        return _signed(100 * value if unit == "share" else value, 1)
    return _signed_three(value)


def change_bounds(low: float | None, high: float | None, unit: str) -> str:
    if low is None or high is None:
        return "n/a"
    return f"{change(low, unit)} to {change(high, unit)}"


def size_of_change(value: float | None, unit: str) -> str:
    """Return how large a difference is, without its sign: "8.9 points" of shares."""
    if value is None:
        return NONE
    if unit in ("share", "points"):
        return f"{_signless(100 * value if unit == 'share' else value, 1)} points"
    return _three(value)


def p(value: float | None) -> str:
    """Return a p-value with two figures that matter: "0.016", "< 0.0001". What is next to 0.05 gets a third one, so
    that nobody must guess on which side of it a verdict fell."""
    if value is None:
        return NONE
    if value < 0.0001:
        return "< 0.0001"
    text = f"{value:.2g}"
    return f"{value:.3g}" if text == "0.05" else text


def said_p(value: float) -> str:
    """The same within a sentence: "p = 0.016", "p < 0.0001"."""
    text = p(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def seconds(value: float | None) -> str:
    """Return a duration with two figures that matter: "0.42 s", "8.3 s", "47 s", "4 min 10 s", "2 h 5 min"."""
    if value is None:
        return NONE
    if value < 0.9995:
        return f"{value:.2f} s" if value else "0 s"
    if round(value, 1) < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(value / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def milliseconds(value: float | None) -> str:
    """Return a latency: "8.4 ms", "812 ms", "1.9 s"."""
    if value is None:
        return NONE
    if value >= 999.5:
        return seconds(value / 1000)
    return f"{value:.1f} ms" if round(value, 1) < 10 else f"{round(value)} ms"


def count(value: float | None) -> str:
    """Return a whole number with separators: "1,204"."""
    return NONE if value is None else f"{round(value):,}"


def counted(n: int, noun: str) -> str:
    """Return how many there are of what `noun` names: "1 group", "1,204 groups"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def per(value: float | None, n: int) -> str:
    """Return `value` shared among `n`, with one decimal below ten."""
    if value is None or not n:
        return NONE
    share = value / n
    return f"{share:.1f}".removesuffix(".0") if share < 9.95 else f"{round(share):,}"


def size(value: float | None) -> str:
    """Return bytes in binary units with at most three figures: "812 B", "98 MiB", "1.5 GiB"."""
    if value is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < (1000 if unit == "B" else 1023.5):
            return f"{value:.1f} {unit}" if unit != "B" and round(value, 1) < 10 else f"{round(value)} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def _signless(value: float, digits: int) -> str:
    """Rounded, with a true minus sign, and never "-0.0"."""
    text = f"{value:.{digits}f}"
    if not text.strip("-0."):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def _signed(value: float, digits: int) -> str:
    text = _signless(value, digits)
    return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"


def _number(value: float, unit: str) -> str:
    return _signless(value, 1) if unit == "points" else _three(value)


def _three(value: float) -> str:
    return f"{value:,.0f}".replace("-", MINUS) if abs(value) >= 1000 else f"{value:.3g}".replace("-", MINUS)


def _signed_three(value: float) -> str:
    text = _three(value)
    return f"+{text}" if value > 0 else text
