"""Which weights of an adapter share a learning rate: low-rank matrices, nodes, time constants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor

from ed_interp.adapters.training.options import TrainingOptions

Group = Literal["lora", "nodes", "taus"]

_PARTS = {"A": "low-rank update", "B": "low-rank update", "bias": "bias"}
TIME_CONSTANTS = "log time constants"


def part_of(name: str) -> str | None:
    """The part of bias injection that a parameter is of, by its name; None for other methods."""
    kind = name.partition("bias_injection_")[2].partition(".")[0]
    if "tau" in kind or "decay" in kind:
        return TIME_CONSTANTS
    return _PARTS.get(kind, "nodes") if kind else None


def group_of(name: str) -> Group:
    """The group of a trained parameter: the bias is one of the nodes, other methods are lora."""
    groups: dict[str | None, Group] = {None: "lora", _PARTS["A"]: "lora", TIME_CONSTANTS: "taus"}
    return groups.get(part_of(name), "nodes")


def parameter_groups(
    named: Iterable[tuple[str, Tensor]], options: TrainingOptions
) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with its ``name``, ``lr`` and ``weight_decay``.

    Weight decay is for matrices only: pulling a bias or a time constant to 0 has no meaning.
    """
    # An AdamW step is about one learning rate long whatever the gradient: weights of about 0.1 and
    # logarithms of time constants of about 3 need different ones.
    rates = {"lora": options.lr_lora, "nodes": options.lr_nodes, "taus": options.lr_tau}
    members: dict[tuple[Group, bool], list[Tensor]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            group = group_of(name)
            decays = parameter.ndim > 1 and group != "taus"
            members.setdefault((group, decays), []).append(parameter)
    return [
        {
            "name": group if decays else f"{group}, no decay",
            "params": parameters,
            "lr": rates[group],
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (group, decays), parameters in sorted(members.items(), key=lambda item: item[0])
    ]
