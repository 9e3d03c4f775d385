"""Small real things for tests: a database, questions, and a tiny random model with its own tokenizer."""

import contextlib
import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings

from bench.gpu_check import write_random_model
from common.files import run_script as run_as_script
from tests.shop import QUESTIONS, make_database

# these machines are noisy: a slow example is no failure
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# a shell starts background jobs with Ctrl-C ignored, which the scripts that tests interrupt would inherit
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def run_script(*command: str | os.PathLike, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Run a script of the project as a user would, from `cwd`; the project is importable from anywhere."""
    arguments = (
        [sys.executable, *map(str, command)] if not str(command[0]).endswith(".sh") else ["bash", *map(str, command)]
    )
    return subprocess.run(
        arguments,
        cwd=cwd,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        capture_output=True,
        text=True,
    )


def run_main(name: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """What running the script or module `name` as a process would give, in this process: `name.main(arguments)`.

    For what is not about processes: it takes milliseconds where starting Python and torch takes seconds.
    """
    words = [str(argument) for argument in arguments]
    said, warned = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(warned),
        mock.patch.dict(os.environ),  # so that what it sets does not outlive it
    ):
        try:
            run_as_script(lambda: importlib.import_module(name).main(words))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
            if isinstance(end.code, str):
                print(end.code, file=warned)
    return subprocess.CompletedProcess([name, *words], code, said.getvalue(), warned.getvalue())


def assert_one_line_error(run: subprocess.CompletedProcess, *words: str) -> None:
    """The script ended with exit code 2 and one `error:` line that holds `words`, without a traceback."""
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, run.stderr
    for word in words:
        assert word in lines[0]


def is_heavy(item: pytest.Item) -> bool:
    """Whether it loads the real model, vLLM or a browser."""
    return bool(item.get_closest_marker("e2e") or {"tiny_generator", "driver"}.intersection(item.fixturenames))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Heavy tests come first, so that of two processes the first runs all of them, one after another.

    pytest-xdist's worksteal gives each process an equal part of the list, and moves tests from the end of a part. Its
    mark xdist_group does nothing with pytest 9.2 (https://github.com/pytest-dev/pytest-xdist/issues/1386).
    """
    items.sort(key=lambda item: not is_heavy(item))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Gold results of tests stay out of the user's cache."""
    os.environ["RESQLVER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The database of a shop in BIRD's layout, tmp_path/databases/shop/shop.sqlite."""
    return make_database(tmp_path / "databases" / "shop" / "shop.sqlite")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A question file with ids over two databases, shop and store, beside their folder `databases`."""
    rows = []
    for db_id in ("shop", "store"):
        make_database(tmp_path / "databases" / db_id / f"{db_id}.sqlite")
        rows += [
            {"question_id": len(rows) + i, "db_id": db_id, "question": question, "evidence": "", "SQL": sql}
            for i, (question, sql) in enumerate(QUESTIONS)
        ]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(rows))
    return path


def make_tiny_model(folder: Path, hidden_size: int = 32, seed: int = 0, architecture: str = "qwen2") -> Path:
    """A random model of a few thousand parameters with a byte-level tokenizer, saved as a model folder."""
    return write_random_model(
        folder,
        architecture,
        seed,
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16_384,
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A reward adapter of the tiny model with random weights."""
    from tests.builders import random_adapter

    return random_adapter(tmp_path_factory.mktemp("adapters") / "adapter", tiny_model)


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose attention heads are wide enough for vLLM."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", hidden_size=256)


@pytest.fixture(scope="session")
def pair_rows() -> list[dict]:
    """Preference pairs on two databases: six questions, each with two pairs."""
    rows = []
    for question_id in range(6):
        db_id = "shop" if question_id < 4 else "store"
        for wrong in ("SELECT 1", f"SELECT name FROM product WHERE id = {question_id}"):
            rows.append(
                {
                    "prompt": [{"role": "user", "content": f"Question {question_id}: how many products?"}],
                    "chosen": [{"role": "assistant", "content": f"SELECT COUNT(*) + {question_id} FROM product"}],
                    "rejected": [{"role": "assistant", "content": wrong}],
                    "chosen_result": f"The query returned 1 row, columns: COUNT(*) + {question_id}",
                    "rejected_result": "The query returned no rows (columns: name).",
                    "question_id": question_id,
                    "db_id": db_id,
                    "chosen_node": "node_1_0",
                    "rejected_node": "node_1_1",
                    "chosen_dist": 0,
                    "rejected_dist": None,
                    "relation": "sibling",
                    "tree_id": f"{db_id}/{question_id}",
                }
            )
    return rows


@pytest.fixture(scope="session")
def hub():
    """A server in the place of the model hub (HF_ENDPOINT), which never answers: `hub.accept` fails if nobody asks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def address(server: socket.socket) -> str:
    return "http://{}:{}".format(*server.getsockname())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pair_rows: list[dict], hub) -> Path:
    """A folder where train.py has run on the tiny model: pairs.json, adapter/ and printed.txt, what it said."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "pairs.json").write_text(json.dumps(pair_rows))
    data = ("--data_path", folder / "pairs.json", "--output_dir", folder / "adapter", "--model_id", tiny_model)
    steps = ("--max_steps", "4", "--batch_size", "2", "--logging_steps", "1", "--learning_rate", "1e-2")
    read = ("--validation_fraction", "0.3", "--result_length", "300")
    run = run_script("train.py", *data, *steps, *read, HF_ENDPOINT=address(hub))
    assert run.returncode == 0, run.stderr
    (folder / "printed.txt").write_text(run.stdout)
    return folder
