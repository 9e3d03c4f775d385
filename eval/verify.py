"""What must hold for a revision tree: distances, duplicates, and every verdict when its SQL runs again.

Form and structure are for `tree.tree_files` to check. Pure: the SQL is executed by `python -m eval`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tree.sql.canonical import first_equal
from tree.sql.results import BY_CHANCE, FRAGILE, Execution, Verdict
from tree.tree_files import Finding, check_form, of_today
from tree.tree_node import RevisionTree, TreeNode, revision_distances

# outcomes that depend on the machine's speed and memory: a difference in them is listed, but is no error
LIMITS = frozenset({"timeout", "too_large", "crashed"})
STOPPED = frozenset({"timeout", "crashed"})  # outcomes of a query whose worker may have been killed over gold before it
SLOW = 0.5  # seconds from which a query may be stopped on one perturbed instance here and not there


@dataclass(frozen=True)
class CheckedTree:
    """A stored tree without its SQL run: the tree (None when it cannot be read) and what does not hold.

    `sound` says whether its nodes form one forest, so that distances mean something; `originals` is `originals_of`.
    """

    tree: RevisionTree | None
    findings: list[Finding]
    sound: bool = False
    originals: dict[str, str] = field(default_factory=dict)


def check_tree(content: dict) -> CheckedTree:
    """Everything that can be seen in a tree (see `tree_files.is_tree`) without a database."""
    tree, found = check_form(content)
    if tree is None:
        return CheckedTree(None, found)
    sound, originals = not found, originals_of(tree)
    found += check_numbering(tree)
    found += check_duplicates(tree, originals, marked=of_today(content))
    if sound:
        found += check_counts(tree, content)
    return CheckedTree(tree, found, sound, originals)


# --- numbers, distances, counts, duplicates ---------------------------------------------------------------------------


def check_numbering(tree: RevisionTree) -> Iterator[Finding]:
    """Ids say depth and number; the numbers of a depth are counted from 0."""
    numbers: dict[int, list[int]] = {}
    for node in tree.nodes.values():
        numbers.setdefault(node.d, []).append(node.j)
        if node.node_id != f"node_{node.d}_{node.j}":
            yield Finding(node.node_id, "id", node.node_id, f"node_{node.d}_{node.j}")
    for d, found in numbers.items():
        if sorted(found) != list(range(len(found))):
            yield Finding("", f"numbering of depth {d}", sorted(found), list(range(len(found))))


def check_counts(tree: RevisionTree, stored: dict) -> Iterator[Finding]:
    """The stored distances, children counts, depth and status are what the nodes say. Needs a sound structure."""
    for node_id, distance in revision_distances(tree.nodes).items():
        node = tree.nodes[node_id]
        if node.revision_distance != distance:
            yield Finding(node_id, "revision_distance", node.revision_distance, distance)
        count = stored["nodes"][node_id].get("children_num", len(node.children_ids))
        if count != len(node.children_ids):
            yield Finding(node_id, "children_num", count, len(node.children_ids))
        if of_today(stored) and tree.conditioned and bool(node.input_seq) != bool(node.children_ids):
            yield Finding(node_id, "input_seq", node.input_seq, "expected a request just where there are revisions")
    for key, value in (("max_depth", tree.max_depth), ("tree_status", "good" if tree.good else "bad")):
        if key in stored and stored[key] != value:
            yield Finding("", key, stored[key], value)


def in_order(tree: RevisionTree) -> list[TreeNode]:
    """The nodes as they were grown: breadth first."""
    return sorted(tree.nodes.values(), key=lambda node: (node.d, node.j))


def originals_of(tree: RevisionTree) -> dict[str, str]:
    """Node id -> id of the first node with the same query (in canonical form), its own when it is new."""
    nodes = in_order(tree)
    first = first_equal([node.generated_sql for node in nodes])
    return {node.node_id: nodes[number].node_id for node, number in zip(nodes, first, strict=True)}


def check_duplicates(tree: RevisionTree, originals: dict[str, str], marked: bool) -> Iterator[Finding]:
    """`duplicate_of` names an earlier node with the same query, and duplicates have no children.

    With `marked`, every node whose query was there before says so.
    """
    before: set[str] = set()
    for node in in_order(tree):
        original = originals[node.node_id]
        if node.duplicate_of in tree.nodes:
            if node.duplicate_of not in before or originals[node.duplicate_of] != original:
                found = original if original != node.node_id else "no earlier node has this query"
                yield Finding(node.node_id, "duplicate_of", node.duplicate_of, found)
            if node.children_ids:
                yield Finding(node.node_id, "children of a duplicate", node.children_ids, "none")
        elif node.duplicate_of is None and marked and original != node.node_id:
            yield Finding(node.node_id, "duplicate_of", None, original)
        before.add(node.node_id)


# --- execution --------------------------------------------------------------------------------------------------------


def check_gold(gold: Execution, empty_allowed: bool) -> Iterator[Finding]:
    """The gold query runs, and returns rows."""
    if gold.outcome != "ok" and not (gold.outcome == "empty" and empty_allowed):
        found = f"{gold.outcome} ({gold.error})" if gold.error else gold.outcome
        yield Finding("", "gold", "ok", found, gold.outcome in LIMITS or BY_CHANCE in gold.flags)


def check_verdict(node: TreeNode, stored: dict, verdict: Verdict, instances: bool) -> Iterator[Finding]:
    """The stored outcome, verdicts and flags are those of executing the node's SQL again.

    What `stored` does not say is not compared. Without perturbed `instances` nothing is found to be fragile.
    """
    execution, gold = verdict.execution, verdict.gold
    limit = not LIMITS.isdisjoint({execution.outcome, node.outcome, gold.outcome})
    limit |= BY_CHANCE in execution.flags + gold.flags
    compared = (
        ("outcome", node.outcome or execution.outcome, execution.outcome),
        ("is_correct", node.is_correct, verdict.ex),
        ("strict_match", verdict.strict if node.strict_match is None else node.strict_match, verdict.strict),
    )
    for what, said, found in compared:
        if said != found:
            yield Finding(node.node_id, what, said, found, limit)
    if "flags" in stored:
        flags = list(execution.flags)
        differing = (set(flags) ^ set(node.flags)) - (set() if instances else {FRAGILE})
        if differing:
            slow = differing == {FRAGILE} and max(execution.seconds, gold.seconds) > SLOW
            yield Finding(node.node_id, "flags", node.flags, flags, limit or slow)
