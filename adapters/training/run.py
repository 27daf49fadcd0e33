"""`train`: from a model, a file and a few settings to an adapter in a folder.

Use::

    trained = train("icl-gpt2", "pairs.jsonl", out="CKPT", r=4, max_steps=200)
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
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ed_interp.adapters.training.data import (
    Encoded,
    Example,
    encode_all,
    fingerprint,
    read_examples,
    split,
)
from ed_interp.adapters.training.describe import WEIGHTS
from ed_interp.adapters.training.frozen import FrozenWeights, check_only_adapter_trains
from ed_interp.adapters.training.methods import make_config
from ed_interp.adapters.training.options import (
    AdapterOptions,
    CardFields,
    TrainingOptions,
    TrainOptions,
)
from ed_interp.adapters.training.result import TrainedAdapter
from ed_interp.adapters.training.rows import LossRow, by_step
from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel, is_transformer_lens
from ed_interp.options import takes_options
from ed_interp.processes import process
from ed_interp.progress import Progress, track
from ed_interp.results import keep

Rows = list[dict[str, list[Encoded]]]


@takes_options(TrainOptions)
def train(
    model: Any = None,
    data: str | Path | Sequence[Example] | None = None,
    *,
    options: TrainOptions,
    out: str | Path,
    adapter: AdapterOptions | Any = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> TrainedAdapter:
    """Train an adapter and leave it in the folder ``out``.

    Args:
        model: a name, a folder or a live model, as :func:`ed_interp.load` takes it. A live model
            is copied, and stays as it is.
        data: a file (see :func:`~ed_interp.adapters.training.data.read_examples`), or examples.
        out: the folder to make. An interrupted run with equal settings in it is continued.
        adapter: in place of its single settings (``r``, ``nodes``, ...): an
            :class:`AdapterOptions`, or any PEFT configuration, which decides the method too.
        overwrite: replace the run that is at ``out``, once the new one is complete.
        progress: True for a bar on stderr; a callable gets (done, total, what).

    Raises:
        InvalidInputError: data, options or a configuration that cannot be used.
        FrozenWeightsError: a base weight changed, or would train.
        ModelLoadError: the model cannot be loaded.
        RunFolderError: ``out`` is taken or cannot be written.
    """
    if process()[1] > 1:
        raise InvalidInputError(
            f"train must run in one process, got {process()[1]}; for several write a script with "
            "transformers.Trainer (or AdapterTrainer) and accelerate"
        )
    options, config = _configured(options, adapter)
    examples, options = _read(data, options)
    training, held_out = split(examples, share=options.eval_share, seed=options.seed)
    hooked = _trainable(model, options)
    encoded = (
        encode_all(part, hooked.tokenizer, separate=options.carry, max_tokens=hooked.context_window)
        for part in (training, held_out)
    )
    rows, held_rows = ([{"turns": turns} for turns in part] for part in encoded)
    counts = {"training": len(training), "held_out": len(held_out)}
    described = {"name": options.data.name, "sha256": fingerprint(examples), **counts}
    # What decides whether an interrupted run may be continued: the same weights and examples too,
    # which a live model's name and a file's path do not say.
    identity = {"model": hooked.describe(), "data": described, "config": _plain(config.to_dict())}

    def make(work: Path | None) -> TrainedAdapter:
        assert work is not None
        tuned = _wrap(hooked, config, options.seed)
        check_only_adapter_trains(tuned)
        frozen = FrozenWeights.of(tuned)
        outcome = _fit(tuned, hooked, rows, held_rows, options, work, progress)
        frozen.check(tuned)
        base = str(model) if isinstance(model, (str, Path)) else hooked.name
        resolved = tuned.peft_config["default"]
        resolved.base_model_name_or_path = base
        # PEFT looks for its files at the top of a folder, above the intermediate work.
        tuned.save_pretrained(work.parent, save_embedding_layers=False)
        settings = _plain(resolved.to_dict())
        trained, everything = tuned.get_nb_trainable_parameters()
        return TrainedAdapter(
            name=Path(out).expanduser().resolve().name,
            model={**identity["model"], "name": base},
            method=_method_of(config),
            adapter={k: v for k, v in settings.items() if v not in (None, {}, [])},
            training=options.part(TrainingOptions),
            data=described,
            card=options.part(CardFields),
            **outcome,
            parameters={"trained": trained, "all": everything},
            base_sha256=frozen.fingerprint,
            adapter_sha256=hashlib.sha256((work.parent / WEIGHTS).read_bytes()).hexdigest(),
            settings={"options": options.to_dict()},
        )

    record = {**options.to_dict(), **identity}
    keep(make, options=record, out=out, overwrite=overwrite, progress=progress)
    return TrainedAdapter.load(out)


def _configured(options: TrainOptions, adapter: Any) -> tuple[TrainOptions, Any]:
    """The options with those of ``adapter`` in them, and the PEFT configuration."""
    if adapter is None:
        return options, make_config(options.method, options)
    if changed := options.changed():
        raise InvalidInputError(
            f"adapter must come without single settings of it, got {', '.join(changed)} too; drop "
            "one of the two"
        )
    if isinstance(adapter, AdapterOptions):
        options = dataclasses.replace(options, **vars(adapter))
        return options, make_config(options.method, options)
    return dataclasses.replace(options, method=_method_of(adapter)), adapter


def _method_of(config: Any) -> str:
    if getattr(config, "use_dora", False):
        return "dora"
    return str(getattr(config.peft_type, "value", config.peft_type)).lower().replace("_", "-")


def _read(data: Any, options: TrainOptions) -> tuple[list[Example], TrainOptions]:
    if isinstance(data, (str, Path)):
        examples = read_examples(
            data,
            input_column=options.input_column,
            output_column=options.output_column,
            # A shell passes the two characters of \n as they are.
            template=options.template
            and options.template.replace("\\n", "\n").replace("\\t", "\t"),
            all_tokens=options.all_tokens,
        )
        return examples, options
    if not data or not all(isinstance(example, Example) for example in data):
        raise InvalidInputError(
            "data must be a file or a list of at least one Example; examples_of_pairs makes them"
        )
    return list(data), dataclasses.replace(options, data=Path("examples in memory"))


def _trainable(model: Any, options: TrainOptions) -> HookedModel:
    """The model under hooks, a copy where the caller holds it too."""
    live = not isinstance(model, (str, Path))
    hooked = options.load(model if live else None)
    if is_transformer_lens(hooked.model):
        raise InvalidInputError(
            "a TransformerLens model cannot be trained with PEFT; pass the transformers model, "
            "and bridge the result with to_transformer_lens"
        )
    if hasattr(hooked.model, "peft_config"):
        raise InvalidInputError(
            "the model must not carry an adapter already; merge_and_unload() it first, or pass its "
            "base"
        )
    if live:
        hooked = HookedModel.wrap(copy.deepcopy(hooked.model), hooked.tokenizer, name=hooked.name)
    return hooked


def _wrap(hooked: HookedModel, config: Any, seed: int) -> Any:
    from peft import get_peft_model

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # GPT-2's transposed weights: PEFT says that it sets fan_in_fan_out itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        try:
            # A copy, as PEFT resolves targets in the configuration it is given.
            return get_peft_model(hooked.model, copy.deepcopy(config))
        except (ValueError, TypeError, NotImplementedError) as error:
            raise InvalidInputError(" ".join(str(error).split())) from error


def _fit(
    tuned: Any,
    hooked: HookedModel,
    rows: Rows,
    held_rows: Rows,
    options: TrainOptions,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train, and say how it went as fields of the result."""
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback
    from transformers.trainer_callback import ProgressCallback as Bar

    from ed_interp.adapters.training.trainer import (
        AdapterTrainer,
        Collator,
        ProgressCallback,
        last_complete,
        training_arguments,
    )

    # As the Trainer counts: the last batch of an epoch may be smaller, and so may its last step.
    per_epoch = math.ceil(math.ceil(len(rows) / options.batch_size) / options.accumulate)
    total = options.max_steps or max(1, math.ceil(options.epochs * per_epoch))
    padding = getattr(hooked.tokenizer, "pad_token_id", None)
    trainer = AdapterTrainer(
        model=tuned,
        args=training_arguments(
            options, folder, total, evaluate=bool(held_rows), device=options.device
        ),
        options=options,
        train_dataset=rows,
        eval_dataset=held_rows or None,
        data_collator=Collator(0 if padding is None else padding),
    )
    for unwanted in (PrinterCallback, Bar):
        trainer.remove_callback(unwanted)
    if options.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(options.patience))
    checkpoint = last_complete(folder)
    with track(progress, "training", total) as advance, _quiet():
        trainer.add_callback(ProgressCallback(advance))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    names = [field.name for field in dataclasses.fields(LossRow)]
    # The last entry sums up the run. Of the others only what two equal runs have in common: no
    # times and no speeds.
    log = [entry for entry in trainer.state.log_history if "train_loss" not in entry]
    history = [LossRow(**{k: v for k, v in row.items() if k in names}) for row in by_step(log)]
    losses = [row.loss for row in history if row.loss is not None]
    held = [row.eval_loss for row in history if row.eval_loss is not None]
    if not all(math.isfinite(value) for value in (*losses, *held)):
        raise InvalidInputError(
            "the loss became infinite or NaN; lower the learning rates (--lr-lora, --lr-nodes, "
            "--lr-tau), or train in float32"
        )
    return {
        "steps": trainer.state.global_step,
        "stopped": "stopped early" if trainer.state.global_step < total else "completed",
        "loss": losses[-1],
        "eval_loss": min(held) if held else None,
        "history": tuple(history),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the Trainer's notes about what the run does on purpose."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # At every checkpoint PEFT looks up whether embeddings were resized; a live model has
            # no name to look up.
            warnings.filterwarnings("ignore", message="Could not find a config file")
            yield
    finally:
        logging.set_verbosity(level)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as plain data: sets sorted, enumerations by value."""
    text = json.dumps(config, default=lambda v: sorted(v) if isinstance(v, set) else v.value)
    plain: dict[str, Any] = json.loads(text)
    return plain
