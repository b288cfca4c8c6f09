"""The built-in MiniLM as an embedder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.embedders.sentence_transformers import SentenceTransformers
from harness.errors import ModelError
from harness.plugins import Embedding

TEXTS = ["How do I descale the machine?", "Remove limescale from the boiler.", "The parcel is late."]


@pytest.fixture(scope="module")
def minilm(builtin_embedder: Path) -> Embedding:
    return SentenceTransformers(id=str(builtin_embedder)).open()


def test_vectors_are_unit_float32_and_put_like_meanings_close(minilm: Embedding) -> None:
    vectors = minilm.embed(TEXTS, role="document")
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, minilm.dimension) == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 2 * likeness[0, 2]
    assert minilm.embed([], role="query").shape == (0, 384)


def test_vectors_are_those_of_transformers_with_mean_pooling(minilm: Embedding, builtin_embedder: Path) -> None:
    """The model card's own recipe: mean of the last hidden states over real tokens, then unit length."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(builtin_embedder)
    model = AutoModel.from_pretrained(builtin_embedder, dtype="float32")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    means = (states * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(means, dim=1).numpy()
    assert minilm.embed(TEXTS, role="query") == pytest.approx(expected, abs=1e-4)


def test_what_counts_as_fitting_is_seen_whole(minilm: Embedding) -> None:
    fitting = " ".join(["word"] * minilm.max_tokens)
    assert minilm.count(fitting) == minilm.max_tokens == 254
    one, other = minilm.embed([fitting + " apple", fitting + " zebra"], role="document")
    assert np.array_equal(one, other), "past the window nothing is seen"
    last = " ".join(["word"] * (minilm.max_tokens - 1))
    one, other = minilm.embed([last + " apple", last + " zebra"], role="document")
    assert not np.allclose(one, other), "up to the window everything is"


def test_prefixes_go_before_the_texts_of_their_role_and_off_the_window(
    builtin_embedder: Path, minilm: Embedding
) -> None:
    prefixed = SentenceTransformers(
        id=str(builtin_embedder), query_prefix="query: ", document_prefix="passage: "
    ).open()
    as_query = prefixed.embed(["late parcel"], role="query")
    assert as_query == pytest.approx(minilm.embed(["query: late parcel"], role="query"), abs=1e-6)
    as_passage = prefixed.embed(["late parcel"], role="document")
    assert as_passage == pytest.approx(minilm.embed(["passage: late parcel"], role="document"), abs=1e-6)
    assert prefixed.max_tokens == minilm.max_tokens - minilm.count("passage: ")


def test_the_fingerprint_names_weights_and_settings_but_no_place(builtin_embedder: Path) -> None:
    by_name, by_path = SentenceTransformers(), SentenceTransformers(id=str(builtin_embedder))
    assert by_name.fingerprint() == by_path.fingerprint()
    assert str(builtin_embedder) not in str(by_path.fingerprint())
    assert SentenceTransformers(query_prefix="query: ").fingerprint() != by_name.fingerprint()


def test_fingerprints_are_had_without_torch_and_opening_prints_nothing(builtin_embedder: Path) -> None:
    code = (
        "import sys; from harness.embedders.sentence_transformers import SentenceTransformers as S\n"
        f"s = S(id={str(builtin_embedder)!r}); s.fingerprint(); assert 'torch' not in sys.modules\n"
        "s.open().embed(['x'], role='query')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_its_package_the_extra_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match=r"sentence_transformers.*pip install -e '\.\[retrieve\]'"):
        SentenceTransformers(id=str(tmp_path)).open()


def test_what_is_no_embedder_is_a_model_error(tmp_path: Path, builtin_embedder: Path) -> None:
    with pytest.raises(ModelError):
        SentenceTransformers(id=str(tmp_path)).open()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded as a sentence-transformers model"):
        SentenceTransformers(id=str(tmp_path)).open()
    broken = shutil.copytree(builtin_embedder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:100_000])
    with pytest.raises(ModelError, match="cannot be loaded as a sentence-transformers model"):
        SentenceTransformers(id=str(broken)).open()
