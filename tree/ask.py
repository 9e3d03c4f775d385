"""Ask one question of your own about a SQLite file: candidate queries, best first, with rewards and results.

    python -m tree.ask --database shop.sqlite --question "How many products are there?"
    python -m tree.ask --database shop.sqlite --question "Which are new?" --evidence "new means added in 2024"
    python -m tree.ask --database shop.sqlite --question "How many products are there?" \\
        --model Qwen2.5-Coder-0.5B-Instruct --base_model Qwen2.5-Coder-0.5B-Instruct     # the quickstart's models

Any other flag is one of `python -m tree.search` (models, --num_roots, --budget, …), which this runs on a dataset of the
one question. The file is only read. Descriptions as BIRD's (`database_description/*.csv`) are used if they stand beside
it. Writes into output/ask (--output_dir) what tree.search writes; each run begins anew there.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from common.files import InputError, check_writable, read_json, run_script, write_json
from eval.search.ranking import ranking
from tree import search
from tree.sql_utils import check_database, database_path

DATABASES = "databases"  # in the output folder: a link to the database, in BIRD's layout


@dataclass(frozen=True)
class Asked:
    """A question about a file; what is asked is put into `output_dir`; `flags` are those of tree.search."""

    database: Path
    question: str
    evidence: str
    output_dir: Path
    flags: list[str]


def parse_arguments(words: list[str] | None = None) -> Asked:
    parser = argparse.ArgumentParser(
        prog="python -m tree.ask",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--database", type=Path, required=True, help="a SQLite file, of any name")
    add("--question", required=True, help="the question, in words")
    add("--evidence", default="", help="what the question takes for granted, such as the meaning of a code")
    add("--output_dir", type=Path, default=Path("output/ask"), help="folder to write to")
    args, flags = parser.parse_known_args(words)
    if not args.question.strip():
        raise InputError("--question: is empty")
    if not args.database.is_file():
        raise InputError(f"--database {args.database}: no such file")
    check_database(args.database)
    if (args.output_dir / "manifest.json").exists() and not (args.output_dir / DATABASES).is_dir():
        raise InputError(f"{args.output_dir}: holds another run; give another --output_dir")
    return Asked(**vars(args), flags=flags)


def make_dataset(asked: Asked) -> tuple[Path, Path]:
    """The question file, and the folder of its database in BIRD's layout: links to the file and its descriptions."""
    db_id, db_root = asked.database.stem, asked.output_dir / DATABASES
    link = database_path(db_root, db_id)
    questions = asked.output_dir / "questions.json"
    check_writable(questions)
    descriptions = asked.database.with_name("database_description")
    link.parent.mkdir(parents=True, exist_ok=True)
    for name, target in ((link, asked.database), (link.with_name(descriptions.name), descriptions)):
        name.unlink(missing_ok=True)
        if target.exists():
            name.symlink_to(target.resolve())
    row = {"question_id": 0, "db_id": db_id, "question": asked.question, "evidence": asked.evidence}
    write_json(questions, [row])
    return questions, db_root


def main(words: list[str] | None = None) -> None:
    asked = parse_arguments(words)
    questions, db_root = make_dataset(asked)
    places = ("--data", questions, "--db_root", db_root, "--output_dir", asked.output_dir, "--fresh")
    search.main([*asked.flags, *map(str, places)])
    [row] = read_json(asked.output_dir / "candidates.json", list)
    print(f"\n{ranking(row)}")


if __name__ == "__main__":
    run_script(main)
