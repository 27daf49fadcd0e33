"""The memory task: the rule is in the announcement and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ed_interp.adapters.training.data import encode_all
from ed_interp.errors import InvalidInputError
from ed_interp.eval.tasks import memory


@pytest.fixture(scope="module")
def sessions() -> tuple[memory.Session, ...]:
    words = memory.split_words(seed=0)["training"]
    return memory.draw_sessions(30, words=words, queries=3, seed=0)


def test_splits_share_no_word_and_answers_tell_the_rule():
    parts = memory.split_words(seed=3)
    words = [word for part in parts.values() for word in part]
    assert len(words) == len(set(words))
    tables = memory.rule_answers()
    assert set(words) == set(tables[memory.RULES[0]])
    for word in words:
        assert len({table[word] for table in tables.values()}) == len(memory.RULES)


def test_rules_are_equally_frequent_and_words_distinct(sessions: tuple[memory.Session, ...]):
    tables = memory.rule_answers()
    assert {rule: sum(s.rule == rule for s in sessions) for rule in memory.RULES} == dict.fromkeys(
        memory.RULES, 10
    )
    for session in sessions:
        pairs = (session.announcement, *session.queries)
        assert len({word for word, _ in pairs}) == 4
        assert all(tables[session.rule][word] == answer for word, answer in pairs)


def test_only_the_last_query_is_answered(sessions: tuple[memory.Session, ...]):
    session = sessions[0]
    told, *asked = memory.turns_of(session).turns
    assert [part.trained for part in told] == [False, False]
    texts = ["".join(part.text for part in turn) for turn in asked]
    for (_, answer), text in zip(session.queries[:-1], texts[:-1], strict=True):
        assert answer not in text
        assert text.endswith("->")
    assert texts[-1].endswith(f" {session.queries[-1][1]}\n")


def test_the_announcement_is_out_of_reach(sessions: tuple[memory.Session, ...]):
    """Through four short windows nothing of the announcement arrives; what is nearer does."""
    import ed_interp

    hooked = ed_interp.load("icl-gemma2", sliding_window=8, layer_types=["sliding_attention"] * 4)
    example = memory.distance_of(sessions[0], phrases=7, seed=0)
    ((row,),) = encode_all([example], hooked.tokenizer)
    asked = next(place for place, label in enumerate(row.labels) if label >= 0) - 1
    (told,) = encode_all([memory.context_of(sessions[0], 0)], hooked.tokenizer)
    announced = len(told[0].ids) - (len(row.ids) - asked - 1)  # its tokens come first
    reach = memory.reach(4, 8)
    assert asked - announced > reach - 8

    def last(changed: int) -> Any:
        ids = torch.tensor([row.ids])
        ids[0, changed] = (ids[0, changed] + 1) % 50 + 3
        with torch.no_grad():
            return hooked.model(input_ids=ids[:, : asked + 1]).logits[0, -1]

    with torch.no_grad():
        whole = hooked.model(input_ids=torch.tensor([row.ids])[:, : asked + 1]).logits[0, -1]
    assert torch.equal(last(asked - reach - 1), whole)
    assert not torch.equal(last(asked - reach + 4), whole)


def test_too_few_words():
    with pytest.raises(InvalidInputError, match="3 queries and 3 words"):
        memory.draw_sessions(1, words=["a", "b", "c"], queries=3, seed=0)
