# SPDX-License-Identifier: Apache-2.0
"""otcuda beside Pillow's codecs on a folder of pictures: the quality table, and interleaved times.

python benchmarks/codec.py kodak --data DIR [--networks DIR] [--rounds 5] [--timed 2]

Without arguments on the bundled photograph, so that `make bench` needs no data.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import harness

import otcuda
from otcuda._io import atomic_write
from otcuda.codec import compress, decompress
from otcuda.codec.codec import ENGINES
from otcuda.errors import BudgetError
from otcuda.evaluation import CODECS, OtcudaCodec, PictureSet, evaluate, find_pictures, table
from otcuda.evaluation.baselines import Codec, fill

PACKAGES = ("otcuda", "numpy", "pillow", "torch")


def rivals(names: Sequence[str]) -> dict[str, Codec]:
    """Codecs by name; `otcuda-e0` is our codec at effort 0."""
    found: dict[str, Codec] = {}
    for name in names:
        ours = re.fullmatch(r"otcuda(-e([0-9]))?", name)
        if ours:
            found[name] = OtcudaCodec(**({"effort": int(ours[2])} if ours[1] else {}))
            found[name].name = name
        elif name in CODECS:
            found[name] = CODECS[name]
        else:
            raise SystemExit(f"{name} is none of otcuda, otcuda-e0, ..., {', '.join(CODECS)}")
    return found


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    otcuda.set_num_threads(1)


def best_file(codec: Codec, image: Any, budget_bytes: int) -> bytes:
    """What a user waits for: the file within the budget, or the coarsest where there is none."""
    try:
        return fill(codec, image, budget_bytes).blob
    except BudgetError:
        return codec.encode(image, 0)


def cases(codecs: dict[str, Codec], images: dict[str, Any], bpp: float) -> Iterator[harness.Case]:
    for name, image in images.items():
        pixels = image.shape[0] * image.shape[1]
        budget = int(bpp * pixels / 8)
        blobs = {rival: best_file(codec, image, budget) for rival, codec in codecs.items()}
        encoders = {
            rival: lambda c=codec, x=image, n=budget: best_file(c, x, n)
            for rival, codec in codecs.items()
        }
        decoders = {
            rival: lambda c=codec, b=blobs[rival]: c.decode(b) for rival, codec in codecs.items()
        }
        notes = {"bytes": {rival: len(blob) for rival, blob in blobs.items()}}
        yield harness.Case(f"{name} encode", (), pixels / 1e6, "MP/s", encoders, notes)
        yield harness.Case(f"{name} decode", (), pixels / 1e6, "MP/s", decoders, notes)


def engine_cases(images: dict[str, Any], bpp: float) -> Iterator[harness.Case]:
    """Our codec by its native networks and by torch's, and what a core could do."""
    for name, image in images.items():
        pixels = image.shape[0] * image.shape[1]
        size = int(bpp * pixels / 8)

        def encoders(effort: int, x: Any = image, n: int = size) -> dict[str, Any]:
            return {
                engine: lambda e=engine: compress(x, bytes=n, effort=effort, engine=e)
                for engine in ENGINES
            }

        blob = compress(image, bytes=size)
        for realism in (0.0, 1.0):
            decoders = {
                engine: lambda e=engine, b=blob, r=realism: decompress(b, realism=r, engine=e)
                for engine in ENGINES
            }
            title = f"{name} decode" + (" realism 1" if realism else "")
            yield harness.Case(title, (), pixels / 1e6, "MP/s", decoders)
        for effort in (0, 1):
            title = f"{name} encode effort {effort}"
            yield harness.Case(title, (), pixels / 1e6, "MP/s", encoders(effort))


def pictures(given: argparse.Namespace) -> PictureSet:
    if given.pictures is not None:
        return find_pictures(given.pictures, given.data)
    with resources.as_file(resources.files("otcuda") / "data" / "demo.jpg") as path:
        return find_pictures(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="?", help="a data set or a folder")
    parser.add_argument("--data", help="folder of the named set")
    parser.add_argument("--networks", help="folder of the metric networks")
    parser.add_argument("--bpp", type=float, default=0.03)
    parser.add_argument("--codecs", nargs="+", default=["otcuda", *CODECS])
    parser.add_argument("--timed", type=int, default=2, help="pictures that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="after one that is dropped")
    parser.add_argument("--least", type=float, default=0.02, help="CPU seconds a measurement")
    parser.add_argument("--no-engines", action="store_true", help="leave out torch's networks")
    parser.add_argument("--machine", default=platform.machine(), help="part of the result's name")
    return parser.parse_args()


def engine_rows(images: dict[str, Any], given: argparse.Namespace) -> list[dict[str, Any]]:
    first = dict(itertools.islice(images.items(), 1))
    rows = []
    for case in engine_cases(first, given.bpp):
        rows.append(harness.measure(case, given.rounds, given.least))
        print(harness.line(rows[-1]), flush=True)
    return rows


def main() -> None:
    given = arguments()
    one_thread()
    codecs = rivals(given.codecs)
    networks = None
    if given.networks:
        from otcuda.evaluation import Perceptual

        networks = Perceptual(given.networks)
    found = pictures(given)
    result = evaluate(
        found,
        list(codecs.values()),
        bpp=given.bpp,
        networks=networks,
        callback=lambda done, total, what: print(f"{done}/{total} {what}", file=sys.stderr),
    )
    print(table(result))
    skipped = {fault.file for fault in result.skipped}
    readable = [p for p in found.pictures if p.name not in skipped]
    images = {p.name: p.read() for p in readable[: given.timed]}
    rows = []
    for case in cases(codecs, images, given.bpp):
        rows.append(harness.measure(case, given.rounds, given.least))
        print(harness.line(rows[-1]), flush=True)
    written = {"op": "codec", "clock": "cpu", "threads": 1, **harness.environment(PACKAGES)}
    written["quality"] = {k: v for k, v in result.to_json().items() if k != "rows"}
    written["rows"] = rows
    written["engines"] = [] if given.no_engines else engine_rows(images, given)
    path = harness.RESULTS / f"codec.{given.machine}.json"
    harness.RESULTS.mkdir(exist_ok=True)
    atomic_write(path, (json.dumps(written, indent=1, allow_nan=False) + "\n").encode())
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
