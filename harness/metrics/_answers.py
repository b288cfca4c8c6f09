"""How answers are folded before they are compared: SQuAD's rule."""

from __future__ import annotations

import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def squad(text: str) -> str:
    """Lower the case, drop ASCII punctuation, drop a/an/the, squeeze white space, in this order.

    Source: `normalize_answer` of the SQuAD v1.1 evaluation script (Rajpurkar et al. 2016).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
