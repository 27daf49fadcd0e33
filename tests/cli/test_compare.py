"""``ed-interp compare`` as a person would run it."""

from __future__ import annotations

import json

import pytest

from ed_interp.results import load_any


@pytest.fixture
def quick(tiny_folder, tmp_path, monkeypatch):
    """Arguments of a run of seconds, whose page and pictures are left empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ed_interp.report.render", lambda *_: "")
    monkeypatch.setattr("ed_interp.charts.still.png", lambda *_: b"")
    sizes = {
        "--model": tiny_folder, "--seeds": 1, "--rates": "0.001", "--steps": 2, "--batch-size": 2,
        "--prompts": 8, "--watch-prompts": 14, "--texts": 2, "--shots": "0,1",
    }  # fmt: skip
    return [
        "compare",
        "--quiet",
        "--no-emergence",
        *(str(p) for item in sizes.items() for p in item),
    ]


def test_json_and_exit_status(cli, quick, tmp_path):
    done = cli(*quick, "--treated", "random", "--controls", "none", "--json", "--out", "RUN")
    assert done.status == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == load_any(tmp_path / "RUN").to_dict()
    assert record["settings"]["command"].startswith("ed-interp compare")
    assert "written to RUN; open RUN/report.html" in done.stderr

    again = cli(*quick, "--treated", "random", "--controls", "none", "--out", "RUN")
    assert again.status == 1
    assert "exists" in again.error


def test_forgetting_fails_the_command(cli, quick, tmp_path):
    asked = [*quick, "--treated", "random", "--controls", "none"]
    done = cli(*asked, "--fail-on-forgetting", "1000", "--out", "A")
    assert done.status == 0
    assert "Random against the frozen model" in done.stdout
    failed = cli(*asked, "--fail-on-forgetting", "1e-9", "--out", "B")
    record = json.loads((tmp_path / "B" / "run.json").read_text("utf-8"))
    rise = next(row for row in record["summary"] if row["metric"] == "forgetting")["mean"]
    assert rise > 1e-9
    assert failed.status == 1
    assert "random forgets" in failed.stderr
    assert f"{rise:.4f}" in failed.stderr


def test_a_checkpoint_is_compared_with_the_frozen_model(cli, quick, tiny_folder, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    config = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    get_peft_model(base, config).save_pretrained("adapter")
    done = cli(*quick, "--treated", "adapter", "--controls", "none", "--json", "--out", "RUN")
    assert done.status == 0, done.stderr
    (treated,) = [row for row in json.loads(done.stdout)["trials"] if row["arm"] == "treated"]
    assert treated["neutral"] is True
    assert treated["forgetting"] == 0
    assert treated["harmed"] == []
    shown = json.loads(cli("adapter", "show", "adapter", "--json").stdout)
    assert treated["parameters"] == shown["parameters"] > 0
    result = load_any(tmp_path / "RUN")
    # What was wanted and what it cost come first; nothing that was not measured is explained.
    first = result.headline().partition("Made worse")[0]
    assert "log-probability (nats) +0.000 (corrected p 1)" in first
    assert "forgetting (nats per token) +0.000" in first
    assert "±" not in "".join(note for table in result.tables() for note in table.notes)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--treated", "nowhere"], "must be the folder of an adapter, or one of"),
        (["--treated", "."], "has no adapter_config.json"),
        (["--controls", "lore"], "did you mean lora"),
        (["--controls", ","], "--controls must name arms"),
        (["--task", "mixed-country"], "would have to be trained"),
        (["--task", "country-capitol"], "country-capital"),
        (["--rates", "fast"], "--rates must be a finite number, got 'fast'"),
        (["--shots", "many"], "--shots must be whole numbers"),
        (["--fail-on-forgetting", "-1"], "--fail-on-forgetting must be greater than 0"),
        (["--seeds", "0"], "--seeds must be 1 or greater, got 0"),
    ],
)
def test_bad_input_is_one_line(cli, quick, arguments, reason, tmp_path):
    done = cli(*quick, *arguments)
    assert done.status == 2
    assert reason in done.error
    assert not (tmp_path / "ed-interp-runs").exists()
