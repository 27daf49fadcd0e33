"""The architectures that can be trained: SAELens's own, and our ``spike-slab``.

Only making a dictionary imports SAELens (8 seconds).
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.options import OptionError

if TYPE_CHECKING:
    from sae_lens import TrainingSAE


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One kind of dictionary."""

    name: str
    registered: str
    """SAELens's name of it."""
    takes_k: bool
    """Whether its sparsity is set by a number of active latents."""
    about: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings other than SAELens's defaults, for states scaled to norm ``sqrt(d_model)``."""


ARCHITECTURES = {
    entry.name: entry
    for entry in (
        Architecture("topk", "topk", True, "the k largest latents of every token"),
        Architecture("batchtopk", "batchtopk", True, "k per token on average over a batch"),
        Architecture(
            "matryoshka",
            "matryoshka_batchtopk",
            True,
            "batchtopk whose first latents also reconstruct by themselves",
        ),
        Architecture(
            "jumprelu",
            "jumprelu",
            True,
            "a learned threshold per latent, L0 held near k",
            {
                "jumprelu_sparsity_loss_mode": "quadratic",
                "jumprelu_ste_to_input": True,
                "jumprelu_bandwidth": 0.5,
                "jumprelu_init_threshold": 0.5,
                "l0_coefficient": 0.3,
            },
        ),
        Architecture(
            "standard",
            "standard",
            False,
            "ReLU with an L1 penalty (l1_coefficient)",
            {"l1_coefficient": 1.0},
        ),
        Architecture(
            "gated",
            "gated",
            False,
            "a gate and a magnitude per latent, L1 on the gate (l1_coefficient)",
            {"l1_coefficient": 1.0},
        ),
        Architecture(
            "spike-slab",
            "spike_slab",
            True,
            "a variational autoencoder with a probability of presence per latent",
        ),
    )
}
"""By the name that ``train`` takes."""

DEFAULT = "topk"
DEFAULT_K = 16


def architecture(name: str) -> Architecture:
    """An architecture by name.

    Raises:
        UnknownNameError: no such architecture.
    """
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, list(ARCHITECTURES))
    return ARCHITECTURES[name]


def check_sizes(name: str, *, latents: int, k: int | None) -> int | None:
    """The k to train with, or None for an architecture without one.

    Raises:
        InvalidInputError: k above the number of latents, or given for an architecture without one.
        UnknownNameError: no such architecture.
    """
    if not architecture(name).takes_k:
        if k is not None:
            raise OptionError(
                "k",
                f"must not be given for {name}, got {k}; set its sparsity by l1_coefficient "
                "(--option l1_coefficient=5)",
            )
        return None
    chosen = DEFAULT_K if k is None else k
    if chosen > latents:
        raise OptionError(
            "k", f"must be at most the number of latents ({latents}), got {chosen}; lower k"
        )
    return chosen


def make_training_sae(
    name: str,
    *,
    width: int,
    latents: int,
    k: int | None,
    steps: int,
    device: str,
    metadata: dict[str, Any],
    options: dict[str, Any],
) -> TrainingSAE[Any]:
    """A fresh dictionary of SAELens's training class, from torch's global random state.

    Args:
        name: One of :data:`ARCHITECTURES`.
        width: Width of the states.
        latents: Size of the dictionary.
        k: From :func:`check_sizes`.
        steps: Number of training steps, which warm-ups are a share of.
        device: Device of the weights.
        metadata: SAELens's own: ``model_name``, ``hook_name``, ``context_size``, ...
        options: Fields of the architecture's SAELens configuration, which override ours.

    Raises:
        InvalidInputError: an unknown option, or a value that SAELens refuses.
    """
    import ed_interp.probes.dictionaries.spike_slab  # noqa: F401  (registers itself)
    from ed_interp.probes.dictionaries.backend import SAEMetadata, registry

    kind = architecture(name)
    sae_class, config_class = registry.get_sae_training_class(kind.registered)
    known = {field.name for field in dataclasses.fields(config_class)}
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"its options: {sorted(known)}"
            raise InvalidInputError(f"{name} has no option {option!r}; {hint}")
    settings: dict[str, Any] = {
        "d_in": width,
        "d_sae": latents,
        "device": device,
        # States are scaled before training and the factor is folded into the weights after it, so
        # that one learning rate fits every model and block.
        "normalize_activations": "expected_average_only_in",
        # Of the values tried (0.1, 0.4, 1.0) the one that leaves the fewest latents dead.
        "decoder_init_norm": 1.0,
        **kind.options,
    }
    if name in ("topk", "batchtopk", "matryoshka"):
        settings["k"] = k
    elif k is not None:
        settings["target_l0"] = float(k)
    # Sparsity that is at full strength from the start kills latents before they have learned.
    for warm_up in ("l1_warm_up_steps", "l0_warm_up_steps", "kl_warm_up_steps"):
        if warm_up in known:
            settings[warm_up] = steps // 5
    if "anneal_steps" in known:
        settings["anneal_steps"] = steps * 4 // 5
    if name == "matryoshka":
        # A set, as a tiny dictionary has an eighth of 0 or equal halves.
        widths = [latents // 8, latents // 4, latents // 2, latents]
        settings["matryoshka_widths"] = sorted({size for size in widths if size >= 1})
    settings |= options
    try:
        config = config_class(**settings)
        config.metadata = SAEMetadata(**metadata)
        return sae_class(config)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{name} refuses its settings: {error}") from error
