# SPDX-License-Identifier: Apache-2.0
"""Stage `synthesis`: hard crops come again and are mended; a broken run ends in the same bits."""

import dataclasses

import pytest
import torch
from tiny_codec import TINY, packed, structured_picture, tiny_net

from otcuda.codec.networks import Codec
from otcuda.training.loop import LoopConfig, run_stage
from otcuda.training.synthesis import HardCrops, SynthesisConfig, SynthesisStage

CONFIG = SynthesisConfig(
    steps=24, batch=3, again=1, kept=4, crop=64, learning_rate=1e-2, step_range=(6.0, 7.0)
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("synthesis"))


def stage(pictures, config=CONFIG):
    net = tiny_net(pictures)
    torch.manual_seed(1)
    # A branch that is wrong everywhere: worse than the linear part alone.
    last = net.synthesis.fine[-2]
    last.weight.data = 0.2 * torch.randn_like(last.weight)
    return SynthesisStage(net, pictures, [structured_picture(9)[:96, :80]], config)


def test_places_worse_than_the_linear_part_are_mended(pictures, tmp_path):
    trained = stage(pictures)
    before = trained.validate()
    first = trained.advance(0)["worst"]
    assert first > 1
    assert len(trained.hard.badness) == 3
    run_stage(trained, tmp_path, LoopConfig())
    assert trained.advance(CONFIG.steps)["worst"] < 0.3 * first
    after = trained.validate()
    assert after["score"] > before["score"] + 1
    fixed = tiny_net(pictures)
    for name in ("analysis", "context"):
        theirs = getattr(fixed, name).state_dict()
        ours = getattr(trained.net, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_filter_learns_at_its_own_rate(pictures, tmp_path):
    """With the rest at a standstill it alone makes the pictures better."""
    torch.manual_seed(2)
    net = Codec(dataclasses.replace(TINY, filter_width=16, filter_blocks=1))
    net.load_state_dict(tiny_net(pictures).state_dict(), strict=False)
    net.synthesis.fine[-2].bias.data += 0.2  # what it finds to mend
    config = dataclasses.replace(CONFIG, learning_rate=0.0, filter_rate=1e-2)
    trained = SynthesisStage(net, pictures, [structured_picture(9)[:96, :80]], config)
    before = {name: value.clone() for name, value in net.synthesis.state_dict().items()}
    score = trained.validate()["score"]
    run_stage(trained, tmp_path, LoopConfig())
    moved = {k for k, v in net.synthesis.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {name for name in before if name.startswith("filter.")}
    assert trained.validate()["score"] > score + 0.5


def test_a_broken_run_goes_on_to_the_same_bits(pictures, tmp_path):
    config = dataclasses.replace(CONFIG, steps=6)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = stage(pictures, config)
    run_stage(whole, tmp_path / "whole", LoopConfig())
    broken = stage(pictures, config)
    run_stage(broken, tmp_path / "broken", LoopConfig(max_seconds=0.0))
    again = stage(pictures, config)
    run_stage(again, tmp_path / "broken", LoopConfig())
    for key, value in whole.state()[0].items():
        assert torch.equal(again.state()[0][key], value), key


def test_the_worst_crops_are_kept_and_fade():
    none = HardCrops(torch.zeros(0, 3, 2, 2, dtype=torch.uint8), torch.zeros(0), torch.zeros(0))
    crops = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    hard = none.add(crops, torch.tensor([7.0, 8.0, 9.0]), torch.tensor([1.0, -1.0, 3.0]), 2)
    assert hard.log2_step.tolist() == [9.0, 7.0]
    assert hard.crops[:, 0, 0, 0].tolist() == [2, 0]
    hard = hard.add(crops, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.98, 0.5, -2.0]), 2)
    assert hard.log2_step.tolist() == [9.0, 1.0]
    assert hard.badness.tolist() == pytest.approx([2.91, 0.98])
