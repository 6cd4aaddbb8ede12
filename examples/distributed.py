# SPDX-License-Identifier: Apache-2.0
"""One transport problem, many processes: torchrun --nproc-per-node 2 examples/distributed.py.

Kill a process or press Ctrl-C and run it again, with another number of processes if you like: it
goes on from the checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from otcuda.transport import SemiDiscreteOT, fit_distributed


def main() -> None:
    parser = argparse.ArgumentParser(description="semi-discrete OT by several processes")
    parser.add_argument("--targets", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=16)
    parser.add_argument("--chi2", type=float, default=0.2)
    parser.add_argument("--output", default="heights.safetensors")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if on_gpu else None
    if on_gpu:
        torch.cuda.set_device(device)
    y = np.random.default_rng(0).standard_normal((options.targets, options.dimension))
    ot = SemiDiscreteOT(y.astype(np.float32), source="normal")
    path = f"{options.output}.checkpoint"
    result = fit_distributed(ot, chi2=options.chi2, checkpoint=path, device=device)
    if rank == 0:
        ot.save(options.output)
        Path(path).unlink(missing_ok=True)
        low, high = result.chi2_interval
        print(f"{size} processes: {result.stopped_by}, chi2 {low:.3f} to {high:.3f}")
        print(f"{result.samples} samples in {result.seconds:.1f} s; {options.output} is written")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
