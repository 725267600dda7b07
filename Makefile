# `make demo` and `make test` each work as the first command on a fresh checkout.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.up-to-date
TORCH  := torch==2.14.1 torchvision==0.29.1

RESULTS  := benchmarks/results
CAMPAIGN := $(RESULTS)/campaign
SPEED    := speed throughput latency retrieval roofline growth steps installed settings frame calibrating tiles

.PHONY: help venv demo test lint format bench revisions results campaign gpu-check clean

help:
	@echo "make demo      find planted defects on texture photographs, write anomem-demo/report.html"
	@echo "make test      the default tests and a small part of the slow and real-data ones"
	@echo "make lint      ruff, mypy, import-linter, vulture"
	@echo "make format    let ruff mend what it can"
	@echo "make bench     measure accuracy and speed (hours), then make results"
	@echo "make results   benchmarks/RESULTS.md and benchmarks/report from the committed lines; lists missed bars"
	@echo "make revisions compare with version 0.1, bit for bit"
	@echo "make campaign  all slow and real-data tests, damaged and malicious input, kills; results under $(CAMPAIGN)"
	@echo "make gpu-check what a GPU is needed for, in eight minutes on one"
	@echo "make venv      make or update $(VENV)"
	@echo "make clean     remove $(VENV), caches and builds"

venv: $(STAMP)

# The stamp comes last, so an interrupted install is taken up again.
$(STAMP): pyproject.toml runtime/pyproject.toml runtime/hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "anomem needs Python 3.11 or newer: make PYTHON=python3.11 venv")'
	@echo "$(VENV): making the environment"
	@$(PYTHON) -m venv $(VENV)
	@echo "$(VENV): installing $(TORCH) (the largest part)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@echo "$(VENV): installing anomem and what its tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ./runtime --editable '.[dev]'
	@touch $@
	@echo "$(VENV): ready"

demo: venv
	$(BIN)/anomem demo

# One worker per core, each with one thread: small tensors gain nothing from a second one. Compiled modules are kept, so
# that the commands under test do not compile them again.
test: venv
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --dist loadgroup -m "(not slow and not realdata) or ci_sample"

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: venv
	$(BIN)/anomem bench cpu --out $(RESULTS)/cpu.jsonl
	for name in $(SPEED); do $(BIN)/python -m benchmarks.performance.$$name || exit 1; done
	$(MAKE) results

# The exit code 1 of a missed bar is no failure of make; 2, a line or file that cannot be read, is.
results: venv
	$(BIN)/anomem report $(wildcard $(RESULTS)/*.jsonl) --out benchmarks/report --markdown benchmarks/RESULTS.md \
		--bars $(RESULTS)/bars.csv --sets $(RESULTS)/sets.csv || test $$? = 1
	folder=$$(mktemp -d) && $(BIN)/anomem report $(RESULTS)/variants/development.jsonl $(RESULTS)/variants/peers.jsonl \
		--baseline anomem --out $$folder --table $(RESULTS)/table.md --sets $(RESULTS)/sets.csv && \
		cp $$folder/comparisons.csv benchmarks/report/development.csv && \
		$(BIN)/anomem report $(RESULTS)/variants/report.jsonl --out $$folder --table $(RESULTS)/table-report.md \
		--sets $(RESULTS)/sets.csv && rm -r $$folder

# What version 0.1 computed, bit for bit; the patterns name what is new or nested on purpose.
revisions: venv
	$(BIN)/python -m benchmarks.revisions --quick --threads 1 \
		--expect '*:*params.*=nested, and bits is new' --expect '*:*resolved.*=nested, and bits is new' \
		--expect '*:*input_hw=new: rectangles' --expect '*:*frame.*=new: size of the input' \
		--expect '*:*facts.groups.*=new: near-duplicates' --expect '*:*suspects*=new: extreme normals' \
		--expect '*/anomem.*:*.fusion.*=new settings' --expect '*/anomem.*:*.place_weight=new setting' \
		--expect '*/anomem.*:*.unit_norm=new setting' --expect '*.xml:weights=SHA-256 instead of CRC-32' \
		--expect 'commands/*:calibration.*=new: kind and bound' --expect 'commands/*:excluded=new: --exclude' \
		--expect 'commands/*:shift.*=new: scores unlike the calibration' --expect 'commands/*:*_fdr=new: --fdr' \
		--expect 'commands/*:results.stratum=new: --calibrate-by' --expect 'bench/*:notes=reworded' \
		--expect 'bench/*:parameters.fusion*=new setting, pinned' --expect 'bench/*:key=new setting, pinned' \
		--expect 'commands/methods.json:*=new backbones and settings' \
		--expect 'commands/*:found.*=new key' --expect 'commands/*:n_groups=new key' --expect 'commands/*:alpha_min=new key' \
		--expect '*:*seal*=digest of the file' --expect '*:anomem.facts.labels*=files of the labels' \
		--expect '*/anomem.*:*.item_norm=new setting' --expect '*/anomem.*:*.per_root_dim=new setting' \
		--expect 'exported/padim.onnx:constant*=one up-sampling per grid' --expect 'exported/padim.onnx:node*=one up-sampling per grid' \
		--expect 'exported/padim.xml:layer*=one up-sampling per grid' --expect 'exported/padim.xml:edges=one up-sampling per grid' \
		--expect 'models/memae.*:*.activation=new setting' --expect '*plume*=learns from tune normals too' \
		--expect '*pmb*=learns from tune normals too, leaky rectifiers' --expect '*fyd*=aligners only where they help' \
		--expect '*anomem.*:*.effective_items=measured on the considered vectors'

campaign: venv
	mkdir -p $(CAMPAIGN)
	ANOMEM_RESULTS=$(CURDIR)/$(CAMPAIGN) $(BIN)/python -m pytest -m "slow or realdata" \
		--junitxml=$(CAMPAIGN)/tests.xml
	$(BIN)/python -m benchmarks.fuzz
	for name in groups large malicious advisories kills; do $(BIN)/python -m benchmarks.campaign.$$name || exit 1; done

gpu-check: venv
	$(BIN)/python -m benchmarks.gpu_check --out $(RESULTS)/variants/gpu.jsonl

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find runtime src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
