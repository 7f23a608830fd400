# The README's two commands are `make demo` and `make test`; each installs what it needs. Everything built goes to
# build/, which is not in git.

PYTHON ?= python3
VENV := .venv
NEUROSCOPE := $(VENV)/bin/neuroscope
NODE := node_modules/.bin/node
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup setup-test browser demo test check-python check-typescript test-typescript test-python bench clean

setup: $(VENV)/.light node_modules/.installed

setup-test: $(VENV)/.test node_modules/.installed browser

# A browser where none is found: Playwright's where its download is reachable, else the distribution's.
browser: $(VENV)/.test
	@test -n "$$NEUROSCOPE_CHROMIUM" || command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || command -v google-chrome >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || $(VENV)/bin/playwright install --with-deps chromium \
	  || { echo "No Chromium could be installed; install one and set NEUROSCOPE_CHROMIUM to its path." >&2; exit 1; }

demo: setup
	$(NEUROSCOPE) demo

# The light set: no PyTorch.
$(VENV)/.light: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable .
	touch $@

# The oracles: PyTorch's CPU build, TransformerLens, Playwright.
$(VENV)/.test: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet torch==2.13.0
	$(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.light

node_modules/.installed: package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	touch $@

check-python: setup-test
	$(VENV)/bin/ruff format --check python_tools tests
	$(VENV)/bin/ruff check python_tools tests
	$(VENV)/bin/mypy

check-typescript: node_modules/.installed
	node_modules/.bin/tsc -p tsconfig.json

test-typescript: setup-test
	$(NEUROSCOPE) image build
	$(NODE) js_bridge/kernels/build.ts
	$(NODE) --test 'tests/**/*.test.ts'

# Two processes of tests, each a whole file at a time: many tests wait for a browser or for Node.
test-python: setup-test
	$(VENV)/bin/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test: check-python check-typescript test-typescript test-python

bench: setup-test
	$(NEUROSCOPE) bench page
	$(NEUROSCOPE) bench engine

clean:
	rm -rf build
