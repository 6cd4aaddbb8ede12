# SPDX-License-Identifier: Apache-2.0
"""The verb of optimal transport: solve."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import click

from otcuda import batch
from otcuda.cli.talk import Talk, exists_options, json_option, talk_options, talks, write_json


@click.command()
@click.argument("targets", type=click.Path(exists=True, dir_okay=False), metavar="TARGETS.npy")
@click.option("-o", "--output", required=True, metavar="FILE", help="Heights, as safetensors.")
@click.option(
    "--nu",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE.npy",
    help="Weights of the targets.  [default: equal]",
)
@click.option(
    "--source",
    type=click.Choice(["normal", "uniform", "gaussian_cdf"]),
    default="normal",
    show_default=True,
    help="Distribution that is transported.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "asgd", "pools", "adam"]),
    default="auto",
    show_default=True,
    help="How.",
)
@click.option(
    "--chi2",
    type=click.FloatRange(0, min_open=True),
    default=0.02,
    show_default=True,
    metavar="X",
    help="Error of the masses at which to stop.",
)
@click.option(
    "--samples", "max_samples", type=click.IntRange(1), metavar="N", help="Scan no more than N."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Stop after so long with what there is.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the samples: same seed, same heights.",
)
@exists_options
@json_option
@talk_options
@talks
def solve(
    talk: Talk,
    targets: str,
    output: str,
    as_json: bool,
    exists: str | None,
    minutes: float | None,
    **options: Any,
) -> int:
    """Solve semi-discrete optimal transport onto points.

    A solve that was interrupted or killed leaves FILE.checkpoint; the same command goes on from it.
    """
    if batch.is_pipe(output):
        raise click.UsageError("--output is a file: heights do not go through a pipe")
    from otcuda.transport.files import Words, solve_file

    if Path(output).exists():
        if exists == "skip":
            return 0
        if exists is None:
            raise FileExistsError(
                errno.EEXIST, "exists already; -f overwrites it, -n skips it", output
            )
    seconds = None if minutes is None else 60 * minutes
    record = solve_file(targets, output, max_seconds=seconds, callback=Words(talk.say), **options)
    if as_json:
        write_json(record)
    else:
        state = "converged" if record["converged"] else f"stopped by {record['stopped_by']}"
        low, high = ("?" if end is None else f"{end:.4g}" for end in record["chi2_interval"])
        talk.say(
            f"{batch.shown(output)}: {state}, chi2 {low} to {high}, {record['samples']} samples"
        )
    return 0
