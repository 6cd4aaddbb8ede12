# SPDX-License-Identifier: Apache-2.0
"""The loop of the stages: which weights are the best, and for how long."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from otcuda.training.checkpoint import load_checkpoint
from otcuda.training.loop import LoopConfig, run_stage


class Counting:
    """A stage whose weight is the number of its steps, scored as told."""

    name = "counting"

    def __init__(self, steps, judged_at, scores):
        self.steps, self.weight, self.scores = steps, torch.zeros(1), scores
        self.config = SimpleNamespace(judged_at=judged_at)

    def advance(self, step):
        self.weight += 1
        return {"loss": 0.0}

    def validate(self):
        return {"score": self.scores[int(self.weight) - 1]}

    def state(self):
        return {"weight": self.weight}, {}

    def load(self, tensors, state):
        self.weight = tensors["weight"].clone()

    def sample(self, path):
        pass


def best_of(folder):
    return int(load_checkpoint(folder / "counting" / "best.safetensors")[0]["weight"])


def test_the_best_weights_are_those_of_the_best_score(tmp_path):
    config = LoopConfig(validate_every=1)
    run_stage(Counting(3, (8.0,), [5.0, 9.0, 7.0]), tmp_path, config)
    assert best_of(tmp_path) == 2
    run_stage(Counting(4, (8.0,), [0, 0, 0, 8.0]), tmp_path, config)
    assert best_of(tmp_path) == 2


def test_scores_of_other_steps_are_not_compared(tmp_path):
    """Weights judged at finer steps once kept the place of the best from all that came after."""
    config, said = LoopConfig(validate_every=1), []
    run_stage(Counting(2, (5.0,), [30.0, 31.0]), tmp_path, config)
    run_stage(Counting(4, (8.0,), [0, 0, 22.0, 21.0]), tmp_path, config, said.append)
    assert best_of(tmp_path) == 3
    assert any("the best begins anew" in line.get("say", "") for line in said)
