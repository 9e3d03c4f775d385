"""What must hold for a revision tree: structure, distances, and every verdict when its SQL runs again.  Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tree.prompts import AGAIN
from tree.sql.results import BY_CHANCE, FRAGILE, Execution, Verdict
from tree.sql.sql_text import first_equal
from tree.tree_form import of_today, problems
from tree.tree_node import INITIAL, RevisionTree, TreeNode, revision_distances, tree_from_json

# outcomes that depend on the machine's speed and memory: a difference in them is listed, but is no error
LIMITS = frozenset({"timeout", "too_large", "crashed"})
LOST = frozenset({"timeout", "crashed"})  # outcomes of a query whose worker may have died of gold before it
SLOW = 0.5  # seconds from which a query may be stopped on one perturbed instance here and not there


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold: at `node` ("" = the tree itself), `stored` is not what was `found`.

    With `limit` it may be due to this machine or this moment, and is no error.
    """

    node: str
    what: str
    stored: object
    found: object
    limit: bool = False


@dataclass(frozen=True)
class Checked:
    """A stored tree without its SQL run: the tree (None when it cannot be read) and what does not hold.

    `sound` says whether its nodes stand in one forest, so that distances mean something; `writers` is `first_writers`.
    """

    tree: RevisionTree | None
    findings: list[Finding]
    sound: bool = False
    writers: dict[str, str] = field(default_factory=dict)


def check_tree(content: dict) -> Checked:
    """Everything that can be seen in a tree (see `tree_form.is_tree`) without a database."""
    if wrong := [Finding(*place, f"expected {kind}") for *place, kind in problems(content)]:
        return Checked(None, wrong)
    tree = read_tree(content)
    writers = first_writers(tree)
    found = list(check_structure(tree))
    sound = STRUCTURE.isdisjoint(finding.what for finding in found)
    found += check_duplicates(tree, writers, marked=of_today(content))
    if sound:
        found += check_counts(tree, content)
    return Checked(tree, found, sound, writers)


def read_tree(content: dict) -> RevisionTree:
    """The tree of a stored object without `problems`; children that are not stored are those who name their parent."""
    tree = tree_from_json(content)
    children = children_of(tree)
    for node_id, node in tree.nodes.items():
        if "children_ids" not in content["nodes"][node_id]:
            node.children_ids = children.get(node_id, [])
    return tree


# --- structure --------------------------------------------------------------------------------------------------------

# findings with which distances cannot be computed
STRUCTURE = frozenset({"nodes", "parent", "cycle", "reach", "depth", "children"})


def children_of(tree: RevisionTree) -> dict[str, list[str]]:
    """Ids of the nodes that name each one as their parent."""
    children: dict[str, list[str]] = {}
    for node in tree.nodes.values():
        children.setdefault(node.parent_id, []).append(node.node_id)
    return children


def check_structure(tree: RevisionTree) -> Iterator[Finding]:
    """Ids, parents, depths, numbering and children agree with each other; every node hangs from a first attempt."""
    if not tree.nodes:
        yield Finding("", "nodes", 0, "expected at least one")
    children = children_of(tree)
    for node in tree.nodes.values():
        yield from _check_node(tree, node, children.get(node.node_id, []))
    for d, count in Counter(node.d for node in tree.nodes.values()).items():
        numbers = sorted(node.j for node in tree.nodes.values() if node.d == d)
        if numbers != list(range(count)):
            yield Finding("", f"numbering of depth {d}", numbers, list(range(count)))


def _check_node(tree: RevisionTree, node: TreeNode, children: Sequence[str]) -> Iterator[Finding]:
    if node.node_id != f"node_{node.d}_{node.j}":
        yield Finding(node.node_id, "id", node.node_id, f"node_{node.d}_{node.j}")
    parent = tree.nodes.get(node.parent_id)
    if parent is None and node.parent_id != INITIAL:
        yield Finding(node.node_id, "parent", node.parent_id, "no such node: an orphan")
    elif node.d != (parent.d + 1 if parent else 1):
        yield Finding(node.node_id, "depth", node.d, parent.d + 1 if parent else 1)
    way, above = _way_up(tree, node)
    if above == node.node_id == min(way):  # once for each cycle
        yield Finding(node.node_id, "cycle", node.parent_id, f"its own ancestor: {' < '.join([*way, above])}")
    elif above not in (INITIAL, node.node_id) and len(way) > 1:
        yield Finding(node.node_id, "reach", node.parent_id, f"hangs from {way[-1]}, which is out of reach")
    if sorted(children) != sorted(node.children_ids):
        yield Finding(node.node_id, "children", node.children_ids, children)


def _way_up(tree: RevisionTree, node: TreeNode) -> tuple[list[str], str]:
    """Ids from a node up to the first attempt or as far as they go, and what the last one names as its parent."""
    way = [node.node_id]
    while (above := tree.nodes[way[-1]].parent_id) in tree.nodes and above not in way:
        way.append(above)
    return way, above


# --- distances, counts, duplicates ------------------------------------------------------------------------------------


def check_counts(tree: RevisionTree, stored: dict) -> Iterator[Finding]:
    """The stored distances, children counts, depth and status are what the nodes say. Needs a sound structure."""
    for node_id, distance in revision_distances(tree.nodes).items():
        node = tree.nodes[node_id]
        if node.revision_distance != distance:
            yield Finding(node_id, "revision_distance", node.revision_distance, distance)
        count = stored["nodes"][node_id].get("children_num", len(node.children_ids))
        if count != len(node.children_ids):
            yield Finding(node_id, "children_num", count, len(node.children_ids))
        if of_today(stored) and tree.revision != AGAIN and bool(node.input_seq) != bool(node.children_ids):
            yield Finding(node_id, "input_seq", node.input_seq, "expected a request just where there are revisions")
    for key, value in (("max_depth", tree.max_depth), ("tree_status", "good" if tree.good else "bad")):
        if key in stored and stored[key] != value:
            yield Finding("", key, stored[key], value)


def in_order(tree: RevisionTree) -> list[TreeNode]:
    """The nodes as they were grown: breadth first."""
    return sorted(tree.nodes.values(), key=lambda node: (node.d, node.j))


def first_writers(tree: RevisionTree) -> dict[str, str]:
    """Node id -> id of the first node with the same query (in canonical form), its own when it is new."""
    nodes = in_order(tree)
    places = first_equal([node.generated_sql for node in nodes])
    return {node.node_id: nodes[place].node_id for node, place in zip(nodes, places, strict=True)}


def check_duplicates(tree: RevisionTree, writers: dict[str, str], marked: bool) -> Iterator[Finding]:
    """`duplicate_of` names an earlier node with the same query, and duplicates have no children.

    With `marked`, every node whose query was there before says so.
    """
    before: set[str] = set()
    for node in in_order(tree):
        original = writers[node.node_id]
        if node.duplicate_of is not None:
            if node.duplicate_of not in before or writers[node.duplicate_of] != original:
                found = original if original != node.node_id else "no earlier node has this query"
                yield Finding(node.node_id, "duplicate_of", node.duplicate_of, found)
            if node.children_ids:
                yield Finding(node.node_id, "children of a duplicate", node.children_ids, "none")
        elif marked and original != node.node_id:
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
