"""`train`: a dictionary of the states at one site, by SAELens's trainer and architectures.

States are streamed from text (:mod:`~ed_interp.probes.dictionaries.text`), shuffled in blocks and
passed to ``SAETrainer.step``; nothing is logged to any service. What SAELens leaves to its user is
set here: states are scaled to a mean norm of ``sqrt(d_model)`` and the factor is folded into the
weights at the end, the decoder's bias begins at the mean state, decoder rows begin at norm 1, and
the learning rate warms up and decays to a tenth.

Cost on one CPU core for icl-gpt2 and 1,024 latents: 30 seconds per million tokens for reading and
40 for training. Memory: one block of states, and the weights four times. After a kill the same call
resumes a run with ``out``, and ends with the same weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, RunFolderError, unknown
from ed_interp.models.hooked import HookedModel
from ed_interp.models.sites import Site
from ed_interp.options import takes_options
from ed_interp.probes.dictionaries.dictionary import Dictionary, inference_sae
from ed_interp.probes.dictionaries.options import ARCHITECTURES, TrainOptions
from ed_interp.probes.dictionaries.reader import Batches, read_states
from ed_interp.probes.dictionaries.rows import TrainingRow
from ed_interp.probes.dictionaries.text import Windows, windows_of
from ed_interp.progress import Progress, track
from ed_interp.records import RunFolder, environment
from ed_interp.records import tensors as tensor_files
from ed_interp.results import COMMAND
from ed_interp.streams.provenance import ModelStamp

if TYPE_CHECKING:
    from sae_lens import SAETrainer, TrainingSAE

CHECKPOINT = "training.safetensors"
_KIND = "dictionary-checkpoint"
_COUNTERS = ("n_training_samples", "n_training_steps", "n_frac_active_samples")
_TRACKS = ("act_freq_scores", "n_forward_passes_since_fired")
_BLOCK_BYTES = 2**27
_SCALE_TOKENS = 8192
_CHECKPOINT_SECONDS = 10.0
_CHECKPOINT_SHARE = 0.05
"""Largest share of the time to spend on writing checkpoints."""
_LOGGED = 100
"""Batches of the history."""


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A training run whose settings were checked."""

    hooked: HookedModel
    site: Site
    windows: Windows
    options: TrainOptions

    def settings(self) -> dict[str, Any]:
        """What decides the weights: options with what they came to, and not the device."""
        model = self.hooked.describe()
        settings = self.options.to_dict()
        for data in (model, settings):
            data.pop("device")
        return {
            "kind": "dictionary",
            **settings,
            "model": model,
            "site": self.site.name,
            **self.windows.settings(),
            "k": self.options.active,
            "tokens": self.options.steps * self.options.batch_size,
            "lr": self.options.peak_lr,
        }


@takes_options(TrainOptions)
def train(
    model: Any = None,
    *,
    text: Any = None,
    options: TrainOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    checkpoint_every: int | None = None,
    progress: Progress = None,
) -> Dictionary:
    """Train a dictionary of the states at one site.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        text: A ``.txt`` file, a ``.json`` list of strings, texts, or a ``text_source(...)``;
            default the bundled models' own generated text.
        out, overwrite: Folder to make, and whether to replace the dictionary in it. SAELens can
            load it. Without ``out`` a run cannot be resumed.
        checkpoint_every: Steps between checkpoints; default every ten seconds or less often.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.

    Raises:
        UnknownNameError: no such site, architecture or task.
        InvalidInputError: sizes that do not fit each other, too little text, or unknown options.
        RunFolderError: ``out`` exists or cannot be written, or its checkpoint is damaged.
    """
    hooked = options.load(model)
    plan = _Plan(hooked, hooked.site(options.site), windows_of(options, hooked, text), options)
    available = plan.windows.tokens("train")
    if available is not None and available < options.latents:
        raise InvalidInputError(
            f"{plan.windows.source.name!r} holds {available} tokens to train on, fewer than the "
            f"{options.latents} latents; pass more text or train fewer latents"
        )
    with _seeded(plan):
        _sae(plan)  # a setting that SAELens refuses must be refused before there is a folder
    settings = plan.settings()
    record = {**settings, "command": COMMAND.get(), "environment": environment()}
    if out is None:
        return dataclasses.replace(_fit(plan, None, checkpoint_every, progress), settings=record)
    with RunFolder.open(out, settings, overwrite=overwrite) as run:
        fitted = _fit(plan, run.folder, checkpoint_every, progress)
        dictionary = dataclasses.replace(fitted, settings=record, source=str(run.path))
        dictionary.write(run.folder)
        (run.folder / CHECKPOINT).unlink(missing_ok=True)
    return dictionary


def _fit(
    plan: _Plan, folder: Path | None, checkpoint_every: int | None, progress: Progress
) -> Dictionary:
    """Train from the beginning, or from the checkpoint in ``folder``."""
    steps = plan.options.steps
    with _seeded(plan):
        trainer, batches = _trainer(plan)
        history: list[TrainingRow] = []
        if folder is not None and (folder / CHECKPOINT).exists():
            history = _read_checkpoint(folder, trainer, batches)
        else:
            _begin(plan, trainer)
        written, wait = time.monotonic(), _CHECKPOINT_SECONDS
        done = trainer.n_training_steps
        # About a hundred rows, however long the run.
        every = max(1, steps // _LOGGED)
        with track(progress, "training the dictionary", steps) as advance:
            advance(done)
            for step in range(done, steps):
                # What SAETrainer.fit does around a step, in its order.
                trainer.maybe_reset_sparsity()
                output = trainer.step(next(batches))
                trainer.n_training_steps += 1
                if (step + 1) % every == 0:
                    history.append(_measured(step + 1, output))
                advance(1)
                if folder is None or step + 1 == steps:
                    continue
                due = time.monotonic() - written > wait
                if checkpoint_every is not None:
                    due = (step + 1) % checkpoint_every == 0
                if due:
                    start = time.monotonic()
                    _write_checkpoint(folder, trainer, batches, history)
                    written = time.monotonic()
                    # A large dictionary takes long to write: then less often.
                    wait = max(_CHECKPOINT_SECONDS, (written - start) / _CHECKPOINT_SHARE)
        return dataclasses.replace(_finished(plan, trainer), history=tuple(history))


@contextlib.contextmanager
def _seeded(plan: _Plan) -> Iterator[None]:
    """Torch's random generators set to the plan's seed, and restored afterwards."""
    device = plan.hooked.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(plan.options.seed)
        yield


def _sae(plan: _Plan) -> TrainingSAE[Any]:
    """A fresh dictionary of SAELens's training class, from torch's global random state."""
    import ed_interp.probes.dictionaries.spike_slab  # noqa: F401  (registers itself)
    from ed_interp.probes.dictionaries.backend import SAEMetadata, registry

    options = plan.options
    name, latents, steps = options.architecture, options.latents, options.steps
    kind = ARCHITECTURES[name]
    sae_class, config_class = registry.get_sae_training_class(kind.registered)
    known = {field.name for field in dataclasses.fields(config_class)}
    for option in options.sae_lens_settings:
        if option not in known:
            raise unknown(f"option of {name}", option, sorted(known))
    settings: dict[str, Any] = {
        "d_in": plan.hooked.d_model,
        "d_sae": latents,
        "device": str(plan.hooked.device),
        # States are scaled before training and the factor is folded into the weights after it, so
        # that one learning rate fits every model and block.
        "normalize_activations": "expected_average_only_in",
        # Of the values tried (0.1, 0.4, 1.0) the one that leaves the fewest latents dead.
        "decoder_init_norm": 1.0,
        **kind.options,
    }
    if "k" in known:
        settings["k"] = options.active
    elif options.active is not None:
        settings["target_l0"] = float(options.active)
    # Sparsity that is at full strength from the start kills latents before they have learned.
    warm_ups = ("l1_warm_up_steps", "l0_warm_up_steps", "kl_warm_up_steps")
    shares = {**dict.fromkeys(warm_ups, steps // 5), "anneal_steps": steps * 4 // 5}
    settings |= {option: share for option, share in shares.items() if option in known}
    if name == "matryoshka":
        # A set, as a tiny dictionary has equal parts, and none may be empty.
        sizes = {latents // 8, latents // 4, latents // 2, latents} - {0}
        settings["matryoshka_widths"] = sorted(sizes)
    try:
        config = config_class(**settings | options.sae_lens_settings)
        config.metadata = SAEMetadata(
            model_name=plan.hooked.name,
            hook_name=plan.site.name,
            context_size=plan.windows.window,
            prepend_bos=bool(plan.windows.prefix),
            dataset_path=plan.windows.source.name,
            model_fingerprint=plan.hooked.fingerprint,
        )
        return sae_class(config)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{name} refuses its settings: {error}") from error


def _trainer(plan: _Plan) -> tuple[SAETrainer[Any, Any], Batches]:
    from ed_interp.probes.dictionaries.backend import SAETrainer, SAETrainerConfig

    batch_size, steps, lr = plan.options.batch_size, plan.options.steps, plan.options.peak_lr
    config = SAETrainerConfig(
        total_training_samples=steps * batch_size,
        train_batch_size_samples=batch_size,
        lr=lr,
        lr_end=lr / 10,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 5,
        device=str(plan.hooked.device),
        # A latent is dead, for the loss that revives it, after this many steps without firing.
        dead_feature_window=max(10, min(1000, steps // 10, 200_000 // batch_size)),
        feature_sampling_window=max(10, min(2000, steps // 4)),
    )
    most = max(1, min(128, _BLOCK_BYTES // (4 * batch_size * plan.hooked.d_model)))
    batches = Batches(
        plan.hooked,
        plan.site,
        plan.windows,
        batch_size=batch_size,
        # The fewest blocks that fit, of equal size: a last block that is nearly empty would be read
        # in full and hardly be trained on.
        blocks_of=math.ceil(steps / math.ceil(steps / most)),
        seed=plan.options.seed,
    )
    # Only its steps are used: its own loop shows a bar and writes pickles.
    return SAETrainer(config, _sae(plan), batches), batches


@torch.no_grad()
def _begin(plan: _Plan, trainer: SAETrainer[Any, Any]) -> None:
    """Set the scale of the states and the decoder's bias, from the beginning of the text."""
    sample = plan.windows.once("train", seed=plan.options.seed, tokens=_SCALE_TOKENS)
    skip = len(plan.windows.prefix)
    states = read_states(plan.hooked, plan.site, sample, skip=skip)
    norm = float(states.norm(dim=-1).mean())
    if trainer.sae.cfg.normalize_activations == "expected_average_only_in":
        scale = math.sqrt(plan.hooked.d_model) / max(norm, 1e-12)
        trainer.activation_scaler.scaling_factor = scale
        # Otherwise the first steps only learn the mean, and latents die meanwhile.
        trainer.sae.b_dec.data.copy_(states.mean(0) * scale)


@torch.no_grad()
def _measured(step: int, output: Any) -> TrainingRow:
    states, out = output.sae_in.float(), output.sae_out.float()
    left = (out - states).square().sum() / (states - states.mean(0)).square().sum()
    l0 = output.feature_acts.bool().float().sum(-1).mean()
    return TrainingRow(step, float(output.loss), float(left), float(l0))


def _finished(plan: _Plan, trainer: SAETrainer[Any, Any]) -> Dictionary:
    """The trained dictionary in its form for inference."""
    sae = trainer.sae
    # Weights that take states as they come, so that SAELens alone can use them too.
    if trainer.activation_scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
        trainer.activation_scaler.scaling_factor = None
    trainer.set_final_sae_metadata()
    return Dictionary(inference_sae(sae), plan.site, ModelStamp.of(plan.hooked))


def _write_checkpoint(
    folder: Path, trainer: SAETrainer[Any, Any], batches: Batches, history: list[TrainingRow]
) -> None:
    """Write everything that the rest of the run depends on."""
    optimizer = trainer.optimizer.state_dict()
    tensors: dict[str, Tensor] = {
        f"sae.{name}": tensor for name, tensor in trainer.sae.state_dict().items()
    }
    for number, moments in optimizer["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    # How long each latent has been silent: it decides which ones the loss revives.
    tensors |= {f"track.{name}": getattr(trainer, name) for name in _TRACKS}
    tensors["random.cpu"] = torch.get_rng_state()
    if trainer.sae.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(trainer.sae.device)
    state = {
        "counters": {name: int(getattr(trainer, name)) for name in _COUNTERS},
        "groups": optimizer["param_groups"],
        "schedule": trainer.lr_scheduler.state_dict(),
        "coefficients": {
            name: schedule.state_dict() for name, schedule in trainer.coefficient_schedulers.items()
        },
        "scale": trainer.activation_scaler.scaling_factor,
        "block": batches.block,
        "served": batches.served,
        "history": [dataclasses.asdict(row) for row in history],
    }
    tensor_files.write(folder / CHECKPOINT, tensors, kind=_KIND, meta=state)


def _read_checkpoint(
    folder: Path, trainer: SAETrainer[Any, Any], batches: Batches
) -> list[TrainingRow]:
    """Set ``trainer``, ``batches`` and the random generators to where the run stopped.

    Returns the history so far. Raises RunFolderError if the file is damaged or does not fit.
    """
    file = folder / CHECKPOINT
    try:
        tensors, state = tensor_files.read(file, kind=_KIND)
        trainer.sae.load_state_dict(_under("sae", tensors))
        # Adam keeps two moments per parameter, by the number of the parameter.
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer", tensors).items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = tensor
        trainer.optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
        trainer.lr_scheduler.load_state_dict(state["schedule"])
        for name, schedule in trainer.coefficient_schedulers.items():
            schedule.load_state_dict(state["coefficients"][name])
        for name in _COUNTERS:
            setattr(trainer, name, state["counters"][name])
        for name in _TRACKS:
            setattr(trainer, name, tensors[f"track.{name}"].to(trainer.cfg.device))
        trainer.activation_scaler.scaling_factor = state["scale"]
        # Reads the block that the run stopped in again, and continues inside it.
        batches.skip_to(state["block"], state["served"])
        # Last, so that nothing above draws from generators that were already set.
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and trainer.sae.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], trainer.sae.device)
        return [TrainingRow(**row) for row in state["history"]]
    except (InvalidInputError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunFolderError(
            f"{file} is damaged ({' '.join(str(error).split())[:200]}); remove {folder} and train "
            "again"
        ) from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    cut = len(prefix) + 1
    return {name[cut:]: part for name, part in tensors.items() if name.startswith(f"{prefix}.")}
