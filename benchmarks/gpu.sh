#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The first hour with a card, in parts under ten minutes each: benchmarks/gpu.sh [part ...]
#
#   doctor      driver, card, nvcc, torch: what is missing is named, and nothing else is tried
#   build       pip install with CUDA on
#   memcheck, racecheck, initcheck, synccheck   compute-sanitizer on the device tests (pip install
#               nvidia-cuda-sanitizer-api): any finding is also one of the emulator
#   tests       every test marked cuda
#   argmax, topk, mass, solve, rans32, range64   benchmarks beside their rivals, JSON under
#               benchmarks/results/
#
# Without arguments: every part that has not succeeded yet, so a run that was cut off goes on. What
# was done is remembered under build/gpu, with the output of each part; delete it to begin again.
# Ends with 0 where all parts succeeded, 1 where one failed, 3 where one was left out for what is
# not installed, 2 where this machine has no card to run on or the part is unknown.
# GPU_STATE, PART_SECONDS and PYTHON stand in for build/gpu, 590 and python.
set -uo pipefail
cd "$(dirname "$0")/.."
state=${GPU_STATE:-build/gpu}
mkdir -p "$state"
python=${PYTHON:-python}
limit=${PART_SECONDS:-590}
parts=(doctor build memcheck racecheck initcheck synccheck tests argmax topk mass solve rans32 range64)
left_out=77 # what a part returns that lacks a tool

missing() {  # what a card's hour needs and this machine has not, a line each
  command -v nvidia-smi >/dev/null || echo "a driver: nvidia-smi is not on PATH"
  command -v "${CUDACXX:-nvcc}" >/dev/null || [[ -x ${CUDA_HOME:-/usr/local/cuda}/bin/nvcc ]] ||
    echo "nvcc 12.8 or later, by CUDACXX, CUDA_HOME or PATH"
  "$python" - <<'PY' || echo "a torch that sees a CUDA device, in $python (PYTHON names another)"
try:
    import torch
except ImportError:
    raise SystemExit(1) from None
raise SystemExit(not torch.cuda.is_available())
PY
  "$python" -c "import pytest" 2>/dev/null || echo "pytest, in $python"
}

sanitizer() {  # the tool on PATH, or that of NVIDIA's wheel
  command -v compute-sanitizer || "$python" - <<'PY'
import importlib.metadata as metadata
try:
    files = metadata.files("nvidia-cuda-sanitizer-api") or []
except metadata.PackageNotFoundError:
    files = []
print(next((f.locate() for f in files if f.name == "compute-sanitizer"), ""))
PY
}

sanitize() {  # sanitize TOOL: the smaller device tests, for it slows kernels by a factor of 10 to 100
  local tool
  tool=$(sanitizer)
  if [[ -z $tool ]]; then
    echo "compute-sanitizer is not here; pip install nvidia-cuda-sanitizer-api"
    return "$left_out"
  fi
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$tool" --tool "$1" --error-exitcode 9 \
    "$python" -m pytest -q -m cuda -k "hard_cases or (device_gives and not plain_kernel_by_wgmma)" \
    python_tests/emulation
}

run() {
  case $1 in
    doctor) nvidia-smi && "$python" -m otcuda doctor ;;
    build) "$python" -m pip install -C cmake.define.OTCUDA_CUDA=ON . ;;
    memcheck | racecheck | initcheck | synccheck) sanitize "$1" ;;
    tests) "$python" -m pytest -m cuda -ra ;;
    argmax | topk | mass | solve | rans32 | range64) "$python" benchmarks/gpu.py "$1" ;;
  esac
}

chosen=("${@:-${parts[@]}}")
for part in "${chosen[@]}"; do
  if [[ " ${parts[*]} " != *" $part "* ]]; then
    echo "no part $part; there are ${parts[*]}"
    exit 2
  fi
done
lacking=$(missing)
if [[ -n $lacking ]]; then
  echo "benchmarks/gpu.sh needs, and does not find:"
  while IFS= read -r line; do echo "  - $line"; done <<<"$lacking"
  exit 2
fi

export -f run sanitize sanitizer
export python left_out
failed=0
skipped=0
for part in "${chosen[@]}"; do
  if [[ $# -eq 0 && -e $state/$part.done ]]; then
    echo "=== $part: done before"
    continue
  fi
  echo "=== $part"
  timeout "$limit" bash -c 'run "$0"' "$part" 2>&1 | tee "$state/$part.txt"
  code=${PIPESTATUS[0]}
  case $code in
    0) touch "$state/$part.done" ;;
    "$left_out") skipped=1 && echo "=== $part LEFT OUT, see above" ;;
    124) failed=1 && echo "=== $part CUT OFF after $limit s; PART_SECONDS gives it more" ;;
    *) failed=1 && echo "=== $part FAILED, see $state/$part.txt" ;;
  esac
done
[[ $failed -ne 0 ]] && exit 1
[[ $skipped -ne 0 ]] && exit 3
exit 0
