"""The benches run and print their promises; what they measure is not judged here."""

import re

import pytest

from tests.conftest import run_script
from tree.prompts import REVISIONS


def promises(run) -> dict[str, float]:
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("PROMISE")]
    found = [re.fullmatch(r"PROMISE (\w+) (-?[\d.]+) GOAL (?:>=|<=) [\d.]+", line).groups() for line in lines]
    return {name: float(value) for name, value in found}


def test_sql_execution(tmp_path):
    assert run_script("data/build_demo.py", "--output_dir", tmp_path / "demo").returncode == 0
    data = ("--data", tmp_path / "demo" / "train.json", "--db_root", tmp_path / "demo" / "train_databases")
    few = ("--candidates", "60", "--common", "16", "--rounds", "1")
    assert set(promises(run_script("bench/sql_execution.py", *data, *few))) == {
        "sql_overhead_us",
        "sql_two_workers",
        "sql_common_way_speedup",
    }


def test_too_few_candidates_are_an_error(tmp_path):
    assert run_script("data/build_demo.py", "--output_dir", tmp_path / "demo").returncode == 0
    data = ("--data", tmp_path / "demo" / "train.json", "--db_root", tmp_path / "demo" / "train_databases")
    run = run_script("bench/sql_execution.py", *data, "--candidates", "5", "--common", "16")
    assert run.returncode == 2 and "quick candidates" in run.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The flags of the bundled demo, with ids."""
    folder = tmp_path_factory.mktemp("demo")
    assert run_script("data/build_demo.py", "--output_dir", folder).returncode == 0
    assert run_script("add_question_id.py", "--file", folder / "train.json").returncode == 0
    return "--data", folder / "train.json", "--db_root", folder / "train_databases"


def test_tree_growth(demo, tiny_generator):
    few = ("--questions", "4", "--many", "8", "--common", "1", "--per_database", "2", "--max_tokens", "12")
    assert set(promises(run_script("bench/tree_growth.py", "--model", tiny_generator, *demo, *few))) == {
        "growth_of_the_limit",
        "growth_common_way_speedup",
        "growth_linear_percent",
        "growth_memory_mb",
    }


def test_revision_yield(demo, tiny_generator):
    few = ("--questions", "4", "--per_database", "2", "--nodes", "4", "--max_tokens", "12")
    run = run_script("bench/revision_yield.py", "--model", tiny_generator, *demo, *few)
    assert set(promises(run)) == {"revision_yield_of_fresh"}
    assert all(f"\n{revision} " in run.stdout for revision in REVISIONS)
