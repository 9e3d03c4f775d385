"""Files of revision trees: the one reader, and everything in a stored tree that shows without running its SQL.

Covered: that every field is there and of its type (form), and that the nodes make one forest (structure). Not covered:
what the fields say of each other and of the database, which `eval.verify` compares.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType

from common.files import InputError, read_json
from common.rows import iterate_json
from tree.prompts import REVISIONS
from tree.sql.results import FLAGS, OUTCOMES
from tree.tree_node import INITIAL, OLD_REVISIONS, RevisionTree, TreeNode, tree_from_json

GROW_FIRST = "grow trees first: bash tree/run_parallel.sh"
LONGEST_NAME = 200  # characters of a database's name, which is that of its file


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

    def __str__(self) -> str:
        expected = self.found if isinstance(self.found, str) else f"expected {self.found}"
        return f"{self.node}{': ' if self.node else ''}{self.what} is {self.stored!r:.100}, {expected:.200}"


@dataclass(frozen=True)
class StoredTree:
    """Tree `number` of a file as its JSON object, of which nothing is known but that it has `nodes`."""

    file: str
    number: int
    content: dict

    @property
    def source(self) -> str:
        return f"{self.file}: tree {self.number}"


# --- reading ----------------------------------------------------------------------------------------------------------


def stored_trees(path: str) -> Iterator[StoredTree]:
    """The trees of a file (a list, or a single one), one in memory at a time, unchecked.

    Raises InputError for what is no tree, and for a file without one.
    """
    number = -1
    for number, content in enumerate(iterate_json(path, GROW_FIRST)):
        if not is_tree(content):
            raise InputError(f"{path}: tree {number}: not a revision tree (it has no 'nodes'); {GROW_FIRST}")
        yield StoredTree(path, number, content)
    if number < 0:
        raise InputError(f"{path}: an empty list, no tree in it; {GROW_FIRST}")


def check_form(content: dict) -> tuple[RevisionTree | None, list[Finding]]:
    """The tree of a stored object, and what is wrong with its form or else its structure.

    The tree is None when the form is wrong; its distances mean something only when nothing is.
    """
    if wrong := list(form_findings(content)):
        return None, wrong
    tree = tree_from_json(content)
    return tree, list(structure_findings(tree))


def read_trees(path: str) -> Iterator[RevisionTree]:
    """The trees of a file, one at a time. Raises InputError naming the first thing that is wrong with one."""
    fix = f"see what is wrong with `python -m eval --tree_file {path}`, or grow the trees again"
    for stored in stored_trees(path):
        tree, findings = check_form(stored.content)
        if findings:
            raise InputError(f"{stored.source}: {findings[0]}; {fix}")
        if not tree.prompt.strip():
            raise InputError(f"{stored.source}: the prompt (node_initial.input_seq) is missing; {fix}")
        yield tree


# --- form -------------------------------------------------------------------------------------------------------------

ALWAYS, TODAY, OPTIONAL = "in every tree", "in every tree of today's format", "in some trees"
Fields = Mapping[str, tuple[type | UnionType, str]]  # type of each field, and where it must be

TREE: Fields = {
    "question_id": (int, ALWAYS),
    "db_id": (str, ALWAYS),
    "question": (str, ALWAYS),
    "evidence": (str | None, TODAY),
    "difficulty": (str | None, OPTIONAL),
    "feedback": (str, TODAY),
    "revision": (str, TODAY),
    "node_initial": (dict, TODAY),
    "max_depth": (int, TODAY),
    "tree_status": (str, TODAY),
}
INITIAL_FIELDS: Fields = {"input_seq": (str, TODAY), "shortened": (list, TODAY)}
NODE: Fields = {
    "parent_id": (str, ALWAYS),
    "d": (int, ALWAYS),
    "j": (int, ALWAYS),
    "children_num": (int, TODAY),
    "children_ids": (list, TODAY),
    "generated_sql": (str, ALWAYS),
    "execution_feedback": (str, TODAY),
    "outcome": (str, TODAY),
    "is_correct": (bool, ALWAYS),
    "strict_match": (bool | None, TODAY),
    "flags": (list, TODAY),
    "tokens": (int | None, TODAY),
    "input_seq": (str, TODAY),
    "revision_distance": (int | None, TODAY),
    "duplicate_of": (str | None, OPTIONAL),
}
VALUES = {"outcome": OUTCOMES, "flags": FLAGS, "revision": REVISIONS + OLD_REVISIONS, "feedback": ("own", "oracle")}


def is_tree(content: object) -> bool:
    """Whether this is meant to be a revision tree, right or wrong."""
    return isinstance(content, dict) and isinstance(content.get("nodes"), dict)


def of_today(content: dict) -> bool:
    """Whether the tree is in today's format, in which no field is left out: the original format has no `revision`."""
    return "revision" in content


def form_findings(content: dict) -> Iterator[Finding]:
    """What is wrong with the fields of a tree (see `is_tree`), each by itself."""
    today, initial, db_id = of_today(content), content.get("node_initial"), content.get("db_id")
    gold = "gold_sql" if "gold_sql" in content and "SQL" not in content else "SQL"
    yield from _fields("", content, today, {**TREE, gold: (str, ALWAYS)})
    if isinstance(initial, dict):
        for finding in _fields("", initial, today, INITIAL_FIELDS):
            yield replace(finding, what=f"node_initial.{finding.what}")
    if isinstance(db_id, str) and not 0 < len(db_id) <= LONGEST_NAME:
        yield Finding("", "db_id", db_id, "expected the name of a database")
    for node_id, node in content["nodes"].items():
        if isinstance(node, dict):
            yield from _fields(node_id, node, today, NODE)
        else:
            yield Finding(node_id, "node", node, "expected an object")


def _fields(node_id: str, content: dict, today: bool, fields: Fields) -> Iterator[Finding]:
    """Every field that is missing or wrong."""
    for field, (kind, where) in fields.items():
        if field in content:
            if expected := _expected(field, content[field], kind):
                yield Finding(node_id, field, content[field], f"expected {expected}")
        elif where == ALWAYS or (where == TODAY and today):
            yield Finding(node_id, field, None, "expected a value")


def _expected(field: str, value: object, kind: type | UnionType) -> str:
    """What is expected of a field, "" when its value is that."""
    if not isinstance(value, kind) or (kind is not bool and kind != bool | None and isinstance(value, bool)):
        return kind.__name__ if isinstance(kind, type) else str(kind)  # to Python true is a number
    items = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not all(isinstance(item, str) for item in items):
        return "a list of texts"
    if field in VALUES and not set(items) <= set(VALUES[field]):
        return f"of {', '.join(VALUES[field])}"
    return ""


# --- structure --------------------------------------------------------------------------------------------------------


def structure_findings(tree: RevisionTree) -> Iterator[Finding]:
    """What keeps the nodes from being one forest: parents, depths, children and originals have to agree."""
    if not tree.nodes:
        yield Finding("", "nodes", 0, "expected at least one")
    children: dict[str, list[str]] = {}
    for node in tree.nodes.values():
        children.setdefault(node.parent_id, []).append(node.node_id)
    for node in tree.nodes.values():
        yield from _place(tree, node)
        named = children.get(node.node_id, [])
        if sorted(named) != sorted(node.children_ids):
            yield Finding(node.node_id, "children", node.children_ids, named)
        if node.duplicate_of is not None and node.duplicate_of not in tree.nodes:
            yield Finding(node.node_id, "duplicate_of", node.duplicate_of, "no such node")


def _place(tree: RevisionTree, node: TreeNode) -> Iterator[Finding]:
    """What is wrong with the parent and the depth of a node, and with its other ancestors."""
    parent = tree.nodes.get(node.parent_id)
    depth = parent.d + 1 if parent else 1
    if parent is None and node.parent_id != INITIAL:
        yield Finding(node.node_id, "parent", node.parent_id, "no such node: an orphan")
    elif node.d != depth:
        yield Finding(node.node_id, "depth", node.d, depth)
    path, end = _ancestors(tree, node)
    if end == node.node_id == min(path):  # once for each cycle
        yield Finding(node.node_id, "cycle", node.parent_id, f"its own ancestor: {' < '.join([*path, end])}")
    elif end not in (INITIAL, node.node_id) and len(path) > 1:
        yield Finding(node.node_id, "reach", node.parent_id, f"hangs from {path[-1]}, which is out of reach")


def _ancestors(tree: RevisionTree, node: TreeNode) -> tuple[list[str], str]:
    """Ids from a node up to the first attempt or as far as they go, and what the last one names as its parent."""
    path = [node.node_id]
    while (end := tree.nodes[path[-1]].parent_id) in tree.nodes and end not in path:
        path.append(end)
    return path, end


# --- the manifest beside a tree file ----------------------------------------------------------------------------------


def run_arguments(tree_file: str) -> dict:
    """The arguments of the run that grew the trees, from the manifest beside them; empty where nothing says so."""
    path = Path(tree_file).with_name("manifest.json")
    arguments = read_json(path, dict).get("arguments") if path.is_file() else None
    return arguments if isinstance(arguments, dict) else {}
