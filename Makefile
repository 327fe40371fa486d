# Each target makes the environment that it needs in .venv, then runs plain commands that work without make too.
# PYTHON chooses the interpreter: make course PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup course test check-course regen study study-deep clean

help:
	@echo "make course        set-up, downloads, all notebooks at lesson scale, report in runs/lesson/index.html"
	@echo "make test          set-up, linter, downloads, tests, all notebooks at smoke scale, notebook 05 at lesson scale"
	@echo "make check-course  compare all notebooks' checked cells at lesson scale, computing everything anew"
	@echo "make regen         run the lessons (ONLY=05,06: these) anew; write outputs to notebooks/, times to data/"
	@echo "make study         measure the 36 tasks at full scale anew; write rows and verdicts to data/results/"
	@echo "make study-deep    measure lesson 04's study at full scale anew; write rows and verdicts to data/results/"
	@echo "make clean         remove .venv, runs and caches of tools (not downloads or finished steps)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'iptkit needs Python 3.11 or newer, this is ' + sys.version.split()[0] + '; name another one: make PYTHON=python3.12 ...')"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "could not make .venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks,dev]'
	@touch $(STAMP)

$(BIN)/ray: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ray
	@touch $@

course: $(STAMP)
	$(BIN)/iptkit run --scale lesson --out runs/lesson

test: $(STAMP) $(BIN)/ray
	$(BIN)/ruff check .
	$(BIN)/iptkit fetch
	@set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps/tests" $(BIN)/python -m pytest -q; \
	IPTKIT_STEPS="$$steps/smoke" $(BIN)/iptkit run --scale smoke --out runs/smoke; \
	IPTKIT_STEPS="$$steps/nbval" IPTKIT_SCALE=smoke $(BIN)/python -m pytest -q --nbval-lax notebooks; \
	IPTKIT_STEPS="$$steps/05" IPTKIT_SCALE=lesson $(BIN)/python -m pytest -q --nbval-lax notebooks/05_*.ipynb

check-$(BIN)/ray: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ray
	@touch $@

course: $(STAMP)
	@set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps" IPTKIT_SCALE=lesson $(BIN)/python -m pytest -q --nbval-lax notebooks

regen: $(STAMP)
	@rm -rf runs/regen; set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps" $(BIN)/iptkit run --scale lesson --device cpu --out runs/regen $(if $(ONLY),--only $(ONLY)); \
	$(BIN)/python -m iptkit.lessons runs/regen

study: $(STAMP)
	@rm -rf runs/study; set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps" IPTKIT_RESULTS=runs/study $(BIN)/iptkit study --scale full --device cpu --out data/results/core36.jsonl; \
	$(BIN)/python -c "from iptkit import claims; claims.keep('runs/study', 'full')"

study-deep: $(STAMP)
	@rm -rf runs/study; set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps" IPTKIT_RESULTS=runs/study $(BIN)/iptkit study --scale full --part deep --device cpu --out data/results/encoder9.jsonl; \
	$(BIN)/python -c "from iptkit import claims; claims.keep('runs/study', 'full')"

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
