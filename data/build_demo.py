"""Build the bundled demo dataset: small text-to-SQL databases laid out in folders and files as BIRD lays them out.

Each module of `demo_domains` is one database. The build is checked (keys, descriptions, every gold query), made in
a temporary folder and moved into place at the end, so that whoever finds the output folder finds a whole dataset.
"""

import argparse
import csv
import hashlib
import importlib
import json
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from demo_domains._gold_check import check_gold

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "demo_domains"
DIFFICULTIES = ("simple", "moderate", "challenging")
CSV_HEADER = ("original_column_name", "column_name", "column_description", "data_format", "value_description")


class DemoError(Exception):
    """A source module breaks a promise of the dataset; the message names the database and the question or table."""


def database_names() -> list[str]:
    """List the databases by file name, without importing them, so that a skipped build costs nothing."""
    return sorted(path.stem for path in SOURCES.glob("*.py") if not path.stem.startswith("_"))


def fingerprint() -> str:
    """Hash the builder and the source modules: a change in any of them makes the built dataset stale."""
    digest = hashlib.sha256()
    for path in [Path(__file__).resolve(), *sorted(SOURCES.glob("*.py"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def quote(name: str) -> str:
    """Quote an identifier, because some names are reserved words or hold spaces and parentheses."""
    return '"' + name.replace('"', '""') + '"'


def table_names(conn: sqlite3.Connection) -> list[str]:
    """List the tables in the order of their creation, which is the order of the schema text."""
    found = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
    return [name for (name,) in found]


def create_database(name: str, module: ModuleType, path: Path) -> int:
    """Create and fill one database file, check its foreign keys and return its number of rows."""
    path.parent.mkdir(parents=True)
    conn = sqlite3.connect(path)
    try:
        conn.executescript(module.SCHEMA)
        data = module.rows(random.Random(module.SEED))
        if set(data) != set(table_names(conn)):
            raise DemoError(f"{name}: rows() and SCHEMA name different tables")
        for table, rows in data.items():
            conn.executemany(f"INSERT INTO {quote(table)} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        conn.commit()
        if broken := conn.execute("PRAGMA foreign_key_check").fetchall():
            raise DemoError(f"{name}: foreign key violations {broken[:3]}")
    except sqlite3.Error as error:
        raise DemoError(f"{name}: {error}") from error
    finally:
        conn.close()
    return sum(map(len, data.values()))


def check_descriptions(name: str, module: ModuleType, conn: sqlite3.Connection) -> None:
    """Require one description row for each column of each table, in the order of the table."""
    described = {table: list(columns) for table, columns in module.DESCRIPTIONS.items()}
    for table in table_names(conn):
        columns = [row[1] for row in conn.execute(f"PRAGMA table_info({quote(table)})")]
        if described.pop(table, None) != columns:
            raise DemoError(f"{name}: the descriptions of table {table!r} do not match its columns {columns}")
    if described:
        raise DemoError(f"{name}: descriptions of unknown tables {sorted(described)}")


def write_descriptions(module: ModuleType, folder: Path) -> None:
    """Write one CSV a table; some get another encoding, since BIRD's own files are not all plain UTF-8."""
    folder.mkdir()
    encodings = getattr(module, "CSV_ENCODINGS", {})
    for table, columns in module.DESCRIPTIONS.items():
        encoding = encodings.get(table, "utf-8")
        with open(folder / f"{table}.csv", "w", encoding=encoding, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(CSV_HEADER)
            writer.writerows((column, *texts) for column, texts in columns.items())


def schema_entry(name: str, module: ModuleType, conn: sqlite3.Connection) -> dict[str, Any]:
    """Describe one database as an entry of tables.json, read back from the database so that the two agree."""
    tables = table_names(conn)
    # One item a column: number of its table, name of its table, its own name, declared type, place in the key.
    columns = [
        (number, table, row[1], row[2], row[5])
        for number, table in enumerate(tables)
        for row in conn.execute(f"PRAGMA table_info({quote(table)})")
    ]
    texts = module.DESCRIPTIONS
    return {
        "db_id": name,
        "table_names_original": tables,
        "table_names": [table.replace("_", " ").lower() for table in tables],
        "column_names_original": [[-1, "*"], *([number, column] for number, _, column, _, _ in columns)],
        "column_names": [[-1, "*"], *([number, texts[table][column][0]] for number, table, column, _, _ in columns)],
        "column_types": ["text", *(kind.lower() for *_, kind, _ in columns)],
        "primary_keys": [primary_key(columns, number) for number in range(len(tables))],
        "foreign_keys": foreign_keys(conn, {column[1:3]: place for place, column in enumerate(columns, 1)}),
    }


def primary_key(columns: list[tuple[Any, ...]], number: int) -> int | list[int]:
    """Return the key of one table: an index, or a list of indices where the key is composite."""
    key = sorted((part, place) for place, (table, *_, part) in enumerate(columns, 1) if part and table == number)
    places = [place for _, place in key]
    return places[0] if len(places) == 1 else places


def foreign_keys(conn: sqlite3.Connection, index: dict[tuple[str, str], int]) -> list[list[int]]:
    """List [column, referenced column] pairs, sorted because SQLite reports them in reverse."""
    pairs = []
    for table in table_names(conn):
        for row in conn.execute(f"PRAGMA foreign_key_list({quote(table)})"):
            pairs.append([index[table, row[3]], index[row[2], row[4]]])
    return sorted(pairs)


def question_rows(name: str, module: ModuleType, conn: sqlite3.Connection) -> list[dict[str, str]]:
    """Check the questions of one database and return them as rows of train.json."""
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    for difficulty, question, evidence, sql in module.QUESTIONS:
        problem = check_gold(conn, sql)
        if difficulty not in DIFFICULTIES:
            problem = f"unknown difficulty {difficulty!r}"
        if question.lower() in seen:
            problem = "asked twice"
        if problem:
            raise DemoError(f"{name}: {problem}: {question}")
        seen.add(question.lower())
        row = {"db_id": name, "question": question, "evidence": evidence, "SQL": sql, "difficulty": difficulty}
        rows.append(row)
    return rows


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON with the same line ends on every system."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")


def build(folder: Path) -> None:
    """Build the whole dataset in a new folder; the stamp is written last."""
    questions: list[dict[str, str]] = []
    schemas: list[dict[str, Any]] = []
    total = 0
    for name in database_names():
        module = importlib.import_module(f"demo_domains.{name}")
        place = folder / "train_databases" / name
        total += create_database(name, module, place / f"{name}.sqlite")
        conn = sqlite3.connect(place / f"{name}.sqlite")
        try:
            check_descriptions(name, module, conn)
            write_descriptions(module, place / "database_description")
            schemas.append(schema_entry(name, module, conn))
            questions += question_rows(name, module, conn)
        finally:
            conn.close()
    write_json(folder / "train.json", questions)
    write_json(folder / "train_tables.json", schemas)
    tables = sum(len(schema["table_names"]) for schema in schemas)
    stamp = {"fingerprint": fingerprint(), "summary": summary(len(schemas), tables, total, questions)}
    write_json(folder / ".built", stamp)


def summary(databases: int, tables: int, rows: int, questions: list[dict[str, str]]) -> str:
    """Count what was built in one line."""
    counts = Counter(row["difficulty"] for row in questions)
    levels = ", ".join(f"{counts[level]} {level}" for level in DIFFICULTIES)
    return f"{databases} databases, {tables} tables, {rows} rows, {len(questions)} questions ({levels})"


def read_stamp(folder: Path) -> dict[str, str]:
    """Return the stamp of an earlier build, or an empty one if there is none that can be read."""
    try:
        return json.loads((folder / ".built").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def is_current(folder: Path) -> bool:
    """Tell whether the folder is whole and from these sources; contents are left to whoever edits them later."""
    databases = [f"train_databases/{name}/{name}.sqlite" for name in database_names()]
    whole = all((folder / part).is_file() for part in ("train.json", "train_tables.json", *databases))
    return whole and read_stamp(folder).get("fingerprint") == fingerprint()


def rebuild(folder: Path) -> None:
    """Build beside the folder and swap; a folder that this script did not make is never replaced."""
    if folder.exists() and any(folder.iterdir()) and not (folder / ".built").is_file():
        raise DemoError(f"{folder} is not empty and was not built by this script: move it away first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh = Path(scratch, "new")
        fresh.mkdir()
        build(fresh)
        if folder.exists():
            shutil.move(folder, Path(scratch, "old"))
        fresh.rename(folder)


def main(words: list[str] | None = None) -> int:
    """Parse the command line, build unless the dataset is current, and end with the line of counts."""
    parser = argparse.ArgumentParser(description="Build the demo text-to-SQL dataset in BIRD's layout.")
    parser.add_argument("--output_dir", type=Path, default=HERE / "demo", help="where to build (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="build even if the dataset is there and current")
    args = parser.parse_args(words)
    folder = args.output_dir.resolve()
    try:
        if args.force or not is_current(folder):
            rebuild(folder)
        else:
            print(f"{folder} is current; --force builds it again")
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(read_stamp(folder)["summary"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
