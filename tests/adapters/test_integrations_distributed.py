"""Two processes over gloo give the checkpoint that one process gives: DDP and FSDP2.

DDP is accelerate's. Accelerate 1.15 chooses FSDP on accelerators only (on a CPU it stays with
DDP), so FSDP2 is torch's own ``fully_shard``, which is what accelerate calls.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ed_interp

SCRIPT = Path(__file__).with_name("distributed_run.py")


def start(folder: Path, rank: int, port: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": str(Path(ed_interp.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    line = [sys.executable, str(SCRIPT), str(folder)]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(started: list[subprocess.Popen[bytes]]) -> None:
    try:
        for process in started:
            said = process.communicate(timeout=300)[0].decode(errors="replace")
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in started:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_give_the_checkpoint_of_one(tmp_path: Path):
    port = free_port()
    finish([start(tmp_path, rank, port) for rank in range(2)])
    files = {
        kind: load_file(tmp_path / kind / "adapter_model.safetensors")
        for kind in ("single", "ddp", "fsdp")
    }
    for kind in ("ddp", "fsdp"):
        assert files[kind].keys() == files["single"].keys()
        for name, weight in files[kind].items():
            torch.testing.assert_close(weight, files["single"][name], atol=1e-5, rtol=1e-4)
    trained = files["single"]
    assert any("read" in name and bool(weight.abs().max() > 0) for name, weight in trained.items())
