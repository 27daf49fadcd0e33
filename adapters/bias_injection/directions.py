"""A steering direction as a bias-injection adapter, and back, where nothing is lost.

Adding a vector to the residual stream at every token is a bias of the layer that writes the stream
at that site: the MLP's output projection for ``resid_post`` (and the next block's ``resid_pre``)
and ``mlp_out``, attention's for ``attn_out`` and ``resid_mid``. Sites are refused where a norm
follows that layer (Gemma 2 and 3) or where no linear layer writes (the embedding). A table of names
only proposes layers: the vector is added to a layer's output in one short forward pass and must
arrive in the stream unchanged.

An adapter becomes a direction at ``resid_post`` and ``attn_out``, which name the same places.
COST: two forward passes of four tokens per site; going back copies the model once.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ed_interp.adapters.bias_injection.config import BiasInjectionConfig
from ed_interp.adapters.bias_injection.export import adapter_of
from ed_interp.errors import CaptureError, InvalidInputError
from ed_interp.models.families import module_of
from ed_interp.models.load import load
from ed_interp.models.runners import TransformersRunner
from ed_interp.models.sites import Site, resid_post
from ed_interp.streams.direction import Direction

_MLP = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2", "wo")
_ATTENTION = ("o_proj", "c_proj", "out_proj", "dense", "wo")
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def adapter_from_direction(
    model: Any, direction: Direction, *, strength: float | int = 1.0, adapter_name: str = "default"
) -> PeftModel:
    """Put ``strength * direction`` into a model as an adapter of constant biases.

    Args:
        model: The transformers model that the direction belongs to; PEFT wraps it, as always.
        direction: At ``resid_post``, ``resid_pre`` (not of block 0), ``resid_mid``, ``attn_out`` or
            ``mlp_out``.
        strength: Factor.
        adapter_name: Name of the adapter to make.

    Returns:
        The model with the adapter: save it with ``save_pretrained``.

    Raises:
        InvalidInputError: the direction belongs to another model, or a site where a constant bias
            of some layer is not the same thing.
    """
    hooked = load(model)
    direction.check(hooked)
    if not isinstance(hooked.runner, TransformersRunner) or hooked.runner.base is not hooked.model:
        raise InvalidInputError(
            "model must be a plain transformers model, got one that is wrapped; unwrap its "
            "adapters, or the TransformerLens model, first"
        )
    runner = hooked.runner
    biases: dict[str, Tensor] = {}
    for name, vector in direction.vectors.items():
        site = Site.parse(name)
        # What enters a block is what the block before it leaves.
        if site.kind == "resid_pre" and site.layer > 0:
            site = resid_post(site.layer - 1)
        keys = (key for key in _candidates(runner, site) if _arrives(runner, site, key, vector))
        key = next(keys, None)
        if key is None:
            raise InvalidInputError(
                f"{site.name} of this {type(runner.base).__name__} must be written by a linear "
                "layer without a norm behind it, so that a constant bias is the same; inject the "
                "direction instead"
            )
        # Two sites may have one writer: resid_post and the next block's resid_pre.
        biases[key] = biases.get(key, torch.zeros_like(vector)) + strength * vector
    config = BiasInjectionConfig(
        r=0, n_nodes=0, use_bias=True, target_modules=sorted(biases), inference_mode=True
    )
    wrapped = get_peft_model(runner.base, config, adapter_name=adapter_name)
    for layer in adapter_of(wrapped, adapter_name)[1]:
        layer.weights_of(adapter_name)["bias"].data.copy_(biases[layer.key])
    return wrapped


def direction_from_adapter(model: Any, *, adapter_name: str | None = None) -> Direction:
    """The direction that an adapter of constant biases is.

    Args:
        model: A ``PeftModel`` with a bias-injection adapter.
        adapter_name: Which adapter; the active one by default.

    Raises:
        InvalidInputError: no such adapter, or one that does anything else than add a constant to
            the stream: a low-rank part, live feedback, modules of its own, other layers.
    """
    name, layers = adapter_of(model, adapter_name)
    if not hasattr(model, "unload"):
        raise InvalidInputError(f"model must be a PeftModel, got {type(model).__name__}")
    if model.peft_config[name].modules_to_save:
        raise _more(name, "modules_to_save")
    biases: dict[str, Tensor] = {}
    for layer in layers:
        weights = layer.weights_of(name)
        if "B" in weights and bool(weights["B"].count_nonzero()):
            raise _more(name, f"a low-rank part in {layer.key}")
        if layer.feedback_is_live(name):
            raise _more(name, f"live feedback in {layer.key}")
        bias = layer.static_bias(name)
        if bias is not None and bool(bias.count_nonzero()):
            biases[layer.key] = bias.detach().float().cpu()
    base = copy.deepcopy(model).unload()
    hooked = load(base)
    runner: Any = hooked.runner
    vectors: dict[str, Tensor] = {}
    for index in range(hooked.n_layers):
        for kind in ("attn_out", "resid_post"):
            site = Site.parse(f"blocks.{index}.hook_{kind}")
            for key in [key for key in biases if key in _candidates(runner, site)]:
                if _arrives(runner, site, key, biases[key]):
                    vectors[site.name] = biases.pop(key)
    if biases:
        raise _more(name, f"a bias in {sorted(biases)[0]}, which does not write the stream")
    return Direction.of(hooked, vectors, method="bias-injection adapter")


def _more(name: str, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"adapter {name!r} must be constant biases of layers that write the stream, to be a "
        f"direction; it has {what}"
    )


def _candidates(runner: TransformersRunner, site: Site) -> list[str]:
    """Names of the layers whose bias may be the same as adding a vector at ``site``."""
    if site.kind in ("embed", "resid_pre"):
        return []
    attention = site.kind in ("attn_out", "resid_mid")
    block = runner.blocks[site.layer]
    name = next(n for n, module in runner.base.named_modules() if module is block)
    keys = []
    for inner, module in block.named_modules():
        path, _, leaf = inner.rpartition(".")
        # GPT-2 calls both projections c_proj, so the path decides: attn, self_attn, attention.
        if not isinstance(module, (nn.Linear, Conv1D)) or ("att" in path) is not attention:
            continue
        if leaf in (_ATTENTION if attention else _MLP):
            keys.append(f"{name}.{inner}")
    return keys


@torch.no_grad()
def _arrives(
    runner: TransformersRunner, site: Site, key: str, vector: Float[Tensor, " d_model"]
) -> bool:
    """Whether ``vector``, added to the layer's output, is what is added to the stream."""
    writer = runner.base.get_submodule(key)
    kind = "attn_out" if site.kind in ("attn_out", "resid_mid") else "resid_post"
    site = Site.parse(f"blocks.{site.layer}.hook_{kind}")
    try:
        module, _ = module_of(runner.base, runner.blocks, site)
    except CaptureError:
        return False
    # Scaled to 1, so that rounding is small against it whatever the direction's own scale.
    probe = vector.to(runner.device, runner.dtype)
    probe = probe / probe.float().abs().max().clamp(min=1e-30).to(probe.dtype)
    plain, moved = (_read(runner, module, writer, added) for added in (0.0, probe))
    off = (moved.float() - plain.float() - probe.float()).abs().max()
    return bool(off < _TOLERANCE.get(runner.dtype, 1e-2) * (1 + plain.float().abs().max()))


def _read(
    runner: TransformersRunner, module: nn.Module, writer: nn.Module, added: Tensor | float
) -> Tensor:
    """Output of ``module`` over four tokens, with ``added`` to the output of ``writer``."""
    outputs: list[Any] = []

    def add(_module: nn.Module, _args: Any, output: Any) -> Any:
        return output + added

    handles = [
        module.register_forward_hook(lambda _module, _args, output: outputs.append(output)),
        writer.register_forward_hook(add),
    ]
    training = runner.base.training
    try:
        runner.base.eval()
        ids = torch.arange(4, device=runner.device)[None] % int(runner.config.vocab_size)
        runner.base(input_ids=ids, use_cache=False)
    finally:
        runner.base.train(training)
        for handle in handles:
            handle.remove()
    read: Tensor = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    return read
