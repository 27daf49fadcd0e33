"""Tasks from files and data sets: what is in them arrives unchanged, what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.files import from_dataset, from_file, text_from_file

PAIRS = (("France", "Paris"), ('two\nlines, "quoted"', "naïve ☃"), ("{input}", "3"))


def write(folder: Path, ending: str, pairs: Sequence[tuple[Any, Any]] = PAIRS) -> Path:
    """``pairs`` in a file of one of the formats that are read."""
    file = folder / f"pairs{ending}"
    rows = [{"input": input, "output": output} for input, output in pairs]
    if ending == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif ending == ".json":
        file.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    elif ending == ".csv":
        pd.DataFrame(rows).to_csv(file, index=False)
    else:
        pd.DataFrame(rows).to_parquet(file)
    return file


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_pairs_arrive_unchanged(tmp_path: Path, ending: str) -> None:
    task = from_file(write(tmp_path, ending))
    assert task.pairs == PAIRS
    assert task.name == "pairs"
    assert task.template.text == "{input} -> {output}\n"


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, ending: str) -> None:
    file = write(tmp_path, ending)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert from_file(file).pairs == PAIRS


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_numbers_become_text(tmp_path: Path, ending: str) -> None:
    assert from_file(write(tmp_path, ending, [(1, 0.5), (2, 1.5)])).pairs == (
        ("1", "0.5"),
        ("2", "1.5"),
    )


def test_columns_template_and_name(tmp_path: Path) -> None:
    file = tmp_path / "words.CSV"
    file.write_text("id,answer,question\n1, b ,a\n2,d,c\n", "utf-8")
    task = from_file(
        file, input="question", output="answer", template="Q: {input} A: {output};", name="mine"
    )
    assert (task.name, task.pairs) == ("mine", (("a", "b"), ("c", "d")))
    assert task.template.demonstration("x", "y") == "Q: x A: y;"


def test_blank_lines_and_unusual_line_ends(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    # U+2028 ends a line for Python, not for JSON.
    lines.write_bytes(
        '{"input":"a\u2028b","output":"c"}\r\n\r\n{"input":"d","output":"e"}'.encode()
    )
    assert from_file(lines).pairs == (("a\u2028b", "c"), ("d", "e"))
    table = tmp_path / "a.csv"
    table.write_bytes(b"input,output\r\na,b\r\n\r\nc,d")
    assert from_file(table).pairs == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"input,output\n", "a.csv is empty"),
        ("a.csv", b"input,output\na,b\n", "1 usable pair"),
        ("a.csv", b"q,a\nx,y\n", "columns 'input' and 'output', got 'q', 'a'"),
        ("a.csv", b"input,a\nx,y\n", "columns 'input' and 'output', got 'input', 'a'"),
        ("a.csv", b"input,output\na,b\nc,\nd,e\n", "row 2: 'output' is empty"),
        ("a.csv", b"input,output\na,b\nc\nd,e\n", "row 2: 'output' is empty"),
        ("a.csv", b"input,output\na,b\nc,d,e\n", "row 2: more cells than the header"),
        ("a.csv", b'input,output\na,b\n"c,d\ne,f\n', "not valid CSV"),
        ("a.csv", b"input,output\n" + b"x" * 200_000 + b",y\n", "after line 1: not valid CSV"),
        ("a.csv", b"input,output\ncaf\xe9,b\n", "not UTF-8 (byte 16"),
        ("a.csv", "input,output\na,b\n".encode("utf-16"), "not UTF-8"),
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.jsonl", b'{"input":"a","output":"b"}\n{"input"', "line 2: not valid JSON"),
        ("a.jsonl", b'["a","b"]\n', "one JSON object per line"),
        ("a.jsonl", b'{"input":"a","output":"b"}\n{"input":null,"output":"c"}', "row 2: 'input'"),
        (
            "a.jsonl",
            b'{"input":"a","output":["b"]}\n',
            "row 1: 'output' must be text or a number, got a list",
        ),
        (
            "a.jsonl",
            b'{"input":"a","output":{"b":1}}\n',
            "row 1: 'output' must be text or a number, got a dict",
        ),
        ("a.jsonl", b'{"input":"a","output":NaN}\n', "row 1: 'output' is empty"),
        (
            "a.jsonl",
            b'{"output":"b"}\n',
            "row 1 must have the columns 'input' and 'output', got 'output'",
        ),
        ("a.json", b'{"input":"a"}', "a JSON list of objects"),
        ("a.json", b"[1, 2]", "a JSON list of objects"),
        ("a.json", b"[" * 100_000, "cannot be read as JSON"),
        ("a.json", b"[{,", "line 1: not valid JSON"),
        ("a.parquet", b"", "as Parquet"),
        ("a.parquet", b"PAR1 nothing PAR1", "as Parquet"),
        ("a.pkl", b"", "cannot tell the format from '.pkl'"),
        ("pairs", b"a,b", "cannot tell the format"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InvalidInputError) as error:
        from_file(file)
    assert words in str(error.value)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".parquet"])
def test_missing_files_and_folders(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        from_file(tmp_path / f"nowhere{ending}")
    folder = tmp_path / f"folder{ending}"
    folder.mkdir()
    with pytest.raises(InvalidInputError, match="Is a directory"):
        from_file(folder)


def test_empty_cells_of_parquet(tmp_path: Path) -> None:
    file = write(tmp_path, ".parquet", [("a", "b"), ("c", None), ("d", "e")])
    with pytest.raises(InvalidInputError, match="row 2: 'output' is empty"):
        from_file(file)


# Data sets ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cache = tmp_path_factory.mktemp("datasets-cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    datasets.disable_progress_bars()


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_folder_as_a_data_set(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder, ending)
    task = from_dataset(str(folder), template="{input}={output};")
    assert (task.name, task.pairs) == ("mine", PAIRS)
    assert task.template.demonstration("a", "b") == "a=b;"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Sentences with class labels, one row without a label and one without a sentence."""
    import datasets

    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows: dict[str, list[Any]] = {
        "sentence": ["a", "b", "c", None, "d", " "],
        "label": [1, 0, -1, 1, 1, 0],
    }
    folder = tmp_path / "reviews"
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")
    return folder


def test_class_labels_become_their_names(labelled: Path) -> None:
    task = from_dataset(str(labelled), input="sentence", output="label")
    assert task.pairs == (("a", "good"), ("b", "bad"), ("d", "good"))
    backwards = from_dataset(str(labelled), input="label", output="sentence")
    assert backwards.pairs == tuple((label, text) for text, label in task.pairs)


def test_a_plain_minus_one_is_a_number(tmp_path: Path) -> None:
    write(tmp_path, ".jsonl", [("zero", 0), ("below zero", -1)])
    assert from_dataset(str(tmp_path)).pairs == (("zero", "0"), ("below zero", "-1"))


def test_a_limit_covers_the_whole_data_set(tmp_path: Path) -> None:
    # Sorted by label, as many are: the first rows would have one label only.
    write(tmp_path, ".jsonl", [(f"text {row}", row // 50) for row in range(100)])
    task = from_dataset(str(tmp_path), limit=10)
    assert len(task.pairs) == 10
    assert task.answers == {"0": 5, "1": 5}
    assert len(from_dataset(str(tmp_path), limit=None).pairs) == 100


def test_wrong_columns_splits_and_values(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the column 'input', 'output', got: sentence, la"):
        from_dataset(str(labelled))
    with pytest.raises(InvalidInputError, match=r"split 'test'.*train"):
        from_dataset(str(labelled), split="test", input="sentence", output="label")
    nested = tmp_path / "nested"
    nested.mkdir()
    write(nested, ".jsonl", [("a", ["b"]), ("c", ["d"])])
    with pytest.raises(
        InvalidInputError, match="row 1: 'output' must be text or a number, got a list"
    ):
        from_dataset(str(nested))


@pytest.mark.parametrize("name", ["no-such/data-set", "nosuch"])
def test_a_hub_that_cannot_be_reached(name: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        from_dataset(name)
    message = str(error.value)
    assert f"'{name}'" in message
    assert "--data FILE" in message
    assert "\n" not in message


def test_an_empty_folder_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot load data set") as error:
        from_dataset(str(tmp_path))
    assert "offline" not in str(error.value)


# Running text -------------------------------------------------------------------------------


def test_running_text(tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    file.write_bytes("\ufeffOnce upon\na time.\n\n\n\nThe end.\n".encode())
    task = text_from_file(file, window=4)
    assert (task.name, task.window) == ("story", 4)
    assert [text.strip() for text in task.texts] == ["Once upon\na time.", "The end."]
    listed = tmp_path / "texts.json"
    listed.write_text('["one\\n\\ntext", "another"]', "utf-8")
    assert text_from_file(listed).texts == ("one\n\ntext", "another")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b"\n \n", "holds no text"),
        ("a.txt", b"caf\xe9", "not UTF-8"),
        ("a.json", b'{"a": "b"}', "a JSON list of strings"),
        ("a.json", b'["a", 1]', "a JSON list of strings"),
        ("a.json", b"[]", "holds no text"),
        ("a.json", b"[", "not valid JSON"),
    ],
)
def test_wrong_text(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InvalidInputError) as error:
        text_from_file(file)
    assert words in str(error.value)
