"""A decision in sentences, for people who did not run it. All that is said stands in the decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness import figures, measures, pareto
from harness.decision import SAME_COST, holds
from harness.limits import label
from harness.measures import bare

Decision = Mapping[str, Any]
Row = Mapping[str, Any]

_REASON = 200
"""Characters of a failed variant's reason."""

RULE = (
    "The rule: of the variants that meet every constraint by their measured values, ship the best, or, of it and those "
    "that cannot be told from it and are as good (shown to be no worse by more than {margin}, or with the same score), "
    "the {key}."
)


def sections(decision: Decision) -> list[tuple[str, list[str]]]:
    """Return (heading, sentences) in the order in which they are read; the first, without a heading, is the answer."""
    shipped = _row(decision, decision["recommended"])
    made = [("", headline(decision))]
    if shipped is not None:
        made += [("Why", _why(decision, shipped)), ("How sure", _sure(decision, shipped))]
        made += [("What it costs", _cost(decision, shipped))]
    made += [("The others", _others(decision)), ("What would change the answer", _changes(decision, shipped))]
    made += [("Pareto front", _fronts(decision)), ("Notes", list(decision["notes"]))]
    return [(heading, lines) for heading, lines in made if lines]


def headline(decision: Decision) -> list[str]:
    """The answer in a few sentences."""
    metric = decision["primary"]["name"]
    unfit = f"All that completed have the worst possible {metric}: none of them is fit for use."
    return [*([unfit] if decision["fit_for_use"] is False else []), *_answer(decision)]


def _answer(decision: Decision) -> list[str]:
    name, reason, count = decision["recommended"], decision["reason"], len(decision["variants"])
    metric = decision["primary"]["name"]
    ship = "If one has to ship," if decision["fit_for_use"] is False else "Ship"
    if reason == "nothing completed":
        return ["Nothing can be decided: no variant has completed with a figure to decide by."]
    if name is None:
        nearest = _row(decision, decision["nearest"])
        told = _told(nearest) if nearest else ""
        return ["Ship none: no variant meets every constraint.", f"The nearest is {decision['nearest']}: {told}."]
    if reason == "the only one that completed":
        which = "the only variant" if count == 1 else f"the only one of {count} variants that completed"
        return [f"{name} is {which}, so there was nothing to compare it with; it meets every constraint that is set."]
    if reason == "the only one left":
        return [f"{ship} {name}: it is the only variant that meets every constraint."]
    if not decision["tied"]:
        return [f"{ship} {name}."]
    candidates = [decision["best"], *decision["tied"]]
    doubt = f"Not enough evidence to say which of {_listed(candidates)} has the best {metric}: {_more(decision)}."
    if good := decision["as_good"]:
        shown = [other for other in good if _near(decision, other)]
        said = f"{ship} {name}: {_as_good(decision, shown)}, and {_among(decision, [decision['best'], *good])}."
        return [said] if len(shown) == len(decision["tied"]) else [doubt, said]
    pair = _pair(decision, name, decision["tied"][0])
    ahead = f"it is ahead of {decision['tied'][0]} by {_difference(decision, pair)}"
    return [doubt, f"Until then {name} is the best guess: {ahead}, and no other is shown to be as good."]


def _near(decision: Decision, name: str) -> bool:
    """Whether a variant is shown to be no worse than the best one by more than the margin."""
    row = _row(decision, name)
    return row is not None and holds(row["non_inferior_to_best"])


def _as_good(decision: Decision, shown: list[str]) -> str:
    """By what those that are as good as the best one are so: they are `shown` to be, or only scored the same."""
    best, same = decision["best"], [name for name in decision["as_good"] if name not in shown]
    said = []
    if shown:
        are = "is" if len(shown) == 1 else "are"
        said.append(f"{_listed(shown)} {are} shown to be no worse than {best} by more than {_margin(decision)}")
    if same:
        said.append(f"{_listed([best, *same])} scored the same")
    return ", ".join(said)


def _margin(decision: Decision) -> str:
    margin = decision["margin"]
    return "nothing" if margin is None else figures.size_of_change(margin, decision["primary"]["unit"])


def _among(decision: Decision, others: list[str]) -> str:
    them = "the two" if len(others) == 2 else f"these {len(others)}"
    name = decision["recommended"]
    rows = [row for row in decision["variants"] if row["variant"] in others and row["variant"] != name]
    shipped = _row(decision, name)
    assert shipped is not None
    if all(row["parts"] > shipped["parts"] for row in rows):
        simple = f"{name} has the fewest moving parts"
    elif name == decision["best"] and all(_pair(decision, name, row["variant"])["difference"] != 0 for row in rows):
        simple = f"none has fewer moving parts than {name}, which scores best"
    else:
        simple = f"none has fewer moving parts than {name}"
    return {
        "the cheapest": f"of {them} {name} costs the least per answer",
        "the simplest of the cheapest": f"of the cheapest of {them} (costs within 10 % count as equal) {simple}",
        "the simplest": f"of {them} {simple}",
    }[decision["reason"]]


def _more(decision: Decision) -> str:
    """How many more held-out examples it takes, "about 240 more examples needed"."""
    needed, n = decision["examples_to_settle"], decision["heldout"]["n"]
    chosen = decision["recommended"]
    known = {name: count for name, count in needed.items() if count is not None}
    if chosen in known:
        return f"about {known[chosen] - n:,} more examples needed to tell {decision['best']} from {chosen}"
    if chosen == decision["best"] and known:
        name = min(known, key=lambda name: known[name])
        most = max(known.values())
        said = f"about {known[name] - n:,} more examples needed to tell {decision['best']} from {name}"
        said += "" if most == known[name] else f", {most - n:,} to tell it from all that differ from it"
        accept = decision["examples_to_accept"][name]
        less = accept is not None and accept < known[name]
        return f"{said}, or {accept - n:,} to show that {name} is as good" if less else said
    return "how many more examples are needed cannot be said"


# ------------------------------------------------------------------------------------------------------ the sections


def _why(decision: Decision, shipped: Row) -> list[str]:
    rows = decision["variants"]
    meeting = [row for row in rows if row["meets"]]
    constrained = any(row["constraints"] for row in rows)
    every = "both" if len(rows) == 2 else f"all {len(rows)}"
    count = f"{len(meeting)} of {len(rows)} variants" if len(meeting) < len(rows) else f"{every} variants"
    which = "meet every constraint" if constrained else "completed (there are no constraints)"
    heldout = decision["heldout"]
    groups = f" in {figures.counted(heldout['groups'], 'group')}" if heldout["groups"] else ""
    examples = f"{figures.counted(heldout['n'], 'held-out example')}{groups}"
    place = ", the best" if shipped["variant"] == decision["best"] and not decision["tied"] and len(meeting) > 1 else ""
    metric = decision["primary"]["name"]
    lines = [f"{shipped['variant']} scores {_quality(decision, shipped)} on {metric}{place}, over {examples}."]
    if len(rows) > 1:
        lines.insert(0, f"{count[0].upper()}{count[1:]} {which}.")
    lines += [f"It keeps what was asked: {item['text']}." for item in shipped["constraints"] if item["status"] == "met"]
    if decision["tied"]:
        key = "cheapest per answer" if decision["ranked_by"] == "cost" else "one with the fewest moving parts"
        lines.append(RULE.format(key=key, margin=_margin(decision)))
    return lines


def _sure(decision: Decision, shipped: Row) -> list[str]:
    lines = []
    name, best = shipped["variant"], decision["best"]
    rivals = [row["variant"] for row in decision["variants"] if row["meets"] and row["variant"] != name]
    told = [name]
    if best != name:
        pair = _pair(decision, best, name)
        ahead = "scored the same, a difference of" if pair["difference"] == 0 else "did better by"
        lines.append(f"{best} {ahead} {_difference(decision, pair)}: {_verdict(pair)}.")
        lines.append(f"At the far end of that interval, shipping {name} gives up {_worst(decision, pair)}.")
        if near := _nearness(shipped):
            lines.append(f"That {name} is no worse than {best} by more than {_margin(decision)} is {near}.")
        told.append(best)
    elif rivals:
        pair = _pair(decision, name, rivals[0])
        behind = "with the same score, a difference of" if pair["difference"] == 0 else "behind by"
        lines.append(f"The next is {rivals[0]}, {behind} {_difference(decision, pair)}: {_verdict(pair)}.")
        told.append(rivals[0])
    base = decision["baseline"]
    if base not in told and (pair := _pair(decision, name, base)) is not None:
        gain = (pair["difference"] or 0.0) * (1 if _higher(decision) else -1)
        how = "better by " if gain > 0 else "worse by " if gain < 0 else ""
        lines.append(f"Against the baseline {base}: {how}{_difference(decision, pair)}, {_verdict(pair)}.")
    lines += _tests(decision)
    for item in shipped["constraints"]:
        if item["certain"] is False:
            lines.append(
                f"It cannot be sure of one constraint, as the interval does not rule out a miss: {item['text']}."
            )
    return lines


def _nearness(row: Row) -> str:
    """How sure it is that a variant is no worse than the best one by more than the margin; "" where nobody can say."""
    found = row["non_inferior_to_best"]
    if found is None or found["p_adjusted"] is None:
        return ""
    how = f"{figures.said_p(found['p_adjusted'])} by Holm over those that meet the constraints"
    return f"{'shown' if found['holds'] else 'not shown'} ({found['test']}, {how})"


def _tests(decision: Decision) -> list[str]:
    """By which test differences were told apart, and how p was adjusted."""
    pairs = decision["comparisons"]["pairs"]
    used = list(dict.fromkeys(pair["test"] for pair in pairs if pair["p"] is not None))
    if not pairs:
        return []
    if not used:
        return [f"No difference could be tested: {bare(pairs[0]['test'])}. So nothing can be told apart."]
    family = decision["comparisons"]["family"]
    which = f"all {family} pairs" if family == len(pairs) else f"the {family} pairs that differ at all"
    adjusted = f"; p is adjusted by Holm over {which}" if family > 1 else ""
    return [f"Differences are paired by example and tested by {' or '.join(used)}{adjusted}."]


def _cost(decision: Decision, shipped: Row) -> list[str]:
    spent, currency = shipped["cost"], decision["terms"]["cost"]["currency"]
    answers, training = (
        [spent["seconds_per_1000"], spent["money_per_1000"]],
        [spent["seconds_once"], spent["money_once"]],
    )
    lines = [f"1,000 answers: {_sums(answers, currency)}, in batches."]
    lines.append(f"Training and indexing, once: {'none' if training[0] == 0 else _sums(training, currency)}.")
    latency = shipped["latency"]["latency_p95_ms"]
    if latency["value"] is not None:
        lines.append(f"p95 latency of a single answer: {figures.milliseconds(latency['value'])} ({latency['method']}).")
    if shipped["memory_gib"] is not None:
        lines.append(f"Memory at the highest: {measures.shown(shipped['memory_gib'], 'GiB')}, training included.")
    if spent["money_per_1000"] is None and not spent["lacking"]:
        lines.append("There is no money without prices: give them in [cost], or try `--set cost.machine_hour=0.5`.")
    return lines


def _sums(parts: list[float | None], currency: str) -> str:
    """Seconds and money, as far as they are known."""
    seconds, money = parts
    said = [] if seconds is None else [f"{figures.seconds(seconds)} of machine time"]
    said += [] if money is None else [measures.money(money, currency)]
    return ", ".join(said) or "not measured"


def _others(decision: Decision) -> list[str]:
    return [
        f"{row['variant']}: {_against(decision, row)}."
        for row in decision["variants"]
        if row["variant"] != decision["recommended"]
    ]


def _against(decision: Decision, row: Row) -> str:
    """Why a variant is not shipped."""
    name, best, shipped = row["variant"], decision["best"], decision["recommended"]
    if row["meets"] is None:
        why = f": {figures.short(row['error'], _REASON).rstrip('.')}" if row["error"] else ""
        return f"{row['status']}{why}" if row["status"] != "complete" else "no figure to decide by"
    quality = f"{decision['primary']['name']} {_quality(decision, row)}"
    if not row["meets"]:
        named = any(item["name"] == decision["primary"]["name"] for item in _missed(row))
        return _told(row) if named else f"{_told(row)} ({quality})"
    if name == best and _pair(decision, best, shipped)["difference"] == 0:
        return f"as good as {shipped} by the measured {quality}; {_dearer(decision, row)}"
    if name == best:
        return f"best by the measured {quality}, but not shown to be better than {shipped}; {_dearer(decision, row)}"
    pair = _pair(decision, best, name)
    if name in decision["tied"]:
        behind = "apart" if pair["difference"] == 0 else "behind"
        said = f"cannot be told from {best} ({_difference(decision, pair)} {behind}, {_verdict(pair)})"
        good = name in decision["as_good"]
        if good:
            return f"{said}; {_dearer(decision, row)}"
        p = (row["non_inferior_to_best"] or {}).get("p_adjusted")
        how = "" if p is None else f" (no worse by more than {_margin(decision)}: {figures.said_p(p)})"
        return f"{said}, nor is it shown to be as good{how}"
    return f"worse than {best} by {_difference(decision, pair)}, {_verdict(pair)}"


def _dearer(decision: Decision, row: Row) -> str:
    """What speaks for the shipped variant rather than this tied one."""
    shipped, currency = _row(decision, decision["recommended"]), decision["terms"]["cost"]["currency"]
    assert shipped is not None
    mine, its = row["cost"]["money_per_1000"], shipped["cost"]["money_per_1000"]
    tied = [_row(decision, name) for name in (decision["best"], *decision["as_good"])]
    if "cheap" in decision["reason"] and mine > SAME_COST * min(one["cost"]["money_per_1000"] for one in tied if one):
        return f"1,000 answers cost {measures.money(mine, currency)}, not {measures.money(its, currency)}"
    if row["parts"] == shipped["parts"]:
        return "no simpler and no better"
    return f"{row['parts']} moving part{'s' if row['parts'] != 1 else ''}, not {shipped['parts']}"


def _changes(decision: Decision, shipped: Row | None) -> list[str]:
    lines = _relaxed(decision, shipped)
    if shipped is not None:
        roomy = [item for item in shipped["constraints"] if item["miss"] is not None]
        if roomy:
            least = max(roomy, key=lambda item: item["miss"])
            room = f"{-100 * least['miss']:.0f} %"
            lines.append(f"Of its constraints it keeps {label(least['name'])} by the least: {room} of room.")
        lines += _volumes(decision, shipped)
        lines += _near_enough(decision, shipped)
    n, best = decision["heldout"]["n"], decision["best"]
    for name, needed in decision["examples_to_settle"].items():
        if needed is None:
            lines.append(f"How many examples would tell {best} from {name} cannot be said: {_silent(decision, name)}.")
        else:
            more = f"{needed - n:,} more held-out examples (there are {n:,})"
            lines.append(f"{more} would tell {best} from {name} with 80 % power, if they differ as seen.")
    return lines


def _near_enough(decision: Decision, shipped: Row) -> list[str]:
    """Variants that are worse than the best one, but shown to be only a little so, and take less."""
    lines, currency = [], decision["terms"]["cost"]["currency"]
    for row in decision["variants"]:
        name, mine, its = row["variant"], row["cost"], shipped["cost"]
        if not row["meets"] or name in (decision["best"], *decision["tied"]) or not _near(decision, name):
            continue
        prices = [mine["money_per_1000"], its["money_per_1000"]]
        if None not in prices and mine["device"] == its["device"]:
            less = SAME_COST * prices[0] < prices[1]
            gain = (
                f"1,000 answers cost {measures.money(prices[0], currency)}, not {measures.money(prices[1], currency)}"
            )
        else:
            less = row["parts"] < shipped["parts"]
            gain = f"it has {row['parts']} moving part{'' if row['parts'] == 1 else 's'}, not {shipped['parts']}"
        if less:
            far = f"{name} is worse than {decision['best']}, but by no more than {_margin(decision)}: {_nearness(row)}"
            lines.append(f"{far}. If that is near enough, {gain}.")
    return lines


def _silent(decision: Decision, name: str) -> str:
    pair = _pair(decision, decision["best"], name)
    return "they scored the same" if pair["difference"] == 0 else bare(pair["method"])


def _relaxed(decision: Decision, shipped: Row | None) -> list[str]:
    """Which constraint, given up a little, would let a better variant in: the nearest one."""
    sign = 1 if _higher(decision) else -1
    floor = None if shipped is None else shipped["quality"]["value"]
    outside = [
        row
        for row in decision["variants"]
        if row["meets"] is False and (floor is None or sign * row["quality"]["value"] > sign * floor)
    ]
    if not outside:
        return []

    def distance(row: Row) -> float:
        return max(1.0 if item["miss"] is None else item["miss"] for item in _missed(row))

    row = min(outside, key=distance)
    gain = "" if shipped is None else f", which scores better: {_quality(decision, row)}"
    asked = [
        f"{label(item['name'])} of {item['got']} accepted ({item['asked']} is asked now)"
        if item["asked"]
        else f"{label(item['name'])} not asked"
        for item in _missed(row)
    ]
    return [f"With {_listed(asked)}, {row['variant']} would be a candidate{gain}."]


def _volumes(decision: Decision, shipped: Row) -> list[str]:
    """The break-even points between the shipped variant and each other one that meets the constraints."""
    name = shipped["variant"]
    meeting = {row["variant"] for row in decision["variants"] if row["meets"]} - {name}
    found: dict[str, list[str]] = {}
    for item in sorted(decision["break_even"], key=lambda item: item["answers"] or 0):
        if item["variant"] == name and item["against"] in meeting:
            when = f"from {item['answers']:,} answers on" if item["kind"] == "after" else item["kind"]
            found.setdefault(when, []).append(item["against"])
    words = {"at once": "from the first answer on", "never": "at no number of answers"}
    lines = [
        f"{name} costs less in all than {_listed(others)} {words.get(when, when)}."
        for when, others in found.items()
        if when.startswith("from") or when in words
    ]
    for item in decision["break_even"]:
        if item["against"] == name and item["variant"] in meeting and item["kind"] == "after":
            lines.append(f"{item['variant']} costs less in all than {name} from {item['answers']:,} answers on.")
    if lines:
        lines.append(
            "(In all: training and indexing once, and answers at the measured throughput of batches, on a machine that "
            "is paid only while it works.)"
        )
    return lines


def _fronts(decision: Decision) -> list[str]:
    lines = []
    for front in decision["fronts"]:
        found: dict[str, list[str]] = {}
        for point in front["points"]:
            sure = "" if point["share"] is None else f", {100 * point['share']:.0f} %"
            word = "by" if point["place"] == "dominated" else "behind"
            by = f" {word} {point['by']}" if point["by"] else ""
            said = f"{point['variant']}{by} ({measures.shown(point['cost'], front['unit'])}{sure})"
            found.setdefault("on the front" if point["place"] == "front" else point["place"], []).append(said)
        order = [place for place in ("on the front", "open", "dominated", "n/a") if place in found]
        places = [f"{place}: {', '.join(found[place])}" for place in order]
        lines.append(f"By {front['cost'].replace('_', ' ')}, {'; '.join(places)}.")
    if lines:
        margin = decision["fronts"][0]["margin"]
        shown = figures.size_of_change(margin, decision["primary"]["unit"])
        also = "" if margin is None else f", or by the paired test is not worse by more than {shown}"
        lines.append(pareto.NOTE.format(margin=also))
        if any(point["share"] is not None for front in decision["fronts"] for point in front["points"]):
            lines.append(pareto.SHARE)
    return lines


# ------------------------------------------------------------------------------------------------------------- words


def _row(decision: Decision, name: str | None) -> Row | None:
    return next((row for row in decision["variants"] if row["variant"] == name), None)


def _pair(decision: Decision, one: str, other: str) -> Any:
    """The comparison with `one` first, or None."""
    for pair in decision["comparisons"]["pairs"]:
        if (pair["one"], pair["other"]) == (one, other):
            return pair
        if (pair["other"], pair["one"]) == (one, other):
            ends = (pair["difference"], pair["ci_low"], pair["ci_high"])
            value, high, low = (None if end is None else -end for end in ends)
            return {**pair, "one": one, "other": other, "difference": value, "ci_low": low, "ci_high": high}
    return None


def _higher(decision: Decision) -> bool:
    return bool(decision["primary"]["direction"] == "higher")


def _quality(decision: Decision, row: Row) -> str:
    found, unit = row["quality"], decision["primary"]["unit"]
    value = figures.score(found["value"], unit)
    if found["ci_low"] is None or found["ci_high"] is None:
        return f"{value} (no interval: {bare(found['method'])})"
    return f"{value} (95 % interval {figures.bounds(found['ci_low'], found['ci_high'], unit)})"


def _difference(decision: Decision, pair: Mapping[str, Any]) -> str:
    """How large a difference is, whichever side is ahead, with the interval of that size."""
    unit, value = decision["primary"]["unit"], pair["difference"]
    if value is None:
        return "n/a"
    low, high = pair["ci_low"], pair["ci_high"]
    if value < 0 and low is not None and high is not None:
        low, high = -high, -low
    text, interval = figures.size_of_change(abs(value), unit), figures.bounds(low, high, unit)
    return (
        f"{text} (95 % interval {interval})" if interval != "n/a" else f"{text} (no interval: {bare(pair['method'])})"
    )


def _worst(decision: Decision, pair: Mapping[str, Any]) -> str:
    """What the best one may be ahead by, at the far end of the interval."""
    end = pair["ci_high"] if _higher(decision) else pair["ci_low"]
    if end is None:
        return "an amount that cannot be said"
    return figures.size_of_change(abs(end), decision["primary"]["unit"])


def _verdict(pair: Mapping[str, Any]) -> str:
    if pair["p"] is None:
        return f"no test ({bare(pair['test'])})"
    word = "cannot be told apart" if pair["verdict"] == "cannot tell" else "told apart"
    return f"{word}, {figures.said_p(pair['p_adjusted'])}"


def _missed(row: Row) -> list[Mapping[str, Any]]:
    """The constraints that a variant does not meet."""
    return [item for item in row["constraints"] if item["status"] != "met"]


def _told(row: Row) -> str:
    return "; ".join(item["text"] for item in _missed(row))


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
