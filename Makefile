# Two commands for a newcomer: `make demo` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
SERVE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint bench bench-store docs format clean

demo: .venv/ready
	@cd examples/digits && ../../$(BIN)/modelyard run $(if $(filter 0,$(SERVE)),--no-serve,)

test: .venv/ready
	@$(BIN)/python tools/run_tests.py

lint: .venv/ready
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy && $(BIN)/python tools/reference.py --check

format: .venv/ready
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --fix --quiet .

docs: .venv/ready
	@$(BIN)/python tools/reference.py

bench: .venv/ready
	@for file in benchmarks/bench_*.py; do echo "== $$file" && $(BIN)/python $$file || exit 1; done

bench-%: .venv/ready
	@$(BIN)/python benchmarks/bench_$*.py $(ARGS)

# The lock pins everything; the project itself is installed last, without looking for more.
.venv/ready: requirements.lock pyproject.toml
	@echo "setting up .venv (once; a few minutes on a slow line)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
