"""The bundled demo dataset keeps its promises: BIRD's layout, sound keys, gold queries that run, repeatable builds."""

import codecs
import csv
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import verdict_here
from tree.sql.canonical import canonical_sql

SCRIPT = Path(__file__).resolve().parent.parent / "data" / "build_demo.py"
HEADER = ["original_column_name", "column_name", "column_description", "data_format", "value_description"]


def run_script(folder: Path, *options: str, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    """Run the builder as a user does."""
    command = [sys.executable, str(script), "--output_dir", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build once for all tests that only read."""
    folder = tmp_path_factory.mktemp("build") / "demo"
    done = run_script(folder)
    assert done.returncode == 0, done.stderr
    return folder


def read_json(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))


def databases(demo: Path) -> Iterator[tuple[dict, sqlite3.Connection]]:
    """Yield each entry of train_tables.json with an open connection to its database."""
    for entry in read_json(demo / "train_tables.json"):
        name = entry["db_id"]
        conn = sqlite3.connect(demo / "train_databases" / name / f"{name}.sqlite")
        yield entry, conn
        conn.close()


def contents(folder: Path) -> dict[str, object]:
    """Map each file to its bytes, but each database to its dump: only the rows of a database must be equal."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".sqlite":
            conn = sqlite3.connect(path)
            found[str(path.relative_to(folder))] = list(conn.iterdump())
            conn.close()
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def csv_files(demo: Path) -> list[Path]:
    return sorted(demo.glob("train_databases/*/database_description/*.csv"))


def test_sizes(demo: Path) -> None:
    entries = list(databases(demo))
    assert len(entries) >= 8
    for entry, _ in entries:
        assert 3 <= len(entry["table_names_original"]) <= 8
    for entry, conn in databases(demo):
        tables = entry["table_names_original"]
        rows = sum(conn.execute(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0] for table in tables)
        assert 50 <= rows <= 5000, entry["db_id"]


def test_questions(demo: Path) -> None:
    rows = read_json(demo / "train.json")
    assert len(rows) >= 120
    assert all(list(row) == ["db_id", "question", "evidence", "SQL", "difficulty"] for row in rows)
    assert min(Counter(row["db_id"] for row in rows).values()) >= 14
    assert len({(row["db_id"], row["question"]) for row in rows}) == len(rows)
    share = {level: count / len(rows) for level, count in Counter(row["difficulty"] for row in rows).items()}
    assert share == pytest.approx({"simple": 0.5, "moderate": 0.33, "challenging": 0.17}, abs=0.07)


def test_gold_runs_and_is_not_empty(demo: Path) -> None:
    rows = read_json(demo / "train.json")
    for entry, conn in databases(demo):
        for row in (row for row in rows if row["db_id"] == entry["db_id"]):
            result = conn.execute(row["SQL"]).fetchall()
            assert 1 <= len(result) <= 200, row["question"]
            assert any(value is not None for line in result for value in line), row["question"]


def test_gold_matches_itself_and_no_other(demo: Path) -> None:
    """By the project's verdict, strict included; two questions that share a key would share a gold result."""
    golds = set()
    for row in read_json(demo / "train.json"):
        path = demo / "train_databases" / row["db_id"] / f"{row['db_id']}.sqlite"
        verdict = verdict_here(path, row["SQL"], row["SQL"])
        assert verdict.gold.outcome == "ok" and verdict.ex and verdict.strict, row["SQL"]
        golds.add(row["SQL"])
    assert len({canonical_sql(sql) for sql in golds}) == len(golds)


def test_keys_hold(demo: Path) -> None:
    composite, to_itself = 0, 0
    for entry, conn in databases(demo):
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        assert len(entry["primary_keys"]) == len(entry["table_names_original"])
        composite += sum(isinstance(key, list) and len(key) > 1 for key in entry["primary_keys"])
        table_of = [number for number, _ in entry["column_names_original"]]
        to_itself += sum(table_of[a] == table_of[b] for a, b in entry["foreign_keys"])
        assert entry["foreign_keys"]
    assert composite and to_itself


def test_tables_json_agrees_with_the_databases(demo: Path) -> None:
    for entry, conn in databases(demo):
        names, kinds, keys = [[-1, "*"]], ["text"], []
        for number, table in enumerate(entry["table_names_original"]):
            info = conn.execute(f'PRAGMA table_info("{table}")').fetchall()
            keys.append([len(names) + row[0] for row in sorted(info, key=lambda row: row[5]) if row[5]])
            names += [[number, row[1]] for row in info]
            kinds += [row[2].lower() for row in info]
        assert entry["column_names_original"] == names
        assert entry["column_types"] == kinds
        assert [key if isinstance(key, list) else [key] for key in entry["primary_keys"]] == keys
        assert len(entry["column_names"]) == len(names)
        assert len(entry["table_names"]) == len(entry["table_names_original"])
        declared = set()
        for table in entry["table_names_original"]:
            declared |= {(table, r[3], r[2], r[4]) for r in conn.execute(f'PRAGMA foreign_key_list("{table}")')}
        label = [(entry["table_names_original"][number], column) for number, column in names]
        assert {(*label[a], *label[b]) for a, b in entry["foreign_keys"]} == declared


def test_every_column_is_described(demo: Path) -> None:
    for entry, conn in databases(demo):
        for table in entry["table_names_original"]:
            raw = (demo / f"train_databases/{entry['db_id']}/database_description/{table}.csv").read_bytes()
            try:
                text = raw.decode("utf-8-sig")
            except UnicodeDecodeError:
                text = raw.decode("cp1252")
            rows = list(csv.reader(io.StringIO(text, newline="")))
            assert rows[0] == HEADER
            columns = [row[1] for row in conn.execute(f'PRAGMA table_info("{table}")')]
            assert [row[0] for row in rows[1:]] == columns
            assert all(len(row) == 5 and row[2] for row in rows)


def test_awkward_csv_files_are_there(demo: Path) -> None:
    raw = [path.read_bytes() for path in csv_files(demo)]
    assert any(data.startswith(codecs.BOM_UTF8) for data in raw)
    # A line break inside a cell is a bare \n, because the rows end with \r\n.
    assert any(data.count(b"\n") > data.count(b"\r\n") for data in raw)
    old = [data for data in raw if not _is_utf8(data)]
    assert old and all(data.decode("cp1252") for data in old)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def test_awkward_names_and_values_are_there(demo: Path) -> None:
    entries = read_json(demo / "train_tables.json")
    columns = [column for entry in entries for _, column in entry["column_names_original"]]
    assert any(" " in column and "(" in column for column in columns)
    assert any("order" in entry["table_names_original"] for entry in entries)
    dumps = "\n".join(line for _, conn in databases(demo) for line in conn.iterdump())
    for word in ("Zürich", "東京", "Łódź", "São Paulo", "NULL"):
        assert word in dumps


def test_two_builds_are_equal(demo: Path, tmp_path: Path) -> None:
    assert run_script(tmp_path / "again").returncode == 0
    assert contents(tmp_path / "again") == contents(demo)


def test_second_run_skips_and_force_rebuilds(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demo, folder)
    rows = [{"question_id": number, **row} for number, row in enumerate(read_json(folder / "train.json"))]
    edited = json.dumps(rows)
    (folder / "train.json").write_text(edited, encoding="utf-8")
    second = run_script(folder)
    assert second.returncode == 0, second.stderr
    assert (folder / "train.json").read_text(encoding="utf-8") == edited
    forced = run_script(folder, "--force")
    assert forced.returncode == 0, forced.stderr
    assert contents(folder) == contents(demo)
    assert second.stdout.splitlines()[-1] == forced.stdout.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_incomplete_dataset_is_rebuilt(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demo, folder)
    next(folder.glob("train_databases/*/*.sqlite")).unlink()
    assert run_script(folder).returncode == 0
    assert contents(folder) == contents(demo)


def test_foreign_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me", encoding="utf-8")
    done = run_script(tmp_path, "--force")
    assert done.returncode == 1
    assert "not built by this script" in done.stderr
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SELECT MAX(delay_min) FROM train_run", "SELECT MAX(delay) FROM train_run", "no such column"),
        ("SELECT MAX(delay_min) FROM train_run", "SELECT name FROM line WHERE line_id = 99", "empty result"),
        ("SELECT MAX(delay_min) FROM train_run", "SELECT 1; SELECT 2", "one statement"),
        (
            "SELECT MAX(delay_min) FROM train_run",
            "SELECT name FROM line ORDER BY max_speed_kmh DESC LIMIT 2",
            "tie at",
        ),
        (
            "SELECT MAX(delay_min) FROM train_run",
            "SELECT name FROM line WHERE operator = (SELECT operator FROM line ORDER BY max_speed_kmh LIMIT 4)",
            "tie at",
        ),
        (
            '    "simple",\n        "What is the largest',
            '    "easy",\n        "What is the largest',
            "unknown difficulty",
        ),
        ("What is the largest delay in minutes?", "How many runs were cancelled?", "asked twice"),
        ('"platforms": ("platforms"', '"platform": ("platforms"', "do not match its columns"),
        ('"BAS ZUE GVA"', '"BAS ZUE XXX"', "foreign key violations"),
    ],
)
def test_broken_sources_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Each check of the builder names the database, and leaves nothing half built behind."""
    shutil.copy(SCRIPT, tmp_path / "build_demo.py")
    (tmp_path / "demo_domains").mkdir()
    for name in ("__init__", "_gold_check", "rail_network"):
        shutil.copy(SCRIPT.parent / "demo_domains" / f"{name}.py", tmp_path / "demo_domains")
    source = tmp_path / "demo_domains" / "rail_network.py"
    text = source.read_text(encoding="utf-8")
    assert old in text
    source.write_text(text.replace(old, new, 1), encoding="utf-8")
    done = run_script(tmp_path / "out" / "demo", script=tmp_path / "build_demo.py")
    assert done.returncode == 1
    assert done.stderr.startswith("error: rail_network:") and message in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
