"""Bradley-Terry ratings from pairwise results: who would win how often, on the scale of chess ratings.

    P(a beats b) = 1 / (1 + 10^((R_b - R_a) / 400))

Bradley and Terry 1952, Biometrika 39:324. The ratings are those of maximum likelihood; a tie counts as half a win each
way. Scale 400, base 10 and a mean of 1000, as FastChat's `rating_systems.py` has them (a difference of 400 is odds of
10 to 1). Pure functions of plain numbers; the same results always give the same digits.

Finite ratings exist only where everyone can be reached from everyone by a chain of wins or ties (Ford 1957, Am. Math.
Monthly 64:28). Someone who never lost has no rating, only a bound that the data do not hold: it is given as None with
the reason, and the others are rated among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from harness.stats import LEVEL, t_quantile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

SCALE, BASE, START = 400.0, 10.0, 1000.0
RESAMPLES = 2000
_UNIT = SCALE / math.log(BASE)
"""Rating points in one unit of log-odds."""
_EQUAL = 1e-6
"""Ratings that are no further apart than this many points are the same."""
_STEPS = 100
_EXACT = 1e-10
"""The largest share of the games by which expected and seen wins may differ once a fit has converged."""


@dataclass(frozen=True, slots=True)
class Game:
    """One meeting of two players: `outcome` is 1 where `one` won, 0 where `two` did, 0.5 for a tie. Games of a `group`
    tend to end alike: they are drawn together when the interval is made. `seeds` are the outcomes under each seed, of
    which `outcome` is the mean, where there are several."""

    one: str
    two: str
    outcome: float
    group: str
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Rating:
    """A player's rating and its 95 % interval; None where the games give none, `why` says for what reason."""

    player: str
    value: float | None
    low: float | None
    high: float | None
    games: int
    why: str = ""


def ratings(games: Sequence[Game], *, seed: int = 0, resamples: int = RESAMPLES) -> list[Rating]:
    """Return the rating of every player, the best first; those without a rating last.

    Rated are the largest set of players who can all be reached from one another by wins or ties. The interval is a
    bootstrap over groups: whole groups are drawn with replacement, everyone is rated anew, and the ends are quantiles
    widened for few groups (Hesterberg 2015, Am. Stat. 69:371: the tail is Phi(-sqrt(C/(C-1)) * t) with C groups). A
    resample in which someone never loses counts as a rating without end on both sides, so that an end which depends on
    such resamples is None, never a false number.

    With several seeds that differ, how the ratings vary from seed to seed widens both ends as a second, independent
    source of variation (Zou and Donner 2008, Stat. Med. 27:1693): the distance of an end from the rating becomes

        sqrt( distance^2 + t^2 * var(ratings of each seed, ddof=1) / S )        t with S - 1 degrees of freedom

    It is None where the games of one seed alone rate no one. A player whose games with each opponent all ended alike
    (all ties) has no interval: drawn again they would end alike again, which is no proof that others would.
    """
    players = sorted({name for game in games for name in (game.one, game.two)})
    if not players:
        return []
    tables, groups = _tables(games, players)
    whole = tables.sum(axis=0)
    rated = _largest(whole)
    counts = {name: sum(name in (game.one, game.two) for game in games) for name in players}
    found = []
    if len(rated) > 1:
        inner = tables[:, rated][:, :, rated]
        values, fitted = _fit(inner.sum(axis=0)[None])
        lows, highs, why = _ends(inner, len(groups), seed, resamples)
        by_seed = _by_seed(games, players)
        if lows[0] is not None and len(by_seed):
            lows, highs, why = _widened(values[0], lows, highs, why, by_seed[:, rated][:, :, rated])
        for place, player in enumerate(rated):
            value = START + _UNIT * float(values[0, place]) if fitted[0] else None
            reason = why if fitted[0] else "n/a (the fit did not converge)"
            low, high = (lows[place], highs[place]) if fitted[0] else (None, None)
            if low is not None and not _varies(games, players[player], {players[other] for other in rated}):
                low, high, reason = None, None, "n/a (its games all ended alike)"
            found.append(Rating(players[player], value, low, high, counts[players[player]], reason))
    else:
        rated = []
    found.sort(key=lambda rating: (-(rating.value or 0.0), rating.player))
    others = [place for place in range(len(players)) if place not in rated]
    return found + [
        Rating(players[place], None, None, None, counts[players[place]], _unrated(whole, place, rated))
        for place in others
    ]


# --------------------------------------------------------------------------------------------------------- the fit


def _tables(games: Sequence[Game], players: Sequence[str]) -> tuple[Array, list[str]]:
    """Return, for each group, how often each player (row) won against each other (column), shape (C, k, k)."""
    import numpy as np

    groups = sorted({game.group for game in games})
    row = {name: place for place, name in enumerate(groups)}
    place = {name: place for place, name in enumerate(players)}
    tables = np.zeros((len(groups), len(players), len(players)))
    for game in games:
        one, two = place[game.one], place[game.two]
        tables[row[game.group], one, two] += game.outcome
        tables[row[game.group], two, one] += 1 - game.outcome
    return tables, groups


def _fit(tables: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Fit each of the tables (shape (r, k, k)); return log-odds ratings of mean 0, shape (r, k), and which converged.

    Newton's method on the log-likelihood, which is concave; steps are cut to 2 so that none runs away.
    """
    import numpy as np

    count, size, _ = tables.shape
    games = tables + tables.transpose(0, 2, 1)
    wins, total = tables.sum(axis=2), games.sum(axis=(1, 2)) / 2
    values = np.zeros((count, size))
    good = np.zeros(count, dtype=bool)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(values[:, None, :] - values[:, :, None]))
        slope = wins - (games * chance).sum(axis=2)
        good = np.abs(slope).max(axis=1) <= _EXACT * total
        if good.all():
            break
        weights = games * chance * (1 - chance)
        # Ratings are known up to a constant: the matrix of ones takes the place of that free direction.
        curve = np.ones((1, size, size)) - weights
        diagonal = np.arange(size)
        curve[:, diagonal, diagonal] = 1 + weights.sum(axis=2) - weights[:, diagonal, diagonal]
        step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        step -= step.mean(axis=1, keepdims=True)
        step *= np.minimum(1, 2 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        values = np.where(good[:, None], values, values + step)
    return values, good


def _reach(tables: Array) -> npt.NDArray[np.bool_]:
    """Return who is reached from whom by wins and ties, for each of the tables (shape (r, k, k))."""
    import numpy as np

    size = tables.shape[1]
    reach: npt.NDArray[np.bool_] = np.asarray((tables > 0) | np.eye(size, dtype=bool))
    for _ in range(max(1, math.ceil(math.log2(max(2, size))))):
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    return reach


def _largest(table: Array) -> list[int]:
    """The players of the largest set in which everyone is reached from everyone; of equal sets the first."""
    reach = _reach(table[None])[0]
    both = reach & reach.T
    sets = [[place for place in range(len(both)) if row[place]] for row in both]
    return max(sets, key=len)


def _unrated(table: Array, place: int, rated: Sequence[int]) -> str:
    """Why a player has no rating."""
    if not rated:
        return "n/a (no two players have each won or tied against the other)"
    reach = _reach(table[None])[0]
    to, back = bool(reach[place, rated[0]]), bool(reach[rated[0], place])
    if to:
        return "n/a (above all rated: never lost to them)"
    return "n/a (below all rated: never won against them)" if back else "n/a (never met the rated ones)"


# -------------------------------------------------------------------------------------------------------- intervals


def _ends(tables: Array, groups: int, seed: int, resamples: int) -> tuple[list[Any], list[Any], str]:
    """Return the low and high ends of all players, and why they are missing where all are."""
    import numpy as np

    size, nothing = tables.shape[1], [None] * tables.shape[1]
    if groups < 2:
        return nothing, nothing, "n/a (one group)"
    tail = NormalDist().cdf(-math.sqrt(groups / (groups - 1)) * t_quantile(groups - 1))
    if tail * resamples < 1:
        return nothing, nothing, f"n/a ({groups} groups are too few for a bootstrap)"
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(groups, [1 / groups] * groups, size=resamples).astype(float)
    again = np.tensordot(drawn, tables, axes=1)
    ratable: npt.NDArray[np.bool_] = np.asarray(_reach(again).all(axis=(1, 2)))
    values, fitted = _fit(np.where(ratable[:, None, None], again, np.ones((1, size, size))))
    fitted = np.asarray(fitted & ratable)
    lost = int((~fitted).sum())
    sorted_values = START + _UNIT * np.sort(values[fitted], axis=0)
    # The k-th smallest of all resamples, where the lost ones stand at both ends.
    rank = math.floor(tail * (resamples - 1))
    if lost > rank:
        share = f"{100 * lost / resamples:.0f} %"
        return nothing, nothing, f"n/a (in {share} of the resamples someone never loses)"
    lows = [float(value) for value in sorted_values[rank - lost]]
    highs = [float(value) for value in sorted_values[len(sorted_values) - 1 - (rank - lost)]]
    return lows, highs, f"bootstrap over {groups} groups, {resamples:,} resamples, {100 * LEVEL:g} %"


def _varies(games: Sequence[Game], player: str, among: set[str]) -> bool:
    """Whether any two games of a player with one of the others ended differently."""
    ends: dict[str, set[float]] = {}
    for game in games:
        if player in (game.one, game.two) and {game.one, game.two} <= among:
            other, outcome = (game.two, game.outcome) if player == game.one else (game.one, 1 - game.outcome)
            ends.setdefault(other, set()).add(outcome)
    return any(len(found) > 1 for found in ends.values())


def _by_seed(games: Sequence[Game], players: Sequence[str]) -> Array:
    """The table of wins under each seed, shape (S, k, k); S is 0 where there is one seed, or all gave the same."""
    import numpy as np

    count = max((len(game.seeds) for game in games), default=0)
    made = []
    for seed in range(count):
        under = [Game(game.one, game.two, game.seeds[seed] if game.seeds else game.outcome, "") for game in games]
        made.append(_tables(under, players)[0][0])
    same = all((table == made[0]).all() for table in made)
    return np.zeros((0, len(players), len(players))) if same else np.stack(made)


def _widened(
    values: Array, lows: Sequence[float], highs: Sequence[float], why: str, tables: Array
) -> tuple[list[Any], list[Any], str]:
    """The ends with the variation between seeds in them; `tables` are the wins of the rated under each seed."""
    count, size, _ = tables.shape
    each, fitted = _fit(tables) if _reach(tables).all() else (tables, [False])
    if not all(fitted):
        return [None] * size, [None] * size, "n/a (under one seed alone someone never loses)"
    wide = t_quantile(count - 1) * _UNIT * each.std(axis=0, ddof=1) / math.sqrt(count)
    centres = START + _UNIT * values
    ends = list(zip(centres.tolist(), lows, highs, wide.tolist(), strict=True))
    return (
        [centre - math.hypot(centre - low, width) for centre, low, _, width in ends],
        [centre + math.hypot(high - centre, width) for centre, _, high, width in ends],
        f"{why}, and over {count} seeds",
    )


def as_rows(found: Sequence[Rating]) -> list[Mapping[str, Any]]:
    """Return ratings as JSON-able values. `place` is None without a rating; equal ratings share one."""
    rows: list[Mapping[str, Any]] = []
    values = [rating.value for rating in found if rating.value is not None]
    for rating in found:
        own = rating.value
        rows.append(
            {
                # Equal ratings come out of the fit with other last digits.
                "place": None if own is None else 1 + sum(value > own + _EQUAL for value in values),
                "variant": rating.player,
                "rating": rating.value,
                "ci_low": rating.low,
                "ci_high": rating.high,
                "games": rating.games,
                "method": rating.why,
            }
        )
    return rows
