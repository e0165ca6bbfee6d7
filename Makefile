# Each target does its own set-up: a virtual environment from the hash-pinned locks, system packages where a test needs them.
# A second run finds the stamps and starts at once. `make PYTHON=...` picks the interpreter (3.11 or newer).
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --cov --cov-branch
PACKAGES := sh scripts/system-packages.sh
BROWSER := chromium "the browser of the end-to-end tests" fonts-dejavu-core "a font for the browser to draw with"

EDGE := varnish "the edge cache" varnish-vmod-digest "by which it checks tokens"
PLAYERS := mpv "a player in the tests" ffmpeg "a checker of what is played"
SRT := libsrt1.5-openssl "the library that SRT ingest calls"
ENCODERS := gstreamer1.0-tools "an encoder in the tests" gstreamer1.0-plugins-good "its FLV" gstreamer1.0-plugins-bad "its RTMP" gstreamer1.0-plugins-ugly "its H.264" glib-networking "its TLS"
OBS := obs-studio "a real broadcaster" xvfb "its screen" xauth "the key to that" libgl1-mesa-dri "its graphics" dbus "its session"
PEER := nginx "a peer of $(NAME)" libnginx-mod-rtmp "its RTMP module"
BENCH_PARTS := __init__ carried clock common nginx screen sides stack stamped varnish watching

.DEFAULT_GOAL := help
.PHONY: help up demo test test-full lint bench fuzz lock vendor

help:
	@echo 'make up              serve everything on this machine'
	@echo 'make demo            serve everything, with a test broadcast on air'
	@echo 'make test            lint, types, import arrows, all tests'
	@echo 'make test-full       the long forms too'
	@echo 'make bench NAME=...  one of:' $(filter-out $(BENCH_PARTS),$(basename $(notdir $(wildcard bench/*.py))))
	@echo 'make fuzz            ten minutes of fuzzing what strangers send'
	@echo 'make lock            pin the dependencies anew'
	@echo "make vendor          fetch the third-party JavaScript anew, the pages' and the tests'"

$(VENV)/.runtime: requirements.lock pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh requirements.lock $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh requirements-dev.lock $@

up: $(VENV)/.runtime
	@exec $(BIN)/tallylight up $(ARGS)

demo: $(VENV)/.runtime
	@exec $(BIN)/tallylight demo $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	@$(PACKAGES) $(BROWSER) $(EDGE) $(SRT) $(PLAYERS) $(ENCODERS)
	$(PYTEST) -m "not full" $(ARGS)

test-full: lint
	@$(PACKAGES) $(BROWSER) $(EDGE) $(SRT) $(PLAYERS) $(ENCODERS) $(OBS)
	$(PYTEST) $(ARGS)

bench: $(VENV)/.dev
	@test -n "$(NAME)" || { echo 'Which one? make bench NAME=append' >&2; exit 2; }
	@$(if $(filter glass_to_glass stages,$(NAME)),$(PACKAGES) $(BROWSER) $(EDGE))
	@$(if $(filter glass_to_glass,$(NAME)),$(PACKAGES) $(PEER) $(OBS) && $(MAKE) --no-print-directory $(VENV)/.node-media-server)
	@$(if $(filter media_overhead,$(NAME)),$(PACKAGES) $(PEER))
	@$(if $(filter origin,$(NAME)),$(PACKAGES) nginx "the peer of origin" wrk "the client of origin")
	@$(if $(filter edge,$(NAME)),$(PACKAGES) nginx "the peer of edge" $(EDGE))
	@$(BIN)/python -m bench.$(NAME) $(ARGS)

# A peer of glass_to_glass: the last line of it that makes HLS.
$(VENV)/.node-media-server: $(VENV)/.dev
	@command -v npm >/dev/null || $(PACKAGES) npm "what installs node-media-server"
	npm install --prefix $(VENV)/peers --no-save --no-audit --no-fund --ignore-scripts --loglevel=error node-media-server@2.7.4
	@touch $@

# Apart from the other tools: it has wheels for some Pythons only.
$(VENV)/.fuzz: $(VENV)/.dev requirements-fuzz.lock
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r requirements-fuzz.lock
	@touch $@

fuzz: $(VENV)/.fuzz
	@$(BIN)/python -m tests.fuzz $(ARGS)

COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet
lock: $(VENV)/.dev
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --extra dev --output-file requirements-dev.lock
	echo 'atheris==3.0.0' | $(subst pyproject.toml,-,$(COMPILE)) --output-file requirements-fuzz.lock

vendor: $(VENV)/.dev
	$(BIN)/python scripts/vendor.py
