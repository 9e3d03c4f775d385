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
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

from common.files import InputError, run_script, write_json
from common.rows import fit_row, iterate_json
from common.tables import aligned
from tree.sql_utils import add_sql_flags, sql_settings
from tree.tree_node import Question

SEPARATOR = "\t----- bird -----\t"
FORMATS = 'expected {"0": "SELECT ...", ...} or a list of {question_id, SQL}'
DIFFICULTIES = ("simple", "moderate", "challenging")  # BIRD's, in its order
Z = NormalDist().inv_cdf(0.975)  # 1.96, for 95 % between both sides


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
    args = parser.parse_args(words)
    sql_settings(args)
    return args


# --- predictions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """The SQL predicted for a question ("" for none), and the database it says it is for (None: it does not say)."""

    question_id: int
    sql: str
    db_id: str | None


def read_predictions(path: str) -> list[Prediction]:
    """The predictions of a file in either format. Raises InputError naming the file and the id or row."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if repeated:
            raise InputError(f"{path}: '{repeated[0]}' stands more than once; each question has one prediction")
        return dict(pairs)

    rows = list(iterate_json(path, FORMATS, unique))
    if not rows:
        raise InputError(f"{path}: an empty list; {FORMATS}")
    if len(rows) == 1 and isinstance(rows[0], dict) and "question_id" not in rows[0]:
        return [_from_bird(path, key, value) for key, value in rows[0].items()]
    columns = {"question_id": int, "SQL": str, "db_id": (str, None)}
    fitted = (fit_row(path, number, row, columns) for number, row in enumerate(rows))
    return [Prediction(row["question_id"], row["SQL"], row["db_id"]) for row in fitted]


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


def matched(questions: Sequence[Question], predictions: Sequence[Prediction], path: str) -> list[str]:
    """The predicted SQL of each question, in the order of the questions; "" where it is blank.

    Raises InputError naming an id that is missing, unknown or repeated, or whose databases differ.
    """
    known = {question.question_id for question in questions}
    by_id: dict[int, Prediction] = {}
    for prediction in predictions:
        number = prediction.question_id
        if number in by_id:
            raise InputError(f"{path}: question_id {number} stands more than once; each question has one prediction")
        if number not in known:
            raise InputError(f"{path}: question_id {number} is not in the question file; check --questions")
        by_id[number] = prediction
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
    """A question with its prediction's verdict; `gold_failure` says why gold did not run ("" when it did)."""

    question: Question
    ex: bool
    strict: bool
    outcome: str
    flags: tuple[str, ...]
    seconds: float
    gold_failure: str

    def to_json(self) -> dict:
        return {
            "question_id": self.question.question_id,
            "db_id": self.question.db_id,
            "ex": int(self.ex),
            "strict": int(self.strict),
            "outcome": self.outcome,
            "flags": list(self.flags),
            "seconds": round(self.seconds, 6),
        }


async def score(questions: Sequence[Question], queries: Sequence[str], args: argparse.Namespace) -> list[Scored]:
    """Every prediction executed and compared with gold, in the order of the questions."""
    from tqdm import tqdm

    from tree.sql.cache import cache_folder
    from tree.sql_utils import Executor, database_path, sql_settings

    sql = sql_settings(args)
    with (
        Executor(sql.workers, sql.timeout, gold_cache=cache_folder("gold")) as executor,
        tqdm(total=len(questions), desc="executing predictions", unit="query") as bar,
    ):

        async def one(question: Question, sql: str) -> Scored:
            path = database_path(args.db_root, question.db_id)
            verdict = await executor.judge(path, sql, question.sql)
            execution, gold = verdict.execution, verdict.gold
            bar.update()
            failure = "" if gold.outcome in ("ok", "empty") else f"{gold.outcome} ({gold.error[:200]})"
            return Scored(
                question=question,
                ex=verdict.ex,
                strict=verdict.strict,
                outcome=execution.outcome,
                flags=execution.flags,
                seconds=execution.seconds,
                gold_failure=failure,
            )

        return await asyncio.gather(*map(one, questions, queries))


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


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """95 % score interval of `count` successes in `total` > 0 trials.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212.
    """
    share, scale = count / total, 1 + Z**2 / total
    centre = (share + Z**2 / (2 * total)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    # at 0 and 1 a bound is the share itself, which rounding can miss by a hair
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def share_of(hits: Sequence[bool]) -> Share:
    """How many of at least one are true."""
    return Share(sum(hits), sum(hits) / len(hits), *wilson_interval(sum(hits), len(hits)))


@dataclass(frozen=True)
class Totals:
    """What a group of questions gave: execution accuracy (`ex`), its strict form, and how often each outcome."""

    questions: int
    ex: Share
    strict: Share
    outcomes: dict[str, int]


def totals_of(results: Sequence[Scored]) -> Totals:
    """The totals of at least one question."""
    return Totals(
        questions=len(results),
        ex=share_of([result.ex for result in results]),
        strict=share_of([result.strict for result in results]),
        outcomes=dict(Counter(result.outcome for result in results).most_common()),
    )


def grouped(results: Iterable[Scored], key: Callable[[Question], str]) -> dict[str, Totals]:
    """Totals by a property of the question, BIRD's difficulties first and in their order; "" makes no group."""
    groups: dict[str, list[Scored]] = {}
    for result in results:
        groups.setdefault(key(result.question), []).append(result)
    rank = {name: place for place, name in enumerate(DIFFICULTIES)}
    names = sorted(filter(None, groups), key=lambda name: (rank.get(name, len(rank)), name))
    return {name: totals_of(groups[name]) for name in names}


def table(rows: dict[str, Totals]) -> list[str]:
    """One line per group: shares in percent with their 95 % intervals, and the outcomes."""
    head = ["", "questions", "EX % [95 %]", "strict % [95 %]", "outcomes"]
    lines = []
    for name, row in rows.items():
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in row.outcomes.items())
        lines.append([name, row.questions, row.ex, row.strict, outcomes])
    return aligned([head, *lines])


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)

    # --- everything that can be wrong, before a query runs ---
    from common.manifest import Manifest
    from tree.questions import load_questions
    from tree.run.databases import check_unchanged, database_fingerprints
    from tree.sql_utils import check_database, database_path

    questions = load_questions(args.questions)
    queries = matched(questions, read_predictions(args.predictions), args.predictions)
    db_ids = sorted({question.db_id for question in questions})
    for db_id in db_ids:
        check_database(database_path(args.db_root, db_id))
    databases = database_fingerprints(args.db_root, db_ids)
    inputs = {"predictions": args.predictions, "questions": args.questions}
    manifest = Manifest(vars(args), inputs, databases=databases)

    # --- execution ---
    results = asyncio.run(score(questions, queries, args))
    check_unchanged(args.db_root, databases, "run the same command again")

    # --- report ---
    total = totals_of(results)
    by_difficulty = grouped(results, lambda question: question.difficulty)
    by_database = grouped(results, lambda question: question.db_id)
    failing = [result for result in results if result.gold_failure]
    rows = {"all": total, **{f"difficulty {name}": group for name, group in by_difficulty.items()}}
    print("\n".join(table(rows | {f"database {name}": group for name, group in by_database.items()})))
    for result in failing:
        question = result.question
        print(f"gold of question {question.question_id} ({question.db_id}) fails, counted as 0: {result.gold_failure}")
    write_json(
        args.output,
        {
            "manifest": manifest.ended(questions=len(results), gold_fails=len(failing)),
            "totals": {
                **asdict(total),
                "by_difficulty": {name: asdict(group) for name, group in by_difficulty.items()},
                "by_database": {name: asdict(group) for name, group in by_database.items()},
                "gold_fails": [result.question.question_id for result in failing],
            },
            "questions": [result.to_json() for result in results],
        },
    )
    print(f"report: {args.output}")


if __name__ == "__main__":
    run_script(main)
