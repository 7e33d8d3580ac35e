# Settings, with their defaults: PORT=8000 DEVICE=auto ARGS="" PYTHON=(the first 3.11 or 3.12 found)
PORT ?= 8000
DEVICE ?= auto
ARGS ?=
export PYTHON
# Two processes where there are two cores (tests/work_order.py); ARGS="-n 0 --pdb" and the like overrule it.
WORKERS = -n logical --maxprocesses 2
SET_UP = sh scripts/with_python.sh -m scripts.set_up --device $(DEVICE)
BIN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install serve test check fix bench lock clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
	    printf '%-14s %s\n' "$$name" "$$text"; done

install: ## Environment, packages and default base; the others do it themselves
	@$(SET_UP)

serve: ## Start the gateway: make serve [PORT=8000] [DEVICE=auto|cpu|gpu] [ARGS="--base ..."]
	@$(SET_UP)
	@echo "Starting the gateway; it is up when its log says ready."
	@exec $(BIN)/hotswap serve --port $(PORT) $(ARGS)

test: ## Run the tests: make test [ARGS="tests/serve -k generate"]
	@$(SET_UP)
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

check: ## Format, lint and strict types, changing nothing
	@$(SET_UP) --no-base
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy .

fix: ## Format, and mend what the linter can
	@$(SET_UP) --no-base
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: ## Load on the default base with 8 adapters in at most 10 minutes: make bench [ARGS="--minutes 5"]
	@$(SET_UP)
	@$(BIN)/hotswap bench suite $(ARGS)

lock: ## Make both lock files anew: make lock [ARGS="--upgrade-package NAME"]
	@sh scripts/with_python.sh -m scripts.lock $(ARGS)

clean: ## Remove the environment and caches; the default base stays in HOTSWAP_HOME
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
