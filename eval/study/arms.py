"""The arms of a controlled study, as data: what each changes, and what it is a control for.

An arm is trained like every other, on the same examples with the same steps and seeds, and is
allowed its own learning rate: a sweep per arm comes before any arm is called bad
(:mod:`ed_interp.eval.study.trials`). Cost of this file: none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch

from ed_interp.errors import InvalidInputError, unknown

LEARNING_RATES = (1e-3, 3e-3, 1e-2)
"""What the sweep of a trained arm goes through, unless told otherwise."""
COEFFICIENTS = (0.25, 0.5, 1.0)
"""The same for a random direction: its length over the mean length of the stream's states."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to change the model, or not to."""

    name: str
    about: str
    """What is compared with it, in a sentence."""
    method: str
    """A method of ``ed_interp.adapters.training``, ``frozen``, or ``direction``."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of ``AdapterOptions``."""
    equal_parameters: bool = False
    """The rank is chosen so that it trains as many parameters as ``bias-injection`` does."""
    shuffled_time: bool = False
    """Feedback reads a random earlier token in place of the one before."""

    @property
    def trained(self) -> bool:
        """Whether anything is learned."""
        return self.method not in ("frozen", "direction", "checkpoint")

    def sweep(self, rates: tuple[float, ...] | None = None) -> tuple[float, ...]:
        """What its sweep goes through: learning rates, lengths of a direction, or nothing."""
        if self.method == "frozen":
            return (0.0,)
        return COEFFICIENTS if self.method == "direction" else (rates or LEARNING_RATES)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for records."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}


_NODES = {"r": 4, "nodes": 4, "bias": True}
_OFF = {"r": 0, "nodes": 0, "bias": True}

ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("frozen", "The model as it is: what nothing at all does.", "frozen"),
        Arm(
            "bias-injection",
            "The adapter under test: low-rank part, bias, and feedback nodes that decay.",
            "bias-injection",
            _NODES,
        ),
        Arm(
            "lora",
            "As many trained parameters without bias, feedback or time.",
            "lora",
            equal_parameters=True,
        ),
        Arm("bias", "The bias alone: without low-rank part and feedback.", "bias-injection", _OFF),
        Arm(
            "shuffled",
            "The same adapter whose feedback reads random earlier tokens: the order is lost.",
            "bias-injection",
            _NODES,
            shuffled_time=True,
        ),
        Arm(
            "tau-zero",
            "Feedback that forgets at once: nodes hold the token before, and nothing older.",
            "bias-injection",
            {**_NODES, "tau": 1e-3, "fixed_tau": True},
        ),
        Arm(
            "tau-infinity",
            "Feedback that never forgets: nodes add up everything since the start.",
            "bias-injection",
            {**_NODES, "tau": 1e9, "fixed_tau": True},
        ),
        Arm(
            "random",
            "A random direction added in the middle of the model: moving the stream at all.",
            "direction",
        ),
    )
}
"""Every arm by name; ``bias-injection`` is the one under test, the rest are its controls."""

CONTROLS = tuple(name for name in ARMS if name not in ("frozen", "bias-injection"))


def arms_of(names: Iterator[str] | tuple[str, ...] | list[str]) -> tuple[Arm, ...]:
    """The arms called so, each once.

    Raises:
        UnknownNameError: there is no such arm; the nearest names are listed.
    """
    found: dict[str, Arm] = {}
    for name in names:
        if name not in ARMS:
            raise unknown("arm", name, list(ARMS))
        found[name] = ARMS[name]
    return tuple(found.values())


def adapter_options(arm: Arm, model: Any) -> Any:
    """The ``AdapterOptions`` of a trained arm on this model.

    Args:
        arm: A trained arm.
        model: The live base model, of which a copy is adapted to count parameters.
    """
    from ed_interp.adapters.training import AdapterOptions

    if not arm.equal_parameters:
        return AdapterOptions(**arm.options)
    asked = trained_parameters(ARMS["bias-injection"].method, _NODES, model)
    one = trained_parameters(arm.method, {"r": 1}, model)
    rank = max(1, math.floor(asked / one + 0.5))
    return AdapterOptions(**{**arm.options, "r": rank})


def trained_parameters(method: str, options: Mapping[str, Any], model: Any) -> int:
    """How many parameters an adapter of these options trains on this model.

    Raises:
        InvalidInputError: the configuration does not fit the model.
    """
    import copy
    import warnings

    from peft import get_peft_model

    from ed_interp.adapters.training import AdapterOptions
    from ed_interp.adapters.training.methods import make_config

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
    """Inside, feedback nodes are given the input of a random earlier token, not of the last one.

    Token t reads one of the tokens 0 to t, drawn anew for every t and the same for every row and
    layer: what is read keeps its distribution and stays in the past, but its order is gone. For
    single tokens (cached decoding) there is nothing to shuffle, so run without a cache.
    """
    from ed_interp.adapters.bias_injection import layer

    plain: Callable[..., torch.Tensor] = vars(layer)["run"]

    def run(u: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        time = u.shape[1]
        generator = torch.Generator().manual_seed(seed)
        share = torch.rand(time, generator=generator)
        index = (share * torch.arange(1, time + 1)).long().to(u.device)
        return plain(u[:, index], *args, **kwargs)

    with mock.patch.object(layer, "run", run):
        yield
