"""One bundled model from nothing: tokenizer, training, checkpoints, record and card.

Everything is written to a hidden folder beside the target, which is renamed when it is complete;
an interrupted run leaves nothing.
"""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ed_interp.errors import InvalidInputError, RunFolderError, unknown
from ed_interp.models.recipe.accept import accept, mean_curve, shot_accuracy, text_entropies
from ed_interp.models.recipe.card import model_card
from ed_interp.models.recipe.induction import induction_scores
from ed_interp.models.recipe.tables import held_out
from ed_interp.models.recipe.tokenizer import train_tokenizer
from ed_interp.models.recipe.train import build_model, checkpoint_steps, train

STEPS = {"icl-gpt2": 3000, "icl-gemma2": 3000}
CURVE_EVERY = 200
CURVE_SHOTS = [0, 1, 4, 8]
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "transformer-lens")


def save_checkpoint(model: PreTrainedModel, path: Path) -> None:
    """Writes the weights in half precision, tied ones once."""
    seen: set[int] = set()
    tensors = {}
    for key, value in model.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            tensors[key] = value.detach().to("cpu", torch.float16).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


def curve_point(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> dict[str, Any]:
    """A quick measurement during training; leaves the model in training mode."""
    model.eval()
    accuracy = mean_curve(shot_accuracy(model, tokenizer, seed=seed, shots=CURVE_SHOTS, prompts=6))
    text, _ = text_entropies(model, tokenizer, seed=seed, documents=10)
    scores = induction_scores(model, tokenizer, seed=seed, count=3)
    model.train()
    return {
        "held_out_accuracy": {str(k): round(v, 4) for k, v in accuracy.items()},
        "text_cross_entropy_nats": round(text, 4),
        "induction_score": round(max(max(layer) for layer in scores), 4),
    }


def is_curve_step(step: int, steps: int) -> bool:
    """Whether training is measured at ``step``: regularly, and at every checkpoint."""
    return step in (0, 25, 50, 100, *checkpoint_steps(steps)) or step % CURVE_EVERY == 0


def make(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    steps: int | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> list[str]:
    """Makes the bundled model ``name`` in the new folder ``out``.

    Returns:
        The acceptance criteria that do not hold; empty when the model may ship. The folder is
        written either way, with the same list in its ``recipe.json``.

    Raises:
        UnknownNameError: for a name that is not a bundled model.
        InvalidInputError: for fewer than one step.
        RunFolderError: when ``out`` exists or cannot be made.
    """
    if name not in STEPS:
        raise unknown("bundled model", name, list(STEPS))
    steps = STEPS[name] if steps is None else steps
    if steps < 1:
        raise InvalidInputError(f"asked for {steps} training steps; ask for at least 1")
    if out.exists():
        raise RunFolderError(f"{out} exists; name a new folder, or remove it first")
    tokenizer = train_tokenizer(name, seed=seed)
    model: Any = build_model(name, tokenizer, seed=seed)
    model = model.to(device)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise RunFolderError(f"cannot write to {out.parent}: {error.strerror}") from error
    try:
        failures = _fill(partial, name, model, tokenizer, seed, steps, on_step)
        # mkdtemp and safetensors both write for the owner only.
        partial.chmod(0o755)
        for file in partial.rglob("*.safetensors"):
            file.chmod(0o644)
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return failures


def _fill(
    folder: Path,
    name: str,
    model: Any,
    tokenizer: Any,
    seed: int,
    steps: int,
    on_step: Callable[[int, dict[str, float]], None] | None,
) -> list[str]:
    # Saved before use: a tokenizer keeps the padding and truncation of its last call.
    tokenizer.save_pretrained(folder)
    (folder / "checkpoints").mkdir()
    curve: list[dict[str, Any]] = []
    saved = checkpoint_steps(steps)

    def after(step: int, losses: dict[str, float]) -> None:
        if step in saved:
            save_checkpoint(model, folder / "checkpoints" / f"step-{step:06d}.safetensors")
        if is_curve_step(step, steps):
            rounded = {f"{kind}_loss_nats": round(loss, 4) for kind, loss in losses.items()}
            curve.append({"step": step, **rounded, **curve_point(model, tokenizer, seed=seed)})
        if on_step is not None:
            on_step(step, losses)

    train(name, model, tokenizer, seed=seed, steps=steps, on_step=after)
    model.save_pretrained(folder)
    accepted = accept(model, tokenizer, seed=seed)
    record = {
        "name": name,
        "command": f"python -m ed_interp.models.recipe {name} --out FOLDER --seed {seed} "
        f"--steps {steps}",
        "seed": seed,
        "steps": steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "checkpoint_steps": saved,
        "acceptance": accepted.to_record(),
        "curve": curve,
        "held_out": {k: [list(pair) for pair in v] for k, v in held_out(seed).items()},
    }
    (folder / "recipe.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(record), encoding="utf-8")
    return accepted.failures()
