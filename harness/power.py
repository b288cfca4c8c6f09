"""How small a difference a held-out split can show: the minimum detectable effect, and the examples that are needed.

Both come from the design, with 80 % power at alpha 0.05, two-sided: how many examples there are, in which groups, and
on what share of them two variants disagree. Computed from the difference that was seen, power would only say again
what the p-value says (Hoenig and Heisey 2001, Am. Stat. 55:19).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness import figures
from harness.stats import design_effect, t_quantile

ALPHA = 0.05
POWER = 0.8
DISCORDANT = (0.1, 0.2, 0.4)
"""Shares of examples that just one of two variants gets right, for which the plan is told."""
CORRELATION = 0.2
"""Intra-class correlation of differences within a group that is assumed before anything was measured."""


def multiplier(degrees: float = math.inf, alpha: float = ALPHA) -> float:
    """How many standard errors a difference must have to be found with 80 % power: z(1 - alpha/2) + z(0.8), of t where
    the error has few degrees of freedom."""
    return t_quantile(degrees, 1 - alpha / 2) + t_quantile(degrees, POWER)


def minimum_detectable(groups: Sequence[str], discordant: float, correlation: float = CORRELATION) -> float | None:
    """Return the smallest difference between two shares of right answers that this split shows with 80 % power.

        ( z(1 - alpha/2) + z(0.8) ) * sqrt( discordant / n * design effect )

    `groups` names the group of each held-out example; `discordant` is the share of examples on which just one of the
    two is right. Connor 1987, Biometrics 43:207; with groups, t with C - 1 degrees of freedom stands for z. None where
    not even variants that differ on all those examples the same way would be told apart, or there is but one group.
    """
    count = len(set(groups))
    if count < 2:
        return None
    alone = count == len(groups)
    factor = multiplier() if alone else multiplier(count - 1)
    found = factor * math.sqrt(discordant / len(groups) * design_effect(groups, correlation))
    return found if found <= discordant else None


def needed(n: int, groups: int, difference: float, error: float, alpha: float = ALPHA) -> int | None:
    """Return how many examples in all would settle `difference` with 80 % power, if examples to come are like the `n`
    in `groups` that gave it with this standard `error`; None where there is no difference or no error to go by.

    However large a difference, a test by group reaches `alpha` only with 1 + log2(1/alpha) groups.
    """
    if difference == 0 or not error > 0 or not math.isfinite(error):
        return None
    fewest = n / groups * math.ceil(1 + math.log2(1 / alpha))
    return max(n + 1, math.ceil(fewest), math.ceil(n * (multiplier(alpha=alpha) * error / difference) ** 2))


def plan(groups: Sequence[str], board: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what can be told before a run: the minimum detectable effect for 10, 20 and 40 % discordant pairs, and,
    where an earlier run left its leaderboard (`board`), what its variants would show on this split.

    Of an earlier run only the variation is taken, never the difference: its own minimum detectable effects, scaled to
    this number of examples or of groups, whichever makes them larger: where groups have another size now, the truth
    lies between the two (examples of no correlation, and groups that are wholly alike).
    """
    count, n = len(set(groups)), len(groups)
    grouped = count < n
    return {
        "n": n,
        "groups": count if grouped else None,
        "alpha": ALPHA,
        "power": POWER,
        "correlation": CORRELATION if grouped else None,
        "minimum_detectable": {f"{share:g}": minimum_detectable(groups, share) for share in DISCORDANT},
        "earlier": _earlier(groups, board) if board else None,
    }


def _earlier(groups: Sequence[str], board: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the variants of an earlier run, as they varied, would show on this split; None where none was measured."""
    count, heldout = len(set(groups)), board["heldout"]
    then = heldout["groups"] or heldout["n"]
    if count < 2 or then < 2:
        return None
    fewer = max(then / count, heldout["n"] / len(groups))
    scale = math.sqrt(fewer) * multiplier(count - 1) / multiplier(then - 1)
    metric = next((one for one in board["metrics"] if one["name"] == board["primary"]), None)
    if metric is None:
        return None
    low, high = metric.get("floor"), metric.get("ceiling")
    reach = math.inf if low is None or high is None else high - low
    found = {}
    for row in board["rows"]:
        versus = row["vs_baseline"] or {}
        differing = versus.get("wins", 0) + versus.get("losses", 0)
        least = versus.get("minimum_detectable")
        if least is None and not differing:
            continue
        # A corpus figure has no value of single examples.
        discordant = differing / (differing + versus["ties"]) if differing else None
        if least is not None:
            least = scale * least if scale * least <= reach else None
        elif discordant and str(versus.get("effect")).startswith("odds ratio"):
            least = minimum_detectable(groups, discordant)  # too few examples then may be enough now
        found[row["variant"]] = {"discordant": discordant, "minimum_detectable": least}
    if not found:
        return None
    return {
        "snapshot": f"{board['experiment']}@{board['snapshot']}",
        "metric": metric["name"],
        "unit": metric["unit"],
        "baseline": board["baseline"],
        "n": board["heldout"]["n"],
        "variants": found,
    }


def sentence(made: dict[str, Any]) -> str:
    """Return `plan` in words."""
    groups = f" in {made['groups']:,} groups" if made["groups"] else ""
    found = [
        f"{100 * effect:.1f} points where just one of them is right on {100 * float(share):.0f} %"
        if effect is not None
        else f"none where just one of them is right on {100 * float(share):.0f} %"
        for share, effect in made["minimum_detectable"].items()
    ]
    assumed = f" Assumed within groups: an intra-class correlation of {made['correlation']:g}." if groups else ""
    return (
        f"Smallest difference between two shares of right answers that {made['n']:,} held-out examples{groups} show "
        f"with {100 * made['power']:.0f} % power at alpha {made['alpha']:g}: {'; '.join(found)} of them.{assumed}"
        f"{_measured(made['earlier'])}"
    )


def _measured(earlier: dict[str, Any] | None) -> str:
    """What an earlier run says, in words; "" without one."""
    if earlier is None:
        return ""
    told = []
    for name, one in earlier["variants"].items():
        least = one["minimum_detectable"]
        size = "none" if least is None else figures.size_of_change(least, earlier["unit"])
        differing = "" if one["discordant"] is None else f" (scores differ on {100 * one['discordant']:.0f} %)"
        told.append(f"{name} {size}{differing}")
    return (
        f" If scores vary as in {earlier['snapshot']} ({earlier['n']:,} held-out examples, {earlier['metric']} against "
        f"{earlier['baseline']}), the smallest difference that this split shows: {', '.join(told)}."
    )
