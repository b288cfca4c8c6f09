"""Bradley-Terry ratings: by hand, against choix, and where the data give none."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from harness import bradley_terry
from harness.bradley_terry import Game, Rating, as_rows, ratings

choix = pytest.importorskip("choix")


def games(counts: Sequence[tuple[str, str, float, int]]) -> list[Game]:
    """`n` games of each outcome, every game a group of its own."""
    found: list[Game] = []
    for one, two, outcome, n in counts:
        found += [Game(one, two, outcome, f"g{len(found) + i}") for i in range(n)]
    return found


def win_chance(one: float, two: float) -> float:
    """How likely a player rated `one` beats a player rated `two`: 400 points are odds of 10 to 1."""
    return float(1 / (1 + 10 ** ((two - one) / 400)))


def of(found: Sequence[Rating]) -> dict[str, Rating]:
    return {rating.player: rating for rating in found}


def test_two_players_are_as_far_apart_as_their_odds_say() -> None:
    # 15 wins, 3 losses, 2 ties: odds of 16 to 4, so 400 * log10(4) points, around a mean of 1000.
    found = of(ratings(games([("a", "b", 1.0, 15), ("a", "b", 0.0, 3), ("a", "b", 0.5, 2)])))
    apart = 400 * math.log10(4)
    assert found["a"].value == pytest.approx(1000 + apart / 2, abs=1e-6)
    assert found["b"].value == pytest.approx(1000 - apart / 2, abs=1e-6)
    assert win_chance(1000 + apart / 2, 1000 - apart / 2) == pytest.approx(0.8)


def test_how_ratings_vary_between_seeds_is_added_to_both_ends() -> None:
    # Under three seeds a wins 14, 12 and 10 of the same 20 games.
    outcomes = [(float(i < 14), float(i < 12), float(i < 10)) for i in range(20)]
    played = [Game("a", "b", sum(each) / 3, f"g{i}", each) for i, each in enumerate(outcomes)]
    over = of(ratings(played))["a"]
    alone = of(ratings([Game(one.one, one.two, one.outcome, one.group) for one in played]))["a"]
    each = [200 * math.log10(wins / (20 - wins)) for wins in (14, 12, 10)]
    centre = sum(each) / 3
    spread = 4.302652729911275 * math.sqrt(sum((one - centre) ** 2 for one in each) / 2 / 3)  # t(0.975), 2 degrees
    assert over.value == alone.value and over.value is not None and alone.low is not None and alone.high is not None
    assert over.low == pytest.approx(over.value - math.hypot(over.value - alone.low, spread))
    assert over.high == pytest.approx(over.value + math.hypot(alone.high - over.value, spread))
    assert over.why == f"{alone.why}, and over 3 seeds"
    flat = [Game(one.one, one.two, one.outcome, one.group, (one.outcome,) * 3) for one in played]
    assert of(ratings(flat))["a"] == alone, "seeds that gave the same are as good as one"


def test_a_seed_under_which_nobody_can_be_rated_leaves_no_interval() -> None:
    outcomes = [(1.0, float(i % 2)) for i in range(20)]
    played = [Game("a", "b", sum(each) / 2, f"g{i}", each) for i, each in enumerate(outcomes)]
    found = of(ratings(played))["a"]
    assert found.value is not None
    assert (found.low, found.high, found.why) == (None, None, "n/a (under one seed alone someone never loses)")


def test_games_that_all_ended_alike_give_a_rating_and_no_interval() -> None:
    tied = of(ratings(games([("a", "b", 0.5, 20)])))
    assert (tied["a"].value, tied["a"].low, tied["a"].high) == (pytest.approx(1000), None, None)
    assert tied["a"].why == "n/a (its games all ended alike)"
    found = of(ratings(games([("a", "b", 0.5, 20), ("a", "c", 1.0, 12), ("a", "c", 0.0, 8)])))
    assert found["b"].low is None
    assert found["a"].low is not None and found["c"].low is not None


def test_equal_ratings_share_a_place() -> None:
    played = games([(one, "base", outcome, 6) for one in "xyz" for outcome in (1.0, 0.0)])
    played += games([("best", "base", 1.0, 9), ("best", "base", 0.0, 3)])
    places = {row["variant"]: row["place"] for row in as_rows(ratings(played))}
    assert places == {"best": 1, "x": 2, "y": 2, "z": 2, "base": 2}


def test_who_names_the_players_in_which_order_changes_nothing() -> None:
    one = ratings(games([("a", "b", 1.0, 7), ("b", "a", 1.0, 3), ("c", "a", 0.5, 4), ("b", "c", 1.0, 2)]))
    two = ratings(games([("b", "a", 0.0, 7), ("a", "b", 0.0, 3), ("a", "c", 0.5, 4), ("c", "b", 0.0, 2)]))
    assert [rating.value for rating in one] == pytest.approx([rating.value for rating in two])


def test_ratings_are_those_of_choix_on_generated_tournaments() -> None:
    rng, compared = random.Random(7), 0
    while compared < 200:
        players = rng.randint(2, 6)
        strength = [rng.gauss(0, 1) for _ in range(players)]
        played, data = [], []
        for number in range(rng.randint(20, 120)):
            a, b = rng.sample(range(players), 2)
            won = rng.random() < 1 / (1 + math.exp(strength[b] - strength[a]))
            played.append(Game(f"p{a}", f"p{b}", float(won), f"g{number}"))
            data.append((a, b) if won else (b, a))
        found = of(ratings(played, resamples=10))
        if len(found) < players or any(rating.value is None for rating in found.values()):
            continue
        expected = choix.ilsr_pairwise(players, data, max_iter=10_000, tol=1e-12)
        for place in range(players):
            value = found[f"p{place}"].value
            assert value is not None
            wanted = expected[place] - sum(expected) / players
            assert (value - 1000) * math.log(10) / 400 == pytest.approx(wanted, abs=1e-6)
        compared += 1


def test_ties_are_half_a_win_each_way_as_choix_sees_them_when_every_game_counts_twice() -> None:
    played = games([("a", "b", 1.0, 4), ("a", "b", 0.5, 3), ("b", "c", 1.0, 5), ("c", "a", 1.0, 2), ("c", "b", 0.5, 2)])
    data = []
    for game in played:
        one, two = "abc".index(game.one), "abc".index(game.two)
        data += [(one, two), (two, one)] if game.outcome == 0.5 else [(one, two)] * 2
    expected = choix.ilsr_pairwise(3, data, max_iter=10_000, tol=1e-12)
    found = of(ratings(played))
    for place, name in enumerate("abc"):
        value = found[name].value
        assert value is not None
        assert (value - 1000) * math.log(10) / 400 == pytest.approx(expected[place] - sum(expected) / 3, abs=1e-6)


def test_someone_who_never_lost_has_no_rating_and_the_others_keep_theirs() -> None:
    others = [("b", "c", 1.0, 6), ("c", "b", 1.0, 4)]
    found = ratings(games([("a", "b", 1.0, 9), ("a", "c", 1.0, 9), *others]))
    alone = of(ratings(games(others)))
    assert [rating.player for rating in found] == ["b", "c", "a"]
    assert of(found)["a"] == Rating("a", None, None, None, 18, "n/a (above all rated: never lost to them)")
    assert of(found)["b"].value == alone["b"].value
    assert [row["place"] for row in as_rows(found)] == [1, 2, None]


def test_someone_who_never_won_is_below_and_strangers_are_told_apart() -> None:
    found = of(ratings(games([("a", "b", 1.0, 6), ("b", "a", 1.0, 4), ("a", "z", 1.0, 5), ("x", "y", 0.5, 3)])))
    assert found["z"].why == "n/a (below all rated: never won against them)"
    assert found["x"].why == found["y"].why == "n/a (never met the rated ones)"


def test_where_nobody_ever_lost_to_the_loser_there_is_no_rating_at_all() -> None:
    found = ratings(games([("a", "b", 1.0, 20)]))
    assert {rating.value for rating in found} == {None}
    assert found[0].why == "n/a (no two players have each won or tied against the other)"
    assert ratings([]) == []


def test_all_ties_are_equal_ratings() -> None:
    found = of(ratings(games([("a", "b", 0.5, 20)])))
    assert found["a"].value == found["b"].value == pytest.approx(1000)


def test_an_interval_that_hangs_on_one_game_is_none_rather_than_false() -> None:
    # One loss in 20: in a third of all resamples it is not drawn, and then there is no rating.
    found = of(ratings(games([("a", "b", 1.0, 19), ("a", "b", 0.0, 1)])))
    assert found["a"].value == pytest.approx(1000 + 200 * math.log10(19), abs=1e-6)
    assert (found["a"].low, found["a"].high) == (None, None)
    assert "of the resamples someone never loses" in found["a"].why


@pytest.mark.parametrize(("groups", "said"), [(1, "one group"), (4, "4 groups are too few")])
def test_few_groups_give_no_interval(groups: int, said: str) -> None:
    played = [Game("a", "b", float(number % 3 > 0), f"g{number % groups}") for number in range(30)]
    found = of(ratings(played))["a"]
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert said in found.why


def test_the_same_games_always_give_the_same_digits_in_any_order() -> None:
    rng = random.Random(3)
    played = [Game("a", "b", rng.choice([0.0, 0.5, 1.0]), f"g{number // 3}") for number in range(90)]
    first = ratings(played)
    assert first == ratings(played)
    assert first != ratings(played, seed=1)
    rng.shuffle(played)
    assert [rating.value for rating in ratings(played)] == pytest.approx([rating.value for rating in first])


def test_games_of_a_group_that_end_alike_widen_the_interval() -> None:
    rng = random.Random(5)
    wins = [float(rng.random() < 0.6) for _ in range(30)]
    alone = [Game("a", "b", win, f"{number}-{copy}") for number, win in enumerate(wins) for copy in range(4)]
    together = [Game("a", "b", win, f"{number}") for number, win in enumerate(wins) for copy in range(4)]

    def width(played: list[Game]) -> float:
        found = of(ratings(played))["a"]
        assert found.low is not None and found.high is not None
        return found.high - found.low

    assert width(together) > 1.8 * width(alone)


@pytest.mark.slow
def test_intervals_cover_the_true_difference_about_as_often_as_they_say() -> None:
    """400 tournaments of three players, 24 groups of 4 games a pair, games of a group correlated (beta-binomial)."""
    rng = random.Random(11)
    strength = {"a": 60.0, "b": 0.0, "c": -60.0}
    covered = total = 0
    for _ in range(400):
        played = []
        for group in range(24):
            for one, two in (("a", "b"), ("a", "c"), ("b", "c")):
                p = win_chance(strength[one], strength[two])
                chance = rng.betavariate(p * 4, (1 - p) * 4)  # intra-class correlation 1/5
                played += [Game(one, two, float(rng.random() < chance), f"g{group}") for _ in range(4)]
        for rating in ratings(played, resamples=1000):
            if rating.low is not None and rating.high is not None:
                covered += rating.low <= 1000 + strength[rating.player] <= rating.high
                total += 1
    assert total == 1200
    assert 0.93 <= covered / total <= 0.975, covered / total


def test_the_scale_is_fastchats() -> None:
    assert (bradley_terry.SCALE, bradley_terry.BASE, bradley_terry.START) == (400, 10, 1000)
