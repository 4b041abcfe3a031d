# From a fresh clone, without a GPU: `make demo` speaks, `make lab` opens the notebooks, `make test` checks everything.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SETUP  := settings.ini setup.py pyproject.toml
# A folder for compiled kernels inside the clone, so that nothing outside it is written.
export NUMBA_CACHE_DIR ?= $(CURDIR)/.cache/numba
# Idle threads sleep: on a shared machine spinning ones cost more than they save.
export OMP_WAIT_POLICY ?= PASSIVE
# gsplat's CUDA kernels, compiled on first use.
export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/.cache/torch_extensions

.PHONY: demo lab test test-all docs bench gpu cuda-device notebooks samples clean
.DEFAULT_GOAL := help
help:
	@echo "make demo      learn a head from the bundled clip, speak a bundled sentence: out/demo.mp4, out/demo.png"
	@echo "               (make demo AUDIO=my.wav speaks yours)"
	@echo "make lab       JupyterLab on chapter 0"
	@echo "make test      every notebook, test and check (about 11 minutes on 2 cores); make test-all adds the slow ones"
	@echo "make docs      the website, from the same notebooks, in _docs/"
	@echo "make bench     how fast every renderer of this machine is: benchmarks/results/render.json, render.png (make bench QUICK=1: a glance)"
	@echo "make gpu       on a CUDA device: the tests that need one, and the benchmark: benchmarks/results/gpu.json"
	@echo "               (make gpu PYTHON=python3 takes that interpreter and installs nothing)"
	@echo "make notebooks run every notebook and keep its outputs; export the package; write the README"
	@echo "make samples   remake data_samples (needs espeak-ng)"

# One environment; a stamp for each set of extras that was put into it.
$(BIN)/python:
	@echo "setting up $(VENV) (once) ..."
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3,10) <= sys.version_info[:2] <= (3,13) else "talkinglab needs Python 3.10 to 3.13; this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV)
$(VENV)/.base: $(SETUP) | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check --config-settings editable_mode=compat -e . && touch $@
$(VENV)/.%: $(SETUP) | $(BIN)/python
	@echo "adding the packages for '$*' (once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --config-settings editable_mode=compat -e '.[$*]' && touch $@ $(VENV)/.base

demo: $(VENV)/.base
	@$(BIN)/talkinglab demo $(if $(AUDIO),--audio "$(AUDIO)") -o out
lab: $(VENV)/.lab
	@$(BIN)/jupyter lab nbs/00_core.rotation.ipynb
test: $(VENV)/.dev
	@$(BIN)/ruff check -q .
	@$(BIN)/python -m pytest -n 2 --dist worksteal
test-all: $(VENV)/.dev
	@$(BIN)/ruff check -q .
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not cuda"
bench: $(VENV)/.dev
	@$(BIN)/python benchmarks/render.py $(if $(QUICK),--quick)
# With PYTHON given that interpreter runs as it is; otherwise .venv is set up, unless there is nothing to run on.
GIVEN := $(filter-out file default undefined,$(origin PYTHON))
gpu: $(if $(GIVEN),,cuda-device $(VENV)/.dev $(VENV)/.gpu)
	@$(if $(GIVEN),$(PYTHON),$(BIN)/python) benchmarks/gpu.py $(if $(QUICK),--quick)
cuda-device:
	@ls /dev/nvidia[0-9]* /dev/dxg >/dev/null 2>&1 || command -v nvidia-smi >/dev/null || { echo "make gpu needs a CUDA device, and there is none here: nothing was run" >&2; exit 2; }
docs: $(VENV)/.docs $(VENV)/.dev
	@$(BIN)/python tools/build_docs.py
notebooks: $(VENV)/.dev
	@$(BIN)/python tools/run_nbs.py
	@$(BIN)/nbdev_export
	@$(BIN)/python tools/build_docs.py --readme
samples: $(VENV)/.dev
	@$(BIN)/python data_samples/make_speech.py
	@$(BIN)/python data_samples/make_lesson.py
	@$(BIN)/python data_samples/make_talker.py
	@$(BIN)/python data_samples/make_ears.py
	@$(BIN)/python data_samples/make_sync.py
	@$(BIN)/python data_samples/make_d3talker.py
clean:
	rm -rf .cache _docs _proc build dist *.egg-info
