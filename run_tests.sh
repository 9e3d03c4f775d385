#!/usr/bin/env bash
# Environment, lint and all tests:  bash run_tests.sh
# PYTEST_ARGS go to pytest, for example PYTEST_ARGS='-m "not e2e"' leaves out the test with the real model.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

bash setup_env.sh
PATH=$PWD/.venv/bin:$PATH
pip install --quiet --disable-pip-version-check -r requirements-test.txt
# the browser of the viewer's tests, where it can be installed; elsewhere they are skipped, which CI does not accept
if ! command -v chromedriver >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver; } >/dev/null ||
        echo "warning: chromium could not be installed, so the viewer is not tried in a browser" >&2
fi
ruff check .
ruff format --check .
lint-imports
bash download_model.sh --small
# two processes with one thread of torch each: more threads than cores wait for each other
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
eval "exec python -m pytest --numprocesses 2 --dist worksteal ${PYTEST_ARGS:-}"
