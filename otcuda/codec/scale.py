# SPDX-License-Identifier: Apache-2.0
"""One scale of quality over several families of weights.

A place on the scale is a quantiser step, the nominal one. Coarse steps belong to the first family,
finer ones to the next. At one step two families differ in rate by up to a factor, and where the
finer one begins to be better depends on the picture. So each picture is measured: the coarser
family serves its steps s as far as it is no worse than the finer one at as many bits, and the finer
one goes on from its coarsest step whose file is neither smaller nor worse. Bytes and quality rise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from otcuda.codec.codec import _Picture, _Task
    from otcuda.codec.families import Family

SOONER, LATER = 28, 24  # most steps before and after its finest one at which a family may hand over
CLOSE = 4  # steps to which the place is found
KEPT = 3  # steps whose values are remembered, 2.5 bytes a pixel each
LEAST_ZONE = 3  # gaps between the finest steps of two families that a zone of handing over may fill


def place(picture: _Picture, models: Sequence[Family], nominal: float) -> tuple[_Task, int]:
    """The family on the way for a place of the scale, and its step.

    At effort 0 each family serves all steps that it was trained at; at effort 1 both are measured
    where they meet.

    Args:
        picture: to be compressed.
        models: families, those of coarse steps first.
        nominal: the quantiser step of the place, between bytes k of steps too.
    """
    zones = _zones(models, picture.effort)
    k = max((k for k, (_, top) in enumerate(zones, 1) if nominal <= top), default=0)
    if k == 0 or (picture.effort == 0 and round(nominal) >= models[k - 1].steps[0]):
        return picture.task(models[max(k - 1, 0)]), round(nominal)
    coarser, finer = _Curve(picture, models[k - 1]), _Curve(picture, models[k])
    step, start = _meeting(coarser, finer, *zones[k - 1])
    if nominal >= step:
        return coarser.task, round(nominal)
    anchor = zones[k][1] if k < len(zones) else finer.finest
    share = (nominal - anchor) / (step - anchor)
    return finer.task, max(round(anchor + share * (start - anchor)), 0)


def _zones(models: Sequence[Family], effort: int) -> list[tuple[int, int]]:
    """For each pair of neighbours the finest and the coarsest step at which one may hand over."""
    zones, room = [], math.inf
    for coarser, finer in itertools.pairwise(models):
        end, gap = coarser.steps[0], coarser.steps[0] - finer.steps[0]
        later = min(LATER, gap // LEAST_ZONE) if effort else 0
        sooner = min(SOONER, room) if effort else 0
        zones.append((end - later, end + sooner))
        room = max(gap - later - 1, 0)  # the next zone lies below this one
    return zones


class _Curve:
    """Bits and error of a picture in one family, measured step by step and remembered."""

    def __init__(self, picture: _Picture, family: Family) -> None:
        self.task, (self.finest, self.coarsest) = picture.task(family), family.steps
        self._bits: dict[int, float] = {}
        self._errors: dict[int, float] = {}
        self._values: dict[int, np.ndarray] = {}  # of the last few steps: they are large

    def bits(self, step: int) -> float:
        """Bits of the latents at a step."""
        if step not in self._bits:
            choice = self.task.at_quality(step)
            self._bits[step] = max(choice.bits, 1.0)
            self._keep(step, choice.values)
        return self._bits[step]

    def error(self, step: int) -> float:
        """Mean squared error of the decoded picture at a step."""
        if step not in self._errors:
            if step not in self._values:
                self._keep(step, self.task.at_quality(step).values)
            self._errors[step] = self.task.error(step, self._values[step])
        return self._errors[step]

    def _keep(self, step: int, values: np.ndarray) -> None:
        self._values[step] = values
        if len(self._values) > KEPT:
            del self._values[next(iter(self._values))]

    def step_of(self, bits: float) -> int:
        """The coarsest trained step of no fewer bits; the finest where all have fewer."""
        low, high = self.finest, self.coarsest + 1  # sought: >= low and < high
        if self.bits(low) < bits:
            return low
        ends = [math.log(self.bits(low)), math.log(self.bits(self.coarsest))]
        if ends[1] >= math.log(bits):
            return self.coarsest
        while high - low > 1:
            share = (ends[0] - math.log(bits)) / max(ends[0] - ends[1], 1e-9)
            guess = min(max(round(low + share * (high - low)), low + 1), high - 1)
            here = math.log(self.bits(guess))
            if here >= math.log(bits):
                low, ends[0] = guess, here
            else:
                high, ends[1] = guess, here
        return low


def _meeting(coarser: _Curve, finer: _Curve, bottom: int, top: int) -> tuple[int, int]:
    """The last step of the coarser family, and the step with which the finer one goes on."""
    low, high = bottom, top + CLOSE  # the coarser family serves down to low at least
    while high - low > CLOSE:
        middle = (low + high) // 2
        coarser.task.tell("scale", 1 - (high - low) / (top + CLOSE - bottom))
        low, high = (middle, high) if _overtakes(coarser, finer, middle) else (low, middle)
    bits, error = coarser.bits(low), coarser.error(low)
    good = finer.step_of(bits)
    worse, stride = good + 1, 1
    while good > finer.finest and finer.error(good) > error:
        good, worse, stride = max(good - stride, finer.finest), good, 2 * stride
    while worse - good > 1:
        middle = (good + worse) // 2
        no_worse = finer.bits(middle) >= bits and finer.error(middle) <= error
        good, worse = (middle, worse) if no_worse else (good, middle)
    return low, good


def _overtakes(coarser: _Curve, finer: _Curve, step: int) -> bool:
    """Whether the finer family is no worse at as many bits as the coarser one at a step."""
    other = finer.step_of(coarser.bits(step))
    # At most a step too many bits: error falls about as bits rise (10 dB for ten times the rate).
    more = max(finer.bits(other) / coarser.bits(step), 1.0)
    return finer.error(other) * more <= coarser.error(step)
