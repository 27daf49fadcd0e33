"""``ed-interp adapter``: training, looking, exporting and merging from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PAIRS = [(f"word{k}", "yes" if k % 2 else "no") for k in range(20)]


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A file of pairs."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"input": a, "output": b}) + "\n" for a, b in PAIRS))
    return file


@pytest.fixture
def command(tiny_folder: Path, pairs: Path) -> list[str]:
    """Training of 12 steps; ``--out`` is for the test to say."""
    line = ["adapter", "train", "--model", str(tiny_folder), "--data", str(pairs), "--quiet"]
    return [*line, "--batch-size", "4", "--max-steps", "12", "--eval-steps", "3"]


def test_a_killed_process_is_continued(
    tmp_path: Path, command: list[str], cli: Any, environment: dict[str, str]
):
    command += ["--method", "lora", "--dropout", "0.1", "--max-steps", "40"]
    line = [sys.executable, "-m", "ed_interp", *command, "--out", str(tmp_path / "cut")]
    killed = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE)
    checkpoints = tmp_path / ".cut.partial" / "work"
    while not list(checkpoints.glob("checkpoint-*/complete.json")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "cut").exists()
    for out in ("cut", "whole"):
        assert cli(*command, "--out", tmp_path / out).status == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_train_show_and_refusals(tmp_path: Path, command: list[str], cli: Any):
    done = cli(*command, "--out", tmp_path / "ck", "--nodes", "3", "--tau", "9", "--json")
    assert done.status == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["method"] == "bias-injection"
    assert record["steps"] == 12
    assert record["adapter"]["n_nodes"] == 3
    shown = cli("adapter", "show", tmp_path / "ck", "--json")
    found = json.loads(shown.stdout)
    assert found["parameters"] == record["parameters"]["trained"]
    assert found["fingerprint"] == record["adapter_sha256"]
    assert found["taus"]["count"] == 6
    text = cli("adapter", "show", tmp_path / "ck")
    assert "time constants" in text.stdout
    for verb in ("merge", "export"):
        refused = cli("adapter", verb, tmp_path / "ck", "--out", tmp_path / verb)
        assert refused.status == 2
        assert "feedback" in refused.error
        assert not (tmp_path / verb).exists()
    plain = cli("adapter", "export", tmp_path / "ck", "--out", tmp_path / "l", "--drop-feedback")
    assert plain.status == 0
    merged = cli("adapter", "merge", tmp_path / "l", "--out", tmp_path / "m", "--json")
    assert json.loads(merged.stdout)["folder"] == str(tmp_path / "m")
    assert (tmp_path / "m" / "config.json").is_file()
    again = cli(*command, "--out", tmp_path / "ck")
    assert again.status == 1
    assert "exists" in again.error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "lira"], "did you mean lora"),
        (["--layers", "a-b"], "--layers must be whole numbers"),
        (["--lr-nodes", "-1"], "--lr-nodes must be 0 or greater, got -1"),
        (["--tau", "0"], "--tau must be greater than 0"),
        (["--batch-size", "0"], "--batch-size must be 1 or greater"),
        (["--patience", "2", "--eval-share", "0"], "--patience must come with held-out examples"),
        (["--method", "lora", "--nodes", "3"], "got nodes"),
        (["--input-column", "question"], "must have a column 'question'"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["--model", "./nowhere"], "the folder does not exist"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, command: list[str], cli: Any, options: list[str], message: str
):
    outcome = cli(*command, "--out", tmp_path / "ck", *options)
    assert outcome.status == 2
    assert message in outcome.error
    assert not (tmp_path / "ck").exists()


@pytest.mark.parametrize("verb", ["show", "merge", "export"])
def test_folders_that_hold_no_adapter(tmp_path: Path, cli: Any, verb: str):
    rest = [] if verb == "show" else ["--out", tmp_path / "out"]
    outcome = cli("adapter", verb, tmp_path, *rest)
    assert outcome.status == 2
    assert "adapter_config.json" in outcome.error
