"""How far raters agree beyond chance: Krippendorff's alpha and Cohen's kappa.

1 is full agreement, 0 what chance gives, below 0 is disagreement by system. Both are None, never a false number, where
the ratings cannot tell: one rater alone, nothing rated twice, or no variation at all. Pure functions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["none", "linear", "quadratic"]
Ratings = Sequence[Sequence[float | None]]
"""One row a rater, one column an item; None where the rater gave no rating."""


def alpha(ratings: Ratings, level: Level) -> float | None:
    """Return Krippendorff's alpha of any number of raters; items that fewer than two of them rated do not count.

        alpha = 1 - D_o / D_e = 1 - (n - 1) * sum_ck o_ck d_ck / sum_ck n_c n_k d_ck

    with the coincidences o_ck (each pair of ratings of an item with m ratings counts 1/(m-1)), their margins n_c and
    n = sum n_c. The distance d is 0 or 1 for nominal values, (c - k)^2 for interval ones, and for ordinal ones
    (sum of n_g for g from c to k, less (n_c + n_k)/2)^2.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"; pinned to the package `krippendorff`.
    None where no item has two ratings or all ratings are the same.
    """
    items = [[row[place] for row in ratings] for place in range(len(ratings[0]) if ratings else 0)]
    paired = [kept for item in items if len(kept := [value for value in item if value is not None]) > 1]
    margins = Counter(value for item in paired for value in item)
    values = sorted(margins)
    if len(values) < 2:
        return None
    distance = _distance(values, margins, level)
    seen = math.fsum(
        count_c * count_k * distance(c, k) / (len(item) - 1)
        for item in paired
        for counts in [Counter(item)]
        for c, count_c in counts.items()
        for k, count_k in counts.items()
        if c != k
    )
    expected = math.fsum(margins[c] * margins[k] * distance(c, k) for c in values for k in values if c != k)
    return 1 - (margins.total() - 1) * seen / expected


def _distance(values: Sequence[float], margins: Counter[float], level: Level) -> Callable[[float, float], float]:
    if level == "nominal":
        return lambda c, k: 1.0
    if level == "interval":
        return lambda c, k: (c - k) ** 2
    below, total = {}, 0
    for value in values:
        below[value] = total + margins[value] / 2  # ratings below the middle of this value's own
        total += margins[value]
    return lambda c, k: (below[c] - below[k]) ** 2


def kappa(
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
    *,
    weights: Weights = "none",
    categories: Sequence[float] | None = None,
) -> float | None:
    """Return Cohen's kappa of two raters, over the items that both rated.

        kappa = 1 - sum_ij w_ij O_ij / sum_ij w_ij E_ij

    with the observed table O, the table E that the raters' own margins would give by chance, and w_ij = 1 for i != j,
    |i - j| ("linear") or (i - j)^2 ("quadratic") of the ranks i, j among `categories` (by default the values that
    occur, as scikit-learn has it: give the whole scale where a value may not occur).

    Source: Cohen 1960, Educ. Psychol. Meas. 20:37, and 1968, Psychol. Bull. 70:213; pinned to scikit-learn's
    `cohen_kappa_score`. None where no item was rated by both or chance leaves no room for disagreement.
    """
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    values = sorted({value for pair in pairs for value in pair} | set(categories or ()))
    rank = {value: place for place, value in enumerate(values)}
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)

    def weight(a: float, b: float) -> float:
        apart = abs(rank[a] - rank[b])
        return apart**2 if weights == "quadratic" else apart if weights == "linear" else float(apart > 0)

    seen = math.fsum(weight(a, b) for a, b in pairs)
    expected = math.fsum(first[a] * second[b] * weight(a, b) for a in first for b in second) / len(pairs)
    return 1 - seen / expected if expected else None
