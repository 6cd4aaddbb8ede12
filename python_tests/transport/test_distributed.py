# SPDX-License-Identifier: Apache-2.0
"""Many processes, one problem: the bits of one process, whoever scans what, dies or goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from problems import clusters

import otcuda
from otcuda.errors import ArgumentError, RankError
from otcuda.transport import SemiDiscreteOT, fit_distributed
from otcuda.transport.distributed import part_of, value_of, winner_keys, winners_of
from otcuda.transport.ranks import Ranks

WORKER = Path(__file__).parent.with_name("distributed_worker.py")


def test_without_a_group_it_says_what_to_do():
    dist = pytest.importorskip("torch.distributed")
    assert not dist.is_initialized()  # before `alone`
    with pytest.raises(ArgumentError, match="torchrun"):
        fit_distributed(SemiDiscreteOT(clusters(20, 2)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """This process as a group of one."""
    dist = pytest.importorskip("torch.distributed")
    if not dist.is_available() or dist.is_initialized():
        pytest.skip("torch.distributed is not there, or in use")
    store = tmp_path_factory.mktemp("store") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_keys_order_values_and_give_ties_to_the_lowest_index():
    value = np.array([-np.inf, -2.0, -1e-30, -0.0, 0.0, 1e-30, 3.5, np.inf], np.float32)
    keys = winner_keys(value, np.zeros(8, int))
    assert (np.diff(keys) > 0).sum() == 6
    assert keys[3] == keys[4]  # -0 is 0, as it is to power_argmax
    np.testing.assert_array_equal(value_of(keys), value)
    index = np.array([0, 1, 5, 2**31 + 7, 2**32 - 1])
    keys = winner_keys(np.full(5, -1.5, np.float32), index)
    assert (np.diff(keys) < 0).all()
    np.testing.assert_array_equal(winners_of(keys), index)


def test_the_largest_key_of_parts_is_the_winner_of_all():
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-3, 4, (n, 2)).astype(np.float32) for n in (500, 90))
    h = rng.integers(-2, 3, 90).astype(np.float32)
    parts = [slice(*part_of(90, rank, 4)) for rank in range(4)]
    keys = []
    for rows in parts:
        value, index = otcuda.power_argmax(x, y[rows], h[rows])
        keys.append(winner_keys(value, index + rows.start))
    value, index = otcuda.power_argmax(x, y, h)  # with many ties
    np.testing.assert_array_equal(winners_of(np.max(keys, 0)), index)
    np.testing.assert_array_equal(value_of(np.max(keys, 0)), value)


def test_shares_are_whole_units_and_leave_nothing_out():
    for n, size, unit in [(10, 3, 1), (2, 5, 1), (1024, 3, 256)]:
        parts = [part_of(n, rank, size, unit) for rank in range(size)]
        assert [a for a, _ in parts][1:] == [b for _, b in parts][:-1]
        assert (parts[0][0], parts[-1][1]) == (0, n)
        assert all(a % unit == 0 for a, _ in parts)


@pytest.mark.parametrize(("shard", "device"), [("auto", None), ("targets", None), ("auto", "cpu")])
def test_a_group_of_one_gives_the_bits_of_fit(alone, shard, device, tmp_path):
    """With a device given, scans are of torch tensors, as on a card."""
    y = clusters(300, 3)
    plain, mine = SemiDiscreteOT(y), SemiDiscreteOT(y)
    truth = plain.fit("asgd", chi2=0.1)
    found = fit_distributed(mine, shard=shard, chi2=0.1, device=device)
    np.testing.assert_array_equal(mine.heights, plain.heights)
    same = ("chi2", "chi2_interval", "stopped_by", "samples", "scanned", "converged")
    assert all(getattr(found, name) == getattr(truth, name) for name in same)
    path = tmp_path / "checkpoint"
    part = fit_distributed(
        mine, chi2=0.1, checkpoint=path, callback=lambda record: "chi2" in record
    )
    assert part.stopped_by == "callback"
    assert mine.fit("asgd", chi2=0.1, checkpoint=path).converged
    np.testing.assert_array_equal(mine.heights, plain.heights)


def test_limits_and_wrong_arguments(alone):
    y = clusters(300, 3)
    ot = SemiDiscreteOT(y)
    assert fit_distributed(ot, max_seconds=1e-3).stopped_by == "seconds"
    result = fit_distributed(ot, max_samples=20_000)
    assert (result.stopped_by, result.scanned <= 20_000) == ("samples", True)
    with pytest.raises(ArgumentError, match="shard is 'rows', expected 'auto', 'samples'"):
        fit_distributed(ot, shard="rows")
    with pytest.raises(ArgumentError, match="device is 'abacus'"):
        fit_distributed(ot, device="abacus")
    with pytest.raises(ArgumentError, match="source is 'callable'"):
        fit_distributed(SemiDiscreteOT(y, source=lambda n: np.zeros((n, 3))))
    assert fit_distributed(SemiDiscreteOT(y[:, :1])).stopped_by == "closed_form"


def test_a_collective_that_fails_names_the_rank(alone, monkeypatch):
    import torch.distributed as dist

    def broken(*_arguments, **_options):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(dist, "all_reduce", broken)
    with pytest.raises(RankError, match=r"rank 0 of 1 lost the others.*Connection closed"):
        Ranks().any(True)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """What three ranks found: results of each, and the folder."""
    pytest.importorskip("torch.distributed")
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(WORKER)]
    workers = [
        subprocess.Popen([*command, str(rank), str(folder)], stderr=subprocess.PIPE)
        for rank in range(3)
    ]
    said = [worker.communicate(timeout=300)[1].decode() for worker in workers]
    codes = [worker.returncode for worker in workers]
    assert codes == [0, 0, 9], said
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(2)], folder


@pytest.mark.slow
def test_one_two_and_three_ranks_give_the_bits_of_one_process(three):
    import distributed_worker as worker

    ranks, _ = three
    for name in worker.PROBLEMS:
        ot, chi2 = worker.problem(name)
        result = ot.fit("asgd", chi2=chi2)
        truth = np.append(ot.heights, [result.chi2, result.samples, result.scanned])
        runs = [(key, run[key]) for run in ranks for key in run if key.startswith(name + " ")]
        assert len(runs) == (6 if name == "product" else 10)
        for key, found in runs:
            np.testing.assert_array_equal(found, truth, err_msg=key)


@pytest.mark.slow
def test_a_checkpoint_moves_to_another_number_of_ranks(three):
    import distributed_worker as worker

    ranks, _ = three
    ot, chi2 = worker.problem("plain")
    ot.fit("asgd", chi2=chi2)
    assert all(run["stopped"] for run in ranks)
    for run in ranks:
        np.testing.assert_array_equal(run["moved"][: ot.N], ot.heights)


@pytest.mark.slow
def test_a_rank_that_dies_or_hangs_is_an_error_on_the_others(three):
    import distributed_worker as worker

    ranks, folder = three
    for rank in range(2):
        assert f"rank {rank} of 3 lost the others" in (folder / f"died{rank}.txt").read_text()
        assert "ranks differ in targets" in (folder / f"differs{rank}.txt").read_text()
    assert "rank 0 of 2 lost the others" in (folder / "hang.txt").read_text()
    assert ranks[0]["hang"][0] < 10
    # Eight stages were reported, the seventh written: one process goes on from there.
    ot, chi2 = worker.problem("plain")
    whole = ot.fit("asgd", chi2=chi2)
    truth, records = ot.heights, []
    rest = ot.fit("asgd", chi2=chi2, checkpoint=folder / "died", callback=records.append)
    np.testing.assert_array_equal(ot.heights, truth)
    assert len(records) == len(whole.history) - 7
    assert rest.samples == whole.samples
