# SPDX-License-Identifier: Apache-2.0
"""How a weights file holds networks: large convolutions in int8, the rest in fp16."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

import otcuda
from otcuda import codec
from otcuda._nets import net_synthesis
from otcuda.codec.model import (
    PACKAGED,
    ROUNDED_FROM,
    SCALE,
    Model,
    export_model,
    load_model,
    read_record,
    rounded_weight,
    stored_weight,
)

NETWORKS = ("analysis", "synthesis", "head")


@pytest.mark.parametrize("shape", [(3, 40, 3, 3), (5, 7), (2, 1)])
def test_rounding_is_off_by_half_a_step_and_no_fixed_scale_is_better(shape):
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weight[0] *= 100
    weight[-1] = 0
    rounded, scale = rounded_weight(weight)
    assert rounded.dtype == np.int8
    assert scale.shape == (shape[0],) + (1,) * (len(shape) - 1)
    back = rounded * scale
    inside = np.abs(weight) <= 127 * scale
    assert (np.abs(back - weight) <= 0.5001 * scale)[inside].all()
    assert not back[-1].any()
    whole = np.abs(weight).max(tuple(range(1, weight.ndim)), keepdims=True) / 127
    plain = np.rint(weight / np.where(whole > 0, whole, 1)) * whole
    assert np.square(back - weight).sum() <= np.square(plain - weight).sum() + 1e-6


def rounded_model(model):
    """The same weights with every large convolution in int8, and what those stand for."""
    tensors = {k: v for k, v in model.tensors.items() if k.split(".")[0] not in NETWORKS}
    plain = dict(tensors)
    for network in NETWORKS:
        for key, weight in model.network(network + ".").items():
            name = f"{network}.{key}"
            tensors |= stored_weight(name, weight.astype(np.float32))
            plain[name] = tensors[name]
            if name + SCALE in tensors:
                plain[name] = tensors[name].astype(np.float32) * tensors[name + SCALE]
    about = {"id": 7, "config": model.config, "training": model.training}
    return Model(tensors, about), Model(plain, about)


def test_large_convolutions_are_stored_in_int8(tmp_path):
    stored, plain = rounded_model(load_model())
    path = tmp_path / "w.safetensors"
    stored.save(path)
    with safe_open(path, framework="np") as file:
        assert json.loads(file.metadata()["otcuda"])["format"] >= 2
    back = load_model(path)
    large = [k for k, v in back.tensors.items() if v.ndim == 4 and v.size >= ROUNDED_FROM]
    networks = [k for k in large if k.split(".")[0] in NETWORKS and ".klt." not in k]
    assert len(networks) > 10
    assert all(back.tensors[k].dtype == np.int8 for k in networks)
    with Image.open(PACKAGED / "demo.jpg") as image:
        picture = np.asarray(image)[:128, :192]
    data = codec.compress(picture, quality=50, model=back)
    other = codec.compress(picture, quality=50, model=plain)
    for realism in (0.0, 1.0):
        np.testing.assert_array_equal(
            codec.decompress(data, model=back, realism=realism),
            codec.decompress(other, model=plain, realism=realism),
        )
    theirs = back.net.synthesis.coarse[0].weight.numpy()
    np.testing.assert_array_equal(theirs, plain.tensors["synthesis.coarse.0.weight"])


def test_shipped_weights_take_at_most_ten_megabytes():
    assert sum(t.nbytes for t in load_model().tensors.values()) < 10e6


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    record = {"format": 4, "id": 7, "config": {}, "digest": ""}
    save_file({"a": np.zeros(1)}, path, metadata={"otcuda": json.dumps(record)})
    with pytest.raises(otcuda.ModelMismatchError, match="in a format of 1 to 3"):
        load_model(path)


def test_a_filter_is_stored_and_a_file_with_one_says_so(tmp_path):
    torch = pytest.importorskip("torch")

    from otcuda.codec.networks import Codec, CodecConfig

    sizes = CodecConfig(8, 8, 8, (0, 0), (0, 0), 8, (2, 4), filter_width=8, filter_blocks=1)
    torch.manual_seed(0)
    net = Codec(sizes)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for config, version in ((sizes, 3), (dataclasses.replace(sizes, filter_width=0), 1)):
        path = tmp_path / f"{version}.safetensors"
        codec = net if config is sizes else Codec(config)
        export_model(codec, {}).save(path)
        assert read_record(path)["format"] == version
        back = load_model(path)
        latents = torch.randn(1, 8, 4, 4)
        level = torch.full((1,), 8.0)
        with torch.no_grad():
            shown, expected = (n.synthesis(latents, level) for n in (back.net, codec))
        torch.testing.assert_close(shown, expected, rtol=1e-2, atol=0.1)  # fp16
        planes = net_synthesis(back.synthesis, latents[0].numpy(), 8.0)
        torch.testing.assert_close(torch.from_numpy(64 * planes), shown[0], rtol=1e-3, atol=1e-2)
