"""Whatever is wrong: one clear line, the right exit status, nothing half-written."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ed_interp

Cli = Callable[..., Any]

WRONG = [
    # (arguments, words of the line); all of exit status 2
    ("--model no-such/model", "'no-such/model' local folder hub"),
    ("--model ./nowhere", "nowhere folder does not exist"),
    ("--model .", "config.json"),
    ("--tokenizer no-such/tokenizer", "tokenizer 'no-such/tokenizer'"),
    ("--task country-captial", "unknown task 'country-captial' country-capital"),
    ("--task ''", "unknown task ''"),
    ("--estimator smooth", "unknown estimator 'smooth' smoothed"),
    ("--path pack", "--path 'pack' packed prefix separate"),
    ("--normalisation rmsnorm", "--normalisation 'rmsnorm' layernorm rms"),
    ("--single-position one", "--single-position 'one' zero original"),
    ("--dtype float8", "--dtype 'float8' bfloat16"),
    ("--device gpu", "device must be 'gpu' cpu"),
    ("--shots x", "--shots 'x' 0-8"),
    ("--shots=-1", "--shots 0 or greater -1"),
    ("--shots 3-1", "--shots 3-1 ascending"),
    ("--shots 1,,2", "--shots '1,,2' 0-8"),
    ("--shots ''", "--shots '' 0-8"),
    ("--shots 0-", "--shots '0-' 0-8"),
    ("--shots 1.5", "--shots '1.5' 0-8"),
    ("--shots ²", "--shots 0-8"),
    ("--shots 0-99999999999", "--shots ascending"),
    ("--task country --shots 1-26", "26 shots 'country' 25 entities at most 25"),
    ("--task country --shots 0-3", "0 shots 'country' start at 1"),
    ("--shots 0-46", "46 shots 'country-capital' 46 pairs at most 45"),
    ("--shots 0-45", "45 shots tokens context window of 256 fewer shots"),
    ("--prompts 0", "--prompts 0"),
    ("--prompts 1", "--prompts 1"),
    ("--noise 1 --beta 1", "noise and beta"),
    ("--noise 0", "--noise greater than 0, got 0.0"),
    ("--noise nan", "--noise nan"),
    ("--noise=-1", "--noise -1.0"),
    ("--noise inf", "--noise inf"),
    ("--beta 0", "--beta 0.0"),
    ("--beta nan", "--beta nan"),
    ("--level 0", "--level greater than 0 and less than 1 0.0"),
    ("--level 1", "--level greater than 0 and less than 1 1.0"),
    ("--level nan", "--level finite nan"),
    ("--resamples 0", "--resamples 0"),
    ("--batch-size 0", "--batch-size 0"),
    ("--seed=-1", "--seed -1"),
    (f"--seed {2**64}", "--seed"),
    ("--text t.txt --window 0", "--window 0"),
    ("--text t.txt --window 2 --shots 1-4", "1 to 4 window of 2"),
    ("--text t.txt --window 200", "0 window(s) of 200 tokens shorter window"),
    ("--text t.txt --template '{input}{output}'", "template text"),
    ("--text empty.txt", "'empty' holds no text"),
    ("--text nowhere.txt", "nowhere.txt does not exist"),
    ("--template x", "template 'x' {input} {output}"),
    ("--template '{output}{input}'", "{input} once and then {output}"),
    ("--template ''", "template '' {input}"),
    ("--task country --template '{input} {output}'", "'country' list template"),
    ("--task country --data pairs.csv", "task and data one source"),
    ("--data pairs.csv --text t.txt", "data and text one source"),
    ("--window 4", "window text"),
    ("--split test", "split dataset"),
    ("--data pairs.csv --config x", "config dataset"),
    ("--input-column q", "--input-column --data --dataset"),
    ("--data nowhere.csv", "nowhere.csv does not exist"),
    ("--data nowhere.parquet", "nowhere.parquet does not exist"),
    ("--data .", "cannot tell the format"),
    ("--data empty.csv", "empty.csv is empty at least 2 rows"),
    ("--data one.csv", "'one' 1 usable pair at least 2"),
    ("--data columns.csv", "'input' 'output' 'q' 'a' --input-column"),
    ("--data pairs.csv --shots 0-9", "9 shots 3 pairs at most 2"),
    ("--data pairs.xyz", "'.xyz' .jsonl .csv .parquet"),
    ("--data latin.csv", "latin.csv not UTF-8 byte 16"),
    ("--data damaged.jsonl", "damaged.jsonl line 2 JSON"),
    ("--data damaged.parquet", "damaged.parquet Parquet"),
    ("--dataset no-such/set", "'no-such/set' --data FILE"),
    ("--revision main --checkpoint 3", "--checkpoint"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files to go wrong with."""
    (tmp_path / "t.txt").write_text("the cat sat on the mat", "utf-8")
    (tmp_path / "empty.txt").write_text("\n\n", "utf-8")
    (tmp_path / "pairs.csv").write_text("input,output\na,b\nc,d\ne,f\n", "utf-8")
    (tmp_path / "pairs.xyz").write_text("input,output\na,b\nc,d\n", "utf-8")
    (tmp_path / "empty.csv").write_text("", "utf-8")
    (tmp_path / "one.csv").write_text("input,output\na,b\n", "utf-8")
    (tmp_path / "columns.csv").write_text("q,a\nx,y\nz,w\n", "utf-8")
    (tmp_path / "latin.csv").write_bytes(b"input,output\ncaf\xe9,b\nc,d\n")
    (tmp_path / "damaged.jsonl").write_text('{"input":"a","output":"b"}\n{"input":', "utf-8")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    return tmp_path


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[case for case, _ in WRONG])
def test_what_does_not_exist_is_refused(
    cli: Cli, small: list[str], folder: Path, arguments: str, words: str
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    # Prompts first and shots last: the case under test overrides both.
    given = shlex.split(arguments)
    if not any(word.startswith(("--shots", "--task", "--text")) for word in given):
        given += ["--shots", "0-1"]
    result = cli(*small, *given, "--out", "run")
    assert (result.status, result.stdout) == (2, "")
    for word in words.split():
        assert word in result.error
    assert len(result.error) < 600
    assert sorted(path.name for path in folder.iterdir()) == before


def test_an_unknown_model_names_the_bundled_ones(cli: Cli, small: list[str]) -> None:
    line = cli(*small, "--model", "gpt-17").error
    assert all(name in line for name in ed_interp.bundled_names())
    assert "local folder" in line


def test_a_device_that_is_not_there(cli: Cli, small: list[str]) -> None:
    import torch

    device = "mps" if not torch.backends.mps.is_available() else "cuda"
    result = cli(*small, "--device", device)
    assert (result.status, f"'{device}'" in result.error) == (2, True)


def _save(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "arguments", [["--shots", "0-1"], ["--task", "country", "--shots", "1-2"]], ids=["task", "list"]
)
def test_nan_weights_are_an_error_and_not_a_curve(
    cli: Cli,
    small: list[str],
    tiny_model: Any,
    tiny_tokenizer: Any,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    import copy

    damaged = copy.deepcopy(tiny_model)
    damaged.transformer.h[1].mlp.c_fc.weight.data[3, 5] = float("nan")
    source = _save(tmp_path / "damaged", damaged, tiny_tokenizer)
    result = cli(*small, "--model", source, *arguments, "--json", "--out", "run")
    assert (result.status, result.stdout) == (1, "")
    assert "damaged" in result.error
    assert "NaN" in result.error
    assert not (tmp_path / "run").exists()


def test_labels_that_give_no_tokens(
    cli: Cli, small: list[str], tiny_model: Any, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # Without bytes to fall back on and without an unknown token, this drops what it does not know.
    letters = {letter: number for number, letter in enumerate("abcdefgh=;")}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    source = _save(
        tmp_path / "letters", tiny_model, PreTrainedTokenizerFast(tokenizer_object=backend)
    )
    (tmp_path / "pairs.csv").write_text("input,output\na,b\nc,☃\ne,f\n", "utf-8")
    arguments = ["--data", "pairs.csv", "--shots", "0-1", "--template", "{input}={output};"]
    result = cli(*small, "--model", source, *arguments)
    assert (result.status, result.stdout) == (2, "")
    assert "'☃' has no tokens" in result.error


def test_a_model_without_tokenizer(
    cli: Cli, small: list[str], tiny_model: Any, tmp_path: Path
) -> None:
    tiny_model.save_pretrained(tmp_path / "mute")
    result = cli(*small, "--model", tmp_path / "mute", "--shots", "0-1")
    assert (result.status, result.stdout) == (2, "")
    assert "tokenizer" in result.error
