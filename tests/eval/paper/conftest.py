"""Small records, written by the functions that write real ones."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ed_interp.eval.paper.page import render
from ed_interp.eval.paper.records import read_records
from ed_interp.eval.paper.template import MARK, Draft
from ed_interp.eval.paper.values import Picture
from ed_interp.eval.paper.write import make_draft, read_template

TEMPLATE = read_template()
FAILED = "InvalidInputError: rank <b>too</b> high | see [this](javascript:alert(1)) `x`"
MODEL = {
    "name": "icl-gpt2", "family": "gpt2", "fingerprint": "4896e8bccbb349d2", "n_layers": 4,
    "d_model": 128, "dtype": "float32", "device": "cpu", "basis": "raw weights",
}  # fmt: skip


def comparison() -> Any:
    """An adapter that helps one task and harms another relation, both beyond doubt."""
    from ed_interp.eval.compare.result import Comparison
    from ed_interp.eval.compare.rows import (
        Adaptivity,
        Context,
        Cost,
        Decay,
        Effect,
        Forgetting,
        Identity,
        Turn,
    )

    def effect(family: str, name: str, metric: str, shots: int | None, change: float) -> Effect:
        sure = abs(change) > 0.1
        ends = (change - 0.05, change + 0.0625) if sure else (-0.21, 0.19)
        p_value = 0.00037 if sure else 0.61
        return Effect(
            family, name, metric, shots, 0.25, 0.25 + change, change, *ends, p_value,
            p_value * 1.5, "McNemar" if metric == "accuracy" else "sign-flip", 23,
            watched=family == "relation",
        )  # fmt: skip

    effects = (
        effect("behaviour", "country-capital", "accuracy", 0, 0.4375),
        effect("behaviour", "country-capital", "accuracy", 2, 0.03125),
        effect("behaviour", "country-capital", "logprob", 0, 1.125),
        effect("relation", "sentiment", "logprob", None, -0.8125),
        effect("forgetting", "neutral text", "cross_entropy", None, 0.0125),
        effect("emergence", "block 3", "emergence", 2, 0.71875),
    )
    context = Context(1, 7, "we found the", " hotel", 2.53, -0.11, -4.91, (" hotel",), (" awful",))
    turns = (
        Turn(0, -2.5, -2.75, -2.25, 0.5, -2.5, 0.0, 0.0, 0.0, 6),
        Turn(2, -1.5, -1.75, -1.25, 0.75, -2.5, 1.0, 0.8125, 1.1875, 6),
    )
    adapter = {
        "peft_type": "BIAS_INJECTION",
        "r": 4,
        "n_nodes": 3,
        "tau": None,
        "feedback": "input",
    }
    return Comparison(
        control={"name": "icl-gpt2", "kind": "frozen", "model": MODEL},
        treated={"name": "bias-injection", "kind": "adapter", "model": MODEL, "adapter": adapter},
        task="country-capital",
        effects=effects,
        forgetting=Forgetting(1.1938, 1.2063, 0.0461, 0.0377, 0.0587, 0.6864, 20, 1462, (context,)),
        cost=Cost(1121024, 1138960, 17936, 74816, 6.79, 20, 6042960, 6114704, 1.507, 1.397, 1.773),
        identity=Identity(True, True, 0.0, True),
        adaptivity=Adaptivity(
            turns, (Decay(0.0, 1.0), Decay(8.0, 0.375)), 8.0, 5.545, 5.71, True, 0.5, 2.8e-5
        ),
        settings={"level": 0.95, "prompts": 23, "seed": 0},
    )


def put(result: Any, folder: Path) -> Path:
    """The record of a result, without its pictures and its page."""
    from ed_interp.records import environment
    from ed_interp.records.files import write_json

    folder.mkdir(parents=True, exist_ok=True)
    header = {"format": f"ed-interp/{result.KIND}", "version": result.VERSION}
    write_json(folder / result.FILE, {**header, **result.to_dict(), "environment": environment()})
    return folder


def trials() -> list[Any]:
    """The arm under test beats the random direction beyond doubt, and LoRA not."""
    from ed_interp.eval.study.rows import TrialRow

    levels = {"bias-injection": 0.75, "frozen": 0.3125, "lora": 0.71875, "random": 0.28125}
    rows = [
        TrialRow(
            "bias-injection", 0.003, 0, True, "done", eval_loss=0.1331, steps=20, seconds=9.25
        ),
        TrialRow("lora", 0.003, 0, True, "done", eval_loss=0.1472, steps=20, seconds=7.75),
        TrialRow("lora", 0.01, 0, True, "failed", FAILED, attempt=2),
        TrialRow("random", 1.0, 0, True, "done", eval_loss=1.4427),
    ]
    for arm, level in levels.items():
        for seed in (0,) if arm == "frozen" else (0, 1, 2):
            # LoRA swings too much between seeds for a difference of its mean to be supported.
            swing = (-0.25, 0.3125, 0.03125)[seed] if arm == "lora" else 0.0078125 * seed
            accuracy = level + swing
            rows.append(
                TrialRow(
                    arm,
                    0.003,
                    seed,
                    False,
                    "done",
                    steps=20,
                    seconds=9.5,
                    parameters=17936,
                    attempt=2 if (arm, seed) == ("random", 1) else 1,
                    neutral=True if arm in ("lora", "bias-injection") else None,
                    shots=(0, 2),
                    accuracy=(accuracy, accuracy),
                    accuracy_change=(swing, swing),
                    logprob=(-level - swing, -level - 2 * swing),
                    logprob_change=(0.0, 0.0),
                    forgetting=0.0 if arm == "frozen" else 0.0625 + 0.001953125 * seed,
                    divergence=0.0461,
                    harmed=("sentiment",) if seed == 1 else (),
                )
            )
    return rows


def write_study(folder: Path) -> Path:
    """A controlled study with the comparison and the adapter of the arm under test."""
    from ed_interp.eval.study.arms import ARMS
    from ed_interp.eval.study.options import StudyOptions
    from ed_interp.eval.study.result import Study
    from ed_interp.eval.study.rows import StudiedArm
    from ed_interp.eval.study.summary import summarise

    controls = ("lora", "random")
    options = StudyOptions(
        model="icl-gpt2", task="country-capital", controls=controls, shots=(0, 2), seeds=3,
        rates=(0.003,), steps=20,
    )  # fmt: skip
    problem = {
        "name": "country-capital", "about": "answer country-capital at once", "shots": [0, 2],
        "examples": 32, "trained": 32, "asked": 14, "held_out": 0.3,
    }  # fmt: skip
    arms = [
        StudiedArm(**vars(ARMS[name]), parameters=17936, sweep=(0.003,))
        for name in ("bias-injection", "frozen", *controls)
    ]
    settings = {
        "options": options.to_dict(),
        "command": "ed-interp compare --task country-capital --out RUN",
    }
    rows = tuple(trials())
    best = {"bias-injection": 0.003, "lora": 0.003, "random": 1.0}
    summary = summarise(rows, "bias-injection")
    made = Study(MODEL, problem, "bias-injection", arms, best, rows, summary, settings)
    put(made, folder)
    put(comparison(), folder / "comparisons" / made.first.name)
    write_adapter(folder / "adapters" / made.first.adapter)
    return folder


def write_adapter(folder: Path) -> Path:
    """An adapter as ``ed-interp adapter train`` leaves it."""
    import torch
    from safetensors.torch import save_file

    from ed_interp.adapters.bias_injection import BiasInjectionConfig
    from ed_interp.records import environment
    from ed_interp.records.files import write_json

    folder.mkdir(parents=True)
    name = "base_model.model.transformer.h.0.attn.c_attn.bias_injection_"
    weights = {"A": torch.ones(2, 3), "B": torch.zeros(3, 2), "log_tau": torch.tensor([1.0, 2.0])}
    save_file({name + key: value for key, value in weights.items()},
              folder / "adapter_model.safetensors")  # fmt: skip
    config = BiasInjectionConfig(r=2, n_nodes=2, target_modules=["c_attn"])
    config.base_model_name_or_path = "icl-gpt2"
    config.save_pretrained(folder)
    history = [
        {"step": 1, "epoch": 0.5, "loss": 1.5402, "eval_loss": 0.0351, "learning_rate": 0.0},
        {"step": 20, "epoch": 5.0, "loss": 0.0708, "eval_loss": 0.0492, "learning_rate": 9e-05},
    ]
    record = {
        "format": "ed-interp/adapter-training", "version": 1, "name": folder.name, "model": MODEL,
        "method": "bias-injection", "adapter": {"r": 2, "n_nodes": 2},
        "training": {"lr_lora": 0.003, "lr_nodes": 0.003, "lr_tau": 0.01, "schedule": "cosine"},
        "data": {"name": "examples", "sha256": "bfb1a3", "training": 26, "held_out": 6},
        "card": {"licence": None, "data_licence": None, "base_licence": None, "description": None},
        "steps": 20, "stopped": "all of them", "loss": 0.0708, "eval_loss": 0.0492,
        "history": history, "parameters": {"trained": 17936, "all": 1138960},
        "base_sha256": "838afa", "adapter_sha256": "a32667", "environment": environment(),
    }  # fmt: skip
    write_json(folder / "training.json", record)
    return folder


def curve() -> Any:
    from ed_interp.probes.emergence.curve import BehaviourRow, EmergenceCurve, EmergenceRow

    rows = [
        EmergenceRow(
            layer,
            shots,
            e,
            e - 0.0937,
            e + 0.0813,
            e + 2.0,
            2.0,
            3.17,
            6.64,
            0.4219,
            ("saturated",) if shots == 4 else (),
        )
        for layer in (0, 1)
        for shots, e in ((0, 0.5391 + layer), (4, 1.7148 + layer))
    ]
    behaviour = [
        BehaviourRow(s, a, a - 0.06, a + 0.05, -2.27, -2.41, -2.13, 3.0, 0.19, g, g - w, g + w, 48)
        for s, a, g, w in ((0, 0.23, 0.0, 0.0), (4, 0.81, 0.58, 0.11))
    ]
    settings = {"model": MODEL, "population": {"prompts": 48}, "command": "ed-interp emergence"}
    return EmergenceCurve("icl-gpt2", "mixed-country", "smoothed", 1.513, tuple(rows),
                          tuple(behaviour), settings=settings)  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of records: ``study`` and ``curve``."""
    root = tmp_path_factory.mktemp("records")
    write_study(root / "study")
    put(curve(), root / "curve")
    return root


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """A copy of the study that a test may change."""
    return Path(shutil.copytree(made / "study", tmp_path / "study"))


@pytest.fixture(scope="session")
def written(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper of all records."""
    from ed_interp.eval.paper import write_paper

    return write_paper([made], tmp_path_factory.mktemp("paper") / "paper")


def draft(*runs: Path) -> Draft:
    """The rendered template of runs."""
    return make_draft(read_records(runs), TEMPLATE)


@pytest.fixture(scope="session", name="put")
def put_fixture() -> Callable[..., Path]:
    """``put(result, folder)``: its record, written there."""
    return put


@pytest.fixture(scope="session", name="draft")
def draft_fixture() -> Callable[..., Draft]:
    """``draft(run, ...)``: the rendered template of runs."""
    return draft


@pytest.fixture(scope="session")
def section() -> Callable[..., str]:
    """``section(run, ..., heading=...)``: a section as a reader sees it, without its sources."""

    def read(*runs: Path, heading: str) -> str:
        paper = draft(*runs)
        parts = re.split(r"^## (.*)\n", paper.text, flags=re.M)
        body = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
        return paper.filled(body, lambda part: getattr(part, "text", ""))

    return read


@pytest.fixture
def page() -> Callable[..., str]:
    """``page(runs)``: the page of runs, with its pictures left out."""

    def render_page(*runs: Path) -> str:
        paper = draft(*runs)
        parts = dict(enumerate(paper.parts))
        left = lambda mark: "" if isinstance(parts[int(mark[1])], Picture) else mark[0]  # noqa: E731
        return render(dataclasses.replace(paper, text=MARK.sub(left, paper.text)), {})

    return render_page
