"""Builders of trees, pairs and databases that several tests use."""

from pathlib import Path

from tree.sql.cache import GoldCache
from tree.sql.guarded import Limits
from tree.sql.results import Verdict
from tree.sql.verdict import is_fragile, judge, marked_fragile


def verdict_here(path: Path, sql: str, gold: str, instances: Path | None = None) -> Verdict:
    """The verdict of this process, without a worker; `instances` is the folder of the perturbed instances."""
    rules = Limits(30.0, 10**9), GoldCache(None)
    verdict = judge(str(path), sql, gold, *rules)
    if verdict.ex and instances and is_fragile(str(path), sql, gold, verdict, *rules, instances):
        return marked_fragile(verdict)
    return verdict
