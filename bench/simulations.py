"""What the statistics promise, simulated: false alarms, coverage of intervals, minimum detectable effects, speed.

    python bench/simulations.py            # every cell, some minutes on one core
    python bench/simulations.py --quick    # fewer simulations, to see that it runs

Right and wrong answers in groups are drawn with a beta-distributed chance of each group (intra-class correlation rho).
What is simulated in whole arrays is compared with the harness's own functions on samples of every cell first. Exits
with 1 where a promise is not kept. docs/statistics.md explains the methods and holds the figures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binom

from harness import bootstrap, comparisons, margins, power, randomisation, stats
from harness.samples import Sample

Array = np.ndarray[Any, Any]

SHARES = np.linspace(0.05, 0.95, 19)
CORRELATIONS = (0.0, 0.1, 0.3, 0.5)
KINDS = ("2", "4", "8", "1-8")
LOW, HIGH, ALARMS, CLAIMS = 0.935, 0.965, 0.055, 0.06


def sizes(n: int, kind: str) -> Array:
    """Sizes of groups that hold `n` examples: all of one size (but the last), or drawn from 1 to 8."""
    generator = np.random.default_rng(1)
    found: list[int] = []
    while sum(found) < n:
        found.append(int(generator.integers(1, 9)) if kind == "1-8" else int(kind))
    found[-1] -= sum(found) - n
    return np.array(found)


def right(generator: np.random.Generator, share: float, rho: float, groups: Array, times: int) -> Array:
    """How many examples of each group are right, `times` over."""
    if rho == 0:
        return generator.binomial(groups, share, size=(times, len(groups)))
    spread = (1 - rho) / rho
    chance = generator.beta(share * spread, (1 - share) * spread, size=(times, len(groups)))
    return generator.binomial(groups, chance)


def examples(row: Array, groups: Array) -> tuple[list[float], list[str]]:
    """Write out one draw of `right` as the harness takes it."""
    values = [float(i < count) for count, size in zip(row, groups, strict=True) for i in range(size)]
    return values, [str(place) for place, size in enumerate(groups) for _ in range(size)]


# ------------------------------------------------------------------------------------------- intervals of one variant


def wilson(share: Array, n: Array) -> tuple[Array, Array]:
    square = stats.Z**2 / n
    centre, width = share + square / 2, stats.Z * np.sqrt(share * (1 - share) / n + square / n / 4)
    return (
        np.where(share > 0, (centre - width) / (1 + square), 0),
        np.where(share < 1, (centre + width) / (1 + square), 1),
    )


def intervals(totals: Array, groups: Array) -> tuple[Array, Array]:
    """`stats.interval` of right and wrong answers in groups, for every row of `totals`."""
    n, count = groups.sum(), len(groups)
    share = totals.sum(axis=1) / n
    variance = count / (count - 1) * ((totals - share[:, None] * groups) ** 2).sum(axis=1) / n**2
    flat = (variance < 1e-20) | (share <= 0) | (share >= 1)
    t = stdtrit(1.5 * (count - 1), 0.975)
    worth = n / stats.design_effect([str(i) for i, size in enumerate(groups) for _ in range(size)], 0.5)
    with np.errstate(all="ignore"):
        effective = np.minimum(share * (1 - share) / variance * (stats.Z / t) ** 2, 4 * (n - 1))
    return wilson(share, np.where(flat, worth, effective))


def coverage(times: int) -> Iterator[tuple[str, float, bool]]:
    print("\nCoverage of 95 % intervals of a share of right answers, averaged over 0.05 to 0.95 (lowest of any share)")
    for n in (20, 30, 50, 100, 200, 500, 1000):
        cells = []
        for share in SHARES:
            counts = np.arange(n + 1)
            low, high = wilson(counts / n, np.full(n + 1, n))
            cells.append(float(binom.pmf(counts, n, share)[(low <= share) & (share <= high)].sum()))
        print(f"  n {n:5}, independent (exact):  {np.mean(cells):.3f} ({min(cells):.2f})")
        yield f"coverage, independent, n {n}", float(np.mean(cells)), True
        everything = []
        for kind in KINDS:
            groups, line = sizes(n, kind), []
            for rho in CORRELATIONS:
                generator = np.random.default_rng([n, KINDS.index(kind), round(10 * rho)])
                cells = []
                for share in SHARES:
                    totals = right(generator, share, rho, groups, times)
                    low, high = intervals(totals, groups)
                    made = stats.interval(*examples(totals[0], groups), binary=True, bounds=(0, 1))
                    assert np.allclose((made.low, made.high), (low[0], high[0]), atol=1e-9), (made, low[0], high[0])
                    cells.append(float(((low <= share) & (share <= high)).mean()))
                line.append(f"rho {rho}: {np.mean(cells):.3f} ({min(cells):.2f})")
                everything.append(float(np.mean(cells)))
                yield f"coverage, groups of {kind}, n {n}, rho {rho}", float(np.mean(cells)), False
            print(f"  n {n:5}, {len(groups):3} groups of {kind:>3}:  {'  '.join(line)}")
        print(f"  n {n:5}, all of these groups:  {np.mean(everything):.3f}")
        yield f"coverage, groups, n {n}", float(np.mean(everything)), True


def differences(times: int) -> Iterator[tuple[str, float, bool]]:
    print("\nCoverage of 95 % intervals of a paired difference, averaged over true differences of 0 to 0.3")
    for n in (20, 50, 100, 300, 1000):
        line, everything = [], []
        for kind, rho in (("1", 0.0), ("4", 0.0), ("4", 0.3), ("1-8", 0.0), ("1-8", 0.3), ("1-8", 0.5)):
            groups, cells = sizes(n, kind), []
            generator = np.random.default_rng([n, len(kind), round(10 * rho)])
            for first, second in ((0.5, 0.5), (0.2, 0.2), (0.6, 0.5), (0.9, 0.8), (0.4, 0.1)):
                one = right(generator, first, rho, groups, times)
                other = right(generator, second, rho, groups, times)
                low, high = paired(one - other, groups)
                cells.append(float(((low <= first - second) & (first - second <= high)).mean()))
            line.append(f"{kind}/{rho}: {np.mean(cells):.3f}")
            everything.append(float(np.mean(cells)))
        print(f"  n {n:5}, groups of/rho:  {'  '.join(line)}  all: {np.mean(everything):.3f}")
        yield f"coverage of differences, n {n}", float(np.mean(everything)), True


def paired(changes: Array, groups: Array) -> tuple[Array, Array]:
    """`stats.difference` for every row of `changes`, the sum of differences of each group."""
    n, count = groups.sum(), len(groups)
    centre = changes.sum(axis=1) / n
    error = np.sqrt(count / (count - 1) * ((changes - centre[:, None] * groups) ** 2).sum(axis=1)) / n
    width = stdtrit(count - 1, 0.975) * error
    unseen = 1 - 0.05 ** (1 / count)
    flat = error < 1e-12
    low = np.where(flat, centre - unseen * (1 + centre), centre - width)
    high = np.where(flat, centre + unseen * (1 - centre), centre + width)
    return np.maximum(low, -1), np.minimum(high, 1)


def over_seeds(times: int) -> Iterator[tuple[str, float, bool]]:
    print("\nCoverage of 95 % intervals of a difference over seeds, 60 examples, by number of seeds")
    for label, spread in (("no effect of the seed", 0.0), ("some", 0.03), ("as large as that of examples", 0.08)):
        line = []
        for seeds in (2, 3, 5):
            generator = np.random.default_rng([seeds, round(100 * spread)])
            covered = 0
            for _ in range(times):
                tastes = generator.normal(0, 0.5, 60)
                sides = [
                    np.clip(
                        0.5 + tastes + generator.normal(0, spread, (seeds, 1)) + generator.normal(0, 0.3, (seeds, 60)),
                        -9,
                        9,
                    )
                    for _ in range(2)
                ]
                made = stats.difference(
                    sides[0].mean(axis=0).tolist(),
                    (sides[1] + generator.normal(0, 0.4, 60)).mean(axis=0).tolist(),
                    [str(i) for i in range(60)],
                    bounds=(None, None),
                    seeds=[side.mean(axis=1).tolist() for side in sides],
                )
                covered += made.low is not None and made.high is not None and made.low <= 0 <= made.high
            line.append(f"{seeds} seeds {covered / times:.3f}")
            yield f"coverage over seeds, {label}, {seeds} seeds", covered / times, False
        print(f"  {label:30} {'  '.join(line)}")


def figures_of_corpora(times: int) -> Iterator[tuple[str, float, bool]]:
    print("\nCoverage of 95 % intervals of a ratio of sums (TER), by number of groups of 4")
    for count in (10, 20, 50, 100):
        generator = np.random.default_rng(count)
        covered = 0
        for _ in range(times):
            words = generator.integers(3, 12, (count, 4))
            edits = generator.binomial(words, generator.beta(3, 7, (count, 1)))
            rows = list(zip(edits.ravel().tolist(), words.ravel().tolist(), strict=True))
            names = [str(group) for group in range(count) for _ in range(4)]
            corpus = bootstrap.Corpus("ter", (), [rows], names)
            made, _ = bootstrap.interval(corpus, bounds=(0, None))
            covered += made.low is not None and made.high is not None and made.low <= 30 <= made.high
        print(f"  {count:4} groups  {covered / times:.3f}  ({made.method})")
        yield f"coverage of a corpus figure, {count} groups", covered / times, False


# -------------------------------------------------------------------------------------------------- false alarms


@lru_cache(100_000)
def mcnemar(wins: int, losses: int) -> float:
    return randomisation.mcnemar(wins, losses)


def by_group(changes: Array) -> Array:
    """The p of the sign flips of each row: sums of differences of groups."""
    made = [randomisation.sign_flips([row, np.zeros(len(row))], [(0, 1)])[0][0] for row in changes]
    return np.array(made)


def alarms(times: int) -> Iterator[tuple[str, float, bool]]:
    print(f"\nFalse alarms at alpha 0.05 among {times:,} comparisons of a variant with its like")
    for n in (20, 50, 100, 200, 500, 1000):
        line = []
        for share in (0.1, 0.2, 0.4):
            generator = np.random.default_rng([n, round(10 * share)])
            discordant = generator.binomial(n, share, times)
            wins = generator.binomial(discordant, 0.5)
            ps = [mcnemar(int(w), int(d - w)) if d else 1.0 for w, d in zip(wins, discordant, strict=True)]
            line.append((f"{share:.0%} discordant", float(np.mean(np.array(ps) <= 0.05))))
        for kind, rho in (("4", 0.3), ("8", 0.5), ("1-8", 0.0), ("1-8", 0.5)):
            generator = np.random.default_rng([n, len(kind), round(10 * rho)])
            groups = sizes(n, kind)
            changes = right(generator, 0.4, rho, groups, times) - right(generator, 0.4, rho, groups, times)
            line.append((f"groups {kind} rho {rho}", float(np.mean(by_group(changes) <= 0.05))))
        groups = sizes(n, "1-8")
        graded = np.array(
            [generator.normal(0, size**0.5, times) + size * generator.normal(0, 0.5, times) for size in groups]
        )
        # Graded scores: random flips, fewer than the harness draws, which changes no level.
        pairs = [(i, times) for i in range(times)]
        table = np.vstack([graded.T, np.zeros(len(groups))])
        line.append(("graded in groups", float(np.mean(np.array(randomisation._drawn(table, pairs, 999, 0)) <= 0.05))))
        print(f"  n {n:5}  {'  '.join(f'{name}: {value:.3f}' for name, value in line)}")
        yield from ((f"false alarms, n {n}, {name}", value, True) for name, value in line)


def families(times: int) -> Iterator[tuple[str, float, bool]]:
    print(f"\nFamilies of 10 alike variants with any false alarm after Holm, among {times:,}")
    for n in (20, 50, 100, 300, 1000):
        groups = sizes(n, "1-8")
        generator = np.random.default_rng(n)
        line = []
        # Independent: each example has a difficulty that the ten share.
        wrong = 0
        for _ in range(times):
            answers = generator.random((10, n)) < generator.beta(2, 2, n)
            wins = (answers[1:] & ~answers[0]).sum(axis=1)
            losses = (~answers[1:] & answers[0]).sum(axis=1)
            adjusted = comparisons.holm([mcnemar(int(w), int(x)) for w, x in zip(wins, losses, strict=True)])
            wrong += min(p for p in adjusted if p is not None) <= 0.05
        line.append(("independent", wrong / times))
        fewer = times if n <= 100 else times // 5
        wrong = 0
        for _ in range(fewer):
            totals = right(generator, 0.4, 0.3, groups, 10)
            adjusted = comparisons.holm(by_group(totals[1:] - totals[0]).tolist())
            wrong += min(p for p in adjusted if p is not None) <= 0.05
        line.append((f"groups of 1-8 ({fewer:,})", wrong / fewer))
        print(f"  n {n:5}  {'  '.join(f'{name}: {value:.3f}' for name, value in line)}")
        yield from ((f"family-wise false alarms, n {n}, {name}", value, True) for name, value in line)


def claims(times: int) -> Iterator[tuple[str, float, bool]]:
    """Variants that are worse by just the margin: how often they are shown to be no worse."""
    margin = margins.SHARE
    print(
        f"\nFalse claims of being no worse by more than {100 * margin:.0f} points, among {times:,} (of t in brackets)"
    )
    for n in (100, 150, 200, 300, 500, 1000, 2000):
        line = []
        for kind, rho in (("1", 0.0), ("4", 0.3), ("8", 0.0), ("8", 0.5), ("1-8", 0.5)):
            groups, found, naive = sizes(n, kind), [], []
            for gained in (0.0, 0.01, 0.05, 0.15):  # besides what is lost, as much is lost and gained
                generator = np.random.default_rng([n, len(kind), round(10 * rho), round(100 * gained)])
                differing = right(generator, 2 * gained + margin, rho, groups, times)
                wins = generator.binomial(differing, gained / (2 * gained + margin))
                shown, by_t = no_worse(wins, differing - wins, groups, margin)
                found.append(float(shown.mean()))
                naive.append(float(by_t.mean()))
            line.append(f"{kind}/{rho}: {max(found):.3f} ({max(naive):.3f})")
            yield f"false claims, n {n}, groups of {kind}, rho {rho}", max(found), True
        print(f"  n {n:5}, groups of/rho, the worst of 2 to 32 % discordant:  {'  '.join(line)}")


def no_worse(wins: Array, losses: Array, groups: Array, margin: float) -> tuple[Array, Array]:
    """`margins.non_inferior` of every row (each count of wins and losses once), and the t test of the same."""
    n, count = int(groups.sum()), len(groups)
    size = stats.design_effect([str(place) for place, size in enumerate(groups) for _ in range(size)], 1.0)
    centre = (wins - losses).sum(axis=1) / n
    error = np.sqrt(count / (count - 1) * ((wins - losses - centre[:, None] * groups) ** 2).sum(axis=1)) / n
    flat = error < 1e-12
    with np.errstate(all="ignore"):
        by_t = np.where(flat, (1 - margin) ** count <= 0.05, (centre + margin) / error > stdtrit(count - 1, 0.95))
    critical = stats.t_quantile(count - 1, 0.95)
    kept: dict[tuple[int, int, float], bool] = {}
    shown = by_t.copy()
    for place in np.flatnonzero(~flat):
        won, lost = int(wins[place].sum()), int(losses[place].sum())
        key = won, lost, round(float(error[place]), 12)
        if key not in kept:
            interval = stats.Interval((won - lost) / n, -1.0, 1.0, n, count, "")
            one = comparisons.Comparison(
                interval, "", None, "", None, won, n - won - lost, lost, None, n, count, higher=True,
                error=float(error[place]), degrees=count - 1, binary=True, group_size=size,
            )  # fmt: skip
            # As `non_inferior` has it, without its bounds, which take a hundred times as long.
            kept[key] = (won - lost) / n + margin >= critical * margins._error(one, -margin)
            if len(kept) == 1:
                assert margins.non_inferior(one, margin).holds == kept[key]
        shown[place] = kept[key]
    return shown, by_t


# ---------------------------------------------------------------------------------------------------------- power


def changed(
    generator: np.random.Generator, share: float, effect: float, rho: float, groups: Array, times: int
) -> Array:
    """Sums of differences of groups: `share` of the examples differ, by `effect` in the mean, correlated by `rho`."""
    better = (1 + effect / share) / 2
    alike = min(1.0, rho / share)  # correlation of the direction within a group
    chance: Any = better
    if 0 < alike < 1:
        spread = (1 - alike) / alike
        chance = generator.beta(better * spread, max(1e-9, (1 - better) * spread), size=(times, len(groups)))
    elif alike == 1:
        chance = (generator.random((times, len(groups))) < better).astype(float)
    active = min(1.0, share / rho) if rho else 1.0
    differing = generator.binomial(groups, share / active, size=(times, len(groups)))
    differing = differing * (generator.random((times, len(groups))) < active)
    return 2 * generator.binomial(differing, chance) - differing


def detectable(times: int) -> Iterator[tuple[str, float, bool]]:
    print("\nEffect that is found in 80 % of simulations, over the printed minimum detectable effect")
    for n in (50, 100, 200, 500, 1000):
        line = []
        for kind, rho in (("1", 0.0), ("4", power.CORRELATION), ("1-8", power.CORRELATION)):
            groups = sizes(n, kind)
            names = [str(i) for i, size in enumerate(groups) for _ in range(size)]
            for share in power.DISCORDANT:
                printed = power.minimum_detectable(names, share)
                if printed is None or 1.15 * printed > share:
                    continue
                found = []
                steps = (0.85, 0.92, 1.0, 1.08, 1.15)
                for step in steps:
                    generator = np.random.default_rng([n, len(kind), round(10 * share)])
                    sums = changed(generator, share, step * printed, rho, groups, times)
                    if kind == "1":
                        pairs = zip((sums > 0).sum(axis=1), (sums < 0).sum(axis=1), strict=True)
                        ps = np.array([mcnemar(int(w), int(x)) for w, x in pairs])
                    else:
                        ps = by_group(sums)
                    found.append(float(np.mean(ps <= 0.05)))
                ratio = float(np.interp(0.8, found, steps))
                line.append(f"{kind}/{share:.0%}: {ratio:.2f} (power {found[2]:.2f})")
                yield f"minimum detectable effect, n {n}, groups of {kind}, {share:.0%} discordant", ratio, True
        print(f"  n {n:5}, groups of/discordant:  {'  '.join(line)}")


def speed(n: int) -> Iterator[tuple[str, float, bool]]:
    print(f"\nAll 190 pairs of 20 variants on {n:,} examples")
    generator = np.random.default_rng(0)
    difficulty = generator.beta(2, 2, n)
    for name, kind in (("right or wrong", "binary"), ("graded", "graded")):
        for grouped in (False, True):
            rows = generator.random((20, n)) < difficulty
            graded = np.where(rows, 1.0, generator.random((20, n)).round(3)) if kind == "graded" else rows.astype(float)
            names = [str(i // 4 if grouped else i) for i in range(n)]
            sides = [Sample(row) for row in graded.tolist()]
            pairs = [(i, j) for i in range(20) for j in range(i + 1, 20)]
            start, busy = time.perf_counter(), time.process_time()
            made = comparisons._of_means(
                sides, pairs, names, bounds=(0, 1), binary=kind == "binary", higher=True, seed=0
            )
            comparisons.holm([one.p for one in made])
            spent, busy = time.perf_counter() - start, time.process_time() - busy
            label = f"{name}, {'groups of 4' if grouped else 'no groups'}"
            print(f"  {label}: {spent:.1f} s, processor {busy:.1f} s  ({made[0].test})")
            yield f"seconds, {label}", spent, True


# ------------------------------------------------------------------------------------------------------ the verdict


def kept(name: str, value: float) -> bool:
    if "alarms" in name:
        return value <= ALARMS
    if name.startswith("false claims"):
        return value <= CLAIMS
    if name.startswith("minimum"):
        return 0.9 <= value <= 1.1
    if name.startswith("seconds"):
        return value <= 20
    return LOW <= value <= HIGH


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--quick", action="store_true", help="a tenth of the simulations or less")
    quick = reader.parse_args().quick
    parts: list[tuple[Callable[[int], Iterator[tuple[str, float, bool]]], int, int]] = [
        (coverage, 1_000, 100),
        (differences, 2_000, 200),
        (over_seeds, 1_000, 50),
        (figures_of_corpora, 400, 5),
        (alarms, 10_000, 300),
        (families, 10_000, 50),
        (claims, 10_000, 200),
        (detectable, 2_000, 100),
        (speed, 10_000, 500),
    ]
    missed, seen = [], []
    start = time.perf_counter()
    for part, whole, few in parts:
        found = list(part(few if quick else whole))
        missed += [(name, value) for name, value, promised in found if promised and not kept(name, value)]
        seen += [(name, value) for name, value, promised in found if not promised and not kept(name, value)]
    print(f"\n{time.perf_counter() - start:.0f} s. Cells without a promise of their own that leave {LOW} to {HIGH}:")
    for name, value in seen or [("none", 0.0)]:
        print(f"  {name}: {value:.3f}")
    print("Promises that were not kept:")
    for name, value in missed or [("none", 0.0)]:
        print(f"  {name}: {value:.3f}")
    return 0 if quick or not missed else 1


if __name__ == "__main__":
    sys.exit(main())
