from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from training import make_job, rows, silent, weights

from harness.adapters.adalora import Adalora
from harness.errors import ModelError
from harness.methods.sft import Sft

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def test_the_penalty_is_the_mean_distance_from_orthogonal_rows() -> None:
    import torch

    from harness.adapters._allocation import penalty

    # diag(1, 2) times itself less the identity is diag(0, 3), of norm 3; orthonormal rows have none.
    found = penalty([torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])])
    assert float(found) == pytest.approx(1.5)


def test_the_ranks_left_at_the_end_are_the_target_on_average(tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(tmp_path / "job", tiny_model, train=rows(16))
    method = Sft(adapter=Adalora(rank=6, target_rank=2), epochs=3, batch_size=4, learning_rate=1e-2)
    method.fit(job, silent)
    ranks = {name: value.shape[0] for name, value in weights(job.out).items() if name.endswith("lora_A")}
    assert len(ranks) == 14
    assert sum(ranks.values()) == 2 * 14
    assert len(set(ranks.values())) > 1, "layers matter unequally"


def test_rows_stay_nearer_to_orthogonal_with_the_penalty(tmp_path: Path, tiny_model: Path) -> None:
    from harness.adapters._allocation import penalty

    apart = []
    for weight in (0.0, 5.0):
        job = make_job(tmp_path / str(weight), tiny_model, train=rows(16))
        adapter = Adalora(rank=6, target_rank=5, orthogonality=weight)
        Sft(adapter=adapter, epochs=3, batch_size=4, learning_rate=1e-2).fit(job, silent)
        apart.append(float(penalty([value for name, value in weights(job.out).items() if name.endswith("lora_A")])))
    assert apart[1] < 0.9 * apart[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 4, "target_rank": 4}, "target_rank = 4 must be less than rank = 4"),
        ({"first": 0.5, "last": 0.5}, "leave no steps in which to decide on ranks"),
    ],
)
def test_a_schedule_that_decides_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Adalora(**settings)


def test_a_training_too_short_to_decide_on_ranks_is_told(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"of 1 step fewer than two are left for it: raise epochs or max_steps"):
        Sft(adapter=Adalora(), max_steps=1).fit(make_job(tmp_path / "job", tiny_model), silent)


def test_what_grew_again_between_two_decisions_is_kept(tmp_path: Path, tiny_model: Path) -> None:
    # Every fourth step decides; the best step is one between two decisions, where all entries have grown again.
    job = make_job(tmp_path / "job", tiny_model, train=rows(16), dev=rows(20)[16:])
    adapter = Adalora(rank=4, target_rank=1, first=0.0, last=0.1, every=4)
    seen: list[dict[str, Any]] = []
    method = Sft(adapter=adapter, epochs=3, batch_size=4, learning_rate=1e-2, eval_every=1)
    with watched_saves(seen):
        trained = method.fit(job, silent)
    assert trained.best_step is not None
    kept = {name: value for name, value in weights(job.out).items() if name.endswith("lora_E")}
    assert sum(len(value) for value in kept.values()) == seen[-1]["entries"]


@contextmanager
def watched_saves(seen: list[dict[str, Any]]) -> Iterator[None]:
    """Note how many entries of E are not zero in the model that is saved."""
    from harness.methods import _model

    def save(policy: Any, *args: Any) -> None:
        entries = [weight for name, weight in policy.model.named_parameters() if "lora_E" in name]
        seen.append({"entries": sum(int((weight != 0).sum()) for weight in entries)})
        original(policy, *args)

    original, _model.save = _model.save, save
    try:
        yield
    finally:
        _model.save = original
