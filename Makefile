# Everything runs in .venv, which the first target that needs it creates. `make` alone prints this list.
PYTHON ?= python3
# The training extra: cpu, cu126 or cu120. A machine with an NVIDIA driver gets cu126.
EXTRA  ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cu126 || echo cpu)
# Further options for pip, for example the index of PyTorch's CPU builds.
PIP    ?=
VENV   := .venv
BIN    := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP)

SAMPLES ?= data/samples
SCANS   ?= $(SAMPLES)/scans
SHAPES  ?= $(SAMPLES)/shapes
DATA    ?= data/sequences
PRESET  ?= small
RUN     ?= runs/pretrain
TUNED   ?= runs/finetune
FOUND   ?= runs/instances
BOXES   ?= runs/detect
# Share of the labels to fine-tune with; empty: what the preset says.
PERCENT ?=
# Folder of make strl: built-in shapes, their views, the run and its tables.
STRL    ?= data/strl
# Processes that pre-train together, one core each. On two idle cores 2 were no faster than 1 (docs/training.md).
PROCESSES ?= 1
STUDY   ?= small
WORKERS ?= 2
# Processes of the tests.
JOBS    ?= 2
SOAK    ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo build pretrain finetune instances detect strl study test quick soak bench docs lint format clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gen4d needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.gen4d: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/.gen4d
	$(PIP_INSTALL) -e '.[$(EXTRA),test]'
	@touch $@

install: $(VENV)/.train ## make .venv with gen4d, the trainer and the test tools

demo: $(VENV)/.gen4d ## write built-in scans and shapes, build 20 sequences per scan, verify, show them
	$(BIN)/gen4d samples "$(SAMPLES)"
	$(BIN)/gen4d build --scans "$(SCANS)" --shapes "$(SHAPES)" --out "$(DATA)" --pairs --workers $(WORKERS)
	$(BIN)/gen4d verify "$(DATA)"
	$(BIN)/gen4d view "$(DATA)" --out data/sequence.png
	$(BIN)/gen4d view "$(DATA)" --out data/scan.html
	$(BIN)/gen4d report "$(DATA)" --quick --out data/report.html

build: $(VENV)/.gen4d ## build sequences from SCANS and SHAPES into DATA
	$(BIN)/gen4d build --scans "$(SCANS)" --shapes "$(SHAPES)" --out "$(DATA)" --workers $(WORKERS)

pretrain: $(VENV)/.train ## pre-train on DATA with PRESET (small or paper) into RUN; again: goes on where it stopped
	@test -f "$(DATA)/dataset.json" || { echo "$(DATA) holds no data set: run make demo first, or give DATA=..."; exit 1; }
	$(BIN)/python -m train together $(PROCESSES) pretrain --data "$(DATA)" --preset $(PRESET) --run "$(RUN)"

finetune: $(VENV)/.train ## fine-tune RUN to segment SCANS with PRESET into TUNED, and print the table
	@test -d "$(SCANS)" || { echo "$(SCANS) is not there: run make demo first, or give SCANS=..."; exit 1; }
	@test -d "$(RUN)" || { echo "$(RUN) is not there: run make pretrain first, or give RUN=..."; exit 1; }
	$(BIN)/python -m train finetune --data "$(SCANS)" --weights "$(RUN)" --preset $(PRESET) --run "$(TUNED)" $(addprefix --percent ,$(PERCENT))

strl: $(VENV)/.train ## STRL on built-in shapes: views, pre-training, a linear machine and few labels, with their floors
	@test -d "$(STRL)/shapes" || $(BIN)/gen4d samples "$(STRL)" --rooms 1 --shapes 30
	$(BIN)/gen4d build --kind views --shapes "$(STRL)/shapes" --out "$(STRL)/views" --workers $(WORKERS)
	$(BIN)/python -m train pretrain --data "$(STRL)/views" --preset strl-small --run "$(STRL)/run"
	$(BIN)/python -m train classify --data "$(STRL)/shapes" --weights "$(STRL)/run" --preset small --run "$(STRL)/classes"

instances: $(VENV)/.train ## fine-tune RUN to find the instances in SCANS with PRESET into FOUND
	@test -d "$(SCANS)" || { echo "$(SCANS) is not there: run make demo first, or give SCANS=..."; exit 1; }
	@test -d "$(RUN)" || { echo "$(RUN) is not there: run make pretrain first, or give RUN=..."; exit 1; }
	$(BIN)/python -m train finetune --task instances --data "$(SCANS)" --weights "$(RUN)" --preset $(PRESET) --run "$(FOUND)"

detect: $(VENV)/.train ## fine-tune RUN to find boxes around the objects in SCANS with PRESET into BOXES
	@test -d "$(SCANS)" || { echo "$(SCANS) is not there: run make demo first, or give SCANS=..."; exit 1; }
	@test -d "$(RUN)" || { echo "$(RUN) is not there: run make pretrain first, or give RUN=..."; exit 1; }
	$(BIN)/python -m train finetune --task detect --data "$(SCANS)" --weights "$(RUN)" --preset $(PRESET) --run "$(BOXES)"

study: $(VENV)/.train ## compare ways of pre-training on built-in rooms: STUDY=small (three hours of two cores) or full
	$(BIN)/python -m train study --size $(STUDY) --out runs/study-$(STUDY) --workers $(WORKERS)

test: $(VENV)/.train ## run every test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests

quick: $(VENV)/.train ## run the tests that take less than two minutes together, what a change needs
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow' tests

soak: $(VENV)/.train ## the tests of crashes, signals, damage, parts, sameness and loaders at length: hours (SOAK=0.1: a tenth)
	GEN4D_SOAK=$(SOAK) $(BIN)/python -m pytest -rP $(addprefix tests/test_,$(addsuffix .py,crash signals damage damage_files damage_large parts sameness dataloader))

bench: $(VENV)/.train ## measure the generator against its references, then the loader
	$(BIN)/python -m benchmarks

docs: $(BIN)/python ## build the site of docs/ into site/, with a page of a built-in room in it
	$(PIP_INSTALL) -e '.[docs]'
	$(BIN)/zensical build --clean --strict
	$(BIN)/gen4d samples data/docs --rooms 1 --shapes 1
	$(BIN)/gen4d build --scans data/docs/scans --shapes data/docs/shapes --out data/docs/sequences --sequences 6
	$(BIN)/gen4d view data/docs/sequences --out site/room.html

lint: $(VENV)/.train ## check style, import rules, and the types of the public functions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.train ## rewrite to the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and caches; data and runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
