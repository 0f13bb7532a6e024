# make demo    a fleet of ten devices learns on this machine, in about a minute after the install
# make test    every test, with a real mosquitto
# make test-web  the page of a fleet in a real browser, in about a minute
# make check   format, lint, types, dead code and circles of imports, as CI checks them
# make long    the tests that take long, and more cases of what make test shows
# make bench   the figures of README, measured on this machine
# make world   2,000 schedules of the real services in made-up weather, in some ten minutes
# make chaos   a fleet of real processes, killed 140 times, in some ten minutes
# ARGS="…" goes on to the command: make demo ARGS="--devices 20"

VENV := .venv
BIN := $(VENV)/bin
# The only packages that a machine must have besides Python and make; `deploy/need.sh` gets them when it can.
TEST_PACKAGES := mosquitto mosquitto-clients systemd docker-compose shellcheck nftables iproute2 prometheus

# Tests start some hundred processes: without bytecode on the disk each would compile all of the project again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-web long check bench world chaos format clean

demo: $(VENV)/.demo
	$(BIN)/fedge demo $(ARGS)

# Tests wait more than they compute: four at a time keep two cores busy, a file each, so that what a file sets up is made once.
test: $(VENV)/.dev
	deploy/need.sh $(TEST_PACKAGES)
	$(BIN)/pytest -n 4 --dist loadfile $(ARGS)

# One fleet and one browser for all of them, so one process.
test-web: $(VENV)/.dev
	deploy/need.sh mosquitto chromium
	$(BIN)/pytest -m web tests/web $(ARGS)

long: $(VENV)/.dev
	deploy/need.sh $(TEST_PACKAGES)
	$(BIN)/pytest -n 2 -m long $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/pytest -q --no-header tests/test_architecture.py

bench: $(VENV)/.dev
	deploy/need.sh mosquitto
	$(BIN)/python -m benchmarks

world: $(VENV)/.dev
	$(BIN)/python -m fleet.world --schedules 2000 --jobs 2 --quarantine $(ARGS)

chaos: $(VENV)/.dev
	deploy/need.sh mosquitto
	$(BIN)/fedge chaos --rounds 20 --kills 140 --seed 7 $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis fedge-demo

$(VENV)/.demo: pyproject.toml constraints.txt
	deploy/venv.sh $(VENV) ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	deploy/venv.sh $(VENV) ".[dev,torch]"
	touch $@ $(VENV)/.demo
