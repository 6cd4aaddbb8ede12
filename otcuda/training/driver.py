# SPDX-License-Identifier: Apache-2.0
"""`otcuda train`: from a run folder and what the caller said to stages that run one after another.

A run folder holds `run.json` (what it was started with, so that it can go on without being told
again), `pictures/` (the packed training pictures), and what `otcuda.training.loop` writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor

from otcuda._io import atomic_write
from otcuda.codec.head import PerceptualHead
from otcuda.codec.integer_context import float_parameters, log2_step
from otcuda.codec.model import PACKAGED, SUFFIX, TRAINED_STEPS, digest_of
from otcuda.codec.networks import Codec, CodecConfig, high_config, low_config, middle_config
from otcuda.errors import ArgumentError
from otcuda.training import autoencoder, entropy, synthesis
from otcuda.training.autoencoder import (
    AutoencoderConfig,
    AutoencoderStage,
    training_blocks,
)
from otcuda.training.checkpoint import load_checkpoint, newest_checkpoint
from otcuda.training.data import (
    PackedPictures,
    pack_pictures,
    parse_source,
    pictures_in,
    read_picture,
)
from otcuda.training.entropy import EntropyConfig, EntropyStage
from otcuda.training.gan import GanConfig, GanInputs, GanStage
from otcuda.training.growth import take_over
from otcuda.training.loop import Callback, LoopConfig, Stage, run_stage
from otcuda.training.noise import NoiseConfig, NoiseStage
from otcuda.training.release import assemble, fixed_tables, quality_multiplier
from otcuda.training.synthesis import SynthesisConfig, SynthesisStage, is_of_filter
from otcuda.training.transport import TransportConfig, TransportStage, parts_of

PRESETS = ("low", "middle", "high", "paper")
STARTS = ("klt", "shipped")
MULTIPLIER_PICTURES = 8  # held out, on which conditional heights are measured
HELD_OUT = 16  # most pictures that are taken from the training set to judge by


@dataclass(frozen=True)
class Settings:
    """What a run is made of; all but `stages`, `networks`, `threads` stays in `run.json`.

    Attributes:
        sources: folders of pictures, each `FOLDER` or `FOLDER=WEIGHT`.
        held_out: folder of pictures to judge by; None takes some of the training pictures away.
        preset: "low", "middle", "high" (rates) or "paper".
        changes: settings by stage (or "loop"), in place of those of the preset.
        start: first weights of the auto-encoder: "klt", "shipped" (those of the preset's rates) or
            a weights file.
        stages: to run, in order.
        networks: feature network of stage `gan` (`otcuda.training.texture.FeatureNetwork`).
        threads: of torch; None leaves it alone.
    """

    sources: tuple[str, ...]
    held_out: str | None = None
    preset: str = "low"
    changes: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    start: str = "klt"
    stages: tuple[str, ...] = ()
    networks: Any = None
    threads: int | None = None


def read_settings(
    folder: Path,
    *,
    stage: str = "all",
    settings: Sequence[str] = (),
    steps: int | None = None,
    **given: Any,
) -> Settings:
    """Settings from the command line, where it says nothing from the run folder.

    Args:
        folder: of the run.
        stage: a name of `STAGES`, or "all".
        settings: `KEY=VALUE` for one stage, `STAGE.KEY=VALUE` for any; `loop.KEY` of the loop.
        steps: of the one stage.
        given: fields of `Settings`; None or an empty tuple says nothing.

    Raises:
        ArgumentError: no pictures, an unknown name, or a value of the wrong type.
    """
    if stage != "all" and stage not in STAGES:
        raise ArgumentError(f"--stage {stage} is none of {', '.join(STAGES)}, all")
    if steps is not None:
        if stage == "all":
            raise ArgumentError("--steps is of one stage: say which by --stage")
        settings = (*settings, f"steps={steps}")
    stored = _stored(folder)
    changes = {name: dict(values) for name, values in stored.pop("changes", {}).items()}
    for text in settings:
        name, key, value = _parsed(text, stage)
        changes.setdefault(name, {})[key] = value
    told = {name: value for name, value in given.items() if value not in (None, ())}
    if "sources" in told:
        told["sources"] = tuple(_absolute(text) for text in told["sources"])
    if told.get("start", "klt") not in STARTS:
        told["start"] = str(Path(told["start"]).absolute())  # a run goes on from any folder
    stages = tuple(STAGES) if stage == "all" else (stage,)
    whole = Settings(**{"sources": (), **stored, **told, "changes": changes, "stages": stages})
    _check(whole, folder)
    return whole


def _check(whole: Settings, folder: Path) -> None:
    if not whole.sources:
        raise ArgumentError(f"{folder} is a new run: say where the pictures are, by --data FOLDER")
    if whole.preset not in PRESETS:
        raise ArgumentError(f"--preset {whole.preset} is none of {', '.join(PRESETS)}")
    if whole.start not in STARTS and not Path(whole.start).is_file():
        raise ArgumentError(f"--start {whole.start} is no file, nor {' or '.join(STARTS)}")
    for name in ("loop", *STAGES):
        configured(name, whole)


def train(
    folder: Path,
    settings: Settings,
    seconds: float | None = None,
    callback: Callback = lambda _: None,
) -> tuple[bool, bool]:
    """Run the stages, each from its newest checkpoint to its last step.

    Args:
        folder: of the run; made if it is not there.
        settings: from `read_settings`.
        seconds: stop, with a checkpoint, after so long; None for no limit.
        callback: takes each line of the log, and lines of talk as `{"say": ...}`.

    Returns:
        Whether the last step of the last stage is done, and whether a signal stopped the run.

    Raises:
        ArgumentError: another process trains this run, or a stage lacks the one before it.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    for text in settings.sources:  # before the run folder is made
        if not parse_source(text).folder.is_dir():
            raise ArgumentError(f"{parse_source(text).folder} is not a folder of pictures")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _store(folder, settings)
        run = Run(folder, settings, callback)
        start = time.monotonic()
        for name in settings.stages:
            left = None if seconds is None else seconds - (time.monotonic() - start)
            if left is not None and left <= 0:
                return False, False
            loop = dataclasses.replace(configured("loop", settings), max_seconds=left)
            if name != "autoencoder":
                run.forget_if_stale(name)
            if not run_stage(STAGES[name].build(run), folder, loop, callback):
                late = seconds is not None and time.monotonic() - start >= seconds
                return False, not late
        if settings.stages != ("autoencoder",):
            export(folder, settings, callback)
    return True, False


class Run:
    """What the stages share: pictures, networks, and the results of earlier stages."""

    def __init__(self, folder: Path, settings: Settings, callback: Callback) -> None:
        self.folder, self.settings = folder, settings
        self._say = lambda text: callback({"say": text})
        sources = [parse_source(text) for text in settings.sources]
        packed = pack_pictures(sources, folder / "pictures", self._say)
        self.pictures: PackedPictures = packed
        if settings.held_out is None:
            self.pictures, self.held_out = packed.split(HELD_OUT)
        else:
            self.held_out = [read_picture(p) for p in pictures_in(Path(settings.held_out))]
        if not self.held_out:
            raise ArgumentError(f"{settings.held_out} holds no picture to judge by")

    def config(self, stage: str) -> Any:
        """Settings of a stage."""
        return configured(stage, self.settings)

    @property
    def _sizes(self) -> CodecConfig:
        return SIZES.get(self.settings.preset, low_config)()

    def first_net(self) -> Codec:
        """Networks as a new run starts."""
        torch.manual_seed(0)
        net = Codec(self._sizes)
        start = self.settings.start
        if newest_checkpoint(self.folder / "autoencoder") is not None:
            return net  # the checkpoint is loaded over it
        low, high = self.config("autoencoder").step_range
        blocks = training_blocks(self.pictures, 0)
        energy = net.start_from_klt(blocks, (low + high) / 2)
        if start != "klt":
            model = _model(start, self.settings.preset)
            if model is not None:
                _take_over(net, model, blocks)
                self._say(f"starting from the weights {model.digest[:8]}")
                return net
            self._say("there are no shipped weights")
        self._say(f"starting from the KLT, which keeps {energy:.1%} of the energy")
        return net

    def trained_net(self, finished: bool = True) -> Codec:
        """Networks as the auto-encoder stage left them: the best average of the weights.

        Args:
            finished: with the synthesis moved towards what its own stage left, if that has run.
        """
        net = Codec(self._sizes)
        best = self.folder / "autoencoder" / "best.safetensors"
        tensors = load_checkpoint(best)[0] if best.is_file() else self.tensors("autoencoder")
        net.load_state_dict(part(tensors, "average."))
        if finished and newest_checkpoint(self.folder / "synthesis") is not None:
            share = self.config("synthesis").share
            trained = part(self.tensors("synthesis"), "average.")
            with torch.no_grad():
                for name, value in net.synthesis.named_parameters():
                    value.lerp_(trained[name], 1.0 if is_of_filter(name) else share)
        return net.eval()

    def forget_if_stale(self, stage: str) -> None:
        """Remove what a stage made from an auto-encoder that has been trained on since."""
        home = self.folder / stage
        mark, digest = home / "base.txt", _digest(self.trained_net(stage != "synthesis"))
        if mark.is_file() and mark.read_text() != digest:
            shutil.rmtree(home)
            self._say(f"the auto-encoder has changed: stage {stage} begins anew")
        home.mkdir(exist_ok=True)
        atomic_write(mark, digest.encode())

    @property
    def feature_network(self) -> Any:
        """The feature network that the caller passed on, or None: see `Settings.networks`."""
        return self.settings.networks

    def tensors(self, stage: str) -> dict[str, Tensor]:
        """What an earlier stage left in its newest checkpoint.

        Raises:
            ArgumentError: it has not run.
        """
        found = newest_checkpoint(self.folder / stage, self._say)
        if found is None:
            raise ArgumentError(f"{self.folder} lacks stage {stage}, which has to run first")
        return found[0]


# --- the stages -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A stage: what it is configured by, and how it is built for a run."""

    config: Callable[[str], Any]
    build: Callable[[Run], Stage]


def _fixed_tables(run: Run, net: Codec, callback: Callback) -> dict[str, Any]:
    """Codebooks of the fixed mode; kept in the run folder while the networks stay the same."""
    kept, digest = run.folder / "fixed.safetensors", _digest(net)
    if kept.is_file():
        with safe_open(kept, framework="np") as file:
            if (file.metadata() or {}).get("base") == digest:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    callback({"say": "fitting the codebooks of the fixed mode"})
    tables = fixed_tables(net, run.pictures)
    atomic_write(kept, save(tables, metadata={"base": digest}))
    return tables


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names start so, without the prefix."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _autoencoder(run: Run) -> Stage:
    config = run.config("autoencoder")
    return AutoencoderStage(run.first_net(), run.pictures, run.held_out, config)


def _synthesis(run: Run) -> Stage:
    net = run.trained_net(finished=False)
    return SynthesisStage(net, run.pictures, run.held_out, run.config("synthesis"))


def _entropy(run: Run) -> EntropyStage:
    return EntropyStage(run.trained_net(), run.pictures, run.held_out, run.config("entropy"))


def _noise(run: Run) -> NoiseStage:
    return NoiseStage(run.trained_net(), run.pictures, run.held_out, run.config("noise"))


def _transport(run: Run) -> Stage:
    noise = _noise(run)
    noise.load(run.tensors("noise"), {})
    if noise.law is None:
        raise ArgumentError(f"stage noise of {run.folder} is not done")
    synthesis = run.trained_net().synthesis
    return TransportStage(noise.law, noise.latents, synthesis, run.config("transport"))


def _gan(run: Run) -> GanStage:
    sampler, codebook = parts_of(run.tensors("transport"))
    if sampler is None or codebook is None:
        raise ArgumentError(f"stage transport of {run.folder} is not done")
    net = run.trained_net()
    inputs = GanInputs(
        net,
        run.pictures,
        run.held_out,
        run.config("noise"),
        sampler,
        codebook,
        run.feature_network,
    )
    torch.manual_seed(run.config("gan").seed)
    return GanStage(PerceptualHead(net.config), inputs, run.config("gan"))


SIZES = {"middle": middle_config, "high": high_config}
AUTOENCODERS = {
    "paper": autoencoder.paper_preset,
    "middle": autoencoder.middle_preset,
    "high": autoencoder.high_preset,
}
SYNTHESES = {"middle": synthesis.middle_preset, "high": synthesis.high_preset}
ENTROPIES = {"middle": entropy.middle_preset, "high": entropy.high_preset}
STAGES: dict[str, Entry] = {
    "autoencoder": Entry(
        lambda preset: AUTOENCODERS.get(preset, AutoencoderConfig)(), _autoencoder
    ),
    "synthesis": Entry(lambda preset: SYNTHESES.get(preset, SynthesisConfig)(), _synthesis),
    "entropy": Entry(lambda preset: ENTROPIES.get(preset, EntropyConfig)(), _entropy),
    "noise": Entry(lambda _: NoiseConfig(), _noise),
    "transport": Entry(lambda _: TransportConfig(), _transport),
    "gan": Entry(lambda _: GanConfig(), _gan),
}


def export(folder: Path, settings: Settings, callback: Callback = lambda _: None) -> Path | None:
    """Write `weights.safetensors` of a run whose stage `entropy` is done, else nothing.

    What later stages have not made yet is left out: the sampler and the perceptual head.

    Returns:
        The path written, or None.
    """
    if newest_checkpoint(folder / "entropy") is None:
        return None
    run = Run(folder, settings, callback)
    stage, net = _entropy(run), run.trained_net()
    stage.load(*newest_checkpoint(folder / "entropy"))
    transport = newest_checkpoint(folder / "transport")
    head = None
    if (folder / "gan" / "best.safetensors").is_file():
        tensors, _ = load_checkpoint(folder / "gan" / "best.safetensors")
        head = PerceptualHead(net.config)
        head.load_state_dict(part(tensors, "average."))
    # At high rates a stream of fixed length has nothing to offer.
    tables = {} if settings.preset in SIZES else _fixed_tables(run, net, callback)
    steps = newest_checkpoint(folder / "autoencoder")
    training = {
        "autoencoder_steps": steps[1]["step"] if steps else 0,
        "preset": settings.preset,
        "steps": list(stage.config.step_range),
    }
    parts = transport[0] if transport else None
    model = assemble(net, stage.arrays(), tables, parts, head, training)
    held_out = run.held_out[:MULTIPLIER_PICTURES]
    multiplier = quality_multiplier(model, held_out, stage.config.judged_at)
    model.training["multiplier"] = multiplier
    path = folder / "weights.safetensors"
    model.save(path)
    callback({"say": f"{path}: {model}"})
    return path


# --- settings -------------------------------------------------------------------------------------


def configured(stage: str, settings: Settings) -> Any:
    """The dataclass that configures a stage, or the loop: the preset with its changes.

    Raises:
        ArgumentError: a key that the stage does not have, or a value of the wrong type.
    """
    config = LoopConfig() if stage == "loop" else STAGES[stage].config(settings.preset)
    known = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    changes = {}
    for key, value in settings.changes.get(stage, {}).items():
        if key not in known:
            raise ArgumentError(f"{stage} has no setting {key}; it has {', '.join(known)}")
        changes[key] = _of_type(f"{stage}.{key}", value, known[key])
    return dataclasses.replace(config, **changes)


def _of_type(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not None and type(value) is not type(default):
        kind = type(default).__name__
        raise ArgumentError(f"{name} is {value!r}; it must be of type {kind}, as {default!r}")
    return value


def _parsed(text: str, stage: str) -> tuple[str, str, Any]:
    """`autoencoder.batch=8` -> ("autoencoder", "batch", 8)."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ArgumentError(f"--set {text} is not KEY=VALUE")
    owner, dot, key = name.strip().rpartition(".")
    owner = owner if dot else stage
    if owner == "all":
        raise ArgumentError(
            f"--set {name}: say which stage, as autoencoder.{name}, or give --stage"
        )
    if owner != "loop" and owner not in STAGES:
        raise ArgumentError(f"--set {name}: {owner} is none of {', '.join(STAGES)}, loop")
    try:
        return owner, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return owner, key, value


def _absolute(text: str) -> str:
    source = parse_source(text)
    path = source.folder.resolve()
    return f"{path}={source.weight:g}" if str(source.folder) != text else str(path)


def _stored(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text())
        names = {field.name for field in dataclasses.fields(Settings)}
        return {k: tuple(v) if k == "sources" else v for k, v in stored.items() if k in names}
    except (ValueError, AttributeError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}") from None


def _store(folder: Path, settings: Settings) -> None:
    record = dataclasses.asdict(dataclasses.replace(settings, networks=None))
    for name in ("stages", "networks", "threads"):
        del record[name]
    record["torch"] = torch.__version__
    atomic_write(folder / "run.json", json.dumps(record, indent=1).encode() + b"\n")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two processes in one run would write over each other's checkpoints."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArgumentError(f"another process is training {folder}") from None
        yield


def _digest(net: Codec) -> str:
    return digest_of({k: v.detach().numpy() for k, v in net.state_dict().items()})


def _model(start: str, preset: str) -> Any:
    """Weights to start from; of those shipped for the preset's rates None where there are none."""
    from otcuda.codec import load_model

    if start != "shipped":
        return load_model(start)
    try:
        return load_model(PACKAGED / f"weights-{preset}{SUFFIX}" if preset in SIZES else None)
    except FileNotFoundError:
        return None


def _take_over(net: Codec, model: Any, blocks: Tensor) -> None:
    """The networks of a weights file; its context model turned back from integers to floats."""
    floats = float_parameters(model.context.arrays)
    parts = {
        "analysis": model.net.analysis.state_dict(),
        "synthesis": model.net.synthesis.state_dict(),
        "context": {name: torch.from_numpy(a) for name, a in floats.items()},
    }
    tensors = {f"{part}.{name}": v for part, state in parts.items() for name, v in state.items()}
    finest = model.training.get("steps", TRAINED_STEPS)[0]
    take_over(net, model.net.config, tensors, blocks, log2_step(finest))
