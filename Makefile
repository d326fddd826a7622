# Two commands do everything: `make study` and `make test`. Both create the environment when needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROFILE ?= demo
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')

.PHONY: study test browser clean

study: $(VENV)/ready
	$(BIN)/python run_all.py --profile $(PROFILE) --workers $(WORKERS)

test: browser $(VENV)/ready
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pytest -n 3 --no-loadscope-reorder

# For the tests in a browser. Only root installs it, without sudo: a test command must not ask for a password.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "installing Chromium for the tests in a browser"; export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } > /dev/null && exit 0; \
	fi; \
	echo "no Chromium: the tests in a browser will be skipped. On Debian: apt-get install chromium; on Ubuntu: Google Chrome's google-chrome-stable (Chromium is a snap there, which cannot read /tmp)" >&2

$(VENV)/ready: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) .cache
