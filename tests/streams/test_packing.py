"""Packing by its defining property: a branch sees what its separate sequence would hold."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ed_interp.prompts.tokens import ShotTokens
from ed_interp.streams.paths import pack, packed_length

token = st.integers(0, 50)
part = st.lists(token, min_size=1, max_size=4).map(tuple)


@st.composite
def batches(draw, *, queries=True):
    demonstrations = draw(st.integers(0 if queries else 1, 5))
    low = 0 if queries else 1
    shots = sorted(draw(st.sets(st.integers(low, demonstrations), min_size=1)))
    prompts = [
        ShotTokens(
            draw(st.lists(token, max_size=1).map(tuple)) if queries else (1,),
            tuple(draw(part) for _ in range(demonstrations)),
            tuple((count, draw(part)) for count in shots) if queries else (),
            draw(part) if queries else (),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return prompts, shots


@settings(max_examples=80, deadline=None)
@given(batches())
def test_each_read_sees_exactly_its_own_sequence(batch):
    prompts, shots = batch
    packed = pack(prompts, shots)
    visible = packed.visible()
    for row, prompt in enumerate(prompts):
        for column, count in enumerate(shots):
            seen = visible[row, packed.reads[row, column]].nonzero()[:, 0]
            assert tuple(packed.ids[row, seen].tolist()) == prompt.sequence(count)
            assert packed.position_ids[row, seen].tolist() == list(range(len(seen)))


@settings(max_examples=80, deadline=None)
@given(batches())
def test_answers_are_read_behind_the_query_one_token_at_a_time(batch):
    prompts, shots = batch
    packed = pack(prompts, shots)
    visible = packed.visible()
    for row, prompt in enumerate(prompts):
        for column, count in enumerate(shots):
            places = [place for place in packed.answers[row, column].tolist() if place >= 0]
            assert len(places) == len(prompt.answer)
            for given_tokens, place in enumerate(places):
                seen = visible[row, place].nonzero()[:, 0]
                expected = prompt.sequence(count) + prompt.answer[:given_tokens]
                assert tuple(packed.ids[row, seen].tolist()) == expected


@settings(max_examples=40, deadline=None)
@given(batches())
def test_padding_sees_only_itself_and_nothing_sees_it(batch):
    prompts, shots = batch
    packed = pack(prompts, shots)
    visible = packed.visible()
    padding = packed.branch < 0
    width = packed.ids.shape[1]
    assert (
        padding.sum(1) == torch.tensor([width - packed_length(p, shots) for p in prompts])
    ).all()
    for row in range(len(prompts)):
        for place in padding[row].nonzero()[:, 0].tolist():
            assert visible[row, place].nonzero()[:, 0].tolist() == [place]
            assert visible[row, :, place].nonzero()[:, 0].tolist() == [place]


@settings(max_examples=40, deadline=None)
@given(batches(queries=False))
def test_lists_are_nested_and_need_no_branch(batch):
    prompts, shots = batch
    packed = pack(prompts, shots)
    assert not packed.branched
    for row, prompt in enumerate(prompts):
        for column, count in enumerate(shots):
            end = int(packed.reads[row, column]) + 1
            assert tuple(packed.ids[row, :end].tolist()) == prompt.sequence(count)
