"""Cross-entropy and divergence on neutral text: labels are the tokens after, not the tokens."""

import math

import pytest
import torch

from ed_interp.eval.compare.effects import forgetting_effects
from ed_interp.eval.compare.options import Inference
from ed_interp.eval.compare.subjects import PromptOnly, open_subject
from ed_interp.eval.compare.texts import read_texts

RISING = [tuple(range(3, 20)), tuple(range(1, 9)), tuple(range(10, 31))]


def test_labels_are_shifted(table_subject):
    successor = table_subject(lambda token: (token + 1) % 32, name="successor")
    repeater = table_subject(lambda token: token, name="repeater")
    found = read_texts(successor, repeater, RISING)
    # With labels left unshifted the two would change places.
    assert float(found.control_nll.sum() / found.tokens.sum()) < 1e-3
    assert float(found.treated_nll.sum() / found.tokens.sum()) > 10


def test_cross_entropy_is_that_of_transformers(tiny, tiny_model):
    windows = [tuple(range(5, 40)), tuple(range(100, 107)), (9, 8)]
    subject = open_subject(tiny)
    found = read_texts(subject, subject, windows)
    for row, window in enumerate(windows):
        ids = torch.tensor([window])
        with torch.no_grad():
            expected = float(tiny_model(input_ids=ids, labels=ids).loss)  # shifts by itself
        assert found.control_nll[row] / found.tokens[row] == pytest.approx(expected, abs=1e-5)
    assert found.tokens.tolist() == [34, 6, 1]


def test_a_model_does_not_differ_from_itself(tiny):
    subject = open_subject(tiny)
    found = read_texts(subject, subject, [tuple(range(5, 40)), (1, 2, 3)])
    assert found.divergence.tolist() == [0, 0]
    assert found.contexts == ()


def test_divergence_is_that_of_torch(tiny, adapted, lora):
    other = adapted(lora(), scale=0.3)
    window = tuple(range(50, 90))
    found = read_texts(open_subject(tiny), open_subject(other), [window])
    ids = torch.tensor([window])
    with torch.no_grad():
        tables = [m.model(input_ids=ids).logits[0, :-1].log_softmax(-1) for m in (tiny, other)]
    expected = torch.nn.functional.kl_div(*tables[::-1], reduction="sum", log_target=True)
    assert found.divergence[0] == pytest.approx(float(expected), rel=1e-4)
    assert found.by_token.sum() == pytest.approx(float(expected), rel=1e-4)
    assert float(expected) > 0.01


def test_batches_and_padding_do_not_matter(tiny, adapted, lora, monkeypatch):
    from ed_interp.eval.compare import texts

    pair = open_subject(tiny), open_subject(adapted(lora(), scale=0.3))
    windows = [tuple(range(5, 5 + length)) for length in (30, 4, 17, 9)]
    together = read_texts(*pair, windows)
    monkeypatch.setattr(texts, "_LOGITS", 1)
    alone = read_texts(*pair, windows)
    assert alone.treated_nll == pytest.approx(together.treated_nll, rel=1e-5)
    assert alone.divergence == pytest.approx(together.divergence, rel=1e-3, abs=1e-5)


def test_the_place_that_differs_is_named(table_subject):
    same = table_subject(lambda token: (token + 1) % 32)
    other = table_subject(lambda token: 30 if token == 12 else (token + 1) % 32)
    found = read_texts(same, other, RISING, keep=3)
    places = [(context.text, context.position) for context in found.contexts]
    assert sorted(places) == [(0, 10), (2, 3)]  # what follows token 12 in texts 0 and 2
    assert all(context.token == "[13]" for context in found.contexts)
    assert found.contexts[0].divergence == pytest.approx(20, abs=0.1)
    assert found.contexts[0].treated_top[0] == "[30]"


def test_a_prompt_before_the_text_is_not_scored(tiny):
    told = open_subject(PromptOnly(tiny, "France -> Paris\n"))
    windows = [tuple(range(5, 25))]
    found = read_texts(open_subject(tiny), told, windows)
    assert found.tokens.tolist() == [19]
    ids = torch.tensor([told.before + windows[0]])
    with torch.no_grad():
        table = tiny.model(input_ids=ids).logits.log_softmax(-1)[0, len(told.before) :]
    expected = -sum(float(table[p, windows[0][p + 1]]) for p in range(19))
    assert found.treated_nll[0] == pytest.approx(expected, rel=1e-5)


def test_account_of_forgetting(table_subject):
    successor = table_subject(lambda token: (token + 1) % 32)
    effects, account = forgetting_effects(
        read_texts(successor, table_subject(lambda token: token), RISING * 4), Inference()
    )
    (effect,) = effects
    assert effect.n == 12
    assert effect.verdict() == "worse"
    assert effect.difference == pytest.approx(account.increase)
    assert account.tokens == 4 * (16 + 7 + 20)
    assert account.divergence_mean == pytest.approx(20, abs=0.1)
    assert math.isclose(account.divergence_p99, account.divergence_mean, rel_tol=1e-3)
