"""`harness compare`: compare two runs or two experiments."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.commands._common import json_argument, print_json, print_table, store_argument
from harness.errors import UsageError

HELP = "compare two runs or two experiments: difference, test, equivalence, cost, changed answers"
_SHORT, _LONG = 60, 400
"""Characters of a setting, and of a question or an answer."""
_SETTINGS = 12
"""How many differing settings are listed; --json has all."""


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "sides", nargs="+", metavar="A B",
        help="two runs (EXPERIMENT:VARIANT, EXPERIMENT@N:VARIANT, EXPERIMENT:VARIANT@SEED), two experiments or "
        "snapshots (variants of one name are compared), or EXPERIMENT VARIANT VARIANT",
    )  # fmt: skip
    word.add_argument("--metric", metavar="M", help="which metric (default: the one that ranks)")
    word.add_argument("--only-common", action="store_true", help="compare on the examples that both answered")
    word.add_argument(
        "--examples", type=_count, default=3, metavar="N", help="changed examples to show of each kind (default: 3)"
    )
    word.add_argument(
        "--margin", type=_margin, metavar="X",
        help="how much worse still counts as no worse, in the metric's own unit: 0.02 is 2 points of a share (default: "
        "2 %% of the metric's range)",
    )  # fmt: skip
    store_argument(word)
    word.add_argument("--other-results", type=Path, metavar="DIR", help="the results folder of B (default: A's)")
    json_argument(word)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {text!r}")
    return value


def run(options: argparse.Namespace) -> int:
    from harness import comparing
    from harness.store import Store

    first, second = _named(options.sides)
    store = Store(options.results, write=False)
    other = store if options.other_results is None else Store(options.other_results, write=False)
    a, b = comparing.side(first, store), comparing.side(second, other)
    found = comparing.compare(
        a,
        b,
        options.metric,
        only_common=options.only_common,
        examples=options.examples,
        margin=options.margin,
    )
    if options.json:
        return print_json(found)
    _print(found)
    return 0


def _named(sides: Sequence[str]) -> tuple[str, str]:
    """The two sides, of which `EXPERIMENT A B` names both variants of one experiment."""
    if len(sides) == 2:
        return sides[0], sides[1]
    if len(sides) == 3 and not any(":" in side for side in sides):
        experiment, a, b = sides
        return f"{experiment}:{a}", f"{experiment}:{b}"
    raise UsageError(
        "name two sides, as in `harness compare helpdesk:rag helpdesk:raft` or `harness compare helpdesk@1 helpdesk@2`,"
        " or an experiment and two of its variants, as in `harness compare helpdesk rag raft`"
    )


# ---------------------------------------------------------------------------------------------------------------- text


def _print(found: Mapping[str, Any]) -> None:
    from harness import figures

    pairs = found["pairs"]
    print(figures.plain(_title(found)))
    if len(pairs) == 1:
        _print_pair(found, pairs[0])
    else:
        _print_pairs(found)
    for reason in found["left_out"]:
        print(figures.plain(f"Not compared: {reason}."))
    for note in found["notes"]:
        print(figures.plain(f"Note: {note}"))


def _title(found: Mapping[str, Any]) -> str:
    from harness import figures

    examples, metric = found["examples"], found["metric"]
    groups = f" in {figures.counted(examples['groups'], 'group')}" if examples["groups"] else ""
    on = f"{figures.counted(examples['n'], 'held-out example')}{groups}"
    if examples["only_common"]:
        of = " and of ".join(figures.count(found[side]["examples"]) for side in "ab")
        on = f"only the {figures.counted(examples['n'], 'common example')}{groups} (of {of})"
    return (
        f"A {found['a']['name']}\nB {found['b']['name']}\n"
        f"{metric['name']} ({metric['direction']} is better) on {on}. Differences are B − A."
    )


def _print_pair(found: Mapping[str, Any], pair: Mapping[str, Any]) -> None:
    from harness import figures

    unit = found["metric"]["unit"]
    print()
    print_table(
        ("", found["metric"]["name"], "95 % interval", "method"),
        [(name, *_interval(pair[f"value_{name.lower()}"], unit)) for name in "AB"]
        + [("B − A", *_change(pair["difference"], unit))],
    )
    print()
    print(figures.plain("\n".join(_sentences(found, pair))))
    _print_costs(pair["cost"])
    _print_settings(pair["settings"])
    _print_changed(found, pair)


def _interval(value: Mapping[str, Any], unit: str) -> tuple[str, str, str]:
    from harness import figures

    return figures.score(value["value"], unit), figures.bounds(value["low"], value["high"], unit), value["method"]


def _change(value: Mapping[str, Any], unit: str) -> tuple[str, str, str]:
    from harness import figures

    shown = figures.change(value["value"], unit), figures.change_bounds(value["low"], value["high"], unit)
    return (*shown, value["method"])


def _sentences(found: Mapping[str, Any], pair: Mapping[str, Any]) -> Iterator[str]:
    """What the figures say, in words."""
    from harness import figures

    unit, verdict = found["metric"]["unit"], pair["verdict"]
    said = {"better": "B is better than A", "worse": "B is worse than A"}.get(
        verdict, "It cannot be told which is better"
    )
    yield f"{said}: {_test(pair)}."
    yield from _margins(found, pair)
    if pair["effect_size"] is not None:
        yield f"Effect size ({pair['effect']}): {figures.score(pair['effect_size'], '')}."
    if pair["changed"] is not None:
        yield (
            f"B does better on {figures.counted(pair['wins'], 'example')}, worse on {figures.count(pair['losses'])}, "
            f"equally well on {figures.count(pair['ties'])}."
        )
    if pair["minimum_detectable"] is not None:
        least = figures.size_of_change(pair["minimum_detectable"], unit)
        yield f"The smallest difference that this comparison finds four times in five: {least}."
    if pair["needed"] is not None:
        yield f"To settle a difference of this size: about {figures.count(pair['needed'])} examples in all."


def _margins(found: Mapping[str, Any], pair: Mapping[str, Any]) -> Iterator[str]:
    """Whether B is shown to be no worse than A, and as good as A, within the margin."""
    from harness import figures

    if found["margin"] is None:
        return
    unit = found["metric"]["unit"]
    size = figures.size_of_change(found["margin"], unit)
    claims = {"non_inferiority": f"is no worse than A by more than {size}", "equivalence": f"is within {size} of A"}
    for kind, claim in claims.items():
        one = pair[kind]
        if one["p"] is None:
            yield f"That B {claim} cannot be tested: {one['test'].removeprefix('n/a (').removesuffix(')')}."
            return
        said = f"B {claim}: shown" if one["holds"] else f"That B {claim} is not shown"
        yield f"{said} ({one['test'].partition(': ')[2]}, {figures.said_p(one['p'])})."


def _within(pair: Mapping[str, Any]) -> str:
    """In one word what is shown of B within the margin."""
    from harness import figures

    if pair["non_inferiority"] is None or pair["non_inferiority"]["p"] is None:
        return figures.NONE
    if pair["equivalence"]["holds"]:
        return "as good"
    return "no worse" if pair["non_inferiority"]["holds"] else "not shown"


def _test(pair: Mapping[str, Any]) -> str:
    from harness import figures

    if pair["p"] is None:
        return f"no test ({pair['test'].removeprefix('n/a (').removesuffix(')')})"
    return f"{pair['test']}, {figures.said_p(pair['p'])}"


def _print_pairs(found: Mapping[str, Any]) -> None:
    from harness import figures

    unit = found["metric"]["unit"]
    rows = []
    for pair in found["pairs"]:
        changed = pair["changed"]
        counts = [figures.count(changed[kind]["count"]) if changed else figures.NONE for kind in ("fixed", "broken")]
        rows.append(
            (
                pair["variant"],
                _interval(pair["value_a"], unit)[0],
                _interval(pair["value_b"], unit)[0],
                *_change(pair["difference"], unit)[:2],
                figures.p(pair["p"]),
                figures.p(pair["p_adjusted"]),
                {"better": "B better", "worse": "B worse"}.get(pair["verdict"], "cannot tell"),
                _within(pair),
                *counts,
                figures.size_of_change(pair["minimum_detectable"], unit),
            )
        )
    print()
    heads = ("variant", "A", "B", "B − A", "95 % interval", "p", "p (Holm)", "verdict", "B to A")
    print_table((*heads, "fixed", "broken", "detectable"), rows)
    print()
    tests = " / ".join(dict.fromkeys(pair["test"] for pair in found["pairs"]))
    family = found["family"]
    adjusted = f"; adjusted by Holm over {family} variants" if family > 1 else ""
    methods = " / ".join(dict.fromkeys(pair["difference"]["method"] for pair in found["pairs"]))
    print(figures.plain(f"Test: {tests}{adjusted}. Intervals: {methods}."))
    if found["margin"] is not None:
        size = figures.size_of_change(found["margin"], unit)
        holm = ", p adjusted by Holm" if len(found["pairs"]) > 1 else ""
        print(
            f"B to A: shown to be no worse by more than {size}, or as good: within {size} either way (one-sided tests "
            f"at 0.05{holm}; --margin)."
        )
    print("`harness compare A:VARIANT B:VARIANT` shows one of them with costs, settings and changed answers.")


_COSTS = {
    "latency_p50_ms": ("p50 latency", "milliseconds"),
    "latency_p95_ms": ("p95 latency", "milliseconds"),
    "input_tokens_per_answer": ("tokens in, per answer", "tokens"),
    "output_tokens_per_answer": ("tokens out, per answer", "tokens"),
    "train_seconds": ("training", "seconds"),
    "index_seconds": ("indexing", "seconds"),
    "trainable_parameters": ("trained weights", "count"),
    "artifact_bytes": ("artifact", "size"),
    "peak_memory_bytes": ("peak memory", "size"),
}


def _print_costs(cost: Mapping[str, Any]) -> None:
    from harness import figures

    shown: dict[str, Callable[[float | None], str]] = {
        "milliseconds": figures.milliseconds,
        "seconds": figures.seconds,
        "count": figures.count,
        "size": figures.size,
        "tokens": lambda value: figures.per(value, 1),
    }
    rows = []
    for name, (title, kind) in _COSTS.items():
        figure = cost["figures"][name]
        if not (figure["a"] or figure["b"]):
            continue
        ratio = f"{figure['ratio']:.2f} times" if figure["ratio"] is not None else figures.NONE
        rows.append((title, shown[kind](figure["a"]), shown[kind](figure["b"]), ratio))
    print()
    print_table(("cost", "A", "B", "B against A"), rows)
    if not cost["comparable"]:
        devices = [", ".join(found) or "an unknown device" for found in cost["devices"]]
        print(figures.plain(f"Times and memory cannot be compared: A ran on {devices[0]}, B on {devices[1]}."))


def _print_settings(settings: Sequence[Mapping[str, Any]]) -> None:
    from harness import figures

    print()
    if not settings:
        print("No setting of the two differs.")
        return
    print_table(
        ("setting", "A", "B"),
        [(one["setting"], _setting(one["a"]), _setting(one["b"])) for one in settings[:_SETTINGS]],
    )
    if len(settings) > _SETTINGS:
        print(f"and {figures.count(len(settings) - _SETTINGS)} more settings (--json lists them)")


def _setting(value: Any) -> str:
    import json

    from harness import figures

    if value is None or value == []:
        return figures.NONE
    if isinstance(value, Mapping) and "kind" in value:
        return str(value["kind"])
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "kind" in one for one in value):
        return ", ".join(str(one["kind"]) for one in value)
    return figures.short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _SHORT)


def _print_changed(found: Mapping[str, Any], pair: Mapping[str, Any]) -> None:
    from harness import figures

    changed, unit = pair["changed"], found["metric"]["unit"]
    print()
    if changed is None:
        print(f"{found['metric']['name']} has no value for single examples: --metric takes another one.")
        return
    both = figures.count(changed["both_right"]["count"])
    for kind, title in (("fixed", "fixed in B"), ("broken", "broken in B"), ("both_wrong", "wrong in both")):
        entry = changed[kind]
        print(f"{title}: {figures.count(entry['count'])}")
        for example in entry["examples"]:
            print(f"  {figures.short(example['id'], _SHORT)}  {figures.short(example['question'], _LONG)}")
            print(f"    gold  {figures.short(' | '.join(example['gold']) or figures.NONE, _LONG)}")
            for side in "ab":
                value = figures.score(example[side]["value"], unit)
                print(f"    {side.upper()}     {_answers(example[side]['answers'])}  ({value})")
    print(f"right in both: {both}")


def _answers(answers: Sequence[Mapping[str, Any]]) -> str:
    from harness import figures

    texts = [one["text"] if one["error"] is None else f"FAILED: {one['error']}" for one in answers]
    return figures.short(" | ".join(dict.fromkeys(text or "(empty)" for text in texts)), _LONG)
