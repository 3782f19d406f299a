# Every target sets the project up in .venv first, once per change of what it names.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: install search test lint bench torture fuzz audit

install: $(READY)

$(READY): pyproject.toml taskdisc/taskness/_convolutions.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "taskdisc needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv (several GB, a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

search: $(READY)
	@$(BIN)/taskdisc search configs/search/digits.yaml

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every figure of docs/performance.md: throughput first, some 20 minutes in all on two free cores.
bench: $(READY)
	@$(BIN)/taskdisc bench score
	@$(BIN)/taskdisc bench step
	@$(BIN)/taskdisc bench stopping
	@$(BIN)/taskdisc bench cluster --simulate
	@$(BIN)/taskdisc bench scaling

# Kills searches, studies and comparisons at random moments and resumes them; minutes on two free cores.
torture: $(READY)
	@PYTHONPATH=. $(BIN)/python tests/torture.py $(TORTURE)

# Broken files for every reader, 400 by Hypothesis for each beside the table: five minutes on a free core.
fuzz: $(READY)
	TASKDISC_FUZZ=$(or $(EXAMPLES),400) $(BIN)/python -m pytest -v tests/hostile

# Known holes in what is installed; fails where the index of packages knows of none of them.
audit: $(READY)
	@$(BIN)/python tests/audit.py
