"""`accelerate launch` over two processes gives the table of one, and prints it once."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(arguments: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of two processes on the CPU; a hang ends them all."""
    # Without --multi_gpu, accelerate starts one process where it finds no GPUs, whatever is asked.
    launcher = ["-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    places = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    port = ["--dynamo_backend", "no", "--main_process_port", str(free_port())]
    with subprocess.Popen(
        [sys.executable, *launcher, *places, *port, "-m", "ed_interp", *arguments],
        env={**environment, "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            stdout, stderr = running.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            raise
    return running.returncode, stdout, stderr


def _batches_read(stderr: str) -> int:
    """By the process that shows its progress, of the trained model."""
    found = re.search(r"reading activations .* (\d+)/\1 ", stderr)
    assert found, stderr
    return int(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback device has another name")
@pytest.mark.usefixtures("no_pictures")
def test_two_processes_give_the_table_of_one(
    cli: Cli, small: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    small.remove("--quiet")
    arguments = [*small, "--shots", "0-2", "--batch-size", "5", "--untrained", "--json"]
    arguments += ["--device", "cpu"]
    alone = cli(*arguments, "--out", tmp_path / "alone")
    assert (alone.status, _batches_read(alone.stderr)) == (0, 5)
    status, stdout, stderr = launch([*arguments, "--out", str(tmp_path / "two")], environment)
    assert status == 0, stderr[-3000:]
    assert stdout.count("\n") == 1
    assert stderr.count("written to") == 1
    assert _batches_read(stderr) == 3  # and the other process the other 2
    one, two = json.loads(alone.stdout), json.loads(stdout)
    for kind in ("rows", "behaviour"):
        for row, other in zip(one[kind], two[kind], strict=True):
            assert other == {
                key: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
                for key, value in row.items()
            }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "two"]
    assert (tmp_path / "two" / "run.json").exists()
    assert (tmp_path / "two" / "report.html").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback device has another name")
def test_an_error_ends_both_processes(
    small: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    # The first process alone looks at the folder; the other waits for its word.
    status, stdout, stderr = launch([*small, "--out", "taken"], environment)
    assert (status, stdout) == (1, "")
    assert stderr.count("taken is a file, not a folder") == 1
