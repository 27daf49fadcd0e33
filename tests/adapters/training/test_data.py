"""Examples: which tokens carry loss, from every kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ed_interp.adapters.training import examples_of_pairs, read_examples
from ed_interp.adapters.training.data import IGNORED, encode_all, fingerprint, split
from ed_interp.adapters.training.trainer import Collator
from ed_interp.errors import InvalidInputError

ROWS = [{"input": "France", "output": "Paris"}, {"input": "Spain", "output": "Madrid"}]


def trained_text(example: Any, tokenizer: Any) -> list[str]:
    """What carries loss, a text for every turn."""
    (turns,) = encode_all([example], tokenizer, separate=True)
    return [tokenizer.decode([token for token in t.labels if token != IGNORED]) for t in turns]


def test_every_format_gives_the_same_examples(tmp_path: Path):
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    pairs = [("France", "Paris"), ("Spain", "Madrid")]
    for file in tmp_path.iterdir():
        assert read_examples(file) == examples_of_pairs(pairs), file.name


def test_loss_is_on_answers_and_what_follows_them(tiny_tokenizer: Any):
    (example,) = examples_of_pairs([("France", "Paris")])
    assert trained_text(example, tiny_tokenizer) == [" Paris\n"]
    ((row,),) = encode_all([example], tiny_tokenizer)
    assert tiny_tokenizer.decode(row.ids) == "France -> Paris\n"
    answer = row.ids[-sum(label != IGNORED for label in row.labels) :]
    assert row.labels == (IGNORED,) * (len(row.ids) - len(answer)) + answer


def test_loss_on_everything(tmp_path: Path, tiny_tokenizer: Any):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(ROWS))
    first, _ = read_examples(file, all_tokens=True)
    assert trained_text(first, tiny_tokenizer) == ["France -> Paris\n"]


def test_rows_of_a_session_are_turns_in_order(tmp_path: Path, tiny_tokenizer: Any):
    rows = [{"session": k % 2, **ROWS[k % 2]} for k in range(4)]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(rows))
    first, second = read_examples(file)
    assert trained_text(first, tiny_tokenizer) == [" Paris\n"] * 2
    assert len(second.turns) == 2
    # Together they are one sequence, with the loss on every answer.
    ((whole,),) = encode_all([first], tiny_tokenizer)
    assert tiny_tokenizer.decode(whole.ids) == "France -> Paris\n" * 2


def test_chats_train_on_the_assistant(tmp_path: Path, tiny_tokenizer: Any):
    messages = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three?"},
        {"role": "assistant", "content": "Four"},
        {"role": "user", "content": "never answered"},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"messages": messages}))
    (chat,) = read_examples(file)
    assert trained_text(chat, tiny_tokenizer) == [" Two\n", " Four\n"]
    assert "".join(part.text for part in chat.turns[0]).startswith("system: Answer.\nuser: One?")


def test_text_files(tmp_path: Path, tiny_tokenizer: Any):
    (tmp_path / "a.txt").write_text("one two\n\nthree")
    (tmp_path / "a.jsonl").write_text('{"text": "one two"}\n{"text": "three"}')
    plain, rows = read_examples(tmp_path / "a.txt"), read_examples(tmp_path / "a.jsonl")
    assert [trained_text(example, tiny_tokenizer)[0].strip() for example in plain] == [
        "one two",
        "three",
    ]
    assert len(rows) == 2


def test_split_is_seeded_disjoint_and_whole():
    examples = examples_of_pairs([(f"a{k}", "b") for k in range(20)])
    training, held = split(examples, share=0.25, seed=1)
    assert len(held) == 5
    assert sorted(map(repr, training + held)) == sorted(map(repr, examples))
    assert split(examples, share=0.25, seed=1) == (training, held)
    assert split(examples, share=0.25, seed=2)[1] != held
    assert split(examples, share=0.0, seed=0) == (examples, [])


def test_the_hash_sees_texts_masks_and_order():
    one, two = (examples_of_pairs([pair]) for pair in (("a", "b"), ("a", "c")))
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one + two) != fingerprint(two + one)
    assert fingerprint(one) == fingerprint(examples_of_pairs([("a", "b")]))


def test_batches_are_padded_without_loss(tiny_tokenizer: Any):
    examples = examples_of_pairs([("France", "Paris"), ("a", "b")])
    encoded = encode_all(examples, tiny_tokenizer)
    batch = Collator(7)([{"turns": turns} for turns in encoded])
    short = len(encoded[1][0].ids)
    assert set(batch["input_ids"][1, short:].tolist()) == {7}
    assert not batch["attention_mask"][1, short:].any()
    assert (batch["labels"][1, short:] == IGNORED).all()
    assert (batch["attention_mask"].sum(1)).tolist() == [len(turns[0].ids) for turns in encoded]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "empty"),
        ("a.jsonl", '{"question": "a"}', "must have a column 'input'"),
        ("a.jsonl", '{"input": "a", "output": ""}', "'output' is empty"),
        ("a.jsonl", '{"messages": []}', "list of role and content"),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "content": "a"}]}',
            "message of the assistant to learn from",
        ),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', "must have 'role'"),
        ("a.csv", "input,output\na,b,c\n", "more cells"),
        ("a.xml", "<a/>", "cannot tell the format"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, name: str, text: str, message: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_examples(tmp_path / name)
    assert "\n" not in str(caught.value)
