"""What answers are rewarded with: metrics, reward models, and both with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model
from rewarding import asked, reward_model
from training import write

pytest.importorskip("torch")
pytest.importorskip("transformers")

from harness.errors import DataError, ModelError
from harness.methods import _reward, _rewards, _sampling
from harness.methods._rows import Renderer
from harness.methods._sampling import Answer, Prompt
from harness.plugins import find


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(tiny_model), None)


@pytest.fixture(scope="module")
def prompts(renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    return _sampling.read(write(tmp_path_factory.mktemp("prompts") / "rows.jsonl", asked(3)), renderer, 500)[0]


def answer(prompt: Prompt, renderer: Renderer, text: str, *, ended: bool = True) -> Answer:
    (ids,) = renderer.encode([text])
    return Answer(prompt, (*ids, renderer.end) if ended else tuple(ids), text, ended)


def load(renderer: Renderer, references: dict[str, Any], weights: Any = None) -> _rewards.Rewards:
    return _rewards.load(
        tuple(references), weights, references,
        tokenizer=renderer.tokenizer, end=renderer.end, ends=frozenset({renderer.end}), device="cpu", dtype="float32",
    )  # fmt: skip


def metric(kind: str, **settings: Any) -> dict[str, Any]:
    return {"metric": {"kind": kind} | settings}


def test_a_metric_gives_its_value_of_the_answer_to_the_rows_own_example(
    renderer: Renderer, prompts: list[Prompt]
) -> None:
    rewards = load(renderer, {"metric:exact": metric("exact_match")})
    answers = [answer(prompts[1], renderer, "1 years"), answer(prompts[1], renderer, "2 years")]
    assert rewards.score(answers) == [1.0, 0.0]


def test_where_less_is_better_the_reward_is_negative(renderer: Renderer, prompts: list[Prompt]) -> None:
    words, tokens = load(renderer, {"w": metric("length")}), load(renderer, {"t": metric("length", of="tokens")})
    made = answer(prompts[0], renderer, "the kettle boils")
    assert words.score([made]) == [-3.0]
    assert tokens.score([made]) == [-float(len(made.ids))]


def test_rewards_are_added_with_their_weights(renderer: Renderer, prompts: list[Prompt]) -> None:
    references = {"a": metric("exact_match"), "b": metric("length")}
    made = answer(prompts[2], renderer, "2 years")
    assert load(renderer, references).score([made]) == [1.0 - 2.0]
    assert load(renderer, references, (3.0, 0.25)).score([made]) == [3.0 - 0.5]


def test_what_a_metric_does_not_speak_of_adds_nothing_and_is_left_out_where_nothing_does(
    renderer: Renderer, prompts: list[Prompt], tmp_path: Path
) -> None:
    from dataclasses import replace

    untold = replace(prompts[0], example=replace(prompts[0].example, targets=()))
    one = load(renderer, {"a": metric("exact_match")})
    both = load(renderer, {"a": metric("exact_match"), "b": metric("length")})
    assert both.score([answer(untold, renderer, "2 years")]) == [-2.0]
    file = tmp_path / "train.jsonl"
    assert one.rewarded([untold, prompts[1]], file) == [prompts[1]]
    assert both.rewarded([untold, prompts[1]], file) == [untold, prompts[1]]
    with pytest.raises(DataError, match=r"train\.jsonl: the reward a speaks of none of the 1 prompts"):
        both.rewarded([untold], file)


def test_a_reward_model_reads_the_prompt_the_answer_and_the_end_of_its_turn(
    renderer: Renderer, prompts: list[Prompt], tmp_path: Path, tiny_model: Path
) -> None:
    folder = reward_model(tmp_path / "rm", tiny_model)
    rewards = load(renderer, {"marks": {"artifact": str(folder)}})
    texts = ["2 years", "the kettle boils water"]
    answers = [answer(prompts[0], renderer, text) for text in texts]
    messages = [{"role": "user", "content": prompts[0].messages[0].content}]
    wanted = _reward.load(folder).score_answers([(messages, text) for text in texts])
    assert rewards.score(answers) == pytest.approx(wanted)
    assert len(set(wanted)) == 2
    cut = [answer(prompts[0], renderer, text, ended=False) for text in texts]
    assert rewards.score(cut) == pytest.approx(wanted), "a cut answer is read as though it ended"


def test_a_reward_model_of_another_tokenizer_is_refused(renderer: Renderer, tmp_path: Path) -> None:
    import json

    other = make_tiny_model(tmp_path / "other", seed=1)
    file = other / "tokenizer.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = said["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(said), encoding="utf-8")
    folder = reward_model(tmp_path / "rm", other)
    with pytest.raises(ModelError, match="has another vocabulary than the model that is trained"):
        load(renderer, {"marks": {"artifact": str(folder)}})


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("recall", {"k": 3}, "it needs the passages that were retrieved"),
        ("perplexity", {}, "it needs the likelihood of the accepted answers"),
        ("brier", {}, "it speaks only of answers that are chosen from a set"),
        ("bleu", {}, "it gives no number for a single answer"),
        ("semantic_similarity", {}, "it asks a model of its own"),
    ],
)
def test_a_metric_that_needs_more_than_an_answer_cannot_be_a_reward(
    renderer: Renderer, kind: str, settings: dict[str, Any], said: str
) -> None:
    made = find("metrics", kind).model_validate(settings)
    assert said in str(made.no_reward)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=f"cannot be a reward: {said}"):
        load(renderer, {"m": metric(kind, **settings)})


def test_a_metric_that_fails_says_where(renderer: Renderer, prompts: list[Prompt]) -> None:
    rewards = load(renderer, {"metric:broken": metric("rewarding:Broken")})
    with pytest.raises(ModelError, match=r"the reward metric:broken failed on 'q0', answered '2 years': ZeroDivision"):
        rewards.score([answer(prompts[0], renderer, "2 years")])
