# SPDX-License-Identifier: Apache-2.0
"""The verbs that turn pictures into files and back: compress, decompress, info, demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from otcuda import batch
from otcuda._io import make_folder
from otcuda.cli.talk import (
    FAILED,
    PARTLY,
    Effort,
    Talk,
    batch_options,
    json_option,
    talk_options,
    talks,
    write_json,
    wrong_usage,
)


@click.command(epilog="`-` is stdin or stdout, `png:-` also names the format.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--bytes",
    "size",
    type=click.IntRange(1),
    metavar="N",
    help="At most N bytes a file; never more.",
)
@click.option(
    "--bpp",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="At most X bits a pixel, header included.  [default: 0.03]",
)
@click.option(
    "--quality",
    type=click.FloatRange(0, 200),
    metavar="Q",
    help="0 to 100 instead of a size; to 200 with weights for high rates.",
)
@click.option(
    "--mode",
    type=click.Choice(["coded", "fixed"]),
    default="coded",
    show_default=True,
    help="Entropy-coded, or every file of a size equally long.",
)
@click.option(
    "-e",
    "--effort",
    type=Effort(),
    metavar="0..1",
    help="How long to search for a better file.  [default: 1]",
)
@click.option("--measure", is_flag=True, help="Decode again and report PSNR and MS-SSIM.")
@batch_options
@talks
def compress(talk: Talk, inputs: tuple[str, ...], size: int | None, **options: Any) -> int:
    """Turn pictures into .otc files.

    A single file goes to --output or beside itself; several files or a folder go to the folder
    --output, with a line for each in its manifest.
    """
    targets = [options["bpp"], options["quality"], size]
    if sum(target is not None for target in targets) > 1:
        raise click.UsageError("give one of --bytes, --bpp and --quality")
    names = ("bpp", "quality", "mode", "effort", "model", "measure")
    work = batch.Compress(
        bytes=size,
        exists=options["exists"] or "refuse",
        **{name: options[name] for name in names},
    )
    with wrong_usage():
        plan = batch.plan(inputs, options["output"], batch.PICTURES, ".otc")
    return _run(talk, plan, work, options)


@click.command(epilog="`-` is stdin or stdout, `ppm:-` also names the format.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-r",
    "--realism",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="0..1",
    help="0: least error; 1: most natural.",
)
@click.option(
    "--format",
    "suffix",
    type=click.Choice(sorted(batch.FORMATS)),
    default="png",
    show_default=True,
    help="Of pictures whose name does not say it.",
)
@click.option("--max-pixels", type=click.IntRange(1), metavar="N", help="Refuse larger pictures.")
@batch_options
@talks
def decompress(talk: Talk, inputs: tuple[str, ...], suffix: str, **options: Any) -> int:
    """Turn .otc files back into pictures."""
    names = ("realism", "max_pixels", "model")
    work = batch.Decompress(
        exists=options["exists"] or "refuse", **{name: options[name] for name in names}
    )
    with wrong_usage():
        plan = batch.plan(inputs, options["output"], batch.CODED, f".{suffix}")
        for job in plan.jobs[:1]:
            batch.picture_writer(job.target)
    return _run(talk, plan, work, options)


def _run(talk: Talk, plan: batch.Plan, work: batch.Work, options: dict[str, Any]) -> int:
    as_json, (index, count) = options["as_json"], options["shard"]
    jobs = batch.shard(plan.jobs, index, count)
    if plan.folder is None:
        if not jobs:
            talk.say(f"nothing to do in part {index} of {count}")
            return 0
        (job,) = jobs
        talk.file = "stdin" if batch.is_pipe(job.source) else job.source
        _check_pipes(job, as_json)
        with talk.progress(type(work).__name__.lower(), 1.0) as move:
            record = work(job, lambda what, share: move(share, what))
        _tell(talk, record, as_json)
        return 0
    make_folder(plan.folder)
    failed = 0
    manifest_path = plan.folder / f"manifest-{index}-of-{count}.jsonl"
    label = type(work).__name__.lower()
    with manifest_path.open("ab") as manifest, talk.progress(label, len(jobs)) as move:
        for done, record in enumerate(batch.run(jobs, work, options["jobs"]), 1):
            batch.write_manifest_line(manifest, record)
            _tell(talk, record, as_json)
            move(done, batch.shown(Path(record["file"]).name))
            failed += record["error"] is not None
    talk.say(f"{len(jobs) - failed} of {len(jobs)} done; {manifest_path}")
    return 0 if not failed else PARTLY if failed < len(jobs) else FAILED


def _check_pipes(job: batch.Job, as_json: bool) -> None:
    if not batch.is_pipe(job.target):
        return
    if as_json:
        raise click.UsageError("--json and the picture cannot both go to stdout; give -o FILE")
    if sys.stdout.isatty():
        raise click.UsageError("stdout is a terminal; give -o FILE or send it through a pipe")


def _tell(talk: Talk, record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write_json(record)
    name = batch.shown(record["file"])
    if record["error"]:
        talk.error(f"{name}: {record['error']}")
    elif record["skipped"]:
        talk.detail(f"skipped {name}")
    elif not as_json:
        text = f"{name} -> {batch.shown(record['output'])}: {record['bytes']} bytes, "
        text += f"{record['bpp']:.4f} bpp, {record['ms']:.0f} ms"
        if record.get("psnr") is not None:
            text += f", {record['psnr']:.2f} dB"
        talk.say(text)
        if record["command"] == "compress":
            talk.detail(f"  step {record['step']}, {record['mode']}, model {record['model']}")


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="FILE...")
@json_option
@talk_options
@talks
def info(talk: Talk, inputs: tuple[str, ...], as_json: bool) -> int:
    """Say what .otc files hold, without decoding them."""
    failed = 0
    for name in inputs:
        record = batch.describe(name)
        if as_json:
            write_json(record)
        elif record["error"] is None:
            click.echo(_description(record))
        if record["error"] is not None:
            talk.error(f"{batch.shown(name)}: {record['error']}")
            failed += 1
    return 0 if not failed else PARTLY if failed < len(inputs) else FAILED


def _description(record: dict[str, Any]) -> str:
    what = "grey" if record["grey"] else "colour"
    return (
        f"{batch.shown(record['file'])}: {record['width']} x {record['height']}, {what}, "
        f"{record['bytes']} bytes ({record['header_bytes']} head, {record['payload_bytes']} "
        f"payload), {record['bpp']:.4f} bpp, {record['mode']}, step {record['step']}, "
        f"model {record['model']} ({record['weights'] or 'not here'}), format {record['version']}"
    )


@click.command()
@click.option(
    "-o",
    "--output",
    default="otcuda-demo",
    show_default=True,
    metavar="FOLDER",
    help="Where the files go; what is there is replaced.",
)
@click.option(
    "--picture",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Another picture than the bundled one.",
)
@click.option(
    "--bpp",
    type=click.FloatRange(0, min_open=True),
    default=0.03,
    show_default=True,
    metavar="X",
    help="Bits a pixel.",
)
@json_option
@talk_options
@talks
def demo(talk: Talk, output: str, picture: str | None, bpp: float, as_json: bool) -> int:
    """Compress a photograph, and show it beside JPEG 2000."""
    from otcuda import demo as show

    with talk.progress("demo", len(show.STEPS)) as move:
        result = show.run(Path(output), picture, bpp, callback=lambda k, what: move(k, what))
    if as_json:
        write_json(result)
    else:
        click.echo(show.report(result))
    return 0
