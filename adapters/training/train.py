"""`train`: from a model, a file and a few options to an adapter in a folder.

Use::

    from ed_interp.adapters.training import TrainingOptions, train

    trained = train("icl-gpt2", "pairs.jsonl", out="CKPT", options=TrainingOptions(max_steps=200))
    trained.to_frame()  # losses
    ed_interp.load("CKPT")  # the adapted model under hooks

Trains by the Trainer of ``transformers`` on a PEFT model, so every PEFT method works alike. The
base model is compared with itself by hash, before and after. The folder appears when it is
complete; an interrupted run is continued by the same call and ends with the same weights.

Cost: forward and backward passes, twice a hash of the base model, and a checkpoint (adapter,
optimizer) every ``save_steps``.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import math
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ed_interp.adapters.training import data as examples_of
from ed_interp.adapters.training.card import CardFields, model_card
from ed_interp.adapters.training.checkpoints import last_complete
from ed_interp.adapters.training.data import Encoded, Example
from ed_interp.adapters.training.frozen import FrozenWeights, check_only_adapter_trains
from ed_interp.adapters.training.methods import AdapterOptions, make_config
from ed_interp.adapters.training.options import TrainingOptions
from ed_interp.adapters.training.result import FORMAT, RECORD, TrainedAdapter
from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel, is_transformer_lens
from ed_interp.models.load import load
from ed_interp.processes import process
from ed_interp.progress import Progress, track
from ed_interp.records import RunFolder, environment, write_json, write_text

Rows = list[dict[str, list[Encoded]]]


def train(
    model: Any,
    data: str | Path | Sequence[Example],
    *,
    out: str | Path,
    method: str = "bias-injection",
    adapter: AdapterOptions | Any = None,
    options: TrainingOptions | None = None,
    tokenizer: Any = None,
    input: str = "input",
    output: str = "output",
    template: str | None = None,
    card: CardFields | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress = False,
) -> TrainedAdapter:
    """Train an adapter and leave it in the folder ``out``.

    Args:
        model: a name, a folder or a live model, as :func:`ed_interp.load` takes it. A live model
            is copied, and stays as it is.
        data: a file (see :func:`~ed_interp.adapters.training.data.read_examples`), or examples.
        out: the folder to make. An interrupted run with equal settings in it is continued.
        method: one of :data:`~ed_interp.adapters.training.methods.METHODS`.
        adapter: what the adapter is: :class:`AdapterOptions`, or a PEFT configuration of one's
            own, and then ``method`` is not used.
        options: how to train.
        tokenizer: if the model carries none.
        input: name of the input column.
        output: name of the output column.
        template: of pairs; see :class:`~ed_interp.prompts.template.Template`.
        card: licences and a description for the model card.
        device: for a model loaded by name.
        overwrite: replace the run that is at ``out``, once the new one is complete.
        progress: True for a bar on stderr; a callable gets (done, total, what).

    Raises:
        InvalidInputError: data, options or a configuration that cannot be used.
        FrozenWeightsError: a base weight changed, or would train.
        ModelLoadError: the model cannot be loaded.
        RunFolderError: ``out`` is taken or cannot be written.
    """
    options = options or TrainingOptions()
    card = card or CardFields()
    if process()[1] > 1:
        raise InvalidInputError(
            f"train runs in one process, found {process()[1]}; several take a script of your own "
            "with transformers.Trainer (or AdapterTrainer) and accelerate"
        )
    config: Any = adapter
    if adapter is None or isinstance(adapter, AdapterOptions):
        config = make_config(method, adapter or AdapterOptions())
    else:
        method = str(getattr(config.peft_type, "value", config.peft_type)).lower().replace("_", "-")
    examples, name = _examples(data, input, output, template, options)
    training, held_out = examples_of.split(examples, share=options.eval_share, seed=options.seed)
    hooked = _trainable(model, tokenizer, device)
    longest = hooked.context_window
    rows, held_rows = (
        _rows(part, hooked.tokenizer, options, longest) for part in (training, held_out)
    )
    hooked_as = hooked.describe()
    settings = {
        "model": hooked_as,
        "method": method,
        "adapter": _plain(config.to_dict()),
        "training": options.to_dict(),
        "data": {
            "name": name,
            "sha256": examples_of.fingerprint(examples),
            "training": len(training),
            "held_out": len(held_out),
        },
        "card": dataclasses.asdict(card),
    }
    with RunFolder.open(out, settings, overwrite=overwrite) as run:
        tuned = _wrap(hooked, config, options.seed)
        check_only_adapter_trains(tuned)
        frozen = FrozenWeights.of(tuned)
        outcome = _fit(tuned, hooked, rows, held_rows, options, run.folder, progress)
        frozen.check(tuned)
        counts = {
            "trained": sum(p.numel() for p in tuned.parameters() if p.requires_grad),
            "all": sum(p.numel() for p in tuned.parameters()),
        }
        base = str(model) if isinstance(model, (str, Path)) else hooked.name
        tuned.peft_config["default"].base_model_name_or_path = base
        tuned.save_pretrained(run.folder, save_embedding_layers=False)
        weights = (run.folder / "adapter_model.safetensors").read_bytes()
        record = {
            "format": FORMAT,
            "version": 1,
            "name": run.path.name,
            **settings,
            **outcome,
            "parameters": counts,
            "base_sha256": frozen.fingerprint,
            "adapter_sha256": hashlib.sha256(weights).hexdigest(),
            "environment": environment(),
        }
        record["model"] = {**hooked_as, "name": base}
        # As it was resolved against the architecture, without what was left open.
        resolved = _plain(tuned.peft_config["default"].to_dict())
        record["adapter"] = {k: v for k, v in resolved.items() if v not in (None, {}, [])}
        write_json(run.folder / RECORD, record)
        # PEFT has left a card of its own.
        write_text(run.folder / "README.md", model_card(record, card))
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return TrainedAdapter.load(run.path)


def _examples(
    data: str | Path | Sequence[Example],
    input: str,
    output: str,
    template: str | None,
    options: TrainingOptions,
) -> tuple[list[Example], str]:
    if isinstance(data, (str, Path)):
        found = examples_of.read_examples(
            data, input=input, output=output, template=template, answers_only=options.answers_only
        )
        return found, Path(data).name
    if not data or not all(isinstance(example, Example) for example in data):
        raise InvalidInputError(
            "data must be a file or a list of at least one Example; examples_of_pairs makes them"
        )
    return list(data), "examples in memory"


def _trainable(model: Any, tokenizer: Any, device: str | None) -> HookedModel:
    """The model under hooks, a copy where the caller holds it too."""
    live = not isinstance(model, (str, Path))
    hooked = load(model, tokenizer=tokenizer, device=device)
    if is_transformer_lens(hooked.model):
        raise InvalidInputError(
            "a TransformerLens model cannot be trained with PEFT; pass the transformers model, "
            "and bridge the result with to_transformer_lens"
        )
    if hasattr(hooked.model, "peft_config"):
        raise InvalidInputError(
            "the model carries an adapter already; merge_and_unload() it first, or pass its base"
        )
    if live:
        own = tokenizer if tokenizer is not None else hooked.tokenizer
        hooked = HookedModel.wrap(copy.deepcopy(hooked.model), own, name=hooked.name)
    return hooked


def _rows(
    examples: Sequence[Example], tokenizer: Any, options: TrainingOptions, longest: int | None
) -> Rows:
    encoded = examples_of.encode_all(examples, tokenizer, apart=options.carry, longest=longest)
    return [{"turns": turns} for turns in encoded]


def _wrap(hooked: HookedModel, config: Any, seed: int) -> Any:
    from peft import get_peft_model

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # GPT-2's transposed weights: PEFT says that it sets fan_in_fan_out itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        try:
            return get_peft_model(hooked.model, copy.deepcopy(config))
        except (ValueError, TypeError, NotImplementedError) as error:
            raise InvalidInputError(" ".join(str(error).split())) from error


def _fit(
    tuned: Any,
    hooked: HookedModel,
    rows: Rows,
    held_rows: Rows,
    options: TrainingOptions,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from ed_interp.adapters.training import trainer as ours

    per_epoch = math.ceil(math.ceil(len(rows) / options.batch_size) / options.accumulate)
    total = options.max_steps or max(1, math.ceil(options.epochs * per_epoch))
    arguments = training_arguments(options, folder / "checkpoints", total, evaluate=bool(held_rows))
    tokenizer = hooked.tokenizer
    padding = getattr(tokenizer, "pad_token_id", None)
    trainer = ours.AdapterTrainer(
        model=tuned,
        args=arguments,
        options=options,
        train_dataset=rows,
        eval_dataset=held_rows or None,
        data_collator=ours.Collator(0 if padding is None else padding),
    )
    for unwanted in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(unwanted)
    if options.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(options.patience))
    checkpoint = last_complete(folder / "checkpoints")
    with track(progress, "training", total) as advance, _quiet():
        trainer.add_callback(ours.ProgressCallback(advance))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    history: list[dict[str, float]] = [
        {key: value for key, value in row.items() if isinstance(value, (int, float))}
        for row in trainer.state.log_history
    ]
    return _outcome(history, trainer.state, total)


def _outcome(history: list[dict[str, float]], state: Any, total: int) -> dict[str, Any]:
    losses = [row["loss"] for row in history if "loss" in row]
    held = [row["eval_loss"] for row in history if "eval_loss" in row]
    numbers = [*losses, *held]
    if not all(math.isfinite(value) for value in numbers):
        raise InvalidInputError(
            "the loss became infinite or NaN; lower the learning rates (--lr-lora, --lr-nodes, "
            "--lr-tau), or train in float32"
        )
    early = state.global_step < total
    # Times differ between two equal runs; a record should not.
    drop = ("runtime", "per_second", "flos")
    return {
        "steps": state.global_step,
        "stopped": "stopped early" if early else "all of them",
        "loss": losses[-1],
        "eval_loss": min(held) if held else None,
        "history": [
            {key: value for key, value in row.items() if not any(part in key for part in drop)}
            for row in history
            if "train_loss" not in row
        ],
    }


def training_arguments(
    options: TrainingOptions, folder: Path, total: int, *, evaluate: bool
) -> Any:
    """The ``TrainingArguments`` of a run of ``total`` steps; also for a Trainer of one's own."""
    from transformers import TrainingArguments

    every = options.eval_steps or max(1, total // 10)
    save = every if evaluate else options.save_steps or every
    log = max(1, min(every, total // 10))
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": save, "save_total_limit": 2}
    if evaluate:
        saving |= {"eval_strategy": "steps", "eval_steps": every, "load_best_model_at_end": True}
        saving |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    if options.checkpointing != "off":
        saving |= checkpointing_arguments(reentrant=options.checkpointing == "reentrant")
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.lr_lora,
        weight_decay=options.weight_decay,
        warmup_steps=math.ceil(options.warmup * total),
        lr_scheduler_type=options.schedule
        if options.warmup == 0 or options.schedule != "constant"
        else "constant_with_warmup",
        max_grad_norm=options.clip,
        logging_steps=log,
        logging_first_step=True,
        seed=options.seed,
        data_seed=options.seed,
        bf16=options.precision == "bfloat16",
        label_names=["labels"],
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        **saving,
    )


def checkpointing_arguments(*, reentrant: bool) -> dict[str, Any]:
    """The keywords of ``TrainingArguments`` for gradient checkpointing, which were renamed."""
    from transformers import TrainingArguments

    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    kind = "activation" if "activation_checkpointing" in names else "gradient"
    return {
        f"{kind}_checkpointing": True,
        f"{kind}_checkpointing_kwargs": {"use_reentrant": reentrant},
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the Trainer's notes about what the run wants on purpose."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # Asked at every checkpoint whether embeddings were resized; a live model has no name.
            warnings.filterwarnings("ignore", message="Could not find a config file")
            yield
    finally:
        logging.set_verbosity(level)


def _plain(value: Any) -> Any:
    """A configuration as plain data: sets sorted, enumerations by value."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(each) for each in value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return getattr(value, "value", value)
