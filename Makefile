# Two commands matter: `make serve` and `make test`. Everything they need is installed into .venv and .venv-dev.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
BUNDLE ?=
PIP_FLAGS ?=

SERVE := .venv
DEV := .venv-dev
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)

.PHONY: help serve test check format bench pages image clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: $(SERVE)/.ready ## serve the demo model, or BUNDLE=..., on HOST and PORT
	@exec $(SERVE)/bin/solo serve --host $(HOST) --port $(PORT) $(BUNDLE)

test: check ## style, types, layering and all tests
	$(DEV)/bin/python -m pytest -q

check: $(DEV)/.ready ## style, types and layering only
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/pyright
	$(DEV)/bin/lint-imports

format: $(DEV)/.ready ## rewrite the sources in the house style
	$(DEV)/bin/ruff format .
	$(DEV)/bin/ruff check --fix .

bench: $(SERVE)/.ready ## measure the demo model on this machine
	$(SERVE)/bin/solo bench pipeline tests/pictures/*.jpg

pages: $(DEV)/.ready ## write the figures of benchmarks/results into the pages
	$(DEV)/bin/python benchmarks/pages.py

image: ## build the CPU image (needs docker)
	docker build -t solo-inference .

clean: ## remove both environments
	rm -rf $(SERVE) $(DEV)

$(SERVE)/.ready: pyproject.toml constraints.txt
	@echo "preparing $(SERVE) (once, about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(SERVE)
	@$(SERVE)/bin/python $(PIP_INSTALL) -e '.[server,client]'
	@$(SERVE)/bin/solo warm
	@touch $@

$(DEV)/.ready: pyproject.toml constraints.txt
	@echo "preparing $(DEV) (once, some minutes; it holds torch)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python $(PIP_INSTALL) torch
	@$(DEV)/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@
