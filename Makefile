# Each target is one line a person could type; CI calls the same ones.
PYTHON ?= python
JOBS ?= 2
BUILD ?= build/dev
RUN ?= runs/background

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 18

dev:  ## fast in-place build: build/dev, then otcuda/_C*.so
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$$($(PYTHON) -c 'import sys; print(sys.executable)') -Dpybind11_DIR=$$($(PYTHON) -m pybind11 --cmakedir) $(CMAKE_ARGS) && cmake --build $(BUILD) -j $(JOBS) && cmake --install $(BUILD) --component python --prefix .

test:  ## the tests of a working day, about 2 minutes
	$(PYTHON) -m pytest

test-all:  ## every test, the slow ones too
	$(PYTHON) -m pytest -m "slow or not slow"

lint:  ## ruff, clang-format, import-linter
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' | xargs clang-format --dry-run -Werror && lint-imports

format:  ## rewrite Python and C++ in house style
	$(PYTHON) -m ruff check --fix . ; $(PYTHON) -m ruff format . && git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' | xargs clang-format -i

train-background:  ## train at lowest priority on one thread, detached: DATA=folder RUN=folder; goes on where it stopped
	mkdir -p $(RUN) && OMP_NUM_THREADS=1 nohup setsid $$(command -v ionice >/dev/null && echo ionice -c 3) nice -n 19 $(PYTHON) -m otcuda train $(RUN) $(if $(DATA),--data $(DATA)) --start shipped --threads 1 $(TRAIN) >>$(RUN)/train.txt 2>&1 & echo "training in the background; tail -f $(RUN)/train.txt"

bench:  ## benchmarks into benchmarks/results
	for each in $(filter-out %/harness.py %/gpu.py,$(wildcard benchmarks/*.py)); do $(PYTHON) $$each || exit 1; done

readme:  ## tables and picture of README.md from benchmarks/results and the bundled weights
	$(PYTHON) -m otcuda demo -o build/demo && $(PYTHON) tools/readme_tables.py build/demo/side-by-side.png

cuda:  ## compile the CUDA half, warnings as errors; needs nvcc, no card, installs nothing
	cmake -S . -B build/cuda -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$$($(PYTHON) -c 'import sys; print(sys.executable)') -Dpybind11_DIR=$$($(PYTHON) -m pybind11 --cmakedir) -DOTCUDA_CUDA=ON -DOTCUDA_WERROR=ON $(CMAKE_ARGS) && cmake --build build/cuda -j $(JOBS)

fuzz:  ## mutation harnesses under sanitizers; needs a C++ compiler
	$(PYTHON) -m pytest -m slow python_tests/coding/test_fuzz.py

golden:  ## rewrite the golden files and print the difference
	$(PYTHON) tools/make_golden.py && git diff --stat -- python_tests/golden

sass:  ## table of registers, occupancy and hot loops for docs/cuda.md; needs nvcc and nvdisasm, no card
	PYTHONPATH=python_tests $(PYTHON) -m emulation.sass_report

.PHONY: help dev test test-all lint format train-background bench readme cuda sass fuzz golden
.DEFAULT_GOAL := help
