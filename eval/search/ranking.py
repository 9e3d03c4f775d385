"""What a search found for one question, for a reader: the answer, and every query with reward and result.  Pure."""

from collections import Counter
from textwrap import indent

from eval.best_of_n import FAILED
from eval.candidates import TIERS


def ranked(nodes: list[dict]) -> list[tuple[dict, int]]:
    """Each different query of a row's `search` with how often it was written, the best first.

    Those that return rows come before those that return none, and those before failing ones; among them by reward.
    """
    times = Counter(node["generated_sql"] for node in nodes)
    first = {node["generated_sql"]: node for node in reversed(nodes) if node["generated_sql"]}
    best_first = sorted(first.values(), key=_worth, reverse=True)
    return [(node, times[node["generated_sql"]]) for node in best_first]


def _worth(node: dict) -> tuple[int, float]:
    return TIERS.get(node["outcome"], FAILED), node["reward"]


def ranking(row: dict) -> str:
    """A row of candidates.json as text: the answer, then all queries, the best first."""
    found = ranked(row["search"])
    if not found:
        return f"{row['question']}\n\nno reply of {len(row['search'])} holds a query"
    parts = [f"{row['question']}\n", f"{len(row['search'])} queries, {len(found)} different ones, the best first:"]
    for number, (node, times) in enumerate(found, 1):
        answer = ", the answer" if node["generated_sql"] == row["chosen"] else ""
        often = "once" if times == 1 else f"{times} times"
        parts.append(f"\n{number}. reward {node['reward']:.3f}, {node['outcome']}, written {often}{answer}")
        parts.append(indent(node["generated_sql"], "    "))
        parts.append(indent(node["execution_feedback"], "    > ", lambda line: True))
    return "\n".join(parts)
