"""``ed-interp features show``, ``emergence`` and ``explain``, as a person would see them."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def where(tmp_path, tiny_model, tiny_tokenizer, tiny_folder):
    """A dictionary of the tiny model, and the options that name its model and a text."""
    from ed_interp.models.load import load
    from ed_interp.probes import dictionaries

    words = ["red", "blue", "cat", "sees", "the", "dog", "."]
    lines = [" ".join(words[(n * 3 + m) % 7] for m in range(5 + n % 9)) for n in range(200)]
    (tmp_path / "text.json").write_text(json.dumps(lines))
    dictionaries.train(
        load(tiny_model, tokenizer=tiny_tokenizer),
        site="blocks.0.hook_resid_post",
        text=lines,
        latents=32,
        k=4,
        tokens=2048,
        batch_size=128,
        out=tmp_path / "SAE",
    )
    return [tmp_path / "SAE", "--model", tiny_folder, "--quiet"]


def test_show_prints_features_and_writes_the_page(cli, where, tmp_path):
    page = tmp_path / "page.html"
    text = ["--text", tmp_path / "text.json", "--tokens", "400", "--clamp-contexts", "1"]
    done = cli("features", "show", *where, *text, "--html", page, "--feature", "3", "--json")
    assert done.status == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["latents"], told["features"][0]["index"]) == (32, 3)
    assert page.read_text("utf-8").startswith("<!doctype html>")
    again = cli("features", "show", *where, *text, "--html", page)
    assert again.status == 1
    assert "exists; pass another --html, or --overwrite" in again.error
    plain = cli("features", "show", *where, *text, "--feature", "3")
    assert plain.stdout.startswith("\nFeature 3")
    best = cli("features", "show", *where, *text)
    assert "of highest score" in best.stdout


def test_emergence_of_features(cli, where, tmp_path):
    sizes = ["--task", "country-capital", "--shots", "0,1", "--prompts", "20"]
    done = cli(
        "features", "emergence", *where, *sizes, "--permutations", "20", "--out", tmp_path / "F",
        "--json",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["shots"] for row in told["rows"]] == [0, 1]
    assert told["about"] == "answer"
    assert {"run.json", "features.png", "report.html"} <= {
        f.name for f in (tmp_path / "F").iterdir()
    }


def test_explain(cli, where, tmp_path):
    text = ["--text", tmp_path / "text.json", "--tokens", "1500"]
    done = cli("features", "explain", *where, *text, "--out", tmp_path / "scores")
    assert done.status == 0, done.stderr
    assert "0.5 is chance" in done.stdout
    assert json.loads((tmp_path / "scores" / "run.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--feature", "32"], "feature must be 0 to 31"),
        (["show", "--site", "blocks.7.hook_resid_post"], "the model has 2 blocks"),
        (
            ["emergence", "--checkpoints", "x"],
            "--checkpoints must be training steps or all, got 'x'",
        ),
        (["emergence", "--checkpoints", "1"], "without training checkpoints"),
        (
            ["emergence", "--about", "mood", "--prompts", "8"],
            "--about must be one of auto, answer or relation",
        ),
        (["explain", "--feature", "99"], "feature must be 0 to 31"),
    ],
)
def test_bad_input_is_one_line_and_status_2(cli, where, arguments, message):
    verb, *options = arguments
    done = cli("features", verb, *where, *options)
    assert done.status == 2
    assert message in done.error
