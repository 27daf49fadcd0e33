"""One bundled model from nothing: tokenizer, training, checkpoints, record and card.

The folder appears when it is complete; an interrupted run leaves nothing.
"""

import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.models.recipe.accept import (
    accept,
    induction_scores,
    mean_curve,
    shot_accuracy,
    text_entropies,
)
from ed_interp.models.recipe.tables import held_out
from ed_interp.models.recipe.train import (
    FACTS_FIRST,
    NAMES,
    build_model,
    checkpoint_steps,
    train,
    train_tokenizer,
)
from ed_interp.records.files import strict_json, write_text
from ed_interp.records.folders import RunFolder

STEPS = 3000
CURVE_EVERY = 200
CURVE_SHOTS = [0, 1, 4, 8]
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "transformer-lens")
ARCHITECTURES = {
    "icl-gpt2": "GPT-2 (4 blocks, width 128, 4 heads, 256 learned positions)",
    "icl-gemma2": "Gemma 2 (4 blocks, width 128, 4 heads over 2 key-value heads, head width 32, "
    "every other block in a window of 64 tokens, context of 256)",
}


def save_checkpoint(model: PreTrainedModel, path: Path) -> None:
    """Write the weights in half precision, tied ones once."""
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
    """A quick measurement during training; the model is in training mode afterwards."""
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
    steps: int = STEPS,
    overwrite: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> list[str]:
    """Make the bundled model ``name`` in the folder ``out``.

    Returns the acceptance criteria that do not hold; empty if the model may ship. The folder is
    written either way, with the same list in its ``recipe.json``.
    """
    if name not in NAMES:
        raise unknown("bundled model", name, NAMES)
    if steps < 1:
        raise InvalidInputError(f"steps must be 1 or greater, got {steps}")
    saved, settings = checkpoint_steps(steps), {"name": name, "seed": seed, "steps": steps}
    curve: list[dict[str, Any]] = []
    with RunFolder.open(out, settings, overwrite=overwrite, resumable=False) as run:
        tokenizer = train_tokenizer(name, seed=seed)
        # Saved before use: a tokenizer keeps the padding and truncation of its last call.
        tokenizer.save_pretrained(run.folder)
        model: Any = build_model(name, tokenizer, seed=seed)
        model = model.to(device)
        checkpoints = run.folder / "checkpoints"
        checkpoints.mkdir()

        def after(step: int, losses: dict[str, float]) -> None:
            if step in saved:
                save_checkpoint(model, checkpoints / f"step-{step:06d}.safetensors")
            if is_curve_step(step, steps):
                rounded = {f"{kind}_loss_nats": round(loss, 4) for kind, loss in losses.items()}
                curve.append({"step": step, **rounded, **curve_point(model, tokenizer, seed=seed)})
            if on_step is not None:
                on_step(step, losses)

        train(name, model, tokenizer, seed=seed, steps=steps, on_step=after)
        model.save_pretrained(run.folder)
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
            "acceptance": {**asdict(accepted), "failures": accepted.failures()},
            "curve": curve,
            "held_out": {k: [list(pair) for pair in v] for k, v in held_out(seed).items()},
        }
        text = strict_json(record, "recipe.json", indent=1) + "\n"
        write_text(run.folder / "recipe.json", text)
        write_text(run.folder / "README.md", model_card(record))
        # safetensors writes for the owner only.
        for file in run.folder.rglob("*.safetensors"):
            file.chmod(0o644)
    return accepted.failures()


def model_card(record: dict[str, Any]) -> str:
    """The README of a bundled model, from what its ``recipe.json`` holds."""
    facts = record["acceptance"]
    accuracy = {int(k): v for k, v in facts["accuracy"].items()}
    # Fewer shot counts are measured on trained pairs.
    known = {int(k): f"{v:.2f} " for k, v in facts["trained_accuracy"].items()}
    layer, head = facts["induction_head"]
    share = facts["text_cross_entropy_nats"] / facts["text_unigram_entropy_nats"]
    failures = "; ".join(facts["failures"])
    verdict = f"NOT reached: {failures}." if failures else "Every criterion holds."
    shots = [k for k in (0, 1, 2, 4, 8, 16) if k in accuracy]
    rows = "\n".join(f"| {k} | {accuracy[k]:.2f} | {known.get(k, '')}|" for k in shots)
    by_relation = facts["accuracy_by_relation"].items()
    weakest = sorted((max(row.values()), name) for name, row in by_relation)[:5]
    return f"""# {record["name"]}

A small language model that learns in context, for trying interpretability methods where the
answer can be checked.

- Architecture: {ARCHITECTURES[record["name"]]}.
- Size: {record["parameters"]:,} parameters in float32.
- Training: {record["steps"]:,} steps on generated text: sentences that state facts, small stories,
  repeated sequences, comma lists and, from {FACTS_FIRST:.0%} of training on, prompts of
  demonstrations (`France -> Paris`), so the rise of accuracy over training steps follows the
  schedule in part; that of the induction score does not. It knows some 1,200 facts about 400
  words and phrases, and nothing else.

Several relations share the same words, so that the task can only be known from the
demonstrations. About 15% of the pairs of each relation never stood in a training prompt; their
facts did stand in sentences, some of them with the relation named and an arrow
(`capital : France -> Paris`). A quarter of the training prompts began with the name of the
relation (`capital :`).

| shots | accuracy, held-out pairs | accuracy, trained pairs |
|---|---|---|
{rows}

- Chance at 0 shots on the held-out pairs: {facts["chance"]:.2f}. Ceiling: {facts["ceiling"]:.2f}.
- Lowest ceilings by relation: {", ".join(f"{name} {best:.2f}" for best, name in weakest)}.
- Induction head: block {layer}, head {head}, score {facts["induction_score"]:.2f} by
  TransformerLens's head detector.
- Unseen plain text: {facts["text_cross_entropy_nats"]:.2f} nats a token, {share:.0%} of the unigram
  entropy of {facts["text_unigram_entropy_nats"]:.2f} nats.

{verdict}

`checkpoints/` holds the weights in half precision along training (the final ones are
`model.safetensors`); `recipe.json` holds the settings, the curve over training steps, the
held-out pairs and all numbers. Made by:

    {record["command"]}
"""
