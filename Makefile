# make demo    bake the default project, install it, serve it
# make test    run the tests; .ci/run also those that take long
# make mutants take each remedy out, and see that its test fails
# make bench   measure a baked project against its peers
# make lint    check the style of this repository's own Python and workflows
# make screenshots  take the pictures of README.md anew
# make clean   remove what these left behind

PYTHON ?= python3
PORT ?= 8000
ARGS ?=

BIN := .venv/bin
READY := .venv/ready-$(subst /,-,$(PYTHON))

# A variable of another project, or an environment that happens to be active, must not reach the demo.
unexport VIRTUAL_ENV DATABASE_URL REDIS_URL
unexport $(filter DJANGO_%,$(.VARIABLES))

# A container's Python may keep no bytecode; here each of many starts would compile all of Django.
unexport PYTHONDONTWRITEBYTECODE

# uv trusts whom pip trusts: the certificates of this machine.
export UV_SYSTEM_CERTS := true

.PHONY: help demo test mutants bench lint screenshots clean

help:
	@sed -n 's/^# make/make/p' Makefile

demo: $(READY)
	@$(BIN)/python .ci/check_demo.py '$(PORT)' $(ARGS)
	@rm -rf build/demo
	@baked=$$($(BIN)/cookiecutter . --no-input --default-config --output-dir build/demo $(ARGS) 2>&1) || \
	{ echo "$$baked" | sed '/^ERROR: Stopping/,$$d' >&2; exit 1; }
	@cd build/demo/* && echo "Installing $$PWD ..." && uv="$(CURDIR)/$(BIN)/uv" && \
	"$$uv" sync --quiet --python "$(CURDIR)/$(BIN)/python" && \
	"$$uv" run --quiet manage.py migrate --verbosity 0 && \
	{ trap : INT; "$$uv" run --quiet manage.py runserver $(PORT); }

test: $(READY)
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

mutants: $(READY)
	@$(BIN)/python tests/mutants.py $(ARGS)

bench: $(READY)
	@$(BIN)/python benchmarks/run.py $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/zizmor --offline --quiet .

screenshots: $(READY)
	@SCREENSHOTS=1 $(BIN)/python -m pytest tests/test_screenshots.py

clean:
	rm -rf build .venv .hypothesis .pytest_cache .ruff_cache

# Made again when pyproject.toml, PYTHON= or the Python behind it changes.
$(BIN)/python:
$(READY): pyproject.toml $(BIN)/python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo 'Python 3.11 or newer is needed, and $(PYTHON) is not: name another, as in: make $(MAKECMDGOALS) PYTHON=python3.13' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo '$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@[ "$$($(BIN)/python -VV 2>&1 && $(BIN)/python -m pip --version >/dev/null 2>&1)" = "$$($(PYTHON) -VV)" ] || \
	$(PYTHON) -m venv --clear .venv
	@echo 'Installing the tools in .venv ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@
