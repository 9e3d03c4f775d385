"""Give every question of a BIRD file its id (step 2):

    python add_question_id.py                                     # data/train/train.json
    python add_question_id.py --file data/demo/train.json

`question_id` becomes the first key of each row, 0 to n-1 in the file's order. A file whose rows all have valid ids
keeps them; a second run changes nothing.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from common.files import InputError, replacing, run_script, write_json
from common.rows import fit_row, read_rows

ID = {"question_id": (int, None)}


def with_ids(rows: list[dict], path: str) -> list[dict]:
    """Rows with `question_id` first: existing ids where all rows have them, else the row's position.

    Raises InputError when ids are on some rows only, are not whole numbers from 0, or are repeated.
    """
    ids = [fit_row(path, number, row, ID)["question_id"] for number, row in enumerate(rows)]
    missing = [number for number, value in enumerate(ids) if value is None]
    if len(missing) == len(ids):
        ids = list(range(len(ids)))
    elif missing:
        raise InputError(
            f"{path}: row {missing[0]} has no question_id but others have ({len(missing)} of {len(rows)} missing); "
            "remove all ids or complete them"
        )
    if negative := [number for number, value in enumerate(ids) if value < 0]:
        raise InputError(f"{path}: row {negative[0]}: question_id {ids[negative[0]]} is not a whole number from 0")
    if repeated := [value for value, count in Counter(ids).items() if count > 1]:
        raise InputError(f"{path}: question_id {repeated[0]} is duplicated; remove all ids or correct them")
    # the first name keeps its place, the last value counts
    return [{"question_id": value} | row | {"question_id": value} for value, row in zip(ids, rows, strict=True)]


def write_rows(path: str, rows: list[dict]) -> None:
    """Replace a file of rows, as JSON Lines where it holds those, else as an indented JSON list."""
    if not Path(path).read_text(encoding="utf-8-sig").lstrip().startswith("{"):
        write_json(path, rows)
        return
    with replacing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default="data/train/train.json", help="question file, changed in place")
    path = parser.parse_args(words).file

    fix = "fetch BIRD with `bash data/download_bird.sh`, or name --file"
    rows = read_rows(path, {"db_id": str, "question": str}, fix)
    numbered = with_ids(rows, path)
    if json.dumps(numbered) == json.dumps(rows):  # in the same order, and 3 is not 3.0
        print(f"{path}: all {len(rows)} questions have their ids, nothing to do")
        return
    write_rows(path, numbered)
    print(f"{path}: {len(rows)} questions with ids")


if __name__ == "__main__":
    run_script(main)
