# Every target installs what it needs and is safe to repeat. `make` lists the targets.
PROFILE ?= local
SPEC ?=
RUN ?=
SET ?=
PORT ?= 5000
export IMAGE SIF TORCH BASE RUNTIME BINDS GPU BUILD_FLAGS RUN_FLAGS APPTAINER_FLAGS ROOM_GB

BIN := .venv/bin
empty :=
escape = $(subst $(empty) $(empty),\ ,$(1))
profile := $(call escape,$(if $(findstring /,$(PROFILE)),$(PROFILE),$(PROFILE:.yaml=)))
sets := $(foreach set,$(SET),--set '$(set)')
need = $(if $($(1)),,$(error $(1)= is missing; for example: $(2)))

.DEFAULT_GOAL := help
.PHONY: help install dev sweep ui status report results check test test-full test-faults test-speeds test-slow \
  lint bench coverage docs docs-check bench-full recipe gpu-check image sif local test-containers devcluster-up \
  devcluster-down

help: ## list the targets
	@echo 'make sweep SPEC=sweeps/quickstart.yaml [PROFILE=local] [SET="key=value ..."]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## set up .venv with the pinned packages
	@hpc/setup.sh

dev: ## set up .venv, including the packages for tests and lint
	@hpc/setup.sh dev

sweep: install ## run or resume a sweep (SPEC=, PROFILE=, SET=)
	$(call need,SPEC,make sweep SPEC=sweeps/quickstart.yaml)
	@$(BIN)/flexhpc sweep $(call escape,$(SPEC)) --profile $(profile) $(sets)

ui: install ## serve the MLflow UI on loopback (RUN=runs/NAME, by default the newest; PORT=)
	@$(BIN)/flexhpc ui $(call escape,$(RUN)) --port $(PORT)

status: install ## show the state of every point of a run (RUN=)
	$(call need,RUN,make status RUN=runs/quickstart)
	@if [ -t 1 ]; then $(BIN)/flexhpc status $(call escape,$(RUN)) --watch; else $(BIN)/flexhpc status $(call escape,$(RUN)); fi

results: install ## print the results table of a run (RUN=)
	$(call need,RUN,make results RUN=runs/quickstart)
	@$(BIN)/flexhpc results $(call escape,$(RUN))

report: install ## write the HTML report of a run (RUN=)
	$(call need,RUN,make report RUN=runs/quickstart)
	@$(BIN)/flexhpc report $(call escape,$(RUN))

check: lint ## run lint and the quick tests
	@$(BIN)/python -m pytest -q -m 'not (slow or faults or sweeps or slurm or container or browser)'

test: dev ## run all tests except slow, fault and container tests; needs SLURM and a browser
	@hpc/test_packages.sh
	@$(BIN)/python -m pytest -n 4 -m 'not (slow or faults or container)' --durations=25

coverage: dev ## measure the line coverage of the tests without SLURM, also in workers (15 minutes)
	@hpc/test_packages.sh
	@$(BIN)/python -m pytest -m 'not (slow or faults or slurm or container)' --cov --cov-report=term

test-full: dev ## run all tests except container tests, with all repetitions
	@hpc/test_packages.sh
	@FLEXHPC_TEST_FULL=1 $(BIN)/python -m pytest -m 'not container' --durations=25

test-faults: dev ## kill processes, damage files, fill disks; check that no result is lost (35 minutes; PART=1: 4)
	@hpc/test_packages.sh
	@$(BIN)/python -m $(if $(PART),pytest -n 2 -m faults tests/faults,tests.faults)

test-speeds: dev ## run the sweep tests with small budgets, under CPU load and in random order
	@hpc/test_packages.sh
	@$(BIN)/python -m tests.speeds

test-slow: dev ## compare flexhpc with plain training loops (15 minutes)
	@$(BIN)/python -m pytest -m 'slow and not slurm'

image: ## build the container image with podman or docker (TORCH=cuda|cpu, BASE=, IMAGE=)
	@hpc/container/image.sh

sif: ## build the Apptainer image from the container image (SIF=flexhpc.sif)
	@hpc/container/sif.sh

local: ## run a sweep in a container, on this machine's GPU if it has one (SPEC=, SET=)
	$(call need,SPEC,make local SPEC=sweeps/quickstart.yaml)
	$(if $(filter-out local,$(PROFILE)),$(error make local does not support PROFILE=))
	@hpc/container/local.sh $(call escape,$(SPEC)) $(sets)

test-containers: dev ## build the images and run sweeps in them, also on SLURM (Debian, as root)
	@hpc/test_packages.sh
	@hpc/container/packages.sh
	@$(BIN)/python -m pytest -n 0 tests/container --durations=12

lint: dev ## run ruff, mypy, shellcheck and import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/shellcheck -x -P SCRIPTDIR --severity=warning .ci/run hpc/*.sh hpc/*/*.sh flexhpc/launch/slurm/*.sh
	@$(BIN)/lint-imports --no-logo

docs-check: dev ## build the pages without the module reference; warnings are errors (5 seconds)
	@$(BIN)/python -m sphinx -q -W --keep-going -t pages -b html -c docs . site/pages
	@echo 'no warnings'

docs: dev ## build the documentation: site/docs/index.html
	@$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs . site
	@echo site/docs/index.html

devcluster-up: ## start a SLURM cluster of four small nodes on this host (Debian, as root)
	@hpc/devcluster/up.sh

devcluster-down: ## stop this cluster
	@hpc/devcluster/down.sh

bench: dev ## measure the speed of flexhpc and of other training loops (20 minutes)
	@$(BIN)/python -m bench.plan_speed
	@$(BIN)/python -m bench.worker_start
	@$(BIN)/python -m bench.speed --rounds 3 --seconds 1
	@$(BIN)/python -m bench.speed.startup --rounds 2
	@$(BIN)/python -m bench.speed.time_to_emc --rounds 2

bench-full: bench ## run all benchmarks (more than an hour, 3 GB of disk)
	@set -e; for name in optimizers packed_set perceptron_coverage perceptron_shortfall slurm_submit \
    speed.sweep_overhead tail_batch; do \
	  $(BIN)/python -m bench.$$name; done
	@$(BIN)/python -m bench.search

gpu-check: dev ## run the tests and benchmarks that need a GPU (8 minutes at most)
	@$(BIN)/python -m bench.gpu_check

recipe: dev ## measure how choices of a recipe change the EMC; update docs/recipe.md (45 minutes)
	@for spec in recipe recipe_mup; do \
	  $(BIN)/flexhpc sweep sweeps/$$spec.yaml --profile $(profile) || exit; done
	@$(BIN)/python -m bench.recipe runs/recipe runs/recipe_mup --markdown docs/recipe.md
