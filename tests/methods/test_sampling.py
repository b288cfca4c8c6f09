"""Answers sampled from a policy, and what it and its reference think of them, against transformers' own."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewarding import asked
from training import write

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from harness.adapters.lora import Lora  # noqa: E402
from harness.methods import _likelihood, _rows, _sampling  # noqa: E402
from harness.methods._rows import Renderer, Row  # noqa: E402


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    return model, Renderer(AutoTokenizer.from_pretrained(tiny_model), None)


def sampler(loaded: Any, **settings: Any) -> _sampling.Sampler:
    model, renderer = loaded
    settings = {"temperature": 1.0, "most": 6, "autocast": False} | settings
    return _sampling.Sampler(model, renderer, settings.pop("ends", frozenset({renderer.end})), **settings)


def adapted(model: Any) -> Any:
    with warnings.catch_warnings():
        # PEFT asks under a name that transformers is about to drop; a stage filters it as well.
        warnings.simplefilter("ignore", FutureWarning)
        return Lora(rank=2).wrap(model)


def prompts(loaded: Any, tmp_path: Path, values: list[dict[str, Any]]) -> list[_sampling.Prompt]:
    return _sampling.read(write(tmp_path / "rows.jsonl", values), loaded[1], 500)[0]


def test_answers_are_those_of_transformers_where_only_one_is_likely(loaded: Any, tmp_path: Path) -> None:
    """At a temperature near zero sampling is greedy, whatever batch a prompt is in."""
    model, renderer = loaded
    found = prompts(loaded, tmp_path, asked(9))
    made = sampler(loaded, temperature=1e-4, ends=frozenset({renderer.end, 93})).answer(found)
    for answer in made:
        given = torch.tensor([answer.prompt.ids])
        wanted = model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=6,
            eos_token_id=[renderer.end, 93], pad_token_id=0,
        )[0, given.shape[1] :]  # fmt: skip
        assert list(answer.ids) == wanted.tolist()
        assert answer.ended == (answer.ids[-1] in (renderer.end, 93))
    assert len({len(answer.ids) for answer in made}) > 1, "some answers end before others"


def test_tokens_are_drawn_as_often_as_they_are_likely(loaded: Any, tmp_path: Path) -> None:
    model, _ = loaded
    (prompt,) = prompts(loaded, tmp_path, asked(1))
    with torch.no_grad():
        chances = (model(torch.tensor([prompt.ids])).logits[0, -1] / 0.8).softmax(-1)
    torch.manual_seed(0)
    drawn = Counter(ids[0] for ids in sampler(loaded, temperature=0.8, most=1).sample([prompt.ids] * 4000))
    likeliest = chances.argmax().item()
    assert drawn[likeliest] / 4000 == pytest.approx(chances[likeliest].item(), abs=0.03)
    assert sum(abs(drawn[token] / 4000 - chances[token].item()) for token in range(len(chances))) < 0.25


def test_an_answer_is_what_stands_before_the_token_that_ends_it(loaded: Any, tmp_path: Path) -> None:
    _, renderer = loaded
    (prompt,) = prompts(loaded, tmp_path, asked(1))
    (ids,) = renderer.encode(["2 years"])
    ended, cut = (sampler(loaded).made(prompt, tokens) for tokens in ([*ids, renderer.end], ids))
    assert (ended.text, ended.ended, cut.text, cut.ended) == ("2 years", True, "2 years", False)
    assert ended.row == Row((*prompt.ids, *ids, renderer.end), len(prompt.ids))
    assert sampler(loaded).made(prompt, [renderer.end]).text == ""


def test_prompts_are_read_as_the_model_is_asked(loaded: Any, tmp_path: Path) -> None:
    _, renderer = loaded
    values = asked(3)
    found, counts = _sampling.read(write(tmp_path / "rows.jsonl", values), renderer, 500)
    assert [list(prompt.ids) for prompt in found] == [
        list(renderer.row(value["messages"], "").ids[:-1]) for value in values
    ]
    assert found[2].example.targets == ("2 years",)
    assert counts == {"prompts": 3, "prompts_too_long": 0}


@given(st.integers(1, 20), st.integers(1, 30), st.integers(1, 6), st.integers(0, 3))
def test_every_prompt_comes_once_before_any_comes_again(count: int, size: int, rounds: int, seed: int) -> None:
    planned = _sampling.plan(count, size, rounds, seed)
    assert [len(one) for one in planned] == [size] * rounds
    order = [number for one in planned for number in one]
    for first in range(0, len(order) - count + 1, count):
        assert sorted(order[first : first + count]) == list(range(count))
    assert _sampling.plan(count, size, rounds + 2, seed)[:rounds] == planned


def test_answers_are_read_at_their_tokens_alone(loaded: Any, tmp_path: Path) -> None:
    model, _ = loaded
    rows = [Row((5, 6, 7, 8, 9), 3), Row((11, 12, 13), 1)]
    read = _likelihood.Likelihood(model, temperature=0.5, autocast=False).read(rows)
    with torch.no_grad():
        logs = [(model(torch.tensor([row.ids])).logits[0] / 0.5).log_softmax(-1) for row in rows]
    wanted = torch.stack([logs[0][2, 8], logs[0][3, 9], logs[1][0, 12], logs[1][1, 13]])
    torch.testing.assert_close(read.logprobs, wanted, rtol=1e-4, atol=1e-4)
    entropy = torch.stack([-(one.exp() * one).sum() for one in (logs[0][2], logs[0][3], logs[1][0], logs[1][1])])
    torch.testing.assert_close(read.entropy(), entropy, rtol=1e-4, atol=1e-4)
    assert read.hidden.shape == (4, 64)
    assert read.targets.tolist() == [8, 9, 12, 13]


def test_the_divergence_is_summed_over_the_vocabulary() -> None:
    def at(*chances: float) -> _likelihood.Read:
        return _likelihood.Read(torch.tensor([chances]).log(), torch.zeros(1, 1), torch.tensor([0]))

    # 0.75 ln(0.75 / 0.5) + 0.25 ln(0.25 / 0.5)
    assert _likelihood.divergence(at(0.75, 0.25), at(0.5, 0.5)).item() == pytest.approx(0.1308, abs=1e-4)
    assert _likelihood.divergence(at(0.5, 0.5), at(0.5, 0.5)).item() == pytest.approx(0)


@pytest.mark.parametrize("lora", [True, False])
def test_the_reference_answers_as_the_model_did_however_it_is_trained(tiny_model: Path, lora: bool) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    model = adapted(model) if lora else model.requires_grad_(True)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # An adapter that came in: it is not zero.
                weight.normal_(std=0.2)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(ids).logits
    reference = _likelihood.Reference(model, fresh=False)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.05
        after = model(ids).logits
    assert (before - after).abs().max() > 0.1
    torch.testing.assert_close(reference(input_ids=ids).logits, before)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        one = model(ids).logits
        other = reference(input_ids=ids).logits
        torch.testing.assert_close(model(ids).logits, one)
    assert (one - other).abs().max() > 0.1, "autocast must not take the other's weights"
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, after)


def test_parts_are_read_from_a_file_of_any_length(loaded: Any, tmp_path: Path) -> None:
    values = asked(2)
    file = tmp_path / "rows.jsonl"
    file.write_text("\n" + "\n\n".join(map(json.dumps, values)) + "\n", encoding="utf-8")
    assert len(_sampling.read(file, loaded[1], 500)[0]) == 2
    assert _rows.parts([3, 1], 1, 10) == [[1], [0]]
