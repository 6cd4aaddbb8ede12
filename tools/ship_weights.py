# SPDX-License-Identifier: Apache-2.0
"""Put the weights of a run into the package: python tools/ship_weights.py RUN/weights.safetensors.

Weights of `--preset high` become `weights-high.safetensors`, those of `middle` likewise, others
`weights.safetensors`. Files name a release by 0 to 6: unless --id says otherwise it is the one
after the largest that is shipped, modulo 7, passing over those of the other families.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {
    "low": "weights.safetensors",
    "middle": "weights-middle.safetensors",
    "high": "weights-high.safetensors",
}


def main(arguments: list[str] | None = None, folder: Path = ROOT / "otcuda" / "data") -> None:
    """Number the weights and write them where the package looks for them."""
    sys.path.insert(0, str(ROOT))
    from otcuda.codec.bitstream import CUSTOM_MODEL
    from otcuda.codec.model import load_model, read_record

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--family", choices=FAMILIES, help="by default that of the run's preset")
    parser.add_argument("--id", type=int, choices=range(CUSTOM_MODEL))
    options = parser.parse_args(arguments)
    model = load_model(options.weights)
    preset = model.training.get("preset")
    target = folder / FAMILIES[options.family or (preset if preset in FAMILIES else "low")]
    shipped = {path: read_record(path)["id"] for path in folder.glob("*.safetensors")}
    others = {number for path, number in shipped.items() if path != target}
    if options.id in others:
        parser.error(f"release {options.id} is shipped already, by another family")
    after = max(shipped.values(), default=-1) + 1
    free = ((after + k) % CUSTOM_MODEL for k in range(CUSTOM_MODEL))
    model.id = next(k for k in free if k not in others) if options.id is None else options.id
    model.save(target)
    print(f"{target.name}: {model}")


if __name__ == "__main__":
    main()
