# Each target builds the environment that it needs in .venv, then runs plain commands that also work without make.
# PYTHON chooses the interpreter: make course PYTHON=python3.12

# AT_ONCE: how many notebooks run at a time. Default in course: two if cores and memory suffice (13 GiB), else one;
# in check-course: one (with two, each has one core).

# NUMERIC: tests whose results depend on the instructions of the CPU. make test runs them with all instructions of
# this CPU, and again with only those that OLDER allows.
NUMERIC := tests/engine/test_engine.py tests/engine/test_left_memory.py tests/engine/fast tests/training \
  tests/methods/test_p_tuning_v2.py
OLDER := "-u ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA=AVX512_CORE" "ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2"

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup course site student test wheel-test check-course regen study-deep study-encoders study-ipt120 study-paper lock clean

help:
	@echo "make course        install, download, run all notebooks at lesson scale; pages: runs/lesson/index.html"
	@echo "make site          write the web site of the course from the stored outputs: runs/site/index.html"
	@echo "make student       notebooks without solutions, the solutions, tests for otter-grader: runs/editions"
	@echo "                   (with OVERWRITE=1 it replaces what is there, also answers written into it)"
	@echo "make test          install, check code and types, download; run the unit tests (the numeric ones also as"
	@echo "                   two older CPUs), methods and notebooks on pretended GPUs, all notebooks at smoke scale,"
	@echo "                   notebook 06 with the real model on five real tasks (scale check)"
	@echo "make wheel-test    build the wheel, install it into a new environment elsewhere, use it without the checkout"
	@echo "make check-course  compare the checked cells of all notebooks at lesson scale; computes everything again"
	@echo "make regen         run the lessons again (ONLY=05,06: only these); outputs to notebooks/, times to data/"
	@echo "make study-deep    measure the study of lesson 04 at scale full; rows and verdicts to data/results/"
	@echo "make study-encoders  measure P-Tuning v2 on all tasks of the suite encoders (hours; a stopped run resumes)"
	@echo "make study-ipt120  measure the 120 tasks in six folds (many hours; a stopped run resumes)"
	@echo "make study-paper   the paper's own set-up (weeks of a GPU; costs: iptkit study --scale paper --estimate)"
	@echo "make lock          write requirements.lock again (needs the program uv)"
	@echo "make clean         remove .venv, runs and caches of tools (not downloads or finished steps)"

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'iptkit needs Python 3.11 or newer, this is ' + sys.version.split()[0] + '; name another one: make PYTHON=python3.12 ...')"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "could not make .venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[notebooks,dev]'
	@touch $(STAMP)

$(BIN)/ray: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock ray
	@touch $@

course: $(STAMP)
	$(BIN)/iptkit run --scale lesson --out runs/lesson$(if $(AT_ONCE), --at-once $(AT_ONCE))

student: $(STAMP)
	$(BIN)/iptkit editions --out runs/editions$(if $(OVERWRITE), --overwrite)

site: $(STAMP)
	@rm -rf runs/site
	$(BIN)/python -m iptkit.course.site runs/site

test: $(STAMP) $(BIN)/ray
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/iptkit fetch
	@set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps/tests" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile; \
	for kind in $(OLDER); do \
	  env $$kind IPTKIT_STEPS="$$steps/tests" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile $(NUMERIC); \
	done; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/pretend_cuda; \
	IPTKIT_STEPS="$$steps/smoke" $(BIN)/iptkit run --scale smoke --out runs/smoke --at-once 2; \
	IPTKIT_STEPS="$$steps/smoke" IPTKIT_SCALE=smoke OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --nbval-lax notebooks; \
	IPTKIT_STEPS="$$steps/check" IPTKIT_SCALE=check $(BIN)/python -m pytest -q --nbval-lax notebooks/06_*.ipynb; \
	set +x; echo "numeric tests passed as this CPU is, and with:"; for kind in $(OLDER); do echo "  $$kind"; done

wheel-test: $(STAMP)
	.ci/wheel $(BIN)/python

check-course: $(STAMP)
	@set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps" IPTKIT_SCALE=lesson $(if $(filter-out 1,$(AT_ONCE)),OMP_NUM_THREADS=1) $(BIN)/python -m pytest -q $(if $(filter-out 1,$(AT_ONCE)),-n $(AT_ONCE) --dist loadfile) --nbval-lax notebooks

regen: $(STAMP)
	@rm -rf runs/regen; set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps" $(BIN)/iptkit run --scale lesson --device cpu --out runs/regen --at-once 1 $(if $(ONLY),--only $(ONLY)); \
	$(BIN)/python -m iptkit.course.lessons runs/regen; \
	$(BIN)/python -m benchmarks.page

study-deep: $(STAMP)
	@rm -rf runs/study; set -e; steps=$$(mktemp -d); trap 'rm -rf "$$steps"' EXIT; set -x; \
	IPTKIT_STEPS="$$steps" IPTKIT_RESULTS=runs/study $(BIN)/iptkit study --scale full --part deep --device cpu --overwrite --compact --out data/results/encoder9.jsonl; \
	$(BIN)/python -c "from iptkit.scores import claims; claims.add_to_stored('runs/study', 'full')"

study-encoders: $(STAMP)
	$(BIN)/iptkit study --scale full --part encoders --device cpu --overwrite --compact --out data/results/encoders.jsonl

study-ipt120: $(STAMP)
	$(BIN)/iptkit study --scale ipt120 --part curves --device cpu --overwrite --compact --out data/results/curves.jsonl
	$(BIN)/iptkit study --scale ipt120 --device cpu --overwrite --compact --out data/results/ipt120.jsonl

study-paper: $(STAMP)
	$(BIN)/iptkit study --scale paper --out runs/paper.jsonl

lock:
	@set -e; new=$$(mktemp); trap 'rm -f "$$new"' EXIT; \
	sed -n '/^#/p' requirements.lock > "$$new"; \
	uv pip compile --quiet --universal --python-version 3.11 --all-extras -c constraints.txt $(if $(UPGRADE),,-c requirements.lock) \
	  --no-header --no-annotate --no-emit-index-url pyproject.toml | grep -vE '^(nvidia|cuda|triton)\b' >> "$$new"; \
	cat "$$new" > requirements.lock

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .hypothesis
	find . \( -name __pycache__ -o -name .ruff_cache \) -type d -prune -exec rm -rf {} +
