"""Give every question of a BIRD file its id (step 2):

    python add_question_id.py                                     # data/train/train.json
    python add_question_id.py --file data/demo/train.json

`question_id` becomes the first key of each row, 0 to n-1 in the file's order. A file whose rows all have valid ids
keeps them; a second run changes nothing.
"""

import argparse
from collections import Counter

from tree.files import InputError, read_rows, run_script, write_json


def with_ids(rows: list[dict], path: str) -> list[dict]:
    """Rows with `question_id` first: existing ids where all rows have them, else the row's position.

    Raises InputError when ids are on some rows only, are not whole numbers from 0, or are repeated.
    """
    missing = [number for number, row in enumerate(rows) if row.get("question_id") is None]
    if len(missing) == len(rows):
        return [{"question_id": number, **_without_id(row)} for number, row in enumerate(rows)]
    if missing:
        raise InputError(
            f"{path}: row {missing[0]} has no question_id but others have ({len(missing)} of {len(rows)} missing); "
            "remove all ids or complete them"
        )
    for number, row in enumerate(rows):
        value = row["question_id"]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{path}: row {number}: question_id {value!r} is not a whole number from 0")
    repeated = [key for key, count in Counter(row["question_id"] for row in rows).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: question_id {repeated[0]} stands more than once; remove all ids or correct them")
    return [{"question_id": row["question_id"], **_without_id(row)} for row in rows]


def _without_id(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "question_id"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default="data/train/train.json", help="question file, changed in place")
    path = parser.parse_args().file

    rows = read_rows(path, {"db_id": str, "question": str}, "put BIRD's train set into data/train, or name --file")
    numbered = with_ids(rows, path)
    if [list(row.items()) for row in numbered] == [list(row.items()) for row in rows]:
        print(f"{path}: all {len(rows)} questions have their ids, nothing to do")
        return
    write_json(path, numbered)
    print(f"{path}: {len(rows)} questions with ids")


if __name__ == "__main__":
    run_script(main)
