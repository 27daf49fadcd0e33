"""``ed-interp features train`` and ``measure``, as a person would see them."""

from __future__ import annotations

import json

import pytest

SIZES = ["--latents", "48", "--k", "4", "--tokens", "1024", "--batch-size", "128"]
SITE = ["--site", "blocks.0.hook_resid_post"]


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.json"
    words = ["red", "blue", "cat", "sees", "the", "dog", "."]
    lines = [" ".join(words[(n * 3 + m) % 7] for m in range(5 + n % 9)) for n in range(120)]
    file.write_text(json.dumps(lines))
    return str(file)


def test_train_then_measure(cli, tiny_folder, text, tmp_path):
    where = ["--model", tiny_folder, "--text", text, "--quiet"]
    done = cli("features", "train", *where, *SITE, *SIZES, "--out", tmp_path / "SAE", "--json")
    assert done.status == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["latents"], told["width"], told["architecture"]) == (48, 32, "topk")
    assert len(told["history"]) == 8
    assert {entry.name for entry in (tmp_path / "SAE").iterdir()} == {
        "README.md",
        "cfg.json",
        "history.parquet",
        "run.json",
        "sae_weights.safetensors",
        "settings.json",
    }
    again = cli("features", "train", *where, *SITE, *SIZES, "--out", tmp_path / "SAE")
    assert again.status == 1
    assert "exists; pass another --out, or --overwrite" in again.error
    sizes = ["--tokens", "600", "--ce-tokens", "200", "--out", tmp_path / "M"]
    found = cli("features", "measure", tmp_path / "SAE", *where, *sizes, "--json")
    assert found.status == 0, found.stderr
    numbers = json.loads(found.stdout)["summary"]
    assert numbers["latents"] == 48
    assert 0 < numbers["l0"] <= 4
    assert (tmp_path / "M" / "features.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latents", "8", "--k", "9"], "--k must be at most latents (8), got 9"),
        (["--arch", "tpk"], "unknown architecture 'tpk'; did you mean topk"),
        (["--site", "blocks.9.hook_resid_post"], "the model has 2 blocks"),
        (["--tokens", "40"], "--tokens must not be fewer than latents (48)"),
        (["--option", "l1"], "--option must be NAME=VALUE, got 'l1'"),
        (["--column", "text"], "--column must come with --dataset"),
        (["--text", "none.txt"], "none.txt does not exist"),
        (["--task", "contry"], "unknown task 'contry'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(cli, tiny_folder, tmp_path, arguments, message):
    done = cli(
        "features", "train", "--model", tiny_folder, "--quiet", *SITE, *SIZES, *arguments,
        "--out", tmp_path / "SAE",
    )  # fmt: skip
    assert done.status == 2
    assert message in done.error
    assert not (tmp_path / "SAE").exists()


def test_measuring_what_is_not_there(cli, tmp_path):
    done = cli("features", "measure", tmp_path / "SAE")
    assert done.status == 2
    assert "there is no folder" in done.error


def test_the_wrong_model(cli, tiny_folder, text, tmp_path):
    where = ["--model", tiny_folder, "--text", text, "--quiet"]
    cli("features", "train", *where, *SITE, *SIZES, "--out", tmp_path / "SAE")
    done = cli("features", "measure", tmp_path / "SAE", "--model", "icl-gpt2", "--quiet")
    assert done.status == 2
    assert "width 32" in done.error
    assert "128 channels" in done.error
