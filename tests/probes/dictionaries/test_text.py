"""Text as windows, and its states: streamed, in order, and shuffled for training."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.models.load import load
from ed_interp.probes.dictionaries.reader import Batches, stream_states
from ed_interp.probes.dictionaries.text import Windows, text_source


def windows_of(hooked, texts, window=16):
    return Windows(text_source(texts), hooked, window=window)


def test_windows_hold_every_token_once(hooked, texts):
    source = windows_of(hooked, texts)
    both = source.once("train", seed=0, tokens=10**9) + source.once(
        "held-out", seed=0, tokens=10**9
    )
    expected = hooked.tokenizer(texts)["input_ids"]
    assert sorted(t for ids in both for t in ids) == sorted(t for ids in expected for t in ids)
    assert max(map(len, both)) == 16


def test_the_parts_do_not_overlap(hooked, texts):
    source = windows_of(hooked, [f"{text} {number}" for number, text in enumerate(texts)], 128)
    train, held = (
        {tuple(ids) for ids in source.once(part, seed=0, tokens=10**9)}
        for part in ("train", "held-out")
    )
    assert not train & held
    assert len(held) == 20


def test_endless_windows_go_round_in_another_order(hooked, texts):
    source = windows_of(hooked, texts)
    every = source.once("train", seed=0, tokens=10**9)
    stream = list(itertools.islice(source.endless("train", seed=0), 2 * len(every)))
    first, second = stream[: len(every)], stream[len(every) :]
    assert sorted(first) == sorted(second) == sorted(every)
    assert first != second
    again = list(itertools.islice(source.endless("train", seed=0), len(every)))
    assert again == first


def test_the_generated_text_is_seeded_and_its_parts_differ():
    source = Windows(text_source(), load("icl-gpt2"), window=64)
    assert source.tokens("train") is None
    one, same, other, held = (
        source.once(part, seed=seed, tokens=2000)
        for part, seed in (("train", 0), ("train", 0), ("train", 1), ("held-out", 0))
    )
    assert one == same
    assert one not in (other, held)
    assert 2000 <= sum(map(len, one)) < 2100


def test_special_tokens_come_first_in_every_window():
    hooked = load("icl-gemma2")
    source = Windows(text_source(), hooked, window=32)
    assert source.prefix == tuple(hooked.tokenizer("")["input_ids"])
    taken = source.once("train", seed=0, tokens=500)
    assert all(ids[: len(source.prefix)] == source.prefix for ids in taken)
    part = next(stream_states(hooked, hooked.site("blocks.0.hook_resid_post"), taken, skip=1))
    assert source.prefix[0] not in part.ids


def test_states_are_those_of_single_passes_in_the_order_of_the_text(hooked, texts):
    site = hooked.site("blocks.1.hook_resid_pre")
    taken = windows_of(hooked, texts).once("train", seed=0, tokens=600)
    parts = list(stream_states(hooked, site, taken))
    states = torch.cat([part.states for part in parts])
    assert torch.cat([part.ids for part in parts]).tolist() == [t for ids in taken for t in ids]
    seen = {}
    block = hooked.model.transformer.h[1]
    handle = block.register_forward_pre_hook(lambda _, args: seen.update(state=args[0]))
    try:
        with torch.no_grad():
            row = 0
            for ids in taken:
                hooked.model(input_ids=torch.tensor([ids]))
                found = states[row : row + len(ids)]
                torch.testing.assert_close(found, seen["state"][0], atol=1e-5, rtol=1e-5)
                row += len(ids)
    finally:
        handle.remove()
    assert row == len(states)


def make_batches(hooked, texts):
    return Batches(
        hooked,
        hooked.site("blocks.0.hook_resid_post"),
        windows_of(hooked, texts),
        batch_size=32,
        blocks_of=3,
        seed=4,
    )


def test_batches_are_shuffled_whole_and_resumable(hooked, texts):
    batches = make_batches(hooked, texts)
    stream = [next(batches) for _ in range(8)]
    assert all(batch.shape == (32, 32) for batch in stream)
    assert (batches.block, batches.served) == (2, 2)
    for block, served in ((0, 2), (1, 0), (1, 3), (2, 1)):
        resumed = make_batches(hooked, texts)
        resumed.skip_to(block, served)
        assert torch.equal(next(resumed), stream[3 * block + served])
    rows = torch.cat(stream[:3])
    plain = [state for part in stream_states(
        hooked, hooked.site("blocks.0.hook_resid_post"),
        list(itertools.islice(windows_of(hooked, texts).endless("train", seed=4), 20)),
    ) for state in part.states]  # fmt: skip
    in_order = torch.stack(plain[: len(rows)])
    assert not torch.equal(rows, in_order)
    torch.testing.assert_close(rows.sum(0), in_order.sum(0), atol=1e-3, rtol=1e-4)


def test_sources(tmp_path):
    (tmp_path / "a.txt").write_text("one text\n\nanother one")
    assert text_source(tmp_path / "a.txt").texts == ("one text", "another one")
    (tmp_path / "b.json").write_text(json.dumps(["x", "y"]))
    assert text_source(str(tmp_path / "b.json")).texts == ("x", "y")
    prompts = text_source(task="country-capital")
    assert prompts.texts is not None
    assert all(text.count("->") == 9 for text in prompts.texts)
    assert text_source(task="country").texts[0].count(",") == 8
    assert text_source().texts is None


def test_a_dataset(tmp_path, monkeypatch):
    import datasets

    data = datasets.Dataset.from_dict({"text": [f"row {n}" for n in range(10)]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: data)
    assert text_source(dataset="some/data", limit=5).texts == tuple(
        f"row {n}" for n in (0, 2, 4, 6, 8)
    )
    with pytest.raises(InvalidInputError, match="no column 'body'; its columns are text"):
        text_source(dataset="some/data", column="body")


def test_sources_that_cannot_be_used(tmp_path, hooked):
    with pytest.raises(InvalidInputError, match="from one source, got text and task"):
        text_source("a.txt", task="country")
    with pytest.raises(InvalidInputError, match="does not exist"):
        text_source(tmp_path / "none.txt")
    with pytest.raises(UnknownNameError, match="unknown task"):
        text_source(task="contry-capital")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InvalidInputError, match="holds no text"):
        text_source(tmp_path / "empty.txt")
    with pytest.raises(InvalidInputError, match=r"cannot load data set .*offline"):
        text_source(dataset="nobody/nothing")
    silent = load(hooked.model)
    with pytest.raises(InvalidInputError, match="this model has no tokenizer"):
        Windows(text_source(["a b"]), silent, window=8)
