#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The first hour with a card, in parts under ten minutes each: benchmarks/gpu.sh [part ...]
#
#   doctor      driver, card, build; nothing else is worth a minute before this
#   build       pip install with CUDA on
#   memcheck, racecheck, initcheck, synccheck   compute-sanitizer on the device tests, where it is
#               there (pip install nvidia-cuda-sanitizer-api): any finding is also one of the emulator
#   tests       every test marked cuda
#   argmax, solve, rans32   benchmarks beside their rivals, JSON under benchmarks/results/
#
# Without arguments: every part that has not succeeded yet, so a run that was cut off goes on. What
# was done is remembered under build/gpu, with the output of each part; delete it to begin again.
set -uo pipefail
cd "$(dirname "$0")/.."
state=build/gpu
mkdir -p "$state"
python=${PYTHON:-python}
limit=${PART_SECONDS:-590}
parts=(doctor build memcheck racecheck initcheck synccheck tests argmax solve rans32)

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
    return 0
  fi
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$tool" --tool "$1" --error-exitcode 9 \
    "$python" -m pytest -q -m cuda -k "hard_cases or device_gives" python_tests/emulation
}

run() {
  case $1 in
    doctor) nvidia-smi && "$python" -m otcuda doctor ;;
    build) "$python" -m pip install -C cmake.define.OTCUDA_CUDA=ON . ;;
    memcheck | racecheck | initcheck | synccheck) sanitize "$1" ;;
    tests) "$python" -m pytest -m cuda -ra ;;
    argmax | solve | rans32) "$python" benchmarks/gpu.py "$1" ;;
    *) echo "no part $1; see the head of $0" && return 2 ;;
  esac
}

export -f run sanitize sanitizer
export python
failed=0
for part in "${@:-${parts[@]}}"; do
  if [[ $# -eq 0 && -e $state/$part.done ]]; then
    echo "=== $part: done before"
    continue
  fi
  echo "=== $part"
  if timeout "$limit" bash -c 'run "$0"' "$part" 2>&1 | tee "$state/$part.txt"; then
    touch "$state/$part.done"
  else
    echo "=== $part FAILED, see $state/$part.txt"
    failed=1
  fi
done
exit $failed
