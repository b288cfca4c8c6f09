"""The local backend: its texts are those of transformers' own `generate`, and nothing that ran before changes them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
from answering import QUESTIONS, SHOTS, Reference, answer_all, asks, texts
from conftest import make_tiny_model

from harness import models
from harness.backends.transformers import Transformers, _cut
from harness.errors import ModelError
from harness.records import Decoding, Message, Request

torch = pytest.importorskip("torch")

# PEFT 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def make_adapter(folder: Path, out: Path, *, seed: int = 1, base: str | None = None, **settings: Any) -> Path:
    """Write a LoRA adapter with random weights, strong enough to change every answer, into `out`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(out)
    if base is not None:
        (out / "artifact.json").write_text(json.dumps({"kind": "adapter", "base": base}), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def session(tiny_model: Path) -> Any:
    opened = Transformers(id=str(tiny_model), dtype="float32").open()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Reference:
    return Reference(tiny_model)


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny_model, tmp_path_factory.mktemp("adapter") / "lora")


# ------------------------------------------------------------------------------------------- same as `generate`


@pytest.mark.parametrize("system", ["", "cover repairs and price of the machine for customers", SHOTS])
def test_greedy_texts_are_those_of_generate_without_and_with_a_short_and_a_long_shared_prefix(
    session: Any, reference: Reference, system: str
) -> None:
    requests = asks(system=system)
    plan = session.plan(requests)
    assert (len(plan.prefix) >= 128) == (system == SHOTS)
    assert bool(plan.prefix) == bool(system)
    assert texts(answer_all(session, requests, plan)) == reference.answers(session, requests)


def test_rows_that_end_early_leave_the_others_unchanged(session: Any, reference: Reference) -> None:
    for system in ("", SHOTS):
        requests = [
            asks([question], system, max_tokens=limit)[0]
            for question, limit in zip(QUESTIONS, (3, 20, 1, 11, 7, 20), strict=True)
        ]
        replies = answer_all(session, requests)
        assert texts(replies) == reference.answers(session, requests)
        assert [reply.output_tokens for reply in replies if reply.finish == "length"] == [
            request.decoding.max_tokens
            for request, reply in zip(requests, replies, strict=True)
            if reply.finish == "length"
        ]


def test_many_small_batches_give_what_one_gives_in_float32(tiny_model: Path, reference: Reference) -> None:
    small = Transformers(id=str(tiny_model), dtype="float32", max_batch=2, batch_tokens=150).open()
    requests = asks(system="the kettle boils water for coffee and tea")
    plan = small.plan(requests)
    assert len(plan.batches) >= 3
    assert texts(answer_all(small, requests, plan)) == reference.answers(small, requests)


def test_questions_about_the_same_texts_answer_as_generate_does(session: Any, reference: Reference) -> None:
    from harness.backends._decoding import families

    pages = ("coffee grinder warranty lasts " * 12, "the red light of the kettle blinks " * 9, "tea " * 50)
    for system in ("", "the price of the machine " * 5, SHOTS):
        questions = [f"{page} {question}" for page in pages for question in QUESTIONS[:3]]
        requests = asks([*questions, "water", questions[0], "parcels ? " * 20], system)
        plan = session.plan(requests)
        assert len(plan.batches) == 1
        rest = [session.chat.prompts([request.messages])[0][len(plan.prefix) :] for request in requests]
        assert sum(family.shared > 0 for family in families(rest)) >= 3
        assert texts(answer_all(session, requests, plan)) == reference.answers(session, requests)


def test_nothing_is_read_that_was_not_written(session: Any, reference: Reference) -> None:
    requests = asks([*QUESTIONS, *(f"{'tea ' * 60}{question}" for question in QUESTIONS[:2]), "red " * 90], SHOTS)
    expected = reference.answers(session, requests)
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.isnan(torch.empty(3)).all()
        assert texts(answer_all(session, requests)) == expected
    finally:
        torch.use_deterministic_algorithms(False)


def test_families_hold_every_prompt_once_and_what_all_of_their_members_start_with() -> None:
    from hypothesis import given
    from hypothesis import strategies as st

    from harness.backends._decoding import SHORTEST_FAMILY, families

    start = st.integers(0, 3).map(lambda page: [page] * (SHORTEST_FAMILY + 7 * page))
    prompt = st.tuples(start, st.lists(st.integers(0, 3), max_size=60)).map(lambda parts: [*parts[0], *parts[1], 9])

    @given(st.lists(prompt, max_size=12))
    def holds(prompts: list[list[int]]) -> None:
        found = families(prompts)
        assert sorted(index for family in found for index in family.members) == list(range(len(prompts)))
        for family in found:
            starts = {tuple(prompts[index][: family.shared]) for index in family.members}
            assert len(starts) == 1
            assert all(len(prompts[index]) > family.shared for index in family.members)
            assert (family.shared >= SHORTEST_FAMILY) == (len(family.members) > 1)

    holds()


def _tiny(config: Any, tiny_model: Path, folder: Path) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "fast", "more"),
    [
        ("qwen2", True, {}),
        ("qwen3", True, {"head_dim": 16}),
        ("mistral", True, {"sliding_window": None}),
        ("mistral", False, {"sliding_window": 16}),
        ("smollm3", True, {}),
        ("phi3", True, {}),
        ("olmo2", True, {}),
        ("gemma2", False, {"head_dim": 16, "sliding_window": 16}),
        ("gpt2", False, {}),
    ],
)
def test_other_architectures_answer_as_generate_does(
    tiny_model: Path, tmp_path: Path, kind: str, fast: bool, more: dict[str, Any]
) -> None:
    from transformers import AutoConfig

    sizes = {"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 512}
    if kind != "gpt2":
        sizes |= {"num_key_value_heads": 2, "intermediate_size": 128}
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.3, "vocab_size": 400}
    folder = _tiny(AutoConfig.for_model(kind, **sizes, **marks, **more), tiny_model, tmp_path / "model")
    session = Transformers(id=str(folder), dtype="float32").open()
    assert session._fast == fast
    for system in ("", SHOTS):
        requests = asks(QUESTIONS[:4], system)
        assert texts(answer_all(session, requests)) == Reference(folder).answers(session, requests)


def test_the_built_in_model_answers_as_generate_does(builtin_model: Path) -> None:
    session = Transformers(id="smollm2-135m-instruct", dtype="float32").open()
    requests = asks(["What is the capital of France?", "How many legs does a spider have? One number."], max_tokens=8)
    assert texts(answer_all(session, requests)) == Reference(builtin_model).answers(session, requests)
    session.close()


@pytest.mark.slow
def test_the_built_in_model_with_an_adapter_and_long_prompts_answers_as_generate_does(
    builtin_model: Path, tmp_path: Path
) -> None:
    session = Transformers(id="smollm2-135m-instruct", dtype="float32").open()
    questions = [
        "What is the capital of France?",
        "Name three colours.",
        "How many legs does a spider have? One number.",
    ]
    lora = make_adapter(builtin_model, tmp_path / "lora", r=2, target_modules=["q_proj", "v_proj"])
    for path in (None, lora):
        session.attach(path)
        reference = Reference(builtin_model, path)
        for system in ("", "You are a careful clerk who answers in one short sentence. " * 16):
            requests = asks(questions, system, max_tokens=8)
            assert texts(answer_all(session, requests)) == reference.answers(session, requests)
    session.close()


def test_a_base_model_without_a_template_gets_the_contents_alone(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "base", template=None)
    session = Transformers(id=str(folder), dtype="float32").open()
    assert session.chat.text((Message("system", "short"), Message("user", "water"))) == "short\n\nwater\n"
    requests = asks()
    assert texts(answer_all(session, requests)) == Reference(folder).answers(session, requests)


def test_a_template_of_the_spec_replaces_the_models_own(tiny_model: Path, tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message['content'] }}|{% endfor %}"
    (tmp_path / "chat.jinja").write_text(template, encoding="utf-8")
    for given in (template, str(tmp_path / "chat.jinja")):
        backend = Transformers(id=str(tiny_model), dtype="float32", chat_template=given)
        assert backend.open().chat.text((Message("user", "a"), Message("user", "b"))) == "a|b|"  # type: ignore[attr-defined]
        assert backend.fingerprint()["template"] != Transformers(id=str(tiny_model)).fingerprint()["template"]
    with pytest.raises(ModelError, match="neither a Jinja template nor a file"):
        Transformers(id=str(tiny_model), chat_template="nowhere.jinja").fingerprint()


# ----------------------------------------------------------------------------------- same digits, whatever ran before


def test_a_batch_gives_the_same_answers_whatever_ran_before_it(tiny_model: Path) -> None:
    backend = Transformers(id=str(tiny_model), dtype="bfloat16", max_batch=2)
    requests = asks(system=SHOTS, temperature=0.8, top_p=0.9)
    first, second = backend.open(), backend.open()
    plan = first.plan(requests)
    assert len(plan.batches) == 3
    assert second.plan(requests) == plan
    forward = [first.answer([requests[i] for i in batch], plan, seed=5) for batch in plan.batches]
    backward = [second.answer([requests[i] for i in batch], plan, seed=5) for batch in reversed(plan.batches)]
    again = [first.answer([requests[i] for i in batch], plan, seed=5) for batch in plan.batches]
    assert [texts(found) for found in forward] == [texts(found) for found in reversed(backward)]
    assert [texts(found) for found in forward] == [texts(found) for found in again]


def test_an_interrupted_batch_leaves_no_trace(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = Transformers(id=str(tiny_model), dtype="float32").open()
    requests = asks(system=SHOTS)
    plan = session.plan(requests)
    calm = texts(answer_all(session, requests, plan))
    steps = []
    step = type(session._engine).step

    def interrupted(engine: Any, tokens: list[int]) -> Any:
        steps.append(len(tokens))
        if len(steps) == 5:
            raise KeyboardInterrupt
        return step(engine, tokens)

    monkeypatch.setattr(type(session._engine), "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer_all(session, requests, plan)
    monkeypatch.undo()
    assert texts(answer_all(session, requests, plan)) == calm


def test_draws_follow_from_the_request_not_from_its_batch(session: Any) -> None:
    requests = asks(temperature=1.0)
    together = texts(answer_all(session, requests, seed=1))
    alone = [texts(answer_all(session, [request], seed=1))[0] for request in requests]
    assert together == alone
    assert together == texts(answer_all(session, requests, seed=1))
    assert together != texts(answer_all(session, requests, seed=2))


def test_several_samples_of_one_request_differ_and_greedy_copies_do_not(session: Any) -> None:
    message = (Message("user", "coffee"),)
    sampled = Request(messages=message, decoding=Decoding(max_tokens=12, temperature=1.0), n=5)
    greedy = Request(messages=message, decoding=Decoding(max_tokens=12), n=3)
    first, second = answer_all(session, [sampled, greedy])
    assert len(first.texts) == 5 and len(set(first.texts)) > 1
    assert len(second.texts) == 3 and len(set(second.texts)) == 1
    assert second.output_tokens % 3 == 0


def test_more_samples_than_a_batch_holds_are_answered_in_turn(tiny_model: Path) -> None:
    session = Transformers(id=str(tiny_model), dtype="float32", max_batch=4).open()
    request = Request(messages=(Message("user", "tea"),), decoding=Decoding(max_tokens=6, temperature=1.0), n=10)
    assert len(answer_all(session, [request])[0].texts) == 10


def test_sampling_follows_the_probabilities_within_the_nucleus() -> None:
    from harness.backends._decoding import Row, _sample

    logits = torch.tensor([1.0, 3.0, 2.0, -1.0, 2.5])
    draws = [(place + 0.5) / 2000 for place in range(2000)]
    for temperature, top_p in ((1.0, 1.0), (0.7, 0.8), (2.0, 0.5), (1.0, 1e-6)):
        row = Row(prompt=[0], limit=1, temperature=temperature, top_p=top_p)
        found = torch.bincount(torch.tensor([_sample(logits, row, draw) for draw in draws]), minlength=5) / len(draws)
        expected = (logits / temperature).softmax(-1)
        order = expected.argsort(descending=True)
        held = expected[order].cumsum(-1) - expected[order] < top_p
        expected[order[~held]] = 0
        assert torch.allclose(found, expected / expected.sum(), atol=2e-3)


# ----------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize("system", ["", SHOTS])
def test_an_attached_adapter_answers_as_peft_does_and_detaching_restores_the_base(
    tiny_model: Path, reference: Reference, adapter: Path, system: str
) -> None:
    session = Transformers(id=str(tiny_model), dtype="float32").open()
    requests = asks(system=system)
    plain = answer_all(session, requests)
    session.attach(adapter)
    adapted = texts(answer_all(session, requests))
    assert adapted == Reference(tiny_model, adapter).answers(session, requests)
    assert adapted != texts(plain)
    session.attach(None)
    assert texts(answer_all(session, requests)) == texts(plain)
    session.attach(adapter)
    assert texts(answer_all(session, requests)) == adapted


def test_more_adapters_than_stay_loaded_each_keep_their_own_answers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.backends._adapters.KEEP", 4)
    session: Any = Transformers(id=str(tiny_model), dtype="bfloat16").open()
    requests = asks(QUESTIONS[:2])
    base = texts(answer_all(session, requests))
    targets = (["q_proj", "v_proj"], "all-linear", ["down_proj"], ["o_proj"], ["k_proj"], ["q_proj"])
    paths = [
        make_adapter(tiny_model, tmp_path / str(seed), seed=seed, target_modules=modules)
        for seed, modules in enumerate(targets)
    ]
    seen = []
    for path in (*paths, *paths):
        session.attach(path)
        seen.append(texts(answer_all(session, requests)))
    assert seen[: len(paths)] == seen[len(paths) :]
    assert len({str(found) for found in seen}) == len(paths)
    assert len(session._adapters._loaded) <= 4
    session.attach(None)
    assert texts(answer_all(session, requests)) == base


def test_an_adapter_made_for_another_model_is_refused_and_leaves_the_session_usable(
    tiny_model: Path, tmp_path: Path, adapter: Path
) -> None:
    session = Transformers(id=str(tiny_model), dtype="float32").open()
    plain = texts(answer_all(session, asks()))
    other = make_tiny_model(tmp_path / "other", seed=9, layers=3)
    deeper = make_adapter(other, tmp_path / "deeper")
    named = make_adapter(tiny_model, tmp_path / "named", base="0" * 64)
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["c_attn"]}), encoding="utf-8")
    (foreign / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    wider = tmp_path / "wider"
    wider.mkdir()
    (wider / "adapter_config.json").write_text(json.dumps({**config, "r": 8}), encoding="utf-8")
    (wider / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    for path, message in (
        (deeper, "does not fit model"),
        (foreign, "does not fit model"),
        (wider, "does not fit model"),
        (named, "was trained on another model"),
        (tmp_path / "nowhere", "no adapter folder"),
    ):
        with pytest.raises(ModelError, match=message):
            session.attach(path)
        assert texts(answer_all(session, asks())) == plain
    session.attach(adapter)
    assert texts(answer_all(session, asks())) != plain


def test_pickled_adapter_weights_are_refused(tiny_model: Path, tmp_path: Path, adapter: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="safetensors"):
        Transformers(id=str(tiny_model), dtype="float32").open().attach(tmp_path)


@pytest.mark.parametrize("kind", ["prompt", "prefix", "ia3", "lora"])
def test_after_one_that_does_not_fit_the_base_answers_and_others_can_be_attached(
    tiny_model: Path, tmp_path: Path, adapter: Path, kind: str
) -> None:
    from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config: Any = {
        "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, token_dim=32),
        "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        "ia3": IA3Config(task_type="CAUSAL_LM"),
        "lora": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    }[kind]
    deeper = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "deeper", layers=3), dtype="float32")
    get_peft_model(deeper, config).save_pretrained(tmp_path / "foreign")
    session = Transformers(id=str(tiny_model), dtype="float32").open()
    plain = texts(answer_all(session, asks()))
    session.attach(adapter)
    adapted = texts(answer_all(session, asks()))
    with pytest.raises(ModelError, match="does not fit model"):
        session.attach(tmp_path / "foreign")
    assert texts(answer_all(session, asks())) == plain
    session.attach(adapter)
    assert texts(answer_all(session, asks())) == adapted


def test_an_adapter_of_the_output_layer_answers_as_peft_does(
    tiny_model: Path, tmp_path: Path, reference: Reference
) -> None:
    session = Transformers(id=str(tiny_model), dtype="float32").open()
    with warnings.catch_warnings():
        # PEFT on an output layer that shares the embedding's weights; it writes a copy of them beside the adapter.
        warnings.simplefilter("ignore")
        lora = make_adapter(tiny_model, tmp_path / "lora", target_modules=["lm_head", "v_proj"])
        expected = Reference(tiny_model, lora)
    session.attach(lora)
    assert texts(answer_all(session, asks())) == expected.answers(session, asks())
    session.attach(None)
    assert texts(answer_all(session, asks())) == reference.answers(session, asks())


@pytest.mark.parametrize("left", [0, 100, -50])
def test_damaged_weights_are_a_model_error(tiny_model: Path, tmp_path: Path, adapter: Path, left: int) -> None:
    broken = shutil.copytree(adapter, tmp_path / "adapter")
    file = broken / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    session = Transformers(id=str(tiny_model), dtype="float32").open()
    plain = texts(answer_all(session, asks(QUESTIONS[:1])))
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is damaged"):
        session.attach(broken)
    assert texts(answer_all(session, asks(QUESTIONS[:1]))) == plain
    model = shutil.copytree(tiny_model, tmp_path / "model")
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ModelError, match="cannot be loaded"):
        Transformers(id=str(model), dtype="float32").open()
    with pytest.raises(ModelError, match="cannot be loaded"):
        session.attach(model)
    assert texts(answer_all(session, asks(QUESTIONS[:1]))) == plain


def test_a_fully_trained_model_takes_the_place_of_the_base_until_it_is_detached(
    tiny_model: Path, tmp_path: Path
) -> None:
    session: Any = Transformers(id=str(tiny_model), dtype="float32").open()
    trained = make_tiny_model(tmp_path / "trained", seed=4)
    (trained / "artifact.json").write_text(json.dumps({"kind": "model", "base": session.weights}), encoding="utf-8")
    requests = asks(system=SHOTS)
    plain = texts(answer_all(session, requests))
    session.attach(trained)
    assert texts(answer_all(session, requests)) == Reference(trained).answers(session, requests) != plain
    session.attach(None)
    assert texts(answer_all(session, requests)) == plain


def test_a_fully_trained_model_is_freed_when_something_else_is_attached(
    tiny_model: Path, tmp_path: Path, adapter: Path
) -> None:
    session: Any = Transformers(id=str(tiny_model), dtype="float32").open()
    first, second = (make_tiny_model(tmp_path / str(seed), seed=seed) for seed in (4, 5))
    requests = asks(QUESTIONS[:2])
    answers = []
    for then in (None, adapter, second):
        session.attach(first)
        answers.append(texts(answer_all(session, requests)))
        model = session.model
        session.attach(first)
        assert session.model is model, "what is attached already is not loaded again"
        gone = weakref.ref(model)
        del model
        session.attach(then)
        assert gone() is None
        assert session.model is not None
    assert answers[0] == answers[1] == answers[2]


def test_a_whole_model_that_does_not_fit_leaves_the_base_answering(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    session: Any = Transformers(id=str(tiny_model), dtype="float32").open()
    requests = asks(QUESTIONS[:2], SHOTS)
    plain = texts(answer_all(session, requests))
    session.attach(make_tiny_model(tmp_path / "trained", seed=4))
    config = AutoConfig.from_pretrained(tiny_model)
    config.vocab_size = 600
    with pytest.raises(ModelError, match="600 tokens in its vocabulary"):
        session.attach(_tiny(config, tiny_model, tmp_path / "larger"))
    assert texts(answer_all(session, requests)) == plain


# --------------------------------------------------------------------------------------------- ends, limits, plans


def test_a_stop_string_ends_the_answer_before_it(session: Any) -> None:
    (whole,) = answer_all(session, asks(QUESTIONS[:1], max_tokens=24))
    stop = whole.texts[0][9:12]
    (cut,) = answer_all(session, asks(QUESTIONS[:1], max_tokens=24, stop=(stop,)))
    assert cut.texts[0] == whole.texts[0].partition(stop)[0]
    assert cut.finish == "stop" and cut.output_tokens < whole.output_tokens


def test_an_end_token_ends_the_answer_and_is_counted(session: Any, tmp_path: Path, reference: Reference) -> None:
    request = asks(QUESTIONS[:1])[0]
    prompt = torch.tensor(session.chat.prompts([request.messages]))
    answer = reference.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False
    )
    tokens = answer[0, prompt.shape[1] :].tolist()
    folder = make_tiny_model(tmp_path / "model")
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    generation["eos_token_id"] = [2, tokens[4]]
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    (ended,) = answer_all(Transformers(id=str(folder), dtype="float32").open(), [request])
    assert ended.finish == "stop" and ended.output_tokens == tokens.index(tokens[4]) + 1


def test_a_prompt_longer_than_the_context_gets_an_error_and_the_others_an_answer(session: Any) -> None:
    requests = asks(["water", "coffee " * 600, "tea"])
    plan = session.plan(requests)
    assert sorted(index for batch in plan.batches for index in batch) == [0, 1, 2]
    short, long, last = answer_all(session, requests, plan)
    assert short.texts and last.texts and long.texts == ()
    assert long.finish == "error" and "context holds 512" in (long.error or "")


def test_an_answer_stops_where_the_context_ends(session: Any) -> None:
    words = next(n for n in range(300, 600) if session.count((Message("user", "tea " * n),)) >= 505)
    request = asks(["tea " * words], max_tokens=100)[0]
    (reply,) = answer_all(session, [request])
    assert reply.finish == "length" and reply.input_tokens + reply.output_tokens == 512


def test_count_is_the_number_of_input_tokens(session: Any) -> None:
    for request, reply in zip(asks(), answer_all(session, asks()), strict=True):
        assert session.count(request.messages) == reply.input_tokens


def test_cached_tokens_are_those_of_the_shared_prefix(session: Any) -> None:
    requests = asks(system=SHOTS)
    plan = session.plan(requests)
    assert {reply.cached_tokens for reply in answer_all(session, requests, plan)} == {len(plan.prefix)}


def test_a_plan_for_other_requests_is_a_fault(session: Any) -> None:
    plan = session.plan(asks(system=SHOTS))
    with pytest.raises(ValueError, match="other requests"):
        session.answer(asks(), plan)


def test_batches_hold_every_request_once_in_order_within_budget() -> None:
    from hypothesis import given
    from hypothesis import strategies as st

    sizes = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 5), st.integers(1, 90)), max_size=60)

    @given(sizes, st.integers(1, 2000), st.integers(1, 16))
    def holds(parts: list[tuple[int, int, int]], budget: int, most: int) -> None:
        numbered = sorted(((length, i, rows, new) for i, (length, rows, new) in enumerate(parts)), reverse=True)
        batches = _cut(numbered, budget, most)
        assert sorted(i for batch in batches for i in batch) == list(range(len(parts)))
        assert [i for batch in batches for i in batch] == [i for _, i, _, _ in numbered]
        for batch in batches:
            rows = sum(parts[i][1] for i in batch)
            padded = rows * (max(parts[i][0] for i in batch) + max(parts[i][2] for i in batch))
            assert len(batch) == 1 or (rows <= most and padded <= budget)

    holds()


# ------------------------------------------------------------------------------------------------ what it is named by


def test_the_fingerprint_says_weights_dtype_and_template_without_loading_torch(tiny_model: Path) -> None:
    code = (
        "import sys, json; from harness.backends.transformers import Transformers;"
        f"print(json.dumps([Transformers(id={str(tiny_model)!r}, device='cpu').fingerprint(), 'torch' in sys.modules,"
        " 'transformers' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, torch_loaded, transformers_loaded = json.loads(done.stdout)
    assert not torch_loaded and not transformers_loaded
    assert found["weights"] == models.fingerprint(tiny_model)
    assert found["dtype"] in ("float32", "bfloat16")


def test_a_model_that_does_not_exist_names_the_built_in_ones() -> None:
    with pytest.raises(ModelError, match="smollm2-135m-instruct"):
        Transformers(id="no-one/no-model").fingerprint()


def test_without_torch_the_extra_to_install_is_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("torch", "transformers"):
        with (
            monkeypatch.context() as patch,
            pytest.raises(ModelError, match=rf"{missing}.*pip install -e '\.\[train\]'"),
        ):
            patch.setitem(sys.modules, missing, None)
            Transformers(id=str(tiny_model), dtype="float32", device="cpu").open()


def test_without_peft_attaching_names_the_extra_to_install(
    session: Any, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = shutil.copytree(adapter, tmp_path / "fresh")
    config = json.loads((fresh / "adapter_config.json").read_text(encoding="utf-8"))
    (fresh / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 9}), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"peft.*pip install -e '\.\[train\]'"):
        session.attach(fresh)


def test_code_that_comes_with_a_model_counts_where_it_may_run(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    plain = Transformers(id=str(folder)).fingerprint()
    trusted = Transformers(id=str(folder), trust_remote_code=True)
    assert trusted.fingerprint() == plain, "it has no code"
    (folder / "modeling.py").write_text("x = 1\n", encoding="utf-8")
    assert Transformers(id=str(folder)).fingerprint() == plain
    with_code = trusted.fingerprint()
    (folder / "modeling.py").write_text("x = 2\n", encoding="utf-8")
    assert len({plain["weights"], with_code["weights"], trusted.fingerprint()["weights"]}) == 3
