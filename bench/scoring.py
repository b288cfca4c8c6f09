"""How long scoring takes: ten metrics over 10 variants with 10,000 short answers each, in one process.

    python bench/scoring.py [--examples 10000] [--variants 10]

Target: 60 s on two cores for all ten together, from the answers in memory to the values that the leaderboard shows.
Ends with status 1 where it takes longer. Prints the seconds of each metric: measuring the examples, then reducing
what was measured to the value.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence

from harness.plugins import Means, Metric, find
from harness.records import Example, Passage, Prediction, Reply, Request
from harness.reducers import REDUCERS
from harness.scoring import score

TARGET = 60.0
METRICS = (
    {"kind": "exact_match"},
    {"kind": "token_f1"},
    {"kind": "contains"},
    {"kind": "numeric"},
    {"kind": "accuracy"},
    {"kind": "label_f1", "average": "macro"},
    {"kind": "bleu"},
    {"kind": "chrf"},
    {"kind": "recall", "k": 5},
    {"kind": "ndcg", "k": 10},
)
LABELS = [f"class {number}" for number in range(20)]
WORDS = [f"{start}{end}" for start in ("wat", "kett", "grind", "fil", "par", "mon") for end in ("er", "le", "s", "ing")]


class Nothing(Means):
    """None of these metrics embeds or asks."""

    def embed(self, texts: Sequence[str]) -> object:  # type: ignore[override]
        raise AssertionError

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        raise AssertionError

    def gold(self) -> Sequence[Prediction]:
        raise AssertionError


def examples(count: int, draw: random.Random) -> tuple[list[Example], list[Example]]:
    """Questions with short texts as accepted answers, and the same ones with a class."""
    texts, classes = [], []
    for number in range(count):
        words = " ".join(draw.choices(WORDS, k=draw.randrange(3, 12)))
        targets = (f"{words} {number % 97}",) + ((" ".join(draw.choices(WORDS, k=5)),) if number % 4 == 0 else ())
        sources = tuple({f"d{draw.randrange(50)}" for _ in range(draw.choice((1, 1, 2)))})
        texts.append(Example(id=str(number), input="?", targets=targets, sources=sources))
        classes.append(Example(id=str(number), input="?", targets=(draw.choice(LABELS),)))
    return texts, classes


def answers(asked: Sequence[Example], draw: random.Random) -> list[Prediction]:
    """Right in a third of all cases, near in another third."""
    made = []
    for example in asked:
        words = example.targets[0].split()
        kind = draw.random()
        if kind > 1 / 3:
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        text = " ".join(words) if kind < 2 / 3 else " ".join(draw.choices(WORDS, k=8))
        found = draw.sample(range(50), 10)
        passages = tuple(
            Passage(id=f"d{name}#0", document=f"d{name}", text="", score=1 - rank / 20, rank=rank + 1)
            for rank, name in enumerate(found)
        )
        made.append(Prediction(id=example.id, text=text, passages=passages))
    return made


def classified(asked: Sequence[Example], draw: random.Random) -> list[Prediction]:
    return [
        Prediction(id=example.id, text=example.targets[0] if draw.random() < 0.7 else draw.choice(LABELS))
        for example in asked
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--variants", type=int, default=10)
    options = parser.parse_args()
    draw = random.Random(0)
    texts, classes = examples(options.examples, draw)
    of_texts = [answers(texts, draw) for _ in range(options.variants)]
    of_classes = [classified(classes, draw) for _ in range(options.variants)]
    total, processor = 0.0, time.process_time()
    print(f"{options.variants} variants x {options.examples:,} answers, one process\n")
    print(f"{'metric':14} {'measuring':>10} {'reducing':>10} {'first variant':>14}")
    for table in METRICS:
        settings = {key: value for key, value in table.items() if key != "kind"}
        metric = find("metrics", str(table["kind"])).model_validate(settings)
        assert isinstance(metric, Metric)
        of_class = table["kind"] in ("accuracy", "label_f1")
        asked, answered = (classes, of_classes) if of_class else (texts, of_texts)
        begun = time.perf_counter()
        scores = [score(metric, asked, one, Nothing())[0] for one in answered]
        measured = time.perf_counter()
        values = [REDUCERS[s.reducer]([row for row in s.statistics if row is not None], s.labels) for s in scores]
        ended = time.perf_counter()
        total += ended - begun
        print(
            f"{metric.name:14} {measured - begun:8.2f} s {ended - measured:8.2f} s {values[0] or 0:14.4f}", flush=True
        )
    # Beside other work on the machine the clock says little: what the processor did is printed too.
    processor = time.process_time() - processor
    print(f"\ntogether {total:.1f} s ({processor:.1f} s of processor time); the target is {TARGET:.0f} s")
    return 0 if total <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
