"""The database of a shop and questions about it, without anything heavy."""

import sqlite3
from pathlib import Path

SHOP = """
CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT, "Unit Price (EUR)" REAL, category TEXT);
CREATE TABLE "order" (id INTEGER PRIMARY KEY, product_id INTEGER REFERENCES product (id), day TEXT, pieces INTEGER);
INSERT INTO product VALUES (1, 'saw', 12.5, 'tool'), (2, 'nail', 0.1, 'part'), (3, 'Säge', 14.0, 'tool');
INSERT INTO "order" VALUES (1, 1, '2024-01-02', 3), (2, 2, '2024-01-02', 500), (3, 2, '2024-02-11', 200);
"""
QUESTIONS = [
    ("How many products are there?", "SELECT COUNT(*) FROM product"),
    ("List the names of the tools.", "SELECT name FROM product WHERE category = 'tool'"),
    ("How many pieces were ordered in all?", 'SELECT SUM(pieces) FROM "order"'),
]


def make_database(path: Path, script: str = SHOP) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.commit()
    connection.close()
    return path
