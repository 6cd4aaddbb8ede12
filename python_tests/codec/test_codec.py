# SPDX-License-Identifier: Apache-2.0
"""Pictures to files and back with the shipped weights: budgets, sizes, errors, no layer a stub."""

import contextlib
import copy
import dataclasses
import math
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import otcuda
from otcuda import _nets, _ops
from otcuda.codec import (
    compress,
    decompress,
    info,
    integer_context,
    load_model,
    load_models,
    pictures,
    pictures_torch,
)
from otcuda.codec.bitstream import CUSTOM_MODEL, read_header, write_file
from otcuda.codec.model import Model, export_model
from otcuda.evaluation.metrics import psnr


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def photo():
    with resources.as_file(resources.files("otcuda") / "data" / "demo.jpg") as path:
        return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def small(photo):
    return np.ascontiguousarray(photo[100:260, 200:424])


@pytest.fixture(scope="module")
def blob(photo):
    return compress(photo, bytes=1474)


def changed(model, id=None, **tensors):
    """The model with some tensors replaced."""
    record = {"id": model.id if id is None else id, "config": model.config}
    return Model({**model.tensors, **tensors}, record)


def test_a_photograph_in_1474_bytes(photo, blob):
    assert len(blob) <= 1474
    assert info(blob).bpp <= 0.03
    decoded = decompress(blob)
    assert decoded.shape == photo.shape
    assert psnr(photo, decoded) > 26.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 65), (17, 3), (64, 64), (65, 129)])
@pytest.mark.parametrize("mode", ["coded", "fixed"])
def test_any_size_round_trips(photo, shape, mode):
    image = photo[200 : 200 + shape[0], 300 : 300 + shape[1]]
    data = compress(image, bytes=20_000, mode=mode, effort=0)
    assert info(data).mode == mode
    decoded = decompress(data)
    assert decoded.shape == image.shape
    if mode == "coded":  # the finest step: close even where the networks never trained
        assert np.abs(decoded.astype(int) - image).mean() < 12


@pytest.mark.parametrize("size", [60, 200, 700])
@pytest.mark.parametrize("effort", [0, 1])
def test_budgets_are_kept_and_used(small, size, effort):
    data = compress(small, bytes=size, effort=effort)
    assert 0.85 * size < len(data) <= size


def test_effort_never_costs_quality(small):
    errors = [
        np.square(decompress(compress(small, bytes=200, effort=e)).astype(float) - small).mean()
        for e in (0, 1)
    ]
    assert errors[0] >= errors[1]


def test_effort_finds_nearer_codes_in_the_fixed_mode(photo, model):
    plain, nearer = (compress(photo, mode="fixed", effort=e) for e in (0, 1))
    assert len(plain) == len(nearer)
    gain = psnr(photo, decompress(nearer)) - psnr(photo, decompress(plain))
    assert gain > 0.1


def test_more_bytes_are_closer(small):
    closeness = [psnr(small, decompress(compress(small, bytes=n))) for n in (60, 200, 700)]
    assert closeness == sorted(closeness)
    assert closeness[2] > closeness[0] + 2


def test_quality_is_monotone(small):
    sizes = [len(compress(small, quality=q)) for q in (0, 30, 60, 100)]
    assert sizes == sorted(sizes)
    assert info(compress(small, quality=100)).step == 128


def test_grey_pictures_stay_grey_and_cost_no_colour(small):
    grey = small.mean(2).astype(np.uint8)
    data = compress(grey, quality=60)
    assert info(data).grey
    assert data == compress(np.repeat(grey[:, :, None], 3, 2), quality=60)
    assert data == compress(Image.fromarray(grey), quality=60)
    decoded = decompress(data)
    assert (decoded == decoded[:, :, :1]).all()
    assert len(data) < len(compress(small, quality=60))


def test_files_and_pixels_are_reproducible(small):
    data = compress(small, bytes=200)
    assert data == compress(small, bytes=200)
    for realism in (0.0, 1.0):
        first, again = (decompress(data, realism=realism) for _ in range(2))
        assert (first == again).all()


def test_fixed_mode_has_one_size(photo):
    sizes = {len(compress(p, mode="fixed")) for p in (photo, photo[::-1], 255 - photo)}
    assert len(sizes) == 1
    assert sizes.pop() <= 1474
    assert psnr(photo, decompress(compress(photo, mode="fixed"))) > 22


# --- no layer is a stub: put something trivial in its place, and a number moves -------------------


def test_without_its_heights_the_fixed_mode_is_worse(photo, model):
    heights = np.zeros_like(model.tensors["fixed.0.heights"])
    flat = changed(model, **{"fixed.0.heights": heights})
    plain = {"mode": "fixed", "effort": 0}
    pictures = [decompress(compress(photo, model=m, **plain), model=m) for m in (model, flat)]
    assert psnr(photo, pictures[0]) > psnr(photo, pictures[1]) + 1


def named(blob, model):
    """A file that says it was written with these weights."""
    header, payload = read_header(blob)
    digest = bytes.fromhex(model.digest[:8])
    return write_file(dataclasses.replace(header, model=CUSTOM_MODEL, digest=digest), payload)


def test_without_the_context_model_files_grow(photo, model):
    out = {k: np.zeros_like(v) for k, v in model.tensors.items() if k.startswith("context.out.")}
    blind = changed(model, **out)
    sizes = [len(compress(photo, quality=30, model=m)) for m in (model, blind)]
    assert sizes[1] > 1.15 * sizes[0]


def test_without_the_synthesis_network_pictures_are_worse(photo, model, blob):
    name = max(k for k in model.tensors if re.fullmatch(r"synthesis\.fine\..*weight", k))
    last = {name: np.zeros_like(model.tensors[name])}
    bias = name.replace("weight", "bias")
    linear = changed(model, **last, **{bias: np.zeros_like(model.tensors[bias])}, id=CUSTOM_MODEL)
    whole, without = decompress(blob), decompress(named(blob, linear), model=linear)
    assert psnr(photo, whole) > 0.5 + psnr(photo, without)


def test_without_the_head_realism_does_nothing(blob, model):
    plain, real = decompress(blob, realism=0.0), decompress(blob, realism=1.0)
    assert np.abs(real.astype(int) - plain).mean() > 0.5
    headless = {k: v for k, v in model.tensors.items() if not k.startswith("head.")}
    bare = Model(headless, {"id": CUSTOM_MODEL, "config": model.config})
    with pytest.warns(otcuda.errors.Notice, match="no perceptual head"):
        assert (decompress(named(blob, bare), realism=1.0, model=bare) == plain).all()


def test_realism_blends(blob):
    ends = [decompress(blob, realism=r).astype(float) for r in (0.0, 1.0)]
    middle = decompress(blob, realism=0.5).astype(float)
    assert np.abs(middle - (ends[0] + ends[1]) / 2).mean() < 1


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "options", "words"),
    [
        (np.zeros((4, 4), np.float32), {}, "float32"),
        (np.zeros((4, 4, 4), np.uint8), {}, "uint8"),
        (np.zeros((0, 4, 3), np.uint8), {}, "each edge"),
        (np.zeros((4, 4, 3), np.uint8), {"mode": "lossless"}, "mode is 'lossless'"),
        (np.zeros((4, 4, 3), np.uint8), {"effort": 3}, "effort is 3"),
        (np.zeros((4, 4, 3), np.uint8), {"effort": 2}, "2 was taken out"),
        (np.zeros((4, 4, 3), np.uint8), {"bytes": 0}, "bytes is 0"),
        (np.zeros((4, 4, 3), np.uint8), {"bpp": -1.0}, "bpp is -1"),
        (np.zeros((4, 4, 3), np.uint8), {"quality": 201}, "quality is 201"),
        (np.zeros((4, 4, 3), np.uint8), {"bytes": 9, "bpp": 1.0}, "bytes and bpp"),
        (np.zeros((4, 4, 3), np.uint8), {"bytes": "9"}, "bytes is '9'; it must be a number"),
        (np.zeros((4, 4, 3), np.uint8), {"bytes": math.nan}, "bytes is nan"),
        (np.zeros((4, 4, 3), np.uint8), {"bytes": math.inf}, "bytes is inf"),
        (np.zeros((4, 4, 3), np.uint8), {"bpp": None, "quality": "a"}, "quality is 'a'"),
        (np.zeros((4, 4, 3), np.uint8), {"bpp": b"1"}, "bpp is b'1'; it must be a number"),
        (np.zeros((4, 4, 3), np.uint8), {"model": "w.safetensors"}, "model is 'w.safetensors'"),
        ([[1, 2], [3]], {}, "image is no array of pixels"),
    ],
)
def test_wrong_arguments_are_named(image, options, words):
    with pytest.raises(otcuda.ArgumentError, match=words):
        compress(image, **options)


def test_bits_a_pixel_are_bytes_of_the_whole_file(small):
    whole = compress(small, bpp=0.2, effort=0)
    assert whole == compress(small, bytes=0.2 * 160 * 224 / 8, effort=0)
    assert 0.19 < info(whole).bpp <= 0.2


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("photo.otc", {}, "data is str; it must be the bytes of an .otc file"),
        (b"", {"realism": None}, "realism is None; it must be a number"),
        (b"", {"realism": math.nan}, "realism is nan"),
        (b"", {"max_pixels": "many"}, "max_pixels is 'many'"),
        (b"\xc1", {"model": 5}, "not an .otc file"),
    ],
)
def test_wrong_arguments_of_decompress_are_named(data, options, words):
    with pytest.raises(otcuda.Error, match=words):
        decompress(data, **options)


def test_decompress_and_info_name_wrong_weights_and_names(blob):
    with pytest.raises(otcuda.ArgumentError, match="model is 5; it must come from load_model"):
        decompress(blob, model=5)
    with pytest.raises(otcuda.ArgumentError, match="data is PosixPath"):
        info(Path("photo.otc"))
    assert info(bytearray(blob)) == info(memoryview(blob)) == info(blob)


@pytest.mark.parametrize("mode", ["coded", "fixed"])
def test_a_budget_that_cannot_be_met_says_what_can(mode, small):
    for picture in (small, small[:3, :5]):
        with pytest.raises(otcuda.BudgetError, match="the least is") as caught:
            compress(picture, bytes=1, mode=mode)
        found = re.search(r"the least is (\d+) bytes \(([\d.]+) bit a pixel\)", str(caught.value))
        least, bpp = int(found[1]), float(found[2])
        assert len(compress(picture, bytes=least, mode=mode, effort=0)) <= least
        assert len(compress(picture, bpp=bpp, mode=mode, effort=0)) <= least + 1
        with pytest.raises(otcuda.BudgetError):
            compress(picture, bytes=least - 1, mode=mode)


def test_other_weights_are_noticed(blob, model):
    header, payload = read_header(blob)
    at_hand = {family.id for family in load_models()}
    absent = next(number for number in range(7) if number not in at_hand)
    other = dataclasses.replace(header, model=absent, digest=b"")
    with pytest.raises(otcuda.ModelMismatchError, match="pass --model"):
        decompress(write_file(other, payload))
    name = "synthesis.klt.weight"
    custom = changed(model, id=CUSTOM_MODEL, **{name: 2 * model.tensors[name]})
    with pytest.raises(otcuda.ModelMismatchError, match=custom.digest[:8]):
        decompress(blob, model=custom)


def test_damaged_weights_are_noticed(tmp_path, model):
    path = tmp_path / "w.safetensors"
    model.save(path)
    assert load_model(path).digest == model.digest
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(otcuda.ModelMismatchError, match="damaged"):
        load_model(path)
    path.write_bytes(b"nothing")
    with pytest.raises(otcuda.ModelMismatchError, match="no weights file"):
        load_model(path)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none")


def test_damaged_files_end_in_an_error_or_a_picture(small):
    data = compress(small, bytes=200)
    rng = np.random.default_rng(0)
    for _ in range(12):
        hurt = bytearray(data)
        hurt[int(rng.integers(7, len(hurt)))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(otcuda.CorruptDataError):
            assert decompress(bytes(hurt)).shape == small.shape


def test_limits_come_before_allocation(blob):
    with pytest.raises(otcuda.LimitError, match="max_pixels"):
        decompress(blob, max_pixels=1000)


def test_a_callback_hears_and_stops(small):
    heard = []
    compress(small, bytes=200, callback=lambda what, share: heard.append((what, share)))
    assert {what for what, _ in heard} >= {"analysis", "rate"}
    assert all(0 <= share <= 1 for _, share in heard)

    def stop(*_):
        raise otcuda.Interrupted("enough")

    data, heard = compress(small, bytes=200), []
    decompress(data, callback=lambda what, share: heard.append((what, share)))
    assert {what for what, _ in heard} >= {"synthesis"}
    assert all(0 <= share <= 1 for _, share in heard)
    with pytest.raises(otcuda.Interrupted):
        decompress(data, callback=stop)

    with pytest.raises(otcuda.Interrupted):
        compress(small, bytes=200, callback=stop)


def test_the_callback_is_heard_between_any_two_loops(photo, monkeypatch):
    """Each pass of the context model and of the synthesis polls: large pictures can be stopped."""
    poll, passes = [], []
    for module, name in ((_nets, "net_synthesis"), (_ops, "context_quantise")):
        native = getattr(module, name)

        def watched(*arguments, native=native, name=name):
            callback = arguments[-1]
            passes.append(name)
            if callback is not None:
                callback(0.5)
                poll.append(name)
            return native(*arguments)

        monkeypatch.setattr(module, name, watched)
    heard = []
    small = photo[:64, :128]
    for mode in ("coded", "fixed"):
        compress(small, bytes=200, mode=mode, callback=lambda *said: heard.append(said))
    assert poll == passes
    assert {"net_synthesis", "context_quantise"} == set(poll)
    assert len(heard) > len(poll)


def test_the_finest_step_that_fits_is_found_by_few_passes(photo, monkeypatch):
    passes = []
    quantise = integer_context.IntegerContext.quantise

    def counted(self, u, k, *arguments):
        passes.append(k)
        return quantise(self, u, k, *arguments)

    monkeypatch.setattr(integer_context.IntegerContext, "quantise", counted)
    for image, size in ((photo, 1474), (photo[:256], 400), (255 - photo, 1000)):
        passes.clear()
        step = info(compress(image, bytes=size, effort=0, model=load_model())).step
        assert len(set(passes)) <= 6  # halving: 8
        files = [
            compress(image, quality=(224 - k) / 0.96, model=load_model()) for k in (step, step - 1)
        ]
        assert len(files[0]) <= size < len(files[1])


def test_pictures_of_pillow_become_what_they_show(small):
    """Grey of 16 bits is not clipped at 255: files of the command line hold the same pixels."""
    deep = small[:, :, 0].astype(np.uint16) * 256 + 77
    grey = compress(small[:, :, 0], quality=60)
    assert compress(Image.fromarray(deep), quality=60) == grey
    assert compress(Image.fromarray(deep.astype(np.int32)), quality=60) == grey
    picture = Image.fromarray(small)
    colour = compress(small, quality=60)
    assert compress(picture.convert("RGBA"), quality=60) == colour
    assert info(compress(picture.convert("LA"), quality=60)).grey
    cmyk = decompress(compress(picture.convert("CMYK"), quality=100)).astype(int)
    assert np.abs(cmyk - decompress(compress(picture, quality=100))).mean() < 4
    with pytest.raises(otcuda.ArgumentError, match="mode F"):
        compress(Image.fromarray(deep.astype(np.float32)), quality=60)
    with pytest.raises(otcuda.ArgumentError, match="uint16"):
        compress(deep, quality=60)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 65_535), (65_535, 1)])
def test_the_longest_edges_of_other_formats(photo, shape):
    row = np.resize(photo[200], (65_535, 3)).reshape(*shape, 3)
    decoded = decompress(compress(row, bpp=4, effort=0))
    assert np.abs(decoded.astype(int) - row).mean() < 12


def test_export_refuses_weights_over_fp16(model):
    net = copy.deepcopy(model.net)
    net.analysis.klt.weight[0, 0] = 1e6
    with pytest.raises(otcuda.ArgumentError, match=r"analysis\.klt\.weight"):
        export_model(net, {})


def noise_picture(height, width):
    """Smooth colours with grain: no two places alike."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (12, 20, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return (smooth + rng.normal(0, 9, smooth.shape)).clip(0, 255).astype(np.uint8)


def test_large_pictures_go_tile_by_tile_and_no_bit_shows_it(model, monkeypatch):
    """The halo is as wide as needed: with one of 64 pixels the latents differ."""
    image = noise_picture(100, 1970)
    networks = pictures.Networks(model)
    whole = networks.analyse(image)
    decoded = networks.synthesise(whole, 180, image.shape[:2])
    monkeypatch.setattr(pictures, "WHOLE", 1 << 14)
    monkeypatch.setattr(pictures, "TILE", 320)
    heard = []
    assert np.array_equal(networks.analyse(image, heard.append), whole)
    assert heard == sorted(heard)
    assert 0 <= heard[0] < heard[-1] <= 1
    with pytest.raises(otcuda.Interrupted):
        networks.analyse(image, lambda share: share < 0.5)
    assert np.array_equal(networks.synthesise(whole, 180, image.shape[:2]), decoded)
    real = {"realism": 0.8, "payload": b"seed"}
    tiles = networks.synthesise(whole, 180, image.shape[:2], **real)
    assert not np.array_equal(tiles, decoded)
    monkeypatch.setattr(pictures, "WHOLE", 1 << 25)
    assert np.array_equal(networks.synthesise(whole, 180, image.shape[:2], **real), tiles)
    monkeypatch.setattr(pictures, "WHOLE", 1 << 14)
    monkeypatch.setattr(networks, "_halo", lambda *_: 64)
    assert not np.array_equal(networks.analyse(image), whole)


def test_tiles_of_a_filtered_picture_show_in_no_bit(monkeypatch):
    """And without a halo one would."""
    import torch

    from otcuda.codec.networks import Codec, CodecConfig

    torch.manual_seed(5)
    net = Codec(CodecConfig(8, 8, 8, (0, 0), (0, 0), 8, (2, 4), filter_width=8, filter_blocks=3))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    networks = pictures.Networks(export_model(net, {}))
    latents = np.random.default_rng(0).normal(0, 60, (8, 8, 124)).astype(np.float32)
    decoded = networks.synthesise(latents, 180, (100, 1970))
    monkeypatch.setattr(pictures, "WHOLE", 1 << 14)
    monkeypatch.setattr(pictures, "TILE", 320)
    assert np.array_equal(networks.synthesise(latents, 180, (100, 1970)), decoded)
    assert networks._halo("synthesis_blocks", 1) >= 64 + 2 * 32 + 8 * 8  # one at 1/16, two, eight
    monkeypatch.setattr(networks, "_halo", lambda *_: 0)
    assert not np.array_equal(networks.synthesise(latents, 180, (100, 1970)), decoded)


def test_torch_goes_tile_by_tile_without_seams(model, monkeypatch):
    image = noise_picture(320, 1024)
    networks = pictures_torch.TorchNetworks(model)
    whole = networks.analyse(image)
    decoded = networks.synthesise(whole, 180, (320, 1024)).astype(int)
    monkeypatch.setattr(pictures_torch, "TILE", 256)
    np.testing.assert_allclose(networks.analyse(image), whole, atol=0.05)
    assert np.abs(networks.synthesise(whole, 180, (320, 1024)) - decoded).max() <= 1


def test_devices_that_are_not_there_are_named(small, blob):
    import torch

    for call in (lambda **o: compress(small, bytes=200, **o), lambda **o: decompress(blob, **o)):
        with pytest.raises(
            otcuda.ArgumentError, match="device is 'tpu'; it must be one of cpu, cuda"
        ):
            call(device="tpu")
        with pytest.raises(otcuda.BackendError, match="device='cuda:99' cannot be used"):
            call(device="cuda:99")
    data = compress(small, bytes=200, device="cpu:0")
    assert data == compress(small, bytes=200, engine="torch")
    if not torch.cuda.is_available():
        with pytest.raises(otcuda.BackendError, match="device='cuda' cannot be used"):
            decompress(data, device="cuda")


@pytest.mark.cuda
def test_files_of_a_card_are_files(small):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no card")
    data = compress(small, bytes=200, device="cuda")
    assert len(data) <= 200
    shown = decompress(data).astype(int)
    assert np.abs(decompress(data, device="cuda") - shown).max() <= 1


TWELVE_MEGAPIXELS = """
import resource
import numpy as np
from PIL import Image
from otcuda.codec import compress, decompress, load_model
rng = np.random.default_rng(0)
coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8))
image = np.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC))
data = compress(image, bytes=45_000, effort=0)
assert decompress(data).shape == image.shape
plain = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = compress(image, bytes=45_000, effort=0, model=load_model())  # of the family with a head
assert decompress(data, realism=1.0).shape == image.shape
print(plain, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_twelve_megapixels_take_less_than_two_gigabytes():
    command = [sys.executable, "-c", TWELVE_MEGAPIXELS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    plain, real = (int(kilobytes) * 1024 for kilobytes in done.stdout.split())
    assert "Notice" not in done.stderr
    assert plain < 1.4e9
    assert real < 2e9


DECODED = """
import resource, sys
from otcuda.codec import decompress
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
shown = decompress(sys.stdin.buffer.read())
print((peak() - before) / (shown.shape[0] * shown.shape[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "most"), [(45_000, 40), (600_000, 75)], ids=["low", "filtered"])
def test_decoding_takes_few_bytes_a_pixel(photo, size, most):
    image = np.asarray(Image.fromarray(photo).resize((4000, 3000)))
    data = compress(image, bytes=size, effort=0)
    done = subprocess.run(
        [sys.executable, "-c", DECODED], input=data, capture_output=True, check=True
    )
    assert float(done.stdout) < most


INTERRUPTED = """
import os, signal, threading, time
import numpy as np
from otcuda import _nets
from otcuda.codec import load_model
net, latents = load_model().synthesis, np.zeros((64, 256, 256), np.float32)
_nets.native.set_num_threads(1)
_nets.native.set_simd_level("portable")  # a minute, were it left alone
def interrupt():
    global sent
    time.sleep(0.3)
    sent = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    _nets.net_synthesis(net, latents, 8.0)
except KeyboardInterrupt:
    print(time.monotonic() - sent)
"""


def test_ctrl_c_is_heard_inside_the_networks():
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) < 5  # without polls: a minute


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (3, 40)])
def test_a_tiny_picture_needs_no_budget(shape):
    """0.03 bit a pixel of it are no bytes: where no limit was set, the least file is made."""
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    data = compress(picture)
    assert decompress(data).shape == picture.shape
    with pytest.raises(otcuda.BudgetError, match=f"the least is {len(data)} bytes"):
        compress(picture, bytes=1)
    with pytest.raises(otcuda.BudgetError):
        compress(picture, bpp=0.03)
    assert len(compress(picture, bytes=len(data))) <= len(data)
