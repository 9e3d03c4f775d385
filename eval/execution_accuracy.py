"""Execution accuracy (EX) of predicted SQL on a question file, such as a model's answers to BIRD's dev set:

    python -m eval.execution_accuracy --predictions predict_dev.json --questions dev.json --db_root dev_databases

Predictions are BIRD's JSON object, question id -> "SELECT ...\\t----- bird -----\\tdb_id", or a JSON list of
{question_id, SQL}. They are matched to questions by id, and each question must have exactly one ("" for none). As in
BIRD's official script every question counts: gold that fails makes a 0, and is listed. Not the same as there: the time
limit is that of one query, not of prediction and gold together, and queries run in a sandbox that admits reading only.

Exit code 0 when it ran, 2 when it cannot run.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from common.files import InputError, run_script, write_json
from common.manifest import Manifest
from common.rows import fit_row, iterate_json
from common.tables import aligned
from eval.intervals import wilson
from tree.questions import load_questions
from tree.run.databases import check_unchanged, database_fingerprints
from tree.sql.cache import cache_folder
from tree.sql.results import RAN, Verdict
from tree.sql_utils import Executor, SqlSettings, add_sql_flags, check_database, database_path, sql_settings
from tree.tree_node import Question

SEPARATOR = "\t----- bird -----\t"
FORMATS = 'expected {"0": "SELECT ...", ...} or a list of {question_id, SQL}'
COLUMNS = {"question_id": int, "SQL": str, "db_id": (str, None)}
DIFFICULTIES = ("simple", "moderate", "challenging")  # BIRD's, in its order


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.execution_accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--predictions", required=True, help="predicted SQL: BIRD's JSON object, or a list of {question_id, SQL}")
    add("--questions", required=True, help="question file with ids and gold SQL, such as BIRD's dev.json")
    add("--db_root", required=True, help="folder of the databases: {db_id}/{db_id}.sqlite")
    add("--output", default="execution_accuracy_report.json", help="report to write")
    add_sql_flags(add, "one per core")
    return parser.parse_args(words)


# --- predictions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """The SQL predicted for a question ("" for none), and the database it says it is for (None: it does not say)."""

    question_id: int
    sql: str
    db_id: str | None


def read_predictions(path: str) -> list[Prediction]:
    """The predictions of a file in either format. Raises InputError naming the file and the id or row."""
    rows = list(iterate_json(path, FORMATS, _unique))
    if not rows:
        raise InputError(f"{path}: an empty list; {FORMATS}")
    if len(rows) == 1 and isinstance(rows[0], dict) and "question_id" not in rows[0]:
        return [_from_bird(path, key, value) for key, value in rows[0].items()]
    fitted = (fit_row(path, number, row, COLUMNS) for number, row in enumerate(rows))
    return [Prediction(row["question_id"], row["SQL"], row["db_id"]) for row in fitted]


def _unique(items: list[tuple[str, object]]) -> dict:
    """A JSON object. Raises ValueError for a name that is there twice."""
    if repeated := [name for name, count in Counter(name for name, _ in items).items() if count > 1]:
        raise ValueError(f"'{repeated[0]}' is duplicated; each question has one prediction")
    return dict(items)


def _from_bird(path: str, key: str, value: object) -> Prediction:
    try:
        question_id = int(key)
    except ValueError:
        raise InputError(f"{path}: '{key}' is not a question id; {FORMATS}") from None
    if not isinstance(value, str):
        raise InputError(f'{path}: question_id {key}: {type(value).__name__}, expected SQL ("" when there is none)')
    if SEPARATOR not in value:
        return Prediction(question_id, value, None)
    sql, _, db_id = value.rpartition(SEPARATOR)
    return Prediction(question_id, sql, db_id)


def in_birds_format(chosen: Iterable[tuple[Question, str]]) -> dict[str, str]:
    """Predictions as BIRD's JSON object, from questions with the SQL chosen for each ("" where there is none)."""
    return {str(question.question_id): f"{sql}{SEPARATOR}{question.db_id}" for question, sql in chosen}


def matched(questions: Sequence[Question], predictions: Sequence[Prediction], path: str) -> list[str]:
    """The predicted SQL of each question, in the order of the questions; "" where it is blank.

    Raises InputError naming an id that is missing, unknown or repeated, or whose databases differ.
    """
    known = {question.question_id for question in questions}
    by_id = {prediction.question_id: prediction for prediction in predictions}
    if len(by_id) < len(predictions):
        [(repeated, _)] = Counter(prediction.question_id for prediction in predictions).most_common(1)
        raise InputError(f"{path}: question_id {repeated} is duplicated; each question has one prediction")
    if unknown := sorted(by_id.keys() - known):
        raise InputError(f"{path}: question_id {unknown[0]} is not in the question file; check --questions")
    if missing := sorted(known - by_id.keys()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f'{path}: no prediction for question_id {missing[0]}{more}; write "" where there is no SQL')
    for question in questions:
        said = by_id[question.question_id].db_id
        if said not in (None, question.db_id):
            raise InputError(
                f"{path}: question_id {question.question_id} is for database '{said}', "
                f"the question is on '{question.db_id}'; check --questions"
            )
    queries = [by_id[question.question_id].sql for question in questions]
    return [sql if sql.strip() else "" for sql in queries]


# --- execution ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """A question with its prediction's verdict."""

    question: Question
    verdict: Verdict

    @property
    def gold_failure(self) -> str:
        """Why gold did not run, "" when it did."""
        gold = self.verdict.gold
        return "" if gold.outcome in RAN else f"{gold.outcome} ({gold.error[:200]})"

    def to_json(self) -> dict:
        return {
            "question_id": self.question.question_id,
            "db_id": self.question.db_id,
            "ex": int(self.verdict.ex),
            "strict": int(self.verdict.strict),
            "outcome": self.verdict.execution.outcome,
            "flags": list(self.verdict.execution.flags),
            "seconds": round(self.verdict.execution.seconds, 6),
        }


async def score(
    questions: Sequence[Question], queries: Sequence[str], db_root: str, settings: SqlSettings
) -> list[Scored]:
    """Every prediction executed and compared with gold, in the order of the questions."""
    from tqdm.asyncio import tqdm

    with Executor(settings.workers, settings.timeout, gold_cache=cache_folder("gold")) as executor:
        runs = [
            executor.judge(database_path(db_root, question.db_id), sql, question.sql)
            for question, sql in zip(questions, queries, strict=True)
        ]
        verdicts = await tqdm.gather(*runs, desc="executing predictions", unit="query")
    return list(map(Scored, questions, verdicts))


# --- totals ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """`count` of some questions as a share of them, with the 95 % interval from `low` to `high`; all from 0 to 1."""

    count: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:6.2f} [{100 * self.low:6.2f}, {100 * self.high:6.2f}]"


@dataclass(frozen=True)
class Totals:
    """What a group of questions gave: execution accuracy (`ex`), its strict form, and how often each outcome."""

    questions: int
    ex: Share
    strict: Share
    outcomes: dict[str, int]


def share_of(hits: Sequence[bool]) -> Share:
    """How many of at least one are true."""
    share = sum(hits) / len(hits)
    return Share(sum(hits), share, *wilson(share, len(hits)))


def totals_of(results: Sequence[Scored]) -> Totals:
    """The totals of at least one question."""
    verdicts = [result.verdict for result in results]
    return Totals(
        questions=len(verdicts),
        ex=share_of([verdict.ex for verdict in verdicts]),
        strict=share_of([verdict.strict for verdict in verdicts]),
        outcomes=dict(Counter(verdict.execution.outcome for verdict in verdicts).most_common()),
    )


def totals_by(results: Sequence[Scored], name: str) -> dict[str, Totals]:
    """Totals by an attribute of the question, BIRD's difficulties first and in their order; "" makes no group."""
    groups: dict[str, list[Scored]] = {}
    for result in results:
        groups.setdefault(getattr(result.question, name), []).append(result)
    values = sorted(groups.keys() - {""} - set(DIFFICULTIES))
    return {value: totals_of(groups[value]) for value in (*DIFFICULTIES, *values) if value in groups}


def table(rows: dict[str, Totals]) -> list[str]:
    """One line per group: shares in percent with their 95 % intervals, and the outcomes."""
    lines = [["", "questions", "EX % [95 %]", "strict % [95 %]", "outcomes"]]
    for name, row in rows.items():
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in row.outcomes.items())
        lines.append([name, row.questions, row.ex, row.strict, outcomes])
    return aligned(lines)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)

    # --- everything that can be wrong, before a query runs ---
    settings = sql_settings(args.sql_workers, args.sql_timeout)
    questions = load_questions(args.questions)
    queries = matched(questions, read_predictions(args.predictions), args.predictions)
    db_ids = sorted({question.db_id for question in questions})
    for db_id in db_ids:
        check_database(database_path(args.db_root, db_id))
    databases = database_fingerprints(args.db_root, db_ids)
    inputs = {"predictions": args.predictions, "questions": args.questions}
    manifest = Manifest(vars(args), inputs, databases=databases)

    # --- execution ---
    results = asyncio.run(score(questions, queries, args.db_root, settings))
    check_unchanged(args.db_root, databases, "run the same command again")

    # --- report ---
    total = totals_of(results)
    groups = {
        name: totals_by(results, column) for name, column in (("difficulty", "difficulty"), ("database", "db_id"))
    }
    by_group = {f"{name} {value}": totals for name, found in groups.items() for value, totals in found.items()}
    print("\n".join(table({"all": total, **by_group})))
    failing = [result for result in results if result.gold_failure]
    for result in failing:
        question = result.question
        print(f"gold of question {question.question_id} ({question.db_id}) fails, counted as 0: {result.gold_failure}")
    totals = asdict(total)
    for name, found in groups.items():
        totals[f"by_{name}"] = {value: asdict(group) for value, group in found.items()}
    totals["gold_fails"] = [result.question.question_id for result in failing]
    write_json(
        args.output,
        {
            "manifest": manifest.ended(questions=len(results), gold_fails=len(failing)),
            "totals": totals,
            "questions": [result.to_json() for result in results],
        },
    )
    print(f"report: {args.output}")


if __name__ == "__main__":
    run_script(main)
