#!/usr/bin/env bash
# Environment, lint and all tests:  bash run_tests.sh
# PYTEST_ARGS go to pytest, for example PYTEST_ARGS='-m "not e2e"' leaves out the test with the real model.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

bash setup_env.sh
PATH=$PWD/.venv/bin:$PATH
ruff check .
ruff format --check .
bash download_model.sh --small
eval "exec python -m pytest ${PYTEST_ARGS:-}"
