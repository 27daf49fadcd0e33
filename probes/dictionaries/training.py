"""`train`: a dictionary of the states at one site, by SAELens's trainer and architectures.

Use::

    from ed_interp.probes import dictionaries

    sae = dictionaries.train("icl-gpt2", site="blocks.2.hook_resid_post", latents=1024, k=16,
                             out="SAE")

States are streamed from text (:mod:`~ed_interp.probes.dictionaries.text`), shuffled in blocks and
given to ``SAETrainer.step``; nothing is logged to anywhere. What SAELens leaves to its user is set
here: states are scaled to a mean norm of ``sqrt(d_model)`` and the factor is folded into the
weights at the end, the decoder's bias begins at the mean state, decoder rows begin at norm 1, and
the learning rate warms up and decays to 0.

Cost on one CPU core for icl-gpt2 and 1,024 latents: 30 seconds per million tokens for reading and
40 for training. Memory: one block of states, and the weights four times. A run into a folder is
resumed by the same call after a kill, to the same weights.
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

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load as load_model
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries import architectures
from ed_interp.probes.dictionaries.checkpoint import NAME as CHECKPOINT
from ed_interp.probes.dictionaries.checkpoint import Logged, read_checkpoint, write_checkpoint
from ed_interp.probes.dictionaries.dictionary import Dictionary, inference_sae
from ed_interp.probes.dictionaries.states import Batches, stream_states
from ed_interp.probes.dictionaries.text import TextSource, Windows, default_window, text_source
from ed_interp.progress import Progress, track
from ed_interp.records import RunFolder, environment
from ed_interp.streams.provenance import ModelStamp

if TYPE_CHECKING:
    from sae_lens import SAETrainer, TrainingSAE

BATCH_SIZE = 512
TOKENS = 1_000_000
LATENTS = 1024
_BLOCK_BYTES = 2**27
_SCALE_TOKENS = 8192
_CHECKPOINT_SECONDS = 10.0
_CHECKPOINT_SHARE = 0.05
"""Of the time that may go into writing checkpoints."""
_LOGGED = 100


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A training run, checked."""

    hooked: HookedModel
    site: Site
    windows: Windows
    architecture: str
    latents: int
    k: int | None
    batch_size: int
    steps: int
    lr: float
    seed: int
    options: dict[str, Any]

    @property
    def tokens(self) -> int:
        return self.steps * self.batch_size

    def settings(self) -> dict[str, Any]:
        """What decides the result; the device does not."""
        model = self.hooked.describe()
        model.pop("device")
        return {
            "kind": "dictionary",
            "model": model,
            "site": self.site.name,
            "text": self.windows.source.describe(),
            "window": self.windows.window,
            "architecture": self.architecture,
            "latents": self.latents,
            "k": self.k,
            "tokens": self.tokens,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "seed": self.seed,
            "options": self.options,
        }


def train(
    model: Any,
    *,
    site: str | Site,
    out: str | Path | None = None,
    text: str | Path | list[str] | TextSource | None = None,
    architecture: str = architectures.DEFAULT,
    latents: int = LATENTS,
    k: int | None = None,
    tokens: int = TOKENS,
    batch_size: int = BATCH_SIZE,
    lr: float | None = None,
    window: int | None = None,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    overwrite: bool = False,
    checkpoint_every: int | None = None,
    progress: Progress = None,
) -> Dictionary:
    """Train a dictionary of the states at one site.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        site: A hook point, such as ``blocks.2.hook_resid_post``.
        out: A folder for the dictionary, which SAELens can load; it appears when training is
            done. Without it nothing is written, and nothing can be resumed.
        text: A ``.txt`` file, a ``.json`` list of strings, texts, or a
            :func:`~ed_interp.probes.dictionaries.text.text_source`; default the bundled models'
            own generated text.
        architecture: One of :data:`~ed_interp.probes.dictionaries.architectures.ARCHITECTURES`.
        latents: Size of the dictionary.
        k: Active latents per token, where the architecture takes a number; default 16.
        tokens: To train on, rounded down to whole batches.
        batch_size: Tokens a step.
        lr: Peak learning rate of Adam; default 2e-3, less by ``sqrt(1024 / latents)`` above 1,024
            latents.
        window: Longest window of text in tokens; default 128.
        seed: Of the weights, the text, the shuffling and the sampling.
        options: Fields of SAELens's configuration of the architecture, such as
            ``{"l1_coefficient": 5.0}``.
        overwrite: Replace the dictionary at ``out``, once the new one is complete.
        checkpoint_every: Steps between checkpoints; default every ten seconds, less often where
            writing takes long.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.

    Raises:
        UnknownNameError: no such site, architecture or task.
        InvalidInputError: sizes that make no sense, too little text, or unknown options.
        RunFolderError: ``out`` exists or cannot be written, or its checkpoint is damaged.
    """
    hooked = load_model(model)
    plan = _plan(
        hooked,
        hooked.site(site),
        Windows(
            text_source(text), hooked, window=default_window(hooked) if window is None else window
        ),
        architecture=architecture,
        latents=latents,
        k=k,
        tokens=tokens,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        options=options or {},
    )
    settings = plan.settings()
    record = {"settings": settings, "environment": environment()}
    if out is None:
        dictionary, history = _fit(plan, None, checkpoint_every, progress)
        return dataclasses.replace(dictionary, record={**record, "history": history})
    with RunFolder.open(out, settings, overwrite=overwrite) as run:
        dictionary, history = _fit(plan, run.folder, checkpoint_every, progress)
        dictionary = dataclasses.replace(dictionary, record={**record, "history": history})
        dictionary.write(run.folder)
        (run.folder / CHECKPOINT).unlink(missing_ok=True)
    return dataclasses.replace(dictionary, source=str(run.path))


def _plan(
    hooked: HookedModel,
    site: Site,
    windows: Windows,
    *,
    architecture: str,
    latents: int,
    k: int | None,
    tokens: int,
    batch_size: int,
    lr: float | None,
    seed: int,
    options: dict[str, Any],
) -> _Plan:
    k = architectures.check_sizes(architecture, latents=latents, k=k)
    if batch_size < 1:
        raise InvalidInputError(f"batch_size={batch_size}: at least 1 token a step")
    if tokens < max(latents, batch_size):
        raise InvalidInputError(
            f"tokens={tokens} to train {latents} latents in batches of {batch_size}: fewer tokens "
            "than latents or than a batch; ask for more tokens (100 a latent is little)"
        )
    there = windows.tokens("train")
    if there is not None and there < latents:
        raise InvalidInputError(
            f"{windows.source.name!r} holds {there} tokens to train on, fewer than the {latents} "
            "latents; give more text or ask for fewer latents"
        )
    rate = 2e-3 * min(1.0, math.sqrt(1024 / latents)) if lr is None else lr
    if not (math.isfinite(rate) and rate > 0):
        raise InvalidInputError(f"lr={rate} is no learning rate; use a number above 0")
    steps = tokens // batch_size
    return _Plan(
        hooked, site, windows, architecture, latents, k, batch_size, steps, rate, seed, options
    )


def _fit(
    plan: _Plan, folder: Path | None, checkpoint_every: int | None, progress: Progress
) -> tuple[Dictionary, list[Logged]]:
    """Train from the beginning, or from the checkpoint in ``folder``."""
    with _seeded(plan):
        trainer, batches = _trainer(plan)
        history: list[Logged] = []
        if folder is not None and (folder / CHECKPOINT).exists():
            history = read_checkpoint(folder, trainer, batches)
        else:
            _begin(plan, trainer)
        written, wait = time.monotonic(), _CHECKPOINT_SECONDS
        done = trainer.n_training_steps
        every = max(1, plan.steps // _LOGGED)
        with track(progress, "training the dictionary", plan.steps) as advance:
            advance(done)
            for step in range(done, plan.steps):
                trainer.maybe_reset_sparsity()
                output = trainer.step(next(batches))
                trainer.n_training_steps += 1
                if (step + 1) % every == 0:
                    history.append(_measured(step + 1, output))
                advance(1)
                if folder is None or step + 1 == plan.steps:
                    continue
                if checkpoint_every is not None:
                    due = (step + 1) % checkpoint_every == 0
                else:
                    due = time.monotonic() - written > wait
                if due:
                    start = time.monotonic()
                    write_checkpoint(folder, trainer, batches, history)
                    written = time.monotonic()
                    wait = max(_CHECKPOINT_SECONDS, (written - start) / _CHECKPOINT_SHARE)
        return _finished(plan, trainer), history


@contextlib.contextmanager
def _seeded(plan: _Plan) -> Iterator[None]:
    """Torch's random generators from the plan's seed, and after it as they were."""
    device = plan.hooked.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(plan.seed)
        yield


def _trainer(plan: _Plan) -> tuple[SAETrainer[Any, Any], Batches]:
    from ed_interp.probes.dictionaries.backend import SAETrainer, SAETrainerConfig

    device = str(plan.hooked.device)
    sae: TrainingSAE[Any] = architectures.make_training_sae(
        plan.architecture,
        width=plan.hooked.d_model,
        latents=plan.latents,
        k=plan.k,
        steps=plan.steps,
        device=device,
        metadata={
            "model_name": plan.hooked.name,
            "hook_name": plan.site.name,
            "context_size": plan.windows.window,
            "prepend_bos": bool(plan.windows.prefix),
            "dataset_path": plan.windows.source.name,
            "model_fingerprint": plan.hooked.fingerprint,
        },
        options=plan.options,
    )
    config = SAETrainerConfig(
        total_training_samples=plan.tokens,
        train_batch_size_samples=plan.batch_size,
        lr=plan.lr,
        lr_end=plan.lr / 10,
        lr_warm_up_steps=plan.steps // 20,
        lr_decay_steps=plan.steps // 5,
        device=device,
        # A latent is dead, for the loss that revives it, after this many steps without firing.
        dead_feature_window=max(10, min(1000, plan.steps // 10, 200_000 // plan.batch_size)),
        feature_sampling_window=max(10, min(2000, plan.steps // 4)),
    )
    bytes_a_batch = 4 * plan.batch_size * plan.hooked.d_model
    most = max(1, min(128, _BLOCK_BYTES // bytes_a_batch))
    batches = Batches(
        plan.hooked,
        plan.site,
        plan.windows,
        batch_size=plan.batch_size,
        # Blocks of equal size, so that hardly anything is read that is not trained on.
        blocks_of=math.ceil(plan.steps / math.ceil(plan.steps / most)),
        seed=plan.seed,
    )
    # The trainer steps what it is given; its own loop, with its bar and its pickles, is not used.
    return SAETrainer(config, sae, batches), batches


@torch.no_grad()
def _begin(plan: _Plan, trainer: SAETrainer[Any, Any]) -> None:
    """Scale and mean of the states, from a first look at the text."""
    sample = plan.windows.once("train", seed=plan.seed, tokens=_SCALE_TOKENS)
    read = stream_states(plan.hooked, plan.site, sample, skip=len(plan.windows.prefix))
    states = torch.cat([part.states for part in read])
    norm = float(states.norm(dim=-1).mean())
    if trainer.sae.cfg.normalize_activations == "expected_average_only_in":
        scale = math.sqrt(plan.hooked.d_model) / max(norm, 1e-12)
        trainer.activation_scaler.scaling_factor = scale
        trainer.sae.b_dec.data.copy_(states.mean(0) * scale)


@torch.no_grad()
def _measured(step: int, output: Any) -> Logged:
    states, out = output.sae_in.float(), output.sae_out.float()
    left = (out - states).square().sum() / (states - states.mean(0)).square().sum()
    return {
        "step": step,
        "loss": float(output.loss),
        "fvu": float(left),
        "l0": float(output.feature_acts.bool().float().sum(-1).mean()),
    }


def _finished(plan: _Plan, trainer: SAETrainer[Any, Any]) -> Dictionary:
    """The trained dictionary in the form for use."""
    sae = trainer.sae
    if trainer.activation_scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
        trainer.activation_scaler.scaling_factor = None
    trainer.set_final_sae_metadata()
    return Dictionary(inference_sae(sae), plan.site, ModelStamp.of(plan.hooked))
