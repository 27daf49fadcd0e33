"""One of two processes: trains the tiny model under DDP, then under FSDP2; the first one saves.

Not a test: ``test_integrations_distributed.py`` starts it as ``distributed_run.py FOLDER`` with
the variables of torch's launcher. The first also makes the run alone that the others must equal.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import distributed
from transformers import GPT2Config, GPT2LMHeadModel

from ed_interp.adapters.bias_injection import BiasInjectionConfig

STEPS, ROWS = 4, 4


def build() -> Any:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 60, "n_positions": 40}
    plain = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = GPT2LMHeadModel(GPT2Config(**sizes, **plain, bos_token_id=0, eos_token_id=0))
    config = BiasInjectionConfig(r=2, n_nodes=4, target_modules=["c_attn", "c_fc"])
    tuned = get_peft_model(model, config)
    with torch.no_grad():  # live feedback from the first step on
        for name, weight in tuned.named_parameters():
            if weight.requires_grad and "tau" not in name:
                weight.normal_(std=0.2)
    return tuned


def data(rank: int, world: int) -> torch.Tensor:
    torch.manual_seed(1)
    ids = torch.randint(0, 60, (STEPS, ROWS, 24))
    return ids[:, rank * ROWS // world : (rank + 1) * ROWS // world]


def steps(model: Any, optimizer: Any, ids: torch.Tensor, backward: Any) -> None:
    model.train()
    for batch in ids:
        backward(model(input_ids=batch, labels=batch, use_cache=False).loss)
        optimizer.step()
        optimizer.zero_grad()


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)


def single(folder: Path) -> None:
    model = build()
    steps(model, optimizer_of(model), data(0, 1), torch.Tensor.backward)
    model.save_pretrained(folder, save_embedding_layers=False)


def ddp(folder: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = build()
    wrapped, optimizer = accelerator.prepare(model, optimizer_of(model))
    assert type(wrapped).__name__ == "DistributedDataParallel"
    ids = data(accelerator.process_index, accelerator.num_processes)
    steps(wrapped, optimizer, ids, accelerator.backward)
    if accelerator.is_main_process:
        inner = accelerator.unwrap_model(wrapped)
        inner.save_pretrained(folder, save_embedding_layers=False)
    accelerator.wait_for_everyone()


def fsdp(folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    model = build()
    base = model.get_base_model()
    for block in base.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(base, mesh=mesh)
    assert all(isinstance(weight, DTensor) for weight in model.parameters())
    ids = data(distributed.get_rank(), distributed.get_world_size())
    steps(model, optimizer_of(model), ids, torch.Tensor.backward)
    full = {
        name: weight.full_tensor() if isinstance(weight, DTensor) else weight
        for name, weight in model.state_dict().items()
    }
    if distributed.get_rank() == 0:
        model.save_pretrained(folder, state_dict=full, save_embedding_layers=False)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    ddp(out / "ddp")
    fsdp(out / "fsdp")
    if os.environ["RANK"] == "0":
        single(out / "single")
