"""Preference pairs from a revision tree.  Pure.

A query with a smaller revision distance is preferred (ReLoc, arXiv 2508.07434). *Emerge* pairs join nodes that are next
to each other in the tree: `relation` says what the rejected node is to the chosen one (its parent, its child, its
sibling). *Baseline* pairs take the deepest correct against the shallowest incorrect ones.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tree.prompts import AGAIN
from tree.sql_text import canonical_sql
from tree.tree_node import RevisionTree, TreeNode, revision_distances

RELATIONS = ("parent", "child", "sibling", "baseline")
STRATEGIES = ("emerge", "baseline")


@dataclass(frozen=True)
class Pair:
    """One preference: `chosen_dist` < `rejected_dist`, None counting as never reached."""

    prompt: str
    chosen: str
    rejected: str
    question_id: int
    db_id: str
    chosen_node: str
    rejected_node: str
    chosen_dist: int
    rejected_dist: int | None
    relation: str
    tree_id: str

    def to_json(self) -> dict:
        """The row of a pair file, as `datasets` and TRL's RewardTrainer load it."""
        row = {key: value for key, value in vars(self).items() if key not in ("prompt", "chosen", "rejected")}
        return {
            "prompt": [{"role": "user", "content": self.prompt}],
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            **row,
        }


def prefers(
    chosen: TreeNode, rejected: TreeNode, distances: dict[str, int | None], match: str, shown: bool = True
) -> bool:
    """Whether the tree makes it certain that `chosen` is the better query.

    A smaller distance wins and a number wins over None; None against None is open. A None that was never revised
    (depth or budget ended, a duplicate, a prompt too long) might have been fixed, so it loses only to a correct query.
    When the requests for revisions did not show what was wrong (not `shown`), the distances of wrong queries are luck,
    and only a correct query is preferred.
    A correct query counts as chosen only when `match` ("ex" or "strict") holds. Queries equal in canonical form and
    replies without a query make no pair: a reward model chooses among different queries.
    """
    better, worse = distances[chosen.node_id], distances[rejected.node_id]
    if better is None or (worse is not None and worse <= better):
        return False
    if better > 0 and (not shown or (worse is None and not rejected.revised)):
        return False
    if better == 0 and match == "strict" and not chosen.strict_match:
        return False
    keys = canonical_sql(chosen.generated_sql), canonical_sql(rejected.generated_sql)
    return all(keys) and keys[0] != keys[1]


def _neighbours(tree: RevisionTree) -> Iterator[tuple[TreeNode, TreeNode, str]]:
    """(chosen candidate, rejected candidate, relation of the rejected to the chosen), both ways round."""
    for node in tree.nodes.values():
        if parent := tree.nodes.get(node.parent_id):
            yield node, parent, "parent"
            yield parent, node, "child"
    by_parent = sorted(tree.nodes.values(), key=lambda node: (node.parent_id, node.d, node.j))
    for _, siblings in itertools.groupby(by_parent, key=lambda node: node.parent_id):
        for one, other in itertools.permutations(siblings, 2):
            yield one, other, "sibling"


def _extremes(tree: RevisionTree) -> Iterator[tuple[TreeNode, TreeNode, str]]:
    """The deepest correct nodes against the shallowest incorrect ones."""
    correct = [node for node in tree.nodes.values() if node.is_correct]
    wrong = [node for node in tree.nodes.values() if not node.is_correct]
    deepest = max((node.d for node in correct), default=0)
    shallowest = min((node.d for node in wrong), default=0)
    for chosen in correct:
        for rejected in wrong:
            if chosen.d == deepest and rejected.d == shallowest:
                yield chosen, rejected, "baseline"


def extract_pairs(tree: RevisionTree, strategy: str, match: str = "strict") -> list[Pair]:
    """The preference pairs of a tree by one strategy ("emerge" or "baseline"), each pair of queries once."""
    distances, shown = revision_distances(tree.nodes), tree.revision != AGAIN
    candidates: Iterable = _neighbours(tree) if strategy == "emerge" else _extremes(tree)
    pairs: dict[tuple[str, str], Pair] = {}
    for chosen, rejected, relation in candidates:
        if not prefers(chosen, rejected, distances, match, shown):
            continue
        key = canonical_sql(chosen.generated_sql), canonical_sql(rejected.generated_sql)
        if key not in pairs:
            pairs[key] = _pair(tree, chosen, rejected, distances, relation)
    return list(pairs.values())


def _pair(tree: RevisionTree, chosen: TreeNode, rejected: TreeNode, distances: dict, relation: str) -> Pair:
    question = tree.question
    return Pair(
        prompt=tree.prompt,
        chosen=chosen.generated_sql,
        rejected=rejected.generated_sql,
        question_id=question.question_id,
        db_id=question.db_id,
        chosen_node=chosen.node_id,
        rejected_node=rejected.node_id,
        chosen_dist=distances[chosen.node_id],
        rejected_dist=distances[rejected.node_id],
        relation=relation,
        tree_id=f"{question.db_id}/{question.question_id}",
    )
