"""The benches run and print their promises; what they measure is not judged here."""

import re

from tests.conftest import run_script


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
