# SPDX-License-Identifier: Apache-2.0
"""What does not need torch works where torch cannot be imported, and nothing touches the network.

This file imports no torch itself: .ci/run also runs it on Pythons that have none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import otcuda

# In each child: importing torch fails, and so does making a socket.
SITE = """
import importlib.abc, socket, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch was made unimportable")

sys.meta_path.insert(0, NoTorch())

def no_network(*_, **__):
    raise OSError("the network was made unreachable")

socket.socket = no_network
"""

OPS = """
import numpy as np, otcuda
x = np.eye(3, dtype=np.float32)
value, index = otcuda.power_argmax(x, 2 * x, np.zeros(3, np.float32))
assert value.tolist() == [2, 2, 2] and index.tolist() == [0, 1, 2], (value, index)
assert otcuda.cell_mass(np.array([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]
"""

CODING = """
import numpy as np
from otcuda import coding
tables = coding.Tables.from_weights([6, 1, 1], precision=3, escape=False)
symbols = np.array([0, 0, 2, 1, 0])
assert coding.decode(coding.encode(symbols, tables), tables).tolist() == symbols.tolist()
"""

PACKAGES = """
import otcuda  # and nothing else
assert [callable(f) for f in (otcuda.codec.compress, otcuda.coding.encode)] == [True] * 2
assert otcuda.transport.SemiDiscreteOT is otcuda.SemiDiscreteOT
assert {"codec", "coding", "evaluation", "transport"} <= set(dir(otcuda))
assert callable(otcuda.evaluation.psnr)
"""

INFO = """
import io, sys
from otcuda.cli import main
from otcuda.codec import bitstream
head = bitstream.Header(48, 32, "coded", 9, False, 1)
sys.stdin = io.TextIOWrapper(io.BytesIO(bitstream.write_file(head, b"abc")))
assert main(["info", "-"]) == 0
"""

CODEC = """
import io
import numpy as np
from PIL import Image
from otcuda.cli import main
from otcuda.codec import compress, decompress, load_model
shade = np.add.outer(np.arange(90), np.arange(130))[:, :, None] * np.array([1, 2, 3]) // 4
image = (shade % 256).astype(np.uint8)
low = load_model()  # the family with a perceptual head
for options in ({"effort": 0}, {"effort": 1}, {"mode": "fixed"}, {"quality": 50}):
    given = {} if "quality" in options else {"bytes": 400}
    data = compress(image, model=low, **given, **options)
    decoded = decompress(data)
    assert (decompress(data, realism=1.0) != decoded).any()
    assert np.abs(decoded.astype(int) - image).mean() < 40, options
    decoded = decompress(compress(image, **given, **options))  # by all weights at hand
    assert np.abs(decoded.astype(int) - image).mean() < 40, options
Image.fromarray(image).save("picture.png")
assert main(["compress", "picture.png", "--bytes", "400", "-o", "picture.otc", "-q"]) == 0
assert main(["decompress", "picture.otc", "-o", "again.png", "-q"]) == 0
with Image.open("again.png") as again:
    assert again.size == (130, 90)
assert "torch" not in __import__("sys").modules
"""

NEEDS_TORCH = (
    """
import numpy as np
from otcuda.codec import compress
compress(np.zeros((64, 64, 3), np.uint8), bytes=400, engine="torch")
""",
    "import otcuda.training.driver",
    "from otcuda.evaluation import Perceptual",
    "from otcuda.codec import load_model; load_model().net",
)

SOLVER = """
import numpy as np
from otcuda.transport import SemiDiscreteOT
targets = np.random.default_rng(0).standard_normal((50, 3))
ot = SemiDiscreteOT(targets, source="uniform")
assert ot.fit(chi2=0.1, seed=0).converged
assert ot.sample(3, seed=1).shape == (3, 3)
"""

ALL = """
names = "batch cli coding codec codec.bitstream codec.codec codec.pictures demo doctor errors "
names += "evaluation evaluation.baselines evaluation.datasets evaluation.metrics pillow"
for name in names.split():
    __import__("otcuda." + name)
"""

LIGHT = """
import sys, threading
before = set(sys.modules)
import otcuda
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert not new & {"numpy", "PIL", "click", "rich", "concurrent", "otcuda._C"}, new
assert threading.active_count() == 1
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE)
    path = [folder, Path(otcuda.__file__).parents[1]]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "OPENBLAS_NUM_THREADS": "1"}


def child(environment, *arguments, **options):
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, **options
    )


def test_torch_cannot_be_imported_here(environment):
    assert "torch was made unimportable" in child(environment, "-c", "import torch").stderr


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(OPS, id="ops"),
        pytest.param(CODING, id="coding"),
        pytest.param(PACKAGES, id="packages"),
        pytest.param(INFO, id="info"),
        pytest.param(ALL, id="modules"),
        pytest.param(LIGHT, id="import is light"),
    ],
)
def test_works(code, environment):
    done = child(environment, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_pictures_go_to_files_and_back(environment, tmp_path):
    done = child(environment, "-c", CODEC, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_command_line(environment):
    code = "from otcuda.cli import main; [main(a) for a in (['--help'], ['train', '--help'])]"
    done = child(environment, "-c", code)
    assert "Photographs in 1.5 kB" in done.stdout
    assert "--stage" in done.stdout
    assert done.stderr == ""
    done = child(environment, "-m", "otcuda", "doctor")
    assert "the same bits at every level" in done.stdout
    assert done.stderr == ""


def test_what_needs_torch_says_so(environment, tmp_path):
    done = child(environment, "-m", "otcuda", "train", str(tmp_path / "run"), "--data", "x")
    assert done.returncode == 1
    assert "needs torch" in done.stderr
    assert "Traceback" not in done.stderr
    for code in NEEDS_TORCH:
        done = child(environment, "-c", code)
        assert "BackendError: " in done.stderr
        assert "needs torch: pip install 'otcuda[torch]'" in done.stderr


def test_demo_and_solver_need_no_torch(environment, tmp_path):
    done = child(environment, "-m", "otcuda", "demo", "-q", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "otcuda-demo" / "side-by-side.png").is_file()
    done = child(environment, "-c", SOLVER)
    assert (done.returncode, done.stderr) == (0, "")


def test_torch_is_no_dependency_but_an_extra():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    assert not any(name.startswith("torch") for name in project["dependencies"])
    extras = project["optional-dependencies"]
    assert extras["torch"] == ["torch>=2.6"]
    assert all("otcuda[torch]" in extras[name] for name in ("train", "test", "eval"))
