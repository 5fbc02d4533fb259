# maskstream: `make demo` shows it all, `make test` checks it; both set everything up by themselves.
PYTHON  ?= python3
VENV    ?= .venv
DATASET ?= sample
RECIPE  ?= mgmae-tiny
PROFILE ?= train
MASK    ?=
ROOT    ?= data/raw/$(DATASET)
OUT     ?= data/shards/$(DATASET)
DATA    ?= data/shards/sample/train
# Attacks: how many, what they are drawn from, and which (all of them by default)
N       ?= 1000
SEED    ?= 0
ATTACK  ?=
# Where the attacked shards lie (local, s3, az, http) and where tasks run (local, ray); after make test-services.
STORE   ?= local
EXECUTOR ?= local
# The demo of a modality: make demo MODALITY=audio
MODALITY ?= video
# What a demo needs beyond the package itself: extras of pyproject.toml.
DEMO_EXTRAS_mesh  := meshes
DEMO_EXTRAS_points := points
DEMO_EXTRAS_trajectory := walks
# DALI for CUDA 13 needs driver 580 or newer; without a driver none is installed.
EXTRA   ?= $(shell nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null \
             | awk -F. 'NR==1 {print ($$1 >= 580) ? "gpu" : "gpu-cu12"}')
BIN     := $(VENV)/bin
RUN     := $(BIN)/maskstream
PIP     := $(BIN)/python -m pip --disable-pip-version-check

# A dot every two seconds while the shell of a recipe lives, before a command that says nothing for minutes.
DOTS    := while sleep 2 && kill -0 $$$$ 2>/dev/null; do printf .; done &

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo shards train preview gallery pictures verify inspect bench recipes bench-data gpu gpu-wheels test test-all test-python test-newest test-oldest test-fresh test-lerobot test-services release attack docs lint typecheck format clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "maskstream needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "making a virtual environment in $(VENV)"
	@python=$$(command -v $(PYTHON)); $$python -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); \
	  $$python -m venv --without-pip $(VENV) && $$python -m pip --python $@ install -q pip; }

# Groups of dependencies need a newer pip than some Pythons bring.
$(VENV)/.pip: | $(BIN)/python
	@$(PIP) install -q --upgrade 'pip>=25.1' && touch $@

# Python compiles what it imports, a small part of what is installed.
$(VENV)/.done: pyproject.toml | $(BIN)/python
	@echo "installing maskstream (the first time takes some minutes)"
	@$(DOTS) $(PIP) install -q --no-compile -e '.$(if $(EXTRA),[$(EXTRA)])' && touch $@ && echo

$(VENV)/.dev: $(VENV)/.done $(VENV)/.pip
	@echo "installing what the tests and checks need"
	@$(DOTS) $(PIP) install -q --group dev -e '.[$(or $(EXTRA),gpu),archives,audio,meshes,metaworld,notes,points,walks]' && touch $@ && echo

$(VENV)/.services: $(VENV)/.dev tests/services/install.sh
	@echo "installing the servers of the tests"
	@$(PIP) install -q --group services && tests/services/install.sh $(VENV) && touch $@

$(VENV)/.docs: $(VENV)/.done $(VENV)/.pip
	@echo "installing what makes the documentation"
	@$(PIP) install -q --group docs && touch $@

$(VENV)/.challenger: $(VENV)/.dev
	@echo "installing the decoder to compare with"
	@$(PIP) install -q --group challenger && touch $@

# Some of the readers want older libraries than the tests do. uv resolves them in seconds.
runs/peers/.done: pyproject.toml
	@echo "installing the readers to compare with in runs/peers"
	@$(PYTHON) -m venv runs/peers && runs/peers/bin/python -m pip install -q uv
	@runs/peers/bin/uv pip install -q --compile-bytecode --python runs/peers/bin/python --group bench -e . && touch $@

$(VENV)/.extra-%: $(VENV)/.done
	@echo "installing the extra $*"
	@$(DOTS) $(PIP) install -q -e '.[$*]' && touch $@ && echo

setup: $(VENV)/.done  ## a virtual environment with maskstream in it
setup-dev: $(VENV)/.dev

demo: $(VENV)/.done $(DEMO_EXTRAS_$(MODALITY):%=$(VENV)/.extra-%)  ## [MODALITY=video, audio, audiovisual, image, image-text, text, points, mesh, pose, trajectory, native]: sample data to a model that learns, and its report
	$(RUN) demo $(MODALITY)

shards: $(VENV)/.done  ## DATASET=k400 [ROOT= OUT= PROFILE= SPLIT=val WORKERS= AS_IS=1]: raw data to verified shards
	$(RUN) shards $(DATASET) --root $(ROOT) --out $(OUT) --profile $(PROFILE)$(if $(WORKERS), --workers $(WORKERS))$(if $(SPLIT), --split $(SPLIT))$(if $(AS_IS), --as-is)

train: $(VENV)/.done  ## RECIPE=videomae-small DATA=data/shards/k400/train [STEPS= RUN_DIR=]: train on shards
	$(RUN) train $(RECIPE) --data $(DATA) --out $(or $(RUN_DIR),runs/$(RECIPE))$(if $(STEPS), --steps $(STEPS))

preview: $(VENV)/.done  ## DATA=... [MASK=]: a page with samples of any modality and their masks
	$(RUN) preview $(DATA)$(if $(MASK), --mask $(MASK)) --out preview.html

gallery: $(VENV)/.done  ## runs/gallery.html: a picture of every mask on real data
	$(RUN) gallery --out runs/gallery.html

pictures: $(VENV)/.done $(VENV)/.extra-walks  ## docs/pictures/: all that README.md and docs/ show, the same bytes on any machine
	$(BIN)/python docs/site/pictures.py

verify: $(VENV)/.done  ## DATA=...: check every byte of a set of shards
	$(RUN) verify $(DATA)

inspect: $(VENV)/.done  ## DATA=...: what is in a set of shards
	$(RUN) inspect $(DATA)

ROUNDS ?= 9
bench: runs/peers/.done  ## [MODALITY=video, image, image-text, audio, audiovisual, text, points, mesh, all] [ROUNDS=9] [DOCS=1]: CPU time of this loader and of its peers, in turns; DOCS=1 writes the tables into docs/benchmarks.md
	OMP_NUM_THREADS=1 runs/peers/bin/python benchmarks/loader.py --modality $(MODALITY) --rounds $(ROUNDS)$(if $(DOCS), --docs docs/benchmarks.md)

recipes: $(VENV)/.done $(VENV)/.extra-meshes $(VENV)/.extra-points  ## [RECIPES=names]: every tiny recipe with three seeds on its sample data, runs/recipes.json and docs/recipes.md
	$(BIN)/python benchmarks/recipes.py $(RECIPES)

bench-data: $(VENV)/.done  ## DATA=... [MASK=]: the loader on your shards, and what limits it
	$(RUN) bench $(DATA)$(if $(MASK), --mask $(MASK))

gpu: $(if $(WHEELS),gpu-wheels,$(VENV)/.dev $(if $(EXTRA),$(VENV)/.challenger))  ## [ONLY=steps] [WHEELS=folder]: what a card does and how fast, runs/gpu.json (docs/gpu.md); without a card what needs none. WHEELS: no network
	$(BIN)/python benchmarks/gpu.py $(if $(ONLY),--only $(ONLY))

# What the tests that need a card import.
GPU_TESTS := hypothesis pytest
gpu-wheels: $(BIN)/python
	$(BIN)/python -m pip install -q --no-index --find-links $(WHEELS) --no-build-isolation hatchling editables
	$(BIN)/python -m pip install -q --no-index --find-links $(WHEELS) --no-build-isolation -e '.[$(or $(EXTRA),gpu),audio]' $(GPU_TESTS) \
	  $(if $(wildcard $(WHEELS)/pynvvideocodec-*),PyNvVideoCodec)

test: $(VENV)/.dev  ## the test suite, without what takes long
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: test  ## the test suite, and then what takes long
	$(BIN)/python -m pytest -n auto --dist worksteal -m "slow and not services"

# PYTHON=python3.13, or 3.13. The wheel alone, in a new environment, with what the chosen tests import.
VERSION := $(PYTHON:python%=%)
OTHER := runs/python-$(VERSION)
QUICK := test_readme.py shards/media pipelines/modalities/test_fields.py pipelines/modalities/video/test_clip.py preprocess/encode/test_local_media.py
test-python:  ## PYTHON=python3.13: the wheel in an empty environment of another Python, the README's loader and a quick part of the tests
	rm -rf $(OTHER) && python$(VERSION) -m venv $(OTHER)/venv
	$(OTHER)/venv/bin/python -m pip wheel -q --no-deps -w $(OTHER)/dist .
	$(OTHER)/venv/bin/python -m pip install -q $(OTHER)/dist/*.whl hypothesis pytest pillow soundfile
	cp -r tests pyproject.toml README.md docs $(OTHER)/
	cd $(OTHER) && venv/bin/maskstream --version && venv/bin/python -m pytest -m "not slow and not services" $(QUICK:%=tests/%)

# The newest releases that pyproject.toml allows, or the lowest, as the index has them, without builds of this machine.
# uv finds the lowest in seconds, pip not in an hour. On the lowest no tests of transformers, which wants newer tokenizers.
# jsonpath-rw, which mlcroissant needs, has no wheel.
NUMERICS := test_readme.py pipelines shards train/nn train/papers preprocess/encode
LOWEST := archives audio coco languages meshes medical notes points tensorboard
UV = runs/$*/bin/uv pip install -q --python runs/$*/bin/python --only-binary :all: --no-binary jsonpath-rw
test-newest: RESOLUTION := highest  ## [PYTHON=python3.13]: the numerics and what reads and writes data, with the newest releases that pyproject.toml allows
test-newest: TOOLS := -r pyproject.toml --group dev --extra gpu --extra metaworld --extra walks
test-oldest: RESOLUTION := lowest-direct  ## [PYTHON=python3.13]: the same with its lower bounds
test-oldest: TOOLS := hypothesis kaldi-native-fbank "nvidia-dali-cuda130>=2.4" pytest pytest-xdist soundfile webdataset
test-newest test-oldest: test-%:
	rm -rf runs/$* && $(PYTHON) -m venv runs/$* && runs/$*/bin/python -m pip install -q uv
	$(UV) --resolution $(RESOLUTION) -r pyproject.toml $(LOWEST:%=--extra %)
	$(UV) $(TOOLS)
	$(UV) --no-deps -e .
	runs/$*/bin/uv pip list -q --python runs/$*/bin/python
	OMP_NUM_THREADS=1 runs/$*/bin/python -m pytest -n auto --dist worksteal $(NUMERICS:%=tests/%)

SUITE ?= trixie
test-fresh:  ## [SUITE=bookworm]: every command of the README, the first hour and the examples, and `make test`, in a Debian that has python3, pip, make and git alone; needs root and debootstrap
	tests/fresh/run.sh --suite $(SUITE) sh -c 'python3 tests/fresh/commands.py && make test'

# LeRobot wants an older PyAV than maskstream, so it has an environment of its own.
test-lerobot: $(VENV)/.dev  ## LeRobot in runs/lerobot, and clips and actions beside its own, item by item
	$(PYTHON) -m venv runs/lerobot && runs/lerobot/bin/python -m pip install -q 'pip>=25.1'
	runs/lerobot/bin/python -m pip install -q --group lerobot
	LEROBOT_PYTHON=$(CURDIR)/runs/lerobot/bin/python $(BIN)/python -m pytest -m slow -rs tests/users/test_lerobot_itself.py

test-services: $(VENV)/.services  ## the tests against real servers, which it installs (as root also with apt) and starts
	$(BIN)/python -m pytest -n auto --dist loadfile -m services

release: $(VENV)/.dev  ## [TAG=v1.2.3] [DRAFT=1]: dist/: wheel and sdist of the last commit, the same bytes twice and checked, and notes from CHANGELOG.md
	$(BIN)/python .ci/release.py $(if $(TAG),--tag $(TAG)) $(if $(DRAFT),--draft)

attack: $(VENV)/.dev  ## [N=1000 SEED=0 ATTACK=name STORE=s3 EXECUTOR=ray]: damage, kills and hostile data, and what came of them (docs/robustness.md)
	$(BIN)/python -m tests.attacks -n $(N) --seed $(SEED) --store $(STORE) --executor $(EXECUTOR) $(ATTACK)

docs: $(VENV)/.docs  ## runs/site: the documentation as a site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q && echo "open runs/site/index.html"

lint: $(VENV)/.dev  ## ruff, and the language of every text
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_language.py

typecheck: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the virtual environment, caches, and runs (data stays)
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
