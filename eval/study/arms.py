"""The arms of a controlled study, as data: what each changes, and what it is a control for.

An arm is trained like every other, on the same examples with the same steps and seeds, and is
allowed its own learning rate: a sweep per arm comes before any arm is called bad
(:mod:`ed_interp.eval.study.trials`). Cost of this file: none.
"""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.eval.study.rows import Arm

if TYPE_CHECKING:
    import torch

LEARNING_RATES = (1e-3, 3e-3, 1e-2)
"""Rates of the sweep of a trained arm, by default."""
COEFFICIENTS = (0.25, 0.5, 1.0)
"""The same for a random direction: its length over the mean length of the stream's states."""


def sweep_of(arm: Arm, rates: tuple[float, ...] | None = None) -> tuple[float, ...]:
    """The values of an arm's sweep: learning rates, lengths of a direction, or nothing."""
    if arm.fixed:
        return (0.0,) if arm.method == "frozen" else ()
    return COEFFICIENTS if arm.method == "direction" else (rates or LEARNING_RATES)


_NODES = {"r": 4, "nodes": 4, "bias": True}
_OFF = {"r": 0, "nodes": 0, "bias": True}

_TESTED = "bias-injection"
_LISTED = (
    Arm("frozen", "The model as it is, unchanged.", "frozen"),
    Arm(_TESTED, "The adapter under test: low-rank part, bias, and feedback nodes that decay.",
        _TESTED, _NODES),
    Arm("lora", "As many trained parameters without bias, feedback or time.", "lora",
        equal_parameters=True),
    Arm("bias", "The bias alone: without low-rank part and feedback.", _TESTED, _OFF),
    Arm("shuffled",
        "The same adapter whose feedback reads random earlier tokens: the order is lost.",
        _TESTED, _NODES, shuffled_time=True),
    Arm("tau-zero",
        "Feedback that forgets at once: nodes hold the previous token, and nothing older.",
        _TESTED, {**_NODES, "tau": 1e-3, "fixed_tau": True}),
    Arm("tau-infinity",
        "Feedback that never forgets: nodes add up everything since the start.",
        _TESTED, {**_NODES, "tau": 1e9, "fixed_tau": True}),
    Arm("random",
        "A random direction added in the middle of the model: any change of the stream.",
        "direction"),
)  # fmt: skip
ARMS: dict[str, Arm] = {arm.name: arm for arm in _LISTED}
"""Every arm by name; ``bias-injection`` is the one under test, the rest are its controls."""

CONTROLS = tuple(name for name in ARMS if name not in ("frozen", _TESTED))


def arms_of(names: Iterable[str]) -> tuple[Arm, ...]:
    """The arms of these names, each once.

    Raises:
        UnknownNameError: no arm has the name; the nearest names are listed.
    """
    names = dict.fromkeys(names)
    for name in names:
        if name not in ARMS:
            raise unknown("arm", name, list(ARMS))
    return tuple(ARMS[name] for name in names)


def adapter_options(arm: Arm, model: Any) -> Any:
    """The ``AdapterOptions`` of a trained arm on a live base model."""
    from ed_interp.adapters.training import AdapterOptions

    if not arm.equal_parameters:
        return AdapterOptions(**arm.options)
    # Counted on the model itself: feedback nodes and ranks cost different things by its widths.
    target = trained_parameters(_TESTED, _NODES, model)
    # The parameters of a low-rank adapter are proportional to its rank.
    one = trained_parameters(arm.method, {"r": 1}, model)
    return AdapterOptions(**{**arm.options, "r": max(1, math.floor(target / one + 0.5))})


def trained_parameters(method: str, options: dict[str, Any], model: Any) -> int:
    """How many parameters an adapter of these options trains on this model.

    Raises:
        InvalidInputError: the configuration does not fit the model.
    """
    import torch
    from peft import get_peft_model

    from ed_interp.adapters.training import AdapterOptions
    from ed_interp.adapters.training.methods import make_config

    # On a copy, since PEFT adapts a model in place, and without touching the global generator.
    config = make_config(method, AdapterOptions(**options))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        try:
            adapted = get_peft_model(copy.deepcopy(model), config)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"{method}: {' '.join(str(error).split())}") from error
    return sum(each.numel() for each in adapted.parameters() if each.requires_grad)


@contextlib.contextmanager
def shuffled_time(seed: int) -> Iterator[None]:
    """Inside, feedback nodes get the input of a random earlier token, not of the previous one.

    Token t reads one of the tokens 0 to t, drawn anew for every t and the same for every row and
    layer: what is read keeps its distribution and stays in the past, but its order is gone. For
    single tokens (cached decoding) there is nothing to shuffle, so run without a cache.
    """
    import torch

    from ed_interp.adapters.bias_injection import layer

    plain: Callable[..., torch.Tensor] = vars(layer)["run"]

    def run(u: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        time = u.shape[1]
        generator = torch.Generator().manual_seed(seed)
        share = torch.rand(time, generator=generator)
        # floor(share * (t + 1)) is uniform over 0, ..., t: never a token of the future.
        index = (share * torch.arange(1, time + 1)).long().to(u.device)
        return plain(u[:, index], *args, **kwargs)

    # Replaced in the module that calls it, so that every layer reads shuffled inputs.
    # Imported here: it brings asyncio along, which --help would wait for.
    from unittest import mock

    with mock.patch.object(layer, "run", run):
        yield
