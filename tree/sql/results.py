"""What running a query gives, as data: its outcome, its rows as far as they are shown, the verdict on it.  Pure."""

from dataclasses import dataclass

OUTCOMES = ("ok", "empty", "error", "denied", "timeout", "too_large", "not_a_query", "no_sql", "crashed")
RAN = ("ok", "empty")  # outcomes of queries that ran to their end
BY_CHANCE = "clock_or_random"  # the result may differ from run to run
FRAGILE = "fragile"  # right only by coincidence: on other rows, gold's result is another one
FLAGS = (
    "constant",  # no table is read
    "quoted_literal",  # a name in double quotes was taken as text
    BY_CHANCE,
    "limit_without_order",  # which rows come is left to chance
    "both_empty",  # gold returns nothing, and so does this
    FRAGILE,
)

SHOWN_ROWS = 5  # of a result, kept with its execution
# So many rows are counted no further in what is said of a result: reading a wrong one ends there, by a look at gold
MANY_ROWS = 1_000
MAX_CELL = 60  # characters of a shown value

Row = tuple


@dataclass(frozen=True)
class Execution:
    """What running one query gave.

    `rows` holds the first SHOWN_ROWS rows, long values cut to SHOWN_LENGTH; `row_count` says how many there are, or
    were read when `more` is true.
    `facts` say what the database has where the query looked, see `tree.sql.facts`; `flags` are reasons for suspicion
    (FLAGS); `sees_rows` is false when it reads no column of a table and does not count.
    """

    outcome: str
    error: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    row_count: int = 0
    more: bool = False
    seconds: float = 0.0
    facts: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    sees_rows: bool = True


@dataclass(frozen=True)
class Verdict:
    """A candidate's execution, and whether its rows are gold's.

    `ex` is BIRD's official rule (`set(pred) == set(gold)`, Python equality) on gold that ran; `strict` also wants each
    row as often as gold has it, and gold's order when the outermost gold query orders. `gold` is the gold query's own
    execution. `digest` is of the set of rows, where it was asked for and the candidate ran.
    """

    execution: Execution
    gold: Execution
    ex: bool = False
    strict: bool = False
    digest: str = ""


@dataclass(frozen=True)
class Result:
    """What a candidate returns: its `outcome`, the `digest` of its set of rows ("" unless it ran), whether that is
    gold's (None without gold that ran), and what executing it said.
    """

    outcome: str
    digest: str
    ex: bool | None
    feedback: str = ""


def show_value(value: object) -> str:
    """One result cell on one line, at most MAX_CELL characters; bytes that are not UTF-8 escaped."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        value = f"x'{value[:MAX_CELL].hex()}'"
    text = str(value).encode("utf-8", "backslashreplace").decode()
    text = text.replace("\r", "\\r").replace("\n", "\\n")
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
