"""`ed-interp emergence`: what it prints, what it writes, and that a seed repeats it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import ed_interp

Cli = Callable[..., Any]

KEYS = {"model", "task", "estimator", "unit", "noise", "rows", "behaviour"}
ROW = {
    "layer", "shots", "emergence", "ci_low", "ci_high", "macro", "micro", "limit", "untrained",
    "flags",
}  # fmt: skip
BEHAVIOUR = {"shots", "accuracy", "logprob", "rank", "chance", "ci_low", "ci_high", "n"}


def rows(found: Any) -> list[dict[str, Any]]:
    assert found.status == 0, found.stderr
    listed: list[dict[str, Any]] = json.loads(found.stdout)["rows"]
    return listed


def test_json_is_one_object_and_alone_on_stdout(
    cli: Cli, tiny_folder: Path, tmp_path: Path
) -> None:
    sizes = ["--prompts", "30", "--shots", "0-2", "--resamples", "20"]
    out = tmp_path / "run"
    found = cli("emergence", "--model", tiny_folder, *sizes, "--json", "--out", out)
    assert found.status == 0
    assert found.stdout.count("\n") == 1
    data = json.loads(found.stdout)
    assert data.keys() >= KEYS
    assert (data["model"], data["task"]) == ("tiny", "mixed-country")
    assert (data["estimator"], data["unit"]) == ("smoothed", "bits")
    assert data["noise"] > 0
    assert [(row["layer"], row["shots"]) for row in data["rows"]] == [
        (layer, shots) for layer in range(2) for shots in range(3)
    ]
    for row in data["rows"]:
        assert row.keys() >= ROW
        assert row["ci_low"] <= row["emergence"] <= row["ci_high"]
        assert row["emergence"] == pytest.approx(row["macro"] - row["micro"])
        assert isinstance(row["untrained"], float)
    for row in data["behaviour"]:
        assert row.keys() >= BEHAVIOUR
        assert row["ci_low"] <= row["accuracy"] <= row["ci_high"]
        assert row["n"] == 30
    # Progress, and where the run is, go to stderr.
    assert "reading activations" in found.stderr
    assert "untrained twin" in found.stderr
    assert str(out) in found.stderr.replace("\n", "")


def test_the_run_folder_holds_everything(cli: Cli, small: list[str], tmp_path: Path) -> None:
    arguments = [*small, "--shots", "0,2", "--seed", "3", "--json", "--out", tmp_path / "run"]
    found = cli(*arguments)
    assert found.stderr == "written to run; open run/report.html\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {
        "run.json",
        "settings.json",
        "emergence.parquet",
        "behaviour.parquet",
        "emergence.png",
        "report.html",
    }
    printed = json.loads(found.stdout)
    kept = json.loads((run / "run.json").read_text("utf-8"))
    assert all(kept[key] == value for key, value in printed.items())
    assert pd.read_parquet(run / "emergence.parquet")["emergence"].tolist() == [
        row["emergence"] for row in printed["rows"]
    ]
    assert (run / "emergence.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (run / "report.html").read_text("utf-8")

    # Enough to repeat it exactly: versions, seed, fingerprint, every setting, the command itself.
    settings = kept["settings"]
    assert settings["model"]["fingerprint"]
    assert settings["population"]["fingerprint"]
    assert settings["options"]["seed"] == settings["seed"] == 3
    assert kept["environment"]["versions"]["torch"]
    assert settings["command"].split()[:2] == ["ed-interp", "emergence"]
    assert ed_interp.EmergenceCurve.load(run).to_dict() == printed


@pytest.mark.usefixtures("no_pictures")
def test_the_same_seed_gives_the_same_numbers(cli: Cli, small: list[str]) -> None:
    arguments = [*small, "--json", "--shots", "0-2"]
    first = rows(cli(*arguments, "--seed", "1"))
    assert rows(cli(*arguments, "--seed", "1")) == first
    other = rows(cli(*arguments, "--seed", "2"))
    assert [row["emergence"] for row in other] != [row["emergence"] for row in first]
    # Runs without --out count up.
    runs = sorted(path.name for path in Path("ed-interp-runs").iterdir())
    assert runs == [f"tiny-mixed-country-00{number}" for number in (1, 2, 3)]


@pytest.mark.usefixtures("no_pictures")
def test_how_it_is_read_does_not_change_the_numbers(cli: Cli, small: list[str]) -> None:
    arguments = [*small, "--json", "--shots", "0,3"]
    plain = rows(cli(*arguments))
    for change in (["--batch-size", "5"], ["--path", "separate"], ["--path", "prefix"]):
        for row, other in zip(plain, rows(cli(*arguments, *change)), strict=True):
            assert other["emergence"] == pytest.approx(row["emergence"], abs=1e-4)


@pytest.mark.usefixtures("no_pictures")
def test_the_table_shows_what_json_has(cli: Cli, small: list[str]) -> None:
    arguments = [*small, "--shots", "0-2"]
    data = json.loads(cli(*arguments, "--json").stdout)
    text = cli(*arguments).stdout
    for row in data["rows"]:
        assert f"{row['emergence']:.2f}" in text
    for row in data["behaviour"]:
        assert f"{row['logprob']:.2f}" in text
    for flag in {flag for row in data["rows"] for flag in row["flags"]}:
        assert f"{flag}: " in text


@pytest.mark.usefixtures("no_pictures")
def test_lists_text_and_files(cli: Cli, small: list[str], tmp_path: Path) -> None:
    listed = json.loads(cli(*small, "--json", "--task", "colour", "--shots", "1-3").stdout)
    assert (listed["task"], listed["behaviour"]) == ("colour", [])
    assert listed["settings"]["population"]["exact_size"] == 15 * 14 * 13

    (tmp_path / "words.txt").write_text("the cat sat on the mat and the dog ran. " * 5)
    text = json.loads(cli(*small, "--json", "--text", "words.txt", "--window", "5").stdout)
    assert sorted({row["shots"] for row in text["rows"]}) == [1, 2, 3, 4, 5]

    # Markup of the terminal and spaces in a name are only a name.
    (tmp_path / "my [b] pairs.csv").write_text('q,a\n"one, two",x\nthree,y\nfour,x\n')
    arguments = ["--data", "my [b] pairs.csv", "--input-column", "q", "--output-column", "a"]
    found = cli(*small, *arguments, "--shots", "0-2", "--template", r"{input} = {output}\n")
    assert (found.status, "my [b] pairs" in found.stdout) == (0, True)
    assert (tmp_path / "ed-interp-runs" / "tiny-my-b-pairs-001").is_dir()


@pytest.mark.usefixtures("no_pictures")
def test_a_profile_over_noise(cli: Cli, small: list[str]) -> None:
    found = json.loads(
        cli(*small, "--json", "--task", "colour", "--shots", "2", "--noise-profile").stdout
    )
    by_noise = [row for row in found["profile"] if row["layer"] == 1]
    assert len({row["noise"] for row in by_noise}) == len(by_noise) > 3
    macro = [row["macro"] for row in sorted(by_noise, key=lambda row: row["noise"])]
    assert macro[0] > macro[-1]


@pytest.mark.usefixtures("no_pictures")
def test_fewer_prompts_than_answers_works_and_is_flagged(cli: Cli, small: list[str]) -> None:
    found = rows(cli(*small, "--json", "--shots", "0-1"))  # 24 prompts, 46 capitals
    assert all("fewer-prompts-than-answers" in row["flags"] for row in found)
    found = rows(cli(*small, "--json", "--shots", "0-1", "--task", "country-continent"))
    assert not any("fewer-prompts-than-answers" in row["flags"] for row in found)


@pytest.mark.usefixtures("no_pictures")
def test_activations_are_kept_on_demand(cli: Cli, small: list[str], tmp_path: Path) -> None:
    assert cli(*small, "--shots", "1", "--keep-activations", "--out", "run").status == 0
    shards = list((tmp_path / "run" / "work" / "activations" / "trained").glob("*.safetensors"))
    assert shards
