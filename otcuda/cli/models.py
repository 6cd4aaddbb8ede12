# SPDX-License-Identifier: Apache-2.0
"""The verbs about models and machines: eval, train, sample, doctor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from otcuda import batch
from otcuda.cli.talk import (
    FAILED,
    INTERRUPTED,
    PARTLY,
    Effort,
    Talk,
    exists_options,
    json_option,
    talk_options,
    talks,
    write_json,
    wrong_usage,
)
from otcuda.errors import ArgumentError


@click.command(name="eval")
@click.argument("pictures", metavar="FOLDER|NAME")
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where the pictures of a named set are.",
)
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="NAME",
    help="otcuda, jpeg, jpeg2000, webp, avif; once for each.  [default: all]",
)
@click.option(
    "--bpp",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Bits a pixel.  [default: 0.03]",
)
@click.option("--bytes", "size", type=click.IntRange(1), metavar="N", help="Bytes a picture.")
@click.option(
    "--realism",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="0..1",
    help="Of the pictures that otcuda decodes.",
)
@click.option(
    "-e", "--effort", type=Effort(), metavar="0..1", help="Of otcuda's encoder.  [default: 1]"
)
@click.option(
    "--networks",
    type=click.Path(file_okay=False),
    envvar="OTCUDA_NETWORKS",
    metavar="DIR",
    help="Networks of LPIPS and DISTS.  [env: OTCUDA_NETWORKS]",
)
@json_option
@talk_options
@talks
def evaluate(talk: Talk, pictures: str, data: str | None, as_json: bool, **options: Any) -> int:
    """Measure otcuda and the standard codecs on pictures.

    FOLDER is any folder of pictures, NAME a known set such as kodak.
    """
    from otcuda import evaluation

    if options["bpp"] is not None and options["size"] is not None:
        raise click.UsageError("give one of --bytes and --bpp")
    with wrong_usage():
        found = evaluation.find_pictures(pictures, data)
        codecs = _codecs(options)
    networks = evaluation.Perceptual(options["networks"]) if options["networks"] else None
    with talk.progress("eval", 1.0) as move:
        result = evaluation.evaluate(
            found,
            codecs,
            bpp=options["bpp"],
            budget_bytes=options["size"],
            networks=networks,
            callback=lambda done, total, what: move(done / max(total, 1), what),
        )
    if as_json:
        write_json(result.to_json())
    else:
        click.echo(evaluation.table(result), nl=False)
    return PARTLY if result.skipped or result.failures else 0


def _codecs(options: dict[str, Any]) -> list[Any]:
    from otcuda import evaluation

    given = {} if options["effort"] is None else {"effort": options["effort"]}
    ours = evaluation.OtcudaCodec(realism=options["realism"], **given)
    names = options["codecs"] or ("otcuda", *evaluation.CODECS)
    for name in names:
        if name != "otcuda" and name not in evaluation.CODECS:
            known = ", ".join(("otcuda", *evaluation.CODECS))
            raise ArgumentError(f"--codec {name} is none of {known}")
    return [ours if name == "otcuda" else name for name in names]


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(file_okay=False))
@click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="FOLDER[=WEIGHT]",
    help="Pictures; once for each folder.  [default: those of RUN]",
)
@click.option(
    "--held-out",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Pictures to judge by.  [default: some of --data]",
)
@click.option(
    "--stage",
    metavar="NAME",
    default="all",
    show_default=True,
    help="autoencoder, synthesis, entropy, noise, transport, gan or all.",
)
@click.option(
    "--preset",
    type=click.Choice(["low", "middle", "high", "paper"]),
    metavar="NAME",
    help="low, middle or high (rates), or paper.  [default: low]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the stage; with all: STAGE.KEY=VALUE.",
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Steps of the stage.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Stop after so long; the next call goes on.",
)
@click.option(
    "--start", metavar="klt|shipped|FILE", help="First weights of a new run.  [default: klt]"
)
@click.option(
    "--networks",
    type=click.Path(file_okay=False),
    envvar="OTCUDA_NETWORKS",
    metavar="DIR",
    help="Networks of LPIPS.  [env: OTCUDA_NETWORKS]",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads.")
@json_option
@talk_options
@talks
def train(talk: Talk, folder: str, as_json: bool, minutes: float | None, **options: Any) -> int:
    """Train the codec into the folder RUN, or go on where it stopped.

    RUN gets a log (log.jsonl), checkpoints and sample pictures; a run that was killed loses at most
    the steps since its last checkpoint.
    """
    from otcuda import evaluation
    from otcuda.training import driver

    folder_of_networks = options.pop("networks")
    if folder_of_networks:
        options["networks"] = evaluation.Perceptual(folder_of_networks)
    with wrong_usage():
        settings = driver.read_settings(Path(folder), **options)
    seconds = None if minutes is None else 60 * minutes
    with talk.progress("train", 1.0) as move:
        teller = _Teller(talk, move, as_json)
        done, stopped = driver.train(Path(folder), settings, seconds, callback=teller)
    talk.say("done" if done else f"stopped; `otcuda train {batch.shown(folder)}` goes on")
    return INTERRUPTED if stopped else 0


class _Teller:
    """Lines of a training log as a bar on a terminal, else as text, or as JSON."""

    def __init__(self, talk: Talk, move: Callable[[float, str], None], as_json: bool) -> None:
        self._talk, self._move, self._as_json = talk, move, as_json

    def __call__(self, record: dict[str, Any]) -> None:
        if "say" in record:
            self._talk.say(record["say"])
            return
        if self._as_json:
            write_json({"schema": batch.SCHEMA, "command": "train", **record})
        numbers = record.get("validation", record)
        left_out = ("step", "steps", "time")
        shown = [
            f"{k} {v:.4g}"
            for k, v in numbers.items()
            if isinstance(v, (int, float)) and k not in left_out
        ]
        text = f"{record['stage']} {record['step']}/{record['steps']}: {', '.join(shown)}"
        self._move(record["step"] / record["steps"], text)
        if "validation" in record or not sys.stderr.isatty():
            self._talk.say(text)


@click.command()
@click.option(
    *("-o", "--output"),
    default=".",
    show_default=True,
    metavar="FOLDER",
    help="Where the pictures go.",
)
@click.option(
    "--count", type=click.IntRange(1), default=4, show_default=True, metavar="N", help="How many."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Same seed, same pictures.",
)
@click.option(
    "--realism",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    metavar="0..1",
    help="As of decompress.",
)
@click.option(
    "--model",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Weights; the bundled ones by default.",
)
@exists_options
@json_option
@talk_options
@talks
def sample(talk: Talk, output: str, as_json: bool, exists: str | None, **options: Any) -> int:
    """Draw pictures from noise by the optimal transport map."""
    for record in batch.sample(Path(output), exists=exists or "refuse", **options):
        if as_json:
            write_json(record)
        else:
            talk.say(f"{batch.shown(record['output'])}: {record['width']} x {record['height']}")
    return 0


@click.command()
@click.option("--no-test", is_flag=True, help="Leave out the self-test.")
@json_option
@talk_options
@talks
def doctor(talk: Talk, no_test: bool, as_json: bool) -> int:
    """Say what this installation has, and test it in seconds."""
    from otcuda import doctor as doctoring

    with talk.progress("self-test", 1.0) as move:
        result = doctoring.examine(test=not no_test, callback=move)
    if as_json:
        write_json(result)
    else:
        click.echo(doctoring.report(result))
    return 0 if result["healthy"] else FAILED
