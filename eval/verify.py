"""What must hold for a revision tree: its structure, its distances, and every verdict when its SQL runs again."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tree.sandbox import OUTCOMES
from tree.sql_text import canonical_sql
from tree.tree_node import INITIAL, RevisionTree, TreeNode, revision_distances
from tree.verdict import Verdict

# outcomes that depend on the machine's speed and memory: a difference in them is listed, but is no error
LIMITS = frozenset({"timeout", "too_large", "crashed"})


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold: at `node` ("" = the tree itself), `stored` is not what was `found`."""

    node: str
    what: str
    stored: object
    found: object
    limit: bool = False

    def to_json(self) -> dict:
        return {key: value for key, value in vars(self).items() if key != "limit"}


def check_structure(tree: RevisionTree) -> list[Finding]:
    """Ids, parents, depths, numbering and children agree with each other; no node is out of reach."""
    found = []
    if not tree.nodes:
        found.append(Finding("", "nodes", 0, "at least one"))
    for node in tree.nodes.values():
        found += _check_node(tree, node)
    for d, count in Counter(node.d for node in tree.nodes.values()).items():
        numbers = sorted(node.j for node in tree.nodes.values() if node.d == d)
        if numbers != list(range(count)):
            found.append(Finding("", f"numbering of depth {d}", numbers, list(range(count))))
    return found


def _check_node(tree: RevisionTree, node: TreeNode) -> Iterator[Finding]:
    if node.node_id != f"node_{node.d}_{node.j}":
        yield Finding(node.node_id, "id", node.node_id, f"node_{node.d}_{node.j}")
    parent = tree.nodes.get(node.parent_id)
    if parent is None and node.parent_id != INITIAL:
        yield Finding(node.node_id, "parent", node.parent_id, "no such node")
    elif node.d != (parent.d + 1 if parent else 1):
        yield Finding(node.node_id, "depth", node.d, parent.d + 1 if parent else 1)
    children = [child.node_id for child in tree.nodes.values() if child.parent_id == node.node_id]
    if sorted(children) != sorted(node.children_ids):
        yield Finding(node.node_id, "children", node.children_ids, children)
    if node.outcome and node.outcome not in OUTCOMES:
        yield Finding(node.node_id, "outcome", node.outcome, f"one of {', '.join(OUTCOMES)}")
    if node.duplicate_of is not None:
        original = tree.nodes.get(node.duplicate_of)
        if original is None or canonical_sql(original.generated_sql) != canonical_sql(node.generated_sql):
            yield Finding(node.node_id, "duplicate_of", node.duplicate_of, "no node with the same query")


def check_counts(tree: RevisionTree, stored: dict) -> list[Finding]:
    """The stored distances, children counts, depth and status are what the nodes say. Needs a sound structure."""
    found = []
    for node_id, distance in revision_distances(tree.nodes).items():
        node = tree.nodes[node_id]
        if node.revision_distance != distance:
            found.append(Finding(node_id, "revision_distance", node.revision_distance, distance))
        count = stored["nodes"][node_id].get("children_num", len(node.children_ids))
        if count != len(node.children_ids):
            found.append(Finding(node_id, "children_num", count, len(node.children_ids)))
    for key, value in (("max_depth", tree.max_depth), ("tree_status", "good" if tree.good else "bad")):
        if key in stored and stored[key] != value:
            found.append(Finding("", key, stored[key], value))
    return found


def check_verdict(node: TreeNode, verdict: Verdict) -> list[Finding]:
    """The stored outcome and verdicts are those of executing the node's SQL again."""
    outcome = verdict.execution.outcome
    limit = not LIMITS.isdisjoint({outcome, node.outcome, verdict.gold.outcome})
    compared = (
        ("outcome", node.outcome or outcome, outcome),
        ("is_correct", node.is_correct, verdict.ex),
        ("strict_match", verdict.strict if node.strict_match is None else node.strict_match, verdict.strict),
    )
    return [Finding(node.node_id, what, stored, found, limit) for what, stored, found in compared if stored != found]


def summary(trees: list[RevisionTree], findings: list[Finding]) -> dict:
    """Counts over all trees, from their nodes as stored."""
    nodes = [node for tree in trees for node in tree.nodes.values()]
    errors = [finding for finding in findings if not finding.limit]
    distances = Counter(node.revision_distance for node in nodes if node.revision_distance is not None)
    return {
        "trees": len(trees),
        "good": sum(tree.good for tree in trees),
        "bad": sum(not tree.good for tree in trees),
        "nodes": len(nodes),
        "correct_nodes": sum(node.is_correct for node in nodes),
        "outcomes": dict(sorted(Counter(node.outcome for node in nodes).items())),
        "revision_distances": {
            **{str(distance): distances[distance] for distance in sorted(distances)},
            "null": len(nodes) - distances.total(),
        },
        "mean_nodes_per_tree": round(len(nodes) / len(trees), 2) if trees else math.nan,
        "errors": len(errors),
        "limit_differences": len(findings) - len(errors),
        "result": "failed" if errors else "passed",
    }
