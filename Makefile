# The project's few commands. PYTHON chooses the interpreter that .venv is made with.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo demo-seq2seq demo-gpt test test-fast test-slow smoke lint results clean

demo: $(VENV)/run.done
	$(RUN) -m experiments.train --config=configs/digits_cnn.py --workdir=runs/digits_cnn

demo-seq2seq: $(VENV)/run.done
	$(RUN) -m experiments.train --config=configs/addition_gru.py:cpu --workdir=runs/addition_gru

demo-gpt: $(VENV)/run.done
	$(RUN) -m experiments.train --config=configs/stdlib_gpt.py:cpu --workdir=runs/stdlib_gpt
	$(RUN) -m experiments.generate --workdir=runs/stdlib_gpt --prompt="def read(path):" --temperature=0.8

test: $(VENV)/dev.done
	$(RUN) -m pytest -n 2 -m "not slow"

test-fast: $(VENV)/dev.done
	$(RUN) -m pytest -n 2 -m "not slow" tests/test_train_step.py tests/test_config.py

test-slow: $(VENV)/dev.done
	$(RUN) -m pytest -m slow

smoke: $(VENV)/dev.done
	$(RUN) -m pytest -n 2 -m smoke

lint: $(VENV)/dev.done
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

results: $(VENV)/run.done
	$(RUN) -m experiments.reproduce --write

# A folder made by another Python is made anew.
$(VENV)/python: FORCE
	@version=$$($(PYTHON) -c 'import sys; print(sys.version)') || exit 1; \
	if [ ! -x $(RUN) ] || [ "$$version" != "$$(cat $@ 2>/dev/null)" ]; then \
		rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && printf '%s\n' "$$version" > $@; \
	fi

$(VENV)/run.done: requirements.txt $(VENV)/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.done: requirements-dev.txt $(VENV)/run.done
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache

.PHONY: FORCE
FORCE:
