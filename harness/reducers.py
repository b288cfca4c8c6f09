"""What turns the sufficient statistics of all examples into a metric's value, by the name that a Score carries.

A reducer gets one row of numbers for each example and the score's `labels` (the names of classes, where numbers stand
for classes), and gives the value, or None where these examples have none ("n/a"). The reading side calls reducers too,
so they are pure functions of plain numbers: results outlive the plug-ins that made them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence

from harness.stats import mean

Statistics = Sequence[Sequence[float]]
Reducer = Callable[[Statistics, Sequence[str]], float | None]


def _mean(statistics: Statistics, labels: Sequence[str]) -> float:
    return mean([value for (value,) in statistics])


REDUCERS: dict[str, Reducer] = {"mean": _mean}
SUMS = {"bleu": 3, "chrf": 2, "ter": 0, "perplexity": 0, "bits_per_byte": 0}
"""Reducers that need no more than the sums over examples, with the leading columns that are settings, alike in each
row: the bootstrap then adds up groups instead of reading every row again."""

# ------------------------------------------------------------------------------------------- text, as sacrebleu has it

BLEU_SMOOTHING = ("exp", "floor", "add-k", "none")
"""Ways to smooth BLEU; rows of statistics hold the place in this order."""


def _sums(statistics: Statistics, start: int) -> list[float]:
    """Add up the columns from `start` on."""
    return [math.fsum(column) for column in list(zip(*statistics, strict=True))[start:]]


def _bleu(statistics: Statistics, labels: Sequence[str]) -> float:
    """BLEU of a corpus, 0 to 100.

        BP * exp( 1/N * sum_n log p_n ),  BP = exp(1 - reference length / length) where the answers are shorter

    A row is (smoothing, its value, 1 for effective order, words, reference words, matches of order 1 to N, n-grams of
    order 1 to N). An order without a match counts what the smoothing gives it. Papineni et al. 2002; Chen and Cherry
    2014 (W14-3346); `BLEU.compute_bleu` of sacrebleu 2.6.0.
    """
    smoothing, extra, effective = BLEU_SMOOTHING[int(statistics[0][0])], statistics[0][1], statistics[0][2] > 0
    words, reference, *counts = _sums(statistics, 3)
    order = len(counts) // 2
    if not words or not any(counts[:order]):
        return 0.0
    logarithms, halvings, used = 0.0, 0, 0
    for n, (matched, total) in enumerate(zip(counts[:order], counts[order:], strict=True)):
        if smoothing == "add-k" and n > 0:
            matched, total = matched + extra, total + extra
        if total == 0:
            break
        if matched == 0 and smoothing == "exp":
            halvings += 1
            matched = 0.5**halvings
        elif matched == 0 and smoothing == "floor":
            matched = extra
        if matched == 0:
            return 0.0
        logarithms += math.log(matched / total)
        used += 1
    if used < order and not effective:
        return 0.0
    penalty = math.exp(1 - reference / words) if words < reference else 1.0
    return 100 * min(1.0, penalty * math.exp(logarithms / used))


def _chrf(statistics: Statistics, labels: Sequence[str]) -> float:
    """chrF of a corpus, 0 to 100.

    A row is (beta, 1 for smoothing by epsilon, then for each order of n-grams: the answer's, the accepted answer's, the
    shared ones). Precision and recall are averaged over the orders that both sides have, and the F-score is of the
    averages; with epsilon it is the average of F-scores over all orders. Popović 2015 (W15-3049); `_compute_f_score` of
    sacrebleu 2.6.0.
    """
    factor, smoothed = statistics[0][0] ** 2, statistics[0][1] > 0
    counts = _sums(statistics, 2)
    orders = list(zip(counts[::3], counts[1::3], counts[2::3], strict=True))
    if smoothed:
        tiny = 1e-16
        scores = []
        for ours, theirs, shared in orders:
            precision, recall = shared / ours if ours else tiny, shared / theirs if theirs else tiny
            below = factor * precision + recall
            scores.append((1 + factor) * precision * recall / below if below else tiny)
        return 100 * math.fsum(scores) / len(orders)
    known = [(shared / ours, shared / theirs) for ours, theirs, shared in orders if ours and theirs]
    precision = math.fsum(p for p, _ in known) / len(known) if known else 0.0
    recall = math.fsum(r for _, r in known) / len(known) if known else 0.0
    if not precision + recall:
        return 0.0
    return 100 * (1 + factor) * precision * recall / (factor * precision + recall)


def _ter(statistics: Statistics, labels: Sequence[str]) -> float:
    """Edits in percent of the accepted answers' words; a row is (edits, words of the accepted answers on average).

    Where no accepted answer has a word, it is 100 if anything was said, else 0. Snover et al. 2006;
    `TER._compute_score_from_stats` of sacrebleu 2.6.0.
    """
    edits, words = _sums(statistics, 0)
    return 100 * edits / words if words else 100.0 * (edits > 0)


REDUCERS |= {"bleu": _bleu, "chrf": _chrf, "ter": _ter}

# ------------------------------------------------------------------------------------------------------------- classes


def class_counts(statistics: Statistics, labels: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return (examples of the class, answers that name it, right answers) of each label.

    A row is (index of the right class, index of the named one or -1).
    """
    counts = [[0, 0, 0] for _ in labels]
    for (right, named), times in Counter(map(tuple, statistics)).items():
        counts[int(right)][0] += times
        if named >= 0:
            counts[int(named)][1] += times
            counts[int(named)][2] += times * (right == named)
    return [(examples, answers, hits) for examples, answers, hits in counts]


def _averaged(figure: str, average: str) -> Reducer:
    """Precision, recall or F1 of the classes that have examples, averaged as scikit-learn does with these `labels` and
    `zero_division=0`; see harness/metrics/label_precision.py."""

    def of(examples: int, answers: int, hits: int) -> float:
        above, below = {
            "precision": (hits, answers),
            "recall": (hits, examples),
            "f1": (2 * hits, examples + answers),
        }[figure]
        return above / below if below else 0.0

    def value(statistics: Statistics, labels: Sequence[str]) -> float | None:
        if not statistics or (figure == "precision" and all(named < 0 for _, named in statistics)):
            return None
        counts = [count for count in class_counts(statistics, labels) if count[0]]
        if average == "micro":
            examples, answers, hits = map(sum, zip(*counts, strict=True))
            return of(examples, answers, hits)
        weights = [count[0] if average == "weighted" else 1 for count in counts]
        weighted = (weight * of(*count) for weight, count in zip(weights, counts, strict=True))
        return math.fsum(weighted) / sum(weights)

    return value


def _mcc(statistics: Statistics, labels: Sequence[str]) -> float | None:
    """Gorodkin's R_K (2004), with -1 (no class named) as a class of its own. None where the examples are of one class,
    of which nothing can be told apart; 0, the limit, where all answers name one."""
    total, right = len(statistics), sum(one == other for one, other in statistics)
    truth, named = Counter(one for one, _ in statistics), Counter(other for _, other in statistics)
    across = total * total - sum(count * count for count in truth.values())
    along = total * total - sum(count * count for count in named.values())
    if not across:
        return None
    if not along:
        return 0.0
    together = total * right - sum(count * named[label] for label, count in truth.items())
    return together / math.sqrt(across * along)


# --------------------------------------------------------------------------------------------------------- likelihoods


def _perplexity(statistics: Statistics, labels: Sequence[str]) -> float | None:
    """A row is (log-probability, tokens, bytes). None without tokens, and where it is too large for a number."""
    logprobs, tokens, _ = _sums(statistics, 0)
    return math.exp(-logprobs / tokens) if tokens and -logprobs / tokens < 700 else None


def _bits_per_byte(statistics: Statistics, labels: Sequence[str]) -> float | None:
    logprobs, _, size = _sums(statistics, 0)
    return -logprobs / (math.log(2) * size) if size else None


CALIBRATION_EDGES = tuple(place / 15 for place in range(16))


def calibration_bins(statistics: Statistics) -> list[tuple[float, float, int, float, float]]:
    """Return (from, to, examples, mean confidence, share right) of each bin that holds examples.

    A row is (confidence, 1 where it was right). Bins hold their lower edge, and a confidence of exactly 1 has a bin of
    its own, as in torchmetrics 1.9 (`_binning_bucketize`).
    """
    edges = CALIBRATION_EDGES
    bins: list[list[Sequence[float]]] = [[] for _ in edges]
    for row in statistics:
        bins[bisect_right(edges, row[0]) - 1].append(row)
    return [
        (low, high, len(rows), mean([row[0] for row in rows]), mean([row[1] for row in rows]))
        for low, high, rows in zip(edges, [*edges[1:], 1.0], bins, strict=True)
        if rows
    ]


def _ece(statistics: Statistics, labels: Sequence[str]) -> float | None:
    """`_ce_compute` of torchmetrics with norm "l1"."""
    bins = calibration_bins(statistics)
    total = sum(count for _, _, count, _, _ in bins)
    gaps = (count * abs(right - confidence) for _, _, count, confidence, right in bins)
    return math.fsum(gaps) / total if total else None


CLASS_REDUCERS: dict[str, Reducer] = {
    **{f"{a}_{f}": _averaged(f, a) for a in ("macro", "micro", "weighted") for f in ("precision", "recall", "f1")},
    "mcc": _mcc,
}
"""Those whose rows are (index of the right class, index of the named one or -1)."""

REDUCERS |= CLASS_REDUCERS | {"perplexity": _perplexity, "bits_per_byte": _bits_per_byte, "ece": _ece}
