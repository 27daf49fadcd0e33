"""Turns as calls of their own: states are carried, gradients go through them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from ed_interp.adapters.bias_injection import BiasInjectionConfig
from ed_interp.adapters.bias_injection.experience import Experience, experience
from ed_interp.adapters.training import TrainingOptions
from ed_interp.adapters.training.carry import carried_states
from ed_interp.adapters.training.data import IGNORED, Encoded
from ed_interp.adapters.training.trainer import AdapterTrainer, Collator, training_arguments
from ed_interp.errors import InvalidInputError


@pytest.fixture
def tuned(base: Any) -> Any:
    config = BiasInjectionConfig(r=0, n_nodes=3, tau=20.0, use_bias=False)
    model = get_peft_model(base.model, config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for name, weight in model.named_parameters():
            if "write" in name:
                weight.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def turns() -> torch.Tensor:
    return torch.randint(1, 600, (3, 2, 9), generator=torch.Generator().manual_seed(0))


def test_carried_states_are_those_of_an_experience(tuned: Any, turns: torch.Tensor):
    store = Experience(tuned, tau=5.0)
    for turn in turns:
        with experience(tuned, session=["a", "b"], store=store), torch.no_grad():
            expected = tuned(input_ids=turn).logits
    with carried_states(tau=5.0):
        for turn in turns:
            found = tuned(input_ids=turn).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tuned(input_ids=turns[-1]).logits, expected, atol=1e-3)


def test_the_last_answer_teaches_what_the_first_turn_read(tuned: Any, turns: torch.Tensor):
    def gradients(carry: bool) -> list[torch.Tensor]:
        tuned.zero_grad()
        seen = turns.clone()
        if not carry:
            tuned(input_ids=seen[-1], labels=seen[-1]).loss.backward()
        else:
            with carried_states():
                tuned(input_ids=seen[0])
                tuned(input_ids=seen[-1], labels=seen[-1]).loss.backward()
        return [w.grad for n, w in tuned.named_parameters() if "read" in n]

    alone, together = gradients(False), gradients(True)
    assert any(not torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, together, strict=True))


def test_another_batch_size_is_refused(tuned: Any, turns: torch.Tensor):
    with carried_states():
        tuned(input_ids=turns[0])
        with pytest.raises(InvalidInputError, match="got 1 after 2 sessions"):
            tuned(input_ids=turns[1, :1])
    with pytest.raises(InvalidInputError, match="positive"), carried_states(tau=0.0):
        pass


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama"])
def test_sessions_of_unequal_length_share_a_batch(
    tmp_path: Path, build_model: Any, short: Any, family: str
):
    """Rows that have ended get empty turns: no loss, no change of state, no NaN."""
    targets = {"gpt2": ["c_attn"]}.get(family, ["q_proj"])
    config = BiasInjectionConfig(r=2, n_nodes=3, target_modules=targets)
    model = get_peft_model(build_model(family), config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "write" in name:
                weight.fill_(0.1)
    rows = [
        [Encoded((5, 6, 7), (IGNORED,) * 3), Encoded((8, 9, 10), (IGNORED, 9, 10))],
        [Encoded((11, 12), (IGNORED,) * 2), Encoded((13, 14), (IGNORED, 14)),
         Encoded((15, 16, 17), (IGNORED, IGNORED, 17))],
    ]  # fmt: skip
    options = TrainingOptions(**short(carry=True, eval_share=0.0))
    arguments = training_arguments(options, tmp_path, 1, evaluate=False)
    trainer = AdapterTrainer(model=model, args=arguments, options=options)

    def loss_of(sessions: list[list[Encoded]]) -> torch.Tensor:
        return trainer.compute_loss(model, Collator(0)([{"turns": turns} for turns in sessions]))

    both = loss_of(rows)
    both.backward()
    for weight in model.parameters():
        assert weight.grad is None or bool(torch.isfinite(weight.grad).all())
    # Four tokens with loss, two in each session.
    torch.testing.assert_close(both, (loss_of(rows[:1]) + loss_of(rows[1:])) / 2)
