"""Likelihoods of given texts: those of a plain forward pass, whatever is shared, batched or interrupted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model

from harness.backends.transformers import Transformers
from harness.plugins import Plan
from harness.records import Decoding, Message, Reply, Request

torch = pytest.importorskip("torch")

# PEFT 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CHOICES = (
    "yes", "no", "the red light", "the red light blinks", "the red filter", "coffee", "coffee grinder lasts 9 years",
    "parcels", "[KB-001]", "3",
)  # fmt: skip
QUESTIONS = (
    "how long does the warranty of a grinder last?",
    "water",
    "the red light blinks and the machine boils no water ! ! !",
    "parcels within thirty days",
    "is the price 4 5 6 or 7 8 9 for a clean filter and a number of burrs and coffee and tea and repairs?",
)
SHOTS = "return parcels within thirty days cover repairs price machine burrs clean filter light " * 6


def asks(questions: Sequence[str] = QUESTIONS, system: str = "", **decoding: Any) -> list[Request]:
    decoding = {"choices": CHOICES, **decoding}
    before = (Message("system", system),) if system else ()
    return [Request(messages=(*before, Message("user", text)), decoding=Decoding(**decoding)) for text in questions]


def answer_all(session: Any, requests: Sequence[Request], plan: Plan | None = None) -> list[Reply]:
    plan = plan or session.plan(requests)
    replies: dict[int, Reply] = {}
    for batch in plan.batches:
        replies.update(zip(batch, session.answer([requests[index] for index in batch], plan), strict=True))
    return [replies[index] for index in range(len(requests))]


def logprobs(replies: Sequence[Reply]) -> list[list[float]]:
    return [[choice.logprob for choice in reply.choices] for reply in replies]


def reference(folder: Path, session: Any, requests: Sequence[Request]) -> list[list[float]]:
    """One plain forward pass of transformers for each prompt and choice, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    found = []
    for request in requests:
        (prompt,) = session.chat.prompts([request.messages])
        row = []
        for text in request.decoding.choices:
            tokens = session.tokenizer(text, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                lines = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
            row.append(sum(float(lines[len(prompt) + place - 1, token]) for place, token in enumerate(tokens)))
        found.append(row)
    return found


@pytest.fixture(scope="module")
def session(tiny_model: Path) -> Any:
    opened = Transformers(id=str(tiny_model), dtype="float32").open()
    yield opened
    opened.close()


@pytest.mark.parametrize("system", ["", "cover repairs and price of the machine for customers", SHOTS])
def test_likelihoods_are_those_of_a_plain_forward_pass(session: Any, tiny_model: Path, system: str) -> None:
    requests = asks(system=system)
    plan = session.plan(requests)
    assert len(plan.batches) == 1 and bool(plan.prefix) == bool(system)
    replies = answer_all(session, requests, plan)
    for ours, theirs in zip(logprobs(replies), reference(tiny_model, session, requests), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for reply in replies:
        best = max(reply.choices, key=lambda choice: choice.logprob)
        assert reply.texts == (best.text,)
        assert [choice.text for choice in reply.choices] == list(CHOICES)
        assert reply.output_tokens == 0 and reply.error is None


def test_every_prompt_may_have_choices_of_its_own(session: Any, tiny_model: Path) -> None:
    sets = (("yes",), CHOICES, ("3", "4"), ("coffee grinder lasts 9 years and the kettle boils", "no"), ("", "no"))
    requests = [asks([text], choices=own)[0] for text, own in zip(QUESTIONS, sets, strict=True)]
    replies = answer_all(session, requests)
    for ours, theirs in zip(logprobs(replies), reference(tiny_model, session, requests), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert replies[4].choices[0].logprob == 0 and replies[4].choices[0].tokens == 0


def test_small_batches_give_what_one_gives_and_the_same_digits_whatever_ran_before(tiny_model: Path) -> None:
    backend = Transformers(id=str(tiny_model), dtype="bfloat16", max_batch=2)
    first, second = backend.open(), backend.open()
    requests = asks(system=SHOTS)
    plan = first.plan(requests)
    assert len(plan.batches) == 3 and second.plan(requests) == plan
    forward = [logprobs(first.answer([requests[i] for i in batch], plan)) for batch in plan.batches]
    backward = [logprobs(second.answer([requests[i] for i in batch], plan)) for batch in reversed(plan.batches)]
    again = [logprobs(first.answer([requests[i] for i in batch], plan)) for batch in plan.batches]
    assert forward == backward[::-1] == again


def test_choices_and_written_answers_can_share_a_batch(session: Any) -> None:
    written = Request(messages=(Message("user", "water"),), decoding=Decoding(max_tokens=4))
    mixed = answer_all(session, [*asks(), written])
    assert logprobs(mixed[:-1]) == logprobs(answer_all(session, asks()))
    assert mixed[-1].texts == answer_all(session, [written])[0].texts and mixed[-1].choices == ()


def test_an_attached_adapter_changes_them_and_detaching_restores_them(tiny_model: Path, tmp_path: Path) -> None:
    from test_transformers import make_adapter

    session = Transformers(id=str(tiny_model), dtype="float32").open()
    plain = logprobs(answer_all(session, asks()))
    session.attach(make_adapter(tiny_model, tmp_path / "lora"))
    assert logprobs(answer_all(session, asks())) != plain
    session.attach(None)
    assert logprobs(answer_all(session, asks())) == plain


@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "gemma2"])
def test_other_architectures_weigh_as_a_plain_forward_pass_does(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    sizes: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    if kind != "gpt2":
        sizes |= {"num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16}
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.3, "vocab_size": 400}
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, max_position_embeddings=512, **sizes, **marks)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    session: Any = Transformers(id=str(tmp_path), dtype="float32").open()
    assert session._fast == (kind == "qwen3")
    requests = asks(QUESTIONS[:3], "the price of the machine " * 5)
    for ours, theirs in zip(
        logprobs(answer_all(session, requests)), reference(tmp_path, session, requests), strict=True
    ):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_normalising_decides_the_winner_and_not_the_likelihoods(session: Any) -> None:
    plain, by_tokens, by_bytes = (
        answer_all(session, asks(normalise=normalise)) for normalise in ("none", "tokens", "bytes")
    )
    assert logprobs(plain) == logprobs(by_tokens) == logprobs(by_bytes)
    for reply in by_bytes:
        assert [choice.score for choice in reply.choices] == [c.logprob / len(c.text.encode()) for c in reply.choices]
    for reply in by_tokens:
        assert reply.texts[0] == max(reply.choices, key=lambda choice: choice.logprob / choice.tokens).text


def test_choices_are_encoded_apart_from_the_prompt_as_training_teaches_them(tiny_model: Path, tmp_path: Path) -> None:
    """Encoding prompt and choice together and cutting, as lm-evaluation-harness does, gives other tokens where they
    would merge: a model that answers can only write what follows its prompt's own tokens."""
    from harness.methods._rows import Renderer

    folder = make_tiny_model(tmp_path / "plain", template="{% for m in messages %}{{ m['content'] }} the k{% endfor %}")
    session: Any = Transformers(id=str(folder), dtype="float32").open()
    (request,) = asks(["grinder"], choices=("ettle", "price"))
    (prompt,) = session.chat.prompts([request.messages])
    together = session.chat.encode([session.chat.text(request.messages) + "ettle"])[0]
    assert together[: len(prompt)] != prompt, "the tokenizer merges over the boundary here"
    row = Renderer(session.tokenizer, session.chat.template).row([{"role": "user", "content": "grinder"}], "ettle")
    assert (*prompt, *session._texts(request)[0]) == row.ids[:-1]
    (reply,) = answer_all(session, [request])
    assert [choice.logprob for choice in reply.choices] == pytest.approx(
        reference(folder, session, [request])[0], rel=1e-4
    )


def test_tokens_of_choices_count_as_read_and_what_they_share_once(session: Any) -> None:
    (shared,) = answer_all(session, asks(["water"], choices=("the red light", "the red light blinks")))
    (apart,) = answer_all(session, asks(["water"], choices=("the red light blinks",)))
    assert shared.input_tokens == apart.input_tokens
    (prompt,) = session.chat.prompts([(Message("user", "water"),)])
    assert apart.input_tokens == len(prompt) + apart.choices[0].tokens - 1, "the last token is predicted, not read"


def test_a_choice_that_does_not_fit_into_the_context_is_an_error(session: Any) -> None:
    long = "tea " * 200
    too_long, fits = answer_all(session, asks([long * 2 + "tea " * 90, "water"], choices=("yes", "coffee " * 40)))
    assert too_long.error is not None and "the longest choice" in too_long.error and "512" in too_long.error
    assert fits.error is None and len(fits.choices) == 2


def test_the_built_in_model_weighs_as_a_plain_forward_pass_does(builtin_model: Path) -> None:
    session: Any = Transformers(id="smollm2-135m-instruct", dtype="float32").open()
    requests = asks(
        ["What is the capital of France?", "Which colour has the sky?"],
        "Answer with one word.",
        choices=("Paris", "Lyon", "Paris, the city of light", "blue", "red"),
    )
    replies = answer_all(session, requests)
    for ours, theirs in zip(logprobs(replies), reference(builtin_model, session, requests), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert [reply.texts[0] for reply in replies] == ["Paris", "blue"]
    session.close()


def test_perplexity_and_bits_per_byte_are_those_of_the_models_own_loss(session: Any, tiny_model: Path) -> None:
    """transformers defines perplexity as exp(loss) with the prompt's labels masked; over several texts the losses are
    weighted by their tokens."""
    from transformers import AutoModelForCausalLM

    from harness.reducers import REDUCERS

    targets = ("coffee grinder lasts 9 years", "the red light blinks")
    requests = [asks([text], choices=(target,))[0] for text, target in zip(QUESTIONS, targets, strict=False)]
    rows = [
        (reply.choices[0].logprob, float(reply.choices[0].tokens), float(reply.choices[0].bytes))
        for reply in answer_all(session, requests)
    ]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype="float32").eval()
    losses = tokens = 0.0
    for request, target in zip(requests, targets, strict=True):
        (prompt,), (answer,) = session.chat.prompts([request.messages]), session.chat.encode([target])
        ids = torch.tensor([[*prompt, *answer]])
        labels = torch.tensor([[*[-100] * len(prompt), *answer]])
        with torch.inference_mode():
            losses += float(model(input_ids=ids, labels=labels).loss) * len(answer)
        tokens += len(answer)
    assert REDUCERS["perplexity"](rows, ()) == pytest.approx(math.exp(losses / tokens), rel=1e-4)
    size = sum(len(target.encode()) for target in targets)
    assert REDUCERS["bits_per_byte"](rows, ()) == pytest.approx(losses / math.log(2) / size, rel=1e-4)
