"""Contrasts: from code and from files, and what is refused, in one line."""

import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.probes.directions.pairs import Contrast, Text

GOOD = [("the film was fine", "the film was dull"), ("a fine day", "a dull day")]


def test_a_file_gives_what_code_gives(tmp_path):
    csv = tmp_path / "mood.csv"
    csv.write_text("positive,negative\n" + "\n".join(",".join(pair) for pair in GOOD))
    found, made = Contrast.from_file(csv), Contrast.of(GOOD, name="mood")
    assert found == made
    assert found.fingerprint == made.fingerprint
    assert found.fingerprint != Contrast.of(GOOD[::-1]).fingerprint
    assert found.subset([1]).positive == (Text("a fine day"),)


def test_reads_of_their_own(tmp_path):
    file = tmp_path / "reads.jsonl"
    file.write_text(
        '{"positive": "a b", "negative": "c d", "read": 0}\n'
        '{"positive": "a b", "negative": "c d", "positive_read": "a"}\n'
    )
    found = Contrast.from_file(file, read=-2)
    assert [text.read for text in found.positive] == [0, "a"]
    assert [text.read for text in found.negative] == [0, -2]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "'pairs' must hold texts of both classes, got 0 positive and 0 negative"),
        ([("a", " ")], "row 1: the negative text is empty"),
        ([("a", "b"), ("c", "c")], r"row 2: both texts are 'c'.*\(1 of 2"),
    ],
)
def test_bad_pairs_are_named(pairs, message):
    with pytest.raises(InvalidInputError, match=message):
        Contrast.of(pairs)


def test_an_empty_class():
    with pytest.raises(InvalidInputError, match="of both classes, got 1 positive and 0 negative"):
        Contrast.unpaired(["a"], [])
    with pytest.raises(InvalidInputError, match="to be pairs, got 2 positive and 1 negative"):
        Contrast((Text("a"), Text("b")), (Text("c"),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (
            "good,bad\na,b\n",
            "row 1: no 'positive' and no 'negative'; the columns are 'good', 'bad'",
        ),
        ("positive,negative\na,\n", "'negative' is empty"),
        ("positive,negative\na,b,c\n", "more cells"),
    ],
)
def test_bad_files(tmp_path, text, message):
    file = tmp_path / "pairs.csv"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        Contrast.from_file(file)
