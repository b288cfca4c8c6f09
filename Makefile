# make demo   compares seven variants on a made-up help desk and prints the leaderboard
# make test   installs what the tests need and runs them
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

export HF_HUB_DISABLE_TELEMETRY = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo app test test-all lint bench clean

demo: $(VENV)/installed
	$(BIN)/harness run specs/quickstart.toml

app: $(VENV)/installed
	$(BIN)/streamlit run app.py

# Two processes of one thread each suit two cores; the numbers do not depend on it.
test: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not slow"

test-all: $(VENV)/installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-dev
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/demo.py
	$(BIN)/python bench/kills.py
	$(BIN)/python bench/evaluation.py
	$(BIN)/python bench/training.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
