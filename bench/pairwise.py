"""How long all pairwise comparisons take: 20 variants of 10,000 examples, every one of the 190 pairs tested.

    python bench/pairwise.py [--variants 20] [--examples 10000]

Right-or-wrong and graded scores are drawn, with and without groups. Target: each of the four within 20 s on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Sequence
from typing import cast

from harness import comparisons
from harness.records import Run, Score
from harness.results import Results, Variant
from harness.store import Snapshot


def scores(kind: str, group_size: int, variants: int, examples: int) -> tuple[list[list[float]], list[str]]:
    """Scores of each variant, and the group of each example: variants agree as far as they share an example's ease."""
    rng = random.Random(f"{kind}{group_size}")
    groups = [f"g{place // group_size}" for place in range(examples)]
    ease = [rng.gauss(0, 1) for _ in range(-(-examples // group_size))]
    drawn = []
    for number in range(variants):
        latent = [ease[place // group_size] + rng.gauss(0.02 * number, 1) for place in range(examples)]
        graded = [min(1.0, max(0.0, 0.5 + one / 4)) for one in latent]
        drawn.append([float(one > 0.5) for one in graded] if kind == "right or wrong" else graded)
    return drawn, groups


def results(drawn: Sequence[Sequence[float]], groups: Sequence[str]) -> Results:
    """The scores as the analyses read them."""
    variants = []
    for number, values in enumerate(drawn):
        name = f"variant {number}"
        score = Score(
            name="score",
            signature="score",
            direction="higher",
            unit="share",
            floor=0.0,
            ceiling=1.0,
            reducer="mean",
            ids=tuple(map(str, range(len(values)))),
            statistics=tuple((value,) for value in values),
        )
        run = Run(experiment="pairwise", variant=name, family="prompting", seed=0, status="complete")
        variants.append(Variant(name, (run,), {"score": (score,)}))
    return Results(
        snapshot=cast(Snapshot, None),
        variants=tuple(variants),
        examples=(),
        fingerprint="",
        metrics={"score": variants[0].scores["score"][0]},
        primary="score",
        baseline="variant 0",
        groups=tuple(groups),
    )


def measure(kind: str, group_size: int, variants: int, examples: int) -> dict[str, object]:
    found = results(*scores(kind, group_size, variants, examples))
    start = time.perf_counter()
    made = comparisons.pairwise(found, "score", list(itertools.combinations(found.variants, 2)))
    adjusted = comparisons.holm([one.p for one in made])
    seconds = time.perf_counter() - start
    return {
        "scores": kind,
        "examples a group": group_size,
        "pairs": len(made),
        "seconds": round(seconds, 2),
        "test": made[0].test,
        "told apart": sum(p is not None and p <= comparisons.ALPHA for p in adjusted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=20)
    parser.add_argument("--examples", type=int, default=10_000)
    options = parser.parse_args()
    for kind, group_size in itertools.product(("right or wrong", "graded"), (1, 4)):
        print(json.dumps(measure(kind, group_size, options.variants, options.examples)), flush=True)


if __name__ == "__main__":
    main()
