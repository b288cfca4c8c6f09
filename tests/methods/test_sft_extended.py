"""What `sft` can do beside learning the given answers of all rows: parts of them, other losses, other answers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TEMPLATE, make_tiny_model
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from training import curves, make_job, row, rows, same, silent, stop_after, weights

from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.errors import DataError, ModelError
from harness.methods import _rows
from harness.methods.sft import Sft
from harness.plugins import TrainJob

# PEFT asks a model about gradient checkpointing under a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

QUICK: dict[str, Any] = {"adapter": Lora(rank=4), "learning_rate": 5e-3, "epochs": 1, "batch_size": 4}

TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}{{ c.function.arguments | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tagged(count: int = 12) -> list[dict[str, Any]]:
    """Rows of two tasks, one of them twice as many."""
    return [
        value | {"example": {"id": value["id"], "input": "?", "tags": ["machines" if n % 3 else "orders"]}}
        for n, value in enumerate(rows(count))
    ]


def losses(job: TrainJob) -> list[float]:
    return [line["loss"] for line in curves(job.out) if "loss" in line]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


# ---------------------------------------------------------------------------------------------------------- which rows


def test_a_few_examples_are_drawn_by_the_seed_and_no_other_setting(tmp_path: Path, tiny_model: Path) -> None:
    seen = []
    for number, (seed, settings) in enumerate([(0, {}), (0, {"batch_size": 8}), (1, {})]):
        job = make_job(tmp_path / str(number), tiny_model, seed=seed)
        method = Sft(**QUICK | {"examples": 8} | settings)
        policy = method.load(job, "float32")
        seen.append([one.ids for one in method.lesson(job, policy).rows])
    assert seen[0] == seen[1] != seen[2]
    assert len(seen[0]) == 8
    with pytest.raises(DataError, match="examples = 99, and there are 24 rows to train on"):
        Sft(**QUICK | {"examples": 99}).fit(make_job(tmp_path / "many", tiny_model), silent)


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0]), min_size=1, max_size=40), st.integers(0, 5))
def test_an_epoch_takes_a_row_as_often_as_its_weight_says(weighted: list[float], seed: int) -> None:
    total = _rows.epoch_rows(weighted)
    plan = _rows.batches([1] * len(weighted), 3, -(-total // 3), seed=seed, group_by_length=False, weights=weighted)
    counts = Counter(place for batch in plan for place in batch)
    assert counts.total() == total
    scale = total / sum(weighted)
    assert all(abs(counts[place] - scale * weight) < 1 + 1e-6 for place, weight in enumerate(weighted))


def test_tasks_are_weighed_and_each_has_its_dev_loss(tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(tmp_path / "job", tiny_model, train=tagged(), dev=tagged(6))
    method = Sft(**QUICK | {"weights": {"orders": 2.0}, "epochs": 2})
    outcome = method.fit(job, silent)
    assert outcome.steps == 8, "4 rows twice and 8 once make 16 an epoch"
    last = [line for line in curves(job.out) if "dev_loss" in line][-1]
    by_tag = {name: value for name, value in outcome.details.items() if name.startswith("dev_loss/")}
    assert by_tag.keys() == {"dev_loss/machines", "dev_loss/orders"}
    assert {name: last[name] for name in by_tag} == by_tag
    # The loss over all is the mean of the tags', weighed by their tokens.
    policy = method.load(job, "float32")
    tokens: Counter[str] = Counter()
    for one in method.lesson(job, policy).dev:
        tokens[one.tags[0]] += one.answers
    mean = sum(by_tag[f"dev_loss/{tag}"] * count for tag, count in tokens.items()) / tokens.total()
    assert outcome.details["dev_loss"] == pytest.approx(mean, rel=1e-5)
    with pytest.raises(DataError, match="weights: of the 12 rows that are trained on none has the tag 'order'"):
        Sft(**QUICK | {"weights": {"order": 2.0}}).fit(make_job(tmp_path / "odd", tiny_model, train=tagged()), silent)


def test_a_row_without_a_target_is_told(tmp_path: Path, tiny_model: Path) -> None:
    values = [*rows(2), row(9, "why?", "so") | {"completion": None}]
    with pytest.raises(DataError, match="row 'q9' has no target"):
        Sft(**QUICK).fit(make_job(tmp_path / "job", tiny_model, train=values), silent)


# ------------------------------------------------------------------------------------------------------------ the loss


def test_the_whole_text_can_be_learned_and_targets_smoothed(tmp_path: Path, tiny_model: Path) -> None:
    import torch

    for number, (loss, smoothing) in enumerate([("all", 0.0), ("answer", 0.2)]):
        job = make_job(tmp_path / str(number), tiny_model, train=rows(4))
        method = Sft.model_validate(QUICK | {"loss": loss, "label_smoothing": smoothing, "learning_rate": 1e-9})
        policy = method.load(job, "float32")
        lesson = method.lesson(job, policy)
        expected, count = 0.0, 0
        for one in lesson.rows:
            start = 1 if loss == "all" else one.prompt
            with torch.no_grad():
                logits = policy.model(torch.tensor([one.ids])).logits[0, start - 1 : -1]
            targets = torch.tensor(one.ids[start:])
            each = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
            expected, count = expected + each.item(), count + len(targets)
        method.fit(job, silent)
        assert losses(job)[0] == pytest.approx(expected / count, rel=1e-4)


def test_packing_changes_no_loss(tmp_path: Path, tiny_model: Path) -> None:
    found = []
    for packing in (False, True):
        job = make_job(tmp_path / str(packing), tiny_model)
        Sft(**QUICK | {"packing": packing, "batch_size": 6}).fit(job, silent)
        found.append((losses(job), weights(job.out)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert all((found[0][1][name] - value).abs().max() < 1e-4 for name, value in found[1][1].items())


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 2000))
def test_packed_parts_hold_every_row_once_within_both_limits(lengths: list[int], rows: int, tokens: int) -> None:
    parts = _rows.fills(lengths, rows, tokens)
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or (len(part) <= rows and sum(lengths[place] for place in part) <= tokens)


def test_packing_is_refused_where_rows_would_see_each_other(tmp_path: Path, tiny_model: Path) -> None:
    """Bloom knows no positions: it cannot tell where a row ends."""
    from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=1, n_head=2, initializer_range=0.3)
    BloomForCausalLM(config).save_pretrained(tmp_path / "bloom")
    tokenizer.save_pretrained(tmp_path / "bloom")
    with pytest.raises(ModelError, match="in a 'bloom' model rows that are laid end to end see each other"):
        Sft(**QUICK | {"adapter": Full(), "packing": True}).fit(make_job(tmp_path / "job", tmp_path / "bloom"), silent)


def test_dropout_of_the_models_own_is_set_for_the_training_alone(tmp_path: Path, tiny_model: Path) -> None:
    found = []
    for number, dropout in enumerate((0.0, 0.3)):
        job = make_job(tmp_path / str(number), tiny_model)
        method = Sft(**QUICK | {"adapter": Full(), "dropout": dropout, "learning_rate": 1e-3})
        assert method.load(job, "float32").model.model.layers[0].self_attn.attention_dropout == dropout
        method.fit(job, silent)
        found.append(losses(job)[0])
        assert json.loads((job.out / "config.json").read_text())["attention_dropout"] == 0.0
    assert found[0] != found[1]


def test_a_model_that_drops_nothing_says_so(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer, MambaConfig, MambaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    MambaForCausalLM(
        MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4)
    ).save_pretrained(tmp_path / "mamba")
    tokenizer.save_pretrained(tmp_path / "mamba")
    with pytest.raises(ModelError, match=r"dropout = 0\.1: models of the kind 'mamba' drop no activations"):
        Sft(**QUICK | {"dropout": 0.1}).fit(make_job(tmp_path / "job", tmp_path / "mamba"), silent)


# ------------------------------------------------------------------------------------------------------- conversations


def traces(count: int = 6) -> list[dict[str, Any]]:
    """Conversations with a call of a tool, its result, and an answer."""
    call = {"type": "function", "function": {"name": "price", "arguments": '{"of": "kettle"}'}}
    return [
        {
            "id": f"c{n}",
            "messages": [
                {"role": "user", "content": f"price of kettle {n}?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": f"{n} 0"},
                {"role": "assistant", "content": f"{n} 0 coffee"},
            ],
            "tools": [],
        }
        for n in range(count)
    ]


def test_every_turn_of_the_assistant_is_learned_and_nothing_else(tokenizer: Any) -> None:
    renderer = _rows.Renderer(tokenizer, TOOLS)
    (trace,) = traces(1)
    made = renderer.conversation(trace["messages"], None, "c0")
    learned = [tokenizer.decode(made.ids[start:end]) for start, end in made.learned]
    assert learned == ['<call>price{"of": "kettle"}</call><|im_end|>', "0 0 coffee<|im_end|>"]
    assert tokenizer.decode(made.ids).endswith("0 0 coffee<|im_end|>")
    # What comes before each turn are the tokens that the model would be asked with.
    for (start, _), turns in zip(made.learned, (1, 3), strict=True):
        asked = renderer._written(
            [_rows._for_template(m) for m in trace["messages"][:turns]], None, "", answer_follows=True
        )
        assert tokenizer.decode(made.ids[:start]) == asked


def test_traces_of_tools_are_trained_on(tmp_path: Path, tiny_model: Path) -> None:
    method = Sft(**QUICK | {"learns": "conversations", "epochs": 6, "batch_size": 6, "learning_rate": 1e-2})
    job = make_job(tmp_path / "job", tiny_model, train=traces(), dev=traces(8)[6:], chat_template=TOOLS)
    outcome = method.fit(job, silent)
    assert losses(job)[-1] < 0.8 * losses(job)[0]
    assert outcome.details["train_rows"] == 6
    again = make_job(tmp_path / "again", tiny_model, train=traces(), dev=traces(8)[6:], chat_template=TOOLS)
    with pytest.raises(KeyboardInterrupt):
        method.fit(again, stop_after(3))
    assert method.fit(again, silent) == outcome
    assert same(weights(again.out), weights(job.out))


def test_turns_beyond_the_limit_are_cut(tokenizer: Any) -> None:
    renderer = _rows.Renderer(tokenizer, TOOLS)
    (trace,) = traces(1)
    whole = renderer.conversation(trace["messages"], None, "c0")
    (start, end), (later, _) = whole.learned
    (kept,), tally = _rows.within([whole], later, "here")
    assert kept.learned == ((start, end),)
    assert (tally.cut, tally.dropped, tally.lost_answer_tokens) == (1, 0, whole.answers - (end - start))
    with pytest.raises(DataError, match="no answer is left"):
        _rows.within([whole], start, "here")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (TEMPLATE, "conversation 'c0': the chat template writes no calls of tools"),
        (TOOLS.replace("{{ m['content'] }}", "{{ m['content'] }}{{ messages | length }}"), "writes earlier turns anew"),
        ("{{ raise_exception('only users') }}", "conversation 'c0': the chat template cannot write it: only users"),
    ],
)
def test_a_template_that_cannot_write_a_conversation_is_told(tokenizer: Any, template: str, said: str) -> None:
    renderer = _rows.Renderer(tokenizer, TOOLS)
    renderer.template = template
    with pytest.raises(ModelError, match=said):
        renderer.conversation(traces(1)[0]["messages"], None, "c0")


# -------------------------------------------------------------------------------------------------------- the teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A model that was taught to answer "no" to everything, and to end."""
    values = [value | {"completion": "no"} for value in rows()]
    job = make_job(tmp_path_factory.mktemp("teacher") / "job", tiny_model, train=values)
    Sft(adapter=Full(), learning_rate=1e-2, epochs=6, batch_size=8, schedule="constant").fit(job, silent)
    return job.out


def taught(folder: Path, model: Path, teacher: Path, **settings: Any) -> TrainJob:
    return replace(make_job(folder, model, **settings), references={"t": {"artifact": str(teacher)}})


def test_what_the_teacher_writes_is_learned_and_kept(tmp_path: Path, tiny_model: Path, teacher: Path) -> None:
    job = taught(tmp_path / "job", tiny_model, teacher)
    Sft(**QUICK | {"teacher": "t", "max_tokens": 6}).fit(job, silent)
    said = [json.loads(line) for line in (job.out / "teacher.jsonl").read_text().splitlines()]
    assert [one["id"] for one in said] == [value["id"] for value in rows()]
    assert {one["completion"] for one in said if one["ended"]} == {"no"}
    given = make_job(tmp_path / "given", tiny_model, train=[
        value | {"completion": one["completion"]} for value, one in zip(rows(), said, strict=True) if one["ended"]
    ])  # fmt: skip
    Sft(**QUICK).fit(given, silent)
    assert same(weights(given.out), weights(job.out)), "the same as being given these answers"


def test_answers_that_a_killed_process_had_are_not_written_again(
    tmp_path: Path, tiny_model: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.methods import _sampling, _teacher

    monkeypatch.setattr(_teacher, "AT_ONCE", 10)
    settings: dict[str, Any] = {"teacher": "t", "max_tokens": 6, "temperature": 1.0}
    whole = taught(tmp_path / "whole", tiny_model, teacher)
    Sft(**QUICK | settings).fit(whole, silent)
    lines = (whole.out / "teacher.jsonl").read_text().splitlines(keepends=True)
    job = taught(tmp_path / "job", tiny_model, teacher)
    (job.work / "teacher.jsonl").write_text("".join(lines[:13]) + lines[13][:9])
    asked: list[int] = []
    sample = _sampling.Sampler.sample
    monkeypatch.setattr(
        _sampling.Sampler, "sample", lambda self, prompts: asked.append(len(prompts)) or sample(self, prompts)
    )
    Sft(**QUICK | settings).fit(job, silent)
    assert asked == [10, 4]
    assert (job.out / "teacher.jsonl").read_text() == "".join(lines)
    assert same(weights(whole.out), weights(job.out))


def test_a_teacher_that_ends_no_answer_is_told(tmp_path: Path, tiny_model: Path) -> None:
    model = make_tiny_model(tmp_path / "model", seed=3)
    job = replace(make_job(tmp_path / "job", tiny_model), references={"t": {"model": str(model)}})
    with pytest.raises(DataError, match=r"the teacher ended none of its 24 answers within 1 tokens: raise max_tokens"):
        Sft(**QUICK | {"teacher": "t", "max_tokens": 1}).fit(job, silent)


def test_a_prompt_that_leaves_the_teacher_no_room_is_told(tmp_path: Path, tiny_model: Path, teacher: Path) -> None:
    job = taught(tmp_path / "job", tiny_model, teacher)
    with pytest.raises(DataError, match=r"the prompt of row 'q0' has \d+ tokens, .*room for 12 beside an answer"):
        Sft(**QUICK | {"teacher": "t", "max_tokens": 500}).fit(job, silent)


# ------------------------------------------------------------------------------------------------------- refused pairs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 5}, "`max_tokens` is about the answers of a `teacher`"),
        ({"learns": "conversations", "teacher": "base"}, "a teacher answers the prompts of examples"),
        ({"learns": "conversations", "context": "retrieved"}, "conversations hold what they hold"),
        ({"weights": {"a": 0}}, "greater than 0"),
        ({"cite": "as the book says"}, "the citation must hold {document} or {quote}"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Sft.model_validate(settings)


def test_a_stage_is_the_same_after_it_was_written_down_for_its_process() -> None:
    for method in (Sft(), Sft(teacher="base", max_tokens=9, weights={"a": 2.0}), Sft(learns="conversations")):
        table = json.loads(json.dumps(method.table()))
        assert table.pop("kind") == "sft"
        assert Sft.model_validate(table) == method


def test_what_does_not_fit_the_train_split_is_known_before_training() -> None:
    tags = [("machines",), ("orders",)]
    assert Sft(examples=2, weights={"orders": 2.0}).unfit(tags) is None
    assert Sft(examples=3).unfit(tags) == "examples = 3, and the train split has 2 rows"
    said = Sft(weights={"order": 2.0}).unfit(tags)
    assert said is not None and "no row of the train split has the tag 'order'. Did you mean 'orders'?" in said


def test_a_model_that_drops_activations_by_itself_does_as_the_setting_says(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=1, n_head=2)
    assert config.resid_pdrop == 0.1
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    job = make_job(tmp_path / "job", tmp_path / "gpt2")
    method = Sft(**QUICK | {"adapter": Full()})
    assert method.load(job, "float32").model.config.resid_pdrop == 0.0
    method.fit(job, silent)
    assert json.loads((job.out / "config.json").read_text())["resid_pdrop"] == 0.1, "its own when it answers"


def test_half_a_line_of_the_last_answer_is_written_again(tmp_path: Path, tiny_model: Path, teacher: Path) -> None:
    made = []
    for name in ("torn", "whole"):
        job = replace(make_job(tmp_path / name, tiny_model), references={"t": {"model": str(teacher)}})
        if name == "torn":
            (job.work / "teacher.jsonl").write_text("{}\n" * 23 + '{"id": "q2')
        Sft(**QUICK | {"teacher": "t", "max_tokens": 8}).fit(job, silent)
        made.append((job.out / "teacher.jsonl").read_text())
    assert made[0] == made[1]
