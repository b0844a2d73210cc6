# The two commands of this project are `make demo` and `make test`; each sets up what it needs.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-python wheel test-cpu test-torch sanitize check format device-package device-check plots clean

help:  ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup:  ## Install missing packages with apt
	@scripts/setup.sh

demo: setup  ## Serve a trace of real proportions for a minute and show the result
	@scripts/demo.sh

test: setup  ## Build and run every test: optimised, ASan + UBSan, TSan; the Python package's wheel
	@scripts/test.sh release cpu-asan cpu-tsan
	@scripts/test_python.sh

test-python: setup  ## Build the Python package's wheel and test it in a fresh environment
	@scripts/test_python.sh

wheel: setup  ## Build the Python package's wheel into build/wheel
	@scripts/python_wheel.sh

test-cpu: setup  ## Tests of the CPU library alone, with assertions and debug information
	@scripts/test.sh cpu-debug

test-torch: setup  ## Test the Python package with PyTorch and run the transformers example; keeps 5 GB in ~/.cache/flash_mla
	@scripts/test_torch.sh

sanitize: setup  ## Tests under the sanitizers alone
	@scripts/test.sh cpu-asan cpu-tsan

check:  ## Formatting and the rules of who may include whom
	@scripts/check_format.sh
	@python3 scripts/check_rooms.py

format:  ## Format all C++ and CUDA files
	@scripts/check_format.sh --fix

device-package: setup  ## Build what a GPU machine needs into build/device, a folder that can be carried
	@scripts/device_package.sh

device-check: device-package  ## On a machine with an H100 or H200: all tests and measurements that need the GPU
	@build/device/scripts/device_check.sh --results build/device-results
	@cp build/device-results/h?00*.json build/device-results/python.json bench/results/

plots:  ## Draw docs/plots from the results in bench
	@python3 -c 'import matplotlib' 2>/dev/null || scripts/setup.sh python3-matplotlib
	@for python in python3 /usr/bin/python3; do \
	  if $$python -c 'import matplotlib' 2>/dev/null; then exec $$python scripts/plot_results.py; fi; \
	done; echo "plots: no Python here has matplotlib" >&2; exit 1

clean:  ## Remove what was built
	@rm -rf build out
