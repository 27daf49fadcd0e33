"""The model card, written from the numbers in ``recipe.json`` and from nothing else."""

from typing import Any

from ed_interp.models.recipe.train import FACTS_FIRST

ARCHITECTURES = {
    "icl-gpt2": "GPT-2 (4 blocks, width 128, 4 heads, 256 learned positions)",
    "icl-gemma2": "Gemma 2 (4 blocks, width 128, 4 heads over 2 key-value heads, head width 32, "
    "every other block in a window of 64 tokens, context of 256)",
}


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
