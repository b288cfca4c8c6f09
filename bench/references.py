"""The metrics against their reference implementations, on generated and golden cases.

    python bench/references.py [--cases 10000] [--seed 0]

Prints for each metric how many cases there were and the largest difference, and ends with status 1 where one exceeds
what is allowed: nothing at all for exact match, token F1, recall@k and MRR; 1e-9 for the others. Cases hold empty
texts, Unicode, punctuation, ties between documents, several accepted answers, and rankings without results.

References: the SQuAD v1.1 and v2.0 evaluation scripts, written down here again from their rules; sacrebleu (corpus
scores; cases are sentences, in corpora of 1 to 40 and all together); rouge-score; trec_eval 9 through
pytrec-eval-terrier.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
import re
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics._ranks import Ranking
from harness.metrics._sacrebleu import Corpus
from harness.metrics.bleu import Bleu
from harness.metrics.chrf import Chrf
from harness.metrics.exact_match import ExactMatch
from harness.metrics.hit import Hit
from harness.metrics.map import Map
from harness.metrics.mrr import Mrr
from harness.metrics.ndcg import Ndcg
from harness.metrics.precision import Precision
from harness.metrics.r_precision import RPrecision
from harness.metrics.recall import Recall
from harness.metrics.rouge import Rouge
from harness.metrics.ter import Ter
from harness.metrics.token_f1 import TokenF1
from harness.plugins import Metric
from harness.records import Example, Passage, Prediction
from harness.reducers import REDUCERS


@dataclass(frozen=True)
class Row:
    metric: str
    reference: str
    cases: int
    worst: float
    allowed: float


@dataclass(frozen=True)
class Case:
    answer: str
    targets: tuple[str, ...]

    @property
    def pair(self) -> tuple[Example, Prediction]:
        return Example(id="q", input="?", targets=self.targets), Prediction(id="q", text=self.answer)


# ------------------------------------------------------------------------------------------------------------- texts

GOLDEN = [
    Case("", ("",)),
    Case("", ("x",)),
    Case("x", ("",)),
    Case("the", ("a",)),
    Case("the", ("The Who", "an")),
    Case("The dog bit the man.", ("The dog bit the man.", "The dog had bit the man.")),
    Case("It wasn't surprising.", ("It was not unexpected.", "No one was surprised.")),
    Case("The man had just bitten him.", ("The man bit him first.", "The man had bitten the dog.")),
    Case("24 months [KB-017]", ("24 months [KB-017]",)),
    Case("Straße, ÉCOLE!", ("strasse, école", "Straße École")),
    Case("“quoted” the–end", ("quoted", "the end")),
    Case("我们 喜欢 猫。", ("我们喜欢猫。",)),
    Case("مرحبا بالعالم", ("مرحبا يا عالم",)),
    Case("first line\nsecond line\n\nthird", ("first line\nthird line", "second line")),
    Case("a b c d e f g", ("e f g a b c d",)),
    Case("&quot;x&quot; 1,000.5 -- U.S.A.", ('"x" 1,000.5 - USA',)),
]
WORDS = [
    *("the", "a", "an", "The", "cat", "sat", "on", "mat", "dog's", "e-mail", "U.S.A.", "24", "months", "1,000", "2.5"),
    *("[KB-017]", "é", "École", "straße", "ﬁne", "猫", "我们", "قطة", "кот", "“", "”", "–", "-", "!", "?", ".", ","),
    *("running", "runs", "ran", "quickly", "don't", "DON'T", "\t", "\n", "", "x", "y", "z", "of", "in", "it", "was"),
]


def texts(count: int, draw: random.Random) -> list[Case]:
    """The golden cases and generated ones: an answer is a target, one with some words changed, or another text."""
    made = list(GOLDEN)
    while len(made) < count:
        targets = tuple(_text(draw) for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 5))))
        kind, near = draw.random(), draw.choice(targets)
        answer = near if kind < 0.15 else _changed(near, draw) if kind < 0.6 else _text(draw) if kind < 0.95 else ""
        made.append(Case(answer, targets))
    return made


def _text(draw: random.Random) -> str:
    if draw.random() < 0.04:
        return ""
    if draw.random() < 0.1:
        return "".join(chr(draw.choice((draw.randrange(32, 0x250), draw.randrange(0x370, 0xD7FF)))) for _ in range(12))
    return " ".join(draw.choices(WORDS, k=draw.choice((1, 2, 3, 4, 6, 9, 14))))


def _changed(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    for _ in range(draw.choice((1, 1, 2, 3))):
        place = draw.randrange(len(words) + 1)
        match draw.randrange(4):
            case 0:
                words.insert(place, draw.choice(WORDS))
            case 1:
                words[place : place + 1] = []
            case 2:
                words[place : place + 1] = [draw.choice(WORDS)]
            case _:
                words = words[place:] + words[:place]
    return " ".join(words)


# --------------------------------------------------------------------------------------------- SQuAD, from its rules


def folded(text: str) -> list[str]:
    """Lower the case, drop ASCII punctuation, drop the articles, cut at white space."""
    kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", kept, flags=re.UNICODE).split()


def squad_exact(case: Case) -> float:
    return float(max(" ".join(folded(case.answer)) == " ".join(folded(target)) for target in case.targets))


def squad_exact_v2(case: Case) -> float:
    accepted = [target for target in case.targets if folded(target)] or [""]
    return float(max(int(folded(case.answer) == folded(target)) for target in accepted))


def squad_f1(answer: str, target: str, *, second: bool) -> float:
    ours, theirs = folded(answer), folded(target)
    if second and (len(ours) == 0 or len(theirs) == 0):
        return float(int(ours == theirs))
    same = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    if same == 0:
        return 0.0
    precision, recall = 1.0 * same / len(ours), 1.0 * same / len(theirs)
    return (2 * precision * recall) / (precision + recall)


def squad_f1_v1(case: Case) -> float:
    return max(squad_f1(case.answer, target, second=False) for target in case.targets)


def squad_f1_v2(case: Case) -> float:
    accepted = [target for target in case.targets if folded(target)] or [""]
    return max(squad_f1(case.answer, target, second=True) for target in accepted)


# ---------------------------------------------------------------------------------------------------------- each kind


def per_example(metric: Metric, name: str, reference: Callable[[Case], float], cases: Sequence[Case]) -> Row:
    allowed = 0.0 if name.startswith("SQuAD") else 1e-9
    worst = max(abs(_one(metric.measure(*case.pair)) - reference(case)) for case in cases)
    return Row(_named(metric), name, len(cases), worst, allowed)


def rouge(metric: Rouge, cases: Sequence[Case]) -> Row:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([metric.type], use_stemmer=metric.stemmer)

    def reference(case: Case) -> float:
        return max(float(scorer.score(target, case.answer)[metric.type].fmeasure) for target in case.targets)

    return per_example(metric, "rouge-score", reference, cases)


def corpus(metric: Corpus, cases: Sequence[Case], draw: random.Random) -> Row:
    """Corpora of 1 to 40 sentences that are all cases together, and the corpus of all cases."""
    statistics = [metric.measure(*case.pair) for case in cases]
    edges = [0]
    while edges[-1] < len(cases):
        edges.append(min(len(cases), edges[-1] + draw.choice((1, 1, 2, 3, 5, 10, 40))))
    worst = 0.0
    for start, end in [*itertools.pairwise(edges), (0, len(cases))]:
        known = [row for row in statistics[start:end] if row is not None]
        ours = REDUCERS[metric.reducer](known, ())
        assert ours is not None
        part = cases[start:end]
        width = max(len(case.targets) for case in part)
        streams = [[case.targets[i] if i < len(case.targets) else None for case in part] for i in range(width)]
        theirs = metric.opened().corpus_score([case.answer for case in part], streams).score
        worst = max(worst, abs(ours - theirs))
    return Row(_named(metric), f"sacrebleu, {len(edges)} corpora", len(cases), worst, 1e-9)


def rankings(count: int, draw: random.Random) -> Iterator[tuple[dict[str, float], set[str]]]:
    """Scores of documents, of which many are equal, and the relevant ones; one ranking in fifty is empty."""
    names = ["d1", "d2", "d3", "d10", "é", "Z", "a", "b", "KB-017", "KB-018", "猫", "_", "0", "00"]
    yield {"d1": 1.0, "d2": 0.0, "d3": 1.5}, {"d2"}
    yield {"d1": 1.5, "d2": 0.25, "d3": 0.5}, {"d2", "d3"}
    for _ in range(count - 2):
        found = draw.sample(names, draw.randrange(1, len(names))) if draw.random() > 0.02 else []
        levels = draw.choice((1, 2, 3, 1000))
        run = {name: draw.randrange(levels) / 8 for name in found}
        yield run, set(draw.sample(names, draw.choice((1, 1, 1, 2, 3, 6))))


def retrieved(run: dict[str, float], draw: random.Random) -> Prediction:
    """The ranking as a retriever leaves it: best first, ties in any order, some documents in several passages."""
    found = [(score, draw.random(), name) for name, score in run.items()]
    found += [(score - 1, draw.random(), name) for score, _, name in found if draw.random() < 0.3]
    ordered = sorted(found, reverse=True)
    passages = (
        Passage(id=f"{name}#{i}", document=name, text="", score=score, rank=i + 1)
        for i, (score, _, name) in enumerate(ordered)
    )
    return Prediction(id="q", text="", passages=tuple(passages))


def retrieval(count: int, draw: random.Random) -> list[Row]:
    import pytrec_eval

    metrics: dict[str, Ranking] = {"recip_rank": Mrr(), "map": Map(), "Rprec": RPrecision()}
    for k in (1, 2, 3, 5, 10):
        metrics |= {f"recall_{k}": Recall(k=k), f"P_{k}": Precision(k=k), f"success_{k}": Hit(k=k)}
        metrics |= {f"ndcg_cut_{k}": Ndcg(k=k)}
    asked = {f"q{i}": case for i, case in enumerate(rankings(count, draw))}
    judged = {name: dict.fromkeys(relevant, 1) for name, (_, relevant) in asked.items()}
    wanted = {re.sub(r"_(\d+)$", r".\1", name) for name in metrics}
    runs = {name: run for name, (run, _) in asked.items() if run}
    expected: dict[str, dict[str, float]] = pytrec_eval.RelevanceEvaluator(judged, wanted).evaluate(runs)
    worst = dict.fromkeys(metrics, 0.0)
    for name, (run, relevant) in asked.items():
        example, prediction = Example(id=name, input="?", sources=tuple(sorted(relevant))), retrieved(run, draw)
        for measure, metric in metrics.items():
            # trec_eval leaves out queries without results; they count 0.
            theirs = expected[name][measure] if run else 0.0
            worst[measure] = max(worst[measure], abs(_one(metric.measure(example, prediction)) - theirs))
    exact = ("recall", "recip_rank")
    return [
        Row(metric.name, f"trec_eval {measure}", count, worst[measure], 0.0 if measure.startswith(exact) else 1e-9)
        for measure, metric in metrics.items()
    ]


def _one(measured: Any) -> float:
    assert isinstance(measured, float)
    return measured


def _named(metric: Metric) -> str:
    changed = {
        key: value for key, value in metric.model_dump().items() if value != type(metric).model_fields[key].default
    }
    return " ".join([metric.name, *(f"{key}={value}" for key, value in changed.items() if key != "type")])


def rows(count: int, draw: random.Random) -> Iterator[Row]:
    cases = texts(count, draw)
    yield per_example(ExactMatch(), "SQuAD v1.1", squad_exact, cases)
    yield per_example(ExactMatch(normalise="squad-v2"), "SQuAD v2.0", squad_exact_v2, cases)
    yield per_example(TokenF1(), "SQuAD v1.1", squad_f1_v1, cases)
    yield per_example(TokenF1(rules="v2.0"), "SQuAD v2.0", squad_f1_v2, cases)
    for metric in (
        Bleu(),
        Bleu(effective_order=True, lowercase=True, tokenize="intl"),
        Bleu(smooth_method="floor", smooth_value=0.2),
        Bleu(smooth_method="add-k", max_ngram_order=2),
        Bleu(smooth_method="none", tokenize="char"),
        Chrf(),
        Chrf(word_order=2),
        Chrf(beta=1, char_order=4, whitespace=True, lowercase=True),
        Chrf(eps_smoothing=True),
        Ter(),
        Ter(normalized=True, no_punct=True, asian_support=True, case_sensitive=True),
    ):
        yield corpus(metric, cases, draw)
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        yield rouge(Rouge(type=kind), cases)  # type: ignore[arg-type]
    yield rouge(Rouge(type="rougeL", stemmer=True), cases)
    yield from retrieval(count, draw)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    exceeded = 0
    print(f"{'metric':62} {'reference':30} {'cases':>7} {'largest':>9} {'allowed':>8}")
    for row in rows(options.cases, random.Random(options.seed)):
        over = not row.worst <= row.allowed
        exceeded += over
        mark = "  EXCEEDED" if over else ""
        print(
            f"{row.metric:62} {row.reference:30} {row.cases:7,} {row.worst:9.2g} {row.allowed:8.2g}{mark}", flush=True
        )
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
