"""Whether a stored object reads as a revision tree: every field there and of its type.  Pure."""

from collections.abc import Iterator, Mapping
from types import UnionType

from tree.prompts import REVISIONS
from tree.sql.results import FLAGS, OUTCOMES

LONGEST_NAME = 200  # characters of a database's name, which is that of its file

Fields = Mapping[str, type | UnionType]
Problem = tuple[str, str, object, str]  # node ("" = the tree itself), field, stored value, what is expected

# what every tree has; what trees of other origin may lack; what any may lack
TREE: Fields = {"question_id": int, "db_id": str, "question": str}
TREE_TODAY: Fields = {
    **{"evidence": str | None, "feedback": str, "revision": str, "node_initial": dict},
    **{"max_depth": int, "tree_status": str},
}
TREE_OPTIONAL: Fields = {"difficulty": str | None}
INITIAL_TODAY: Fields = {"input_seq": str, "shortened": list}
NODE: Fields = {"parent_id": str, "d": int, "j": int, "generated_sql": str, "is_correct": bool}
NODE_TODAY: Fields = {
    **{"children_num": int, "children_ids": list, "execution_feedback": str, "outcome": str, "flags": list},
    **{"strict_match": bool | None, "tokens": int | None, "input_seq": str, "revision_distance": int | None},
}
NODE_OPTIONAL: Fields = {"duplicate_of": str | None}
VALUES = {"outcome": OUTCOMES, "flags": FLAGS, "revision": REVISIONS, "feedback": ("own", "oracle")}


def is_tree(content: object) -> bool:
    """Whether this is meant to be a revision tree, right or wrong."""
    return isinstance(content, dict) and isinstance(content.get("nodes"), dict)


def of_today(content: dict) -> bool:
    """Whether the tree is in today's format, in which no field is left out: the original format has no `revision`."""
    return "revision" in content


def problems(content: dict) -> Iterator[Problem]:
    """What is wrong with the fields of a tree (see `is_tree`), each by itself."""
    today, initial = of_today(content), content.get("node_initial")
    gold = "gold_sql" if "gold_sql" in content and "SQL" not in content else "SQL"
    for problem in _wrong(content, today, {**TREE, gold: str}, TREE_TODAY, TREE_OPTIONAL):
        yield "", *problem
    for field, *rest in _wrong(initial, today, {}, INITIAL_TODAY) if isinstance(initial, dict) else ():
        yield "", f"node_initial.{field}", *rest
    if isinstance(content.get("db_id"), str) and not 0 < len(content["db_id"]) <= LONGEST_NAME:
        yield "", "db_id", content["db_id"], "the name of a database"
    for node_id, node in content["nodes"].items():
        if not isinstance(node, dict):
            yield node_id, "node", node, "an object"
            continue
        for problem in _wrong(node, today, NODE, NODE_TODAY, NODE_OPTIONAL):
            yield node_id, *problem


def _wrong(
    content: dict, today: bool, always: Fields, later: Fields, optional: Fields | None = None
) -> Iterator[tuple[str, object, str]]:
    """(field, stored value, what is expected) of every field that is missing or wrong."""
    for field, kind in {**always, **later, **(optional or {})}.items():
        if field not in content:
            if field in always or (today and field in later):
                yield field, None, "a value"
        elif expected := _unlike(field, content[field], kind):
            yield field, content[field], expected


def _unlike(field: str, value: object, kind: type | UnionType) -> str:
    """What is expected of a field, "" when its value is that."""
    if not isinstance(value, kind) or (kind is not bool and kind != bool | None and isinstance(value, bool)):
        return kind.__name__ if isinstance(kind, type) else str(kind)  # to Python true is a number
    items = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not all(isinstance(item, str) for item in items):
        return "a list of texts"
    if field in VALUES and not set(items) <= set(VALUES[field]):
        return f"of {', '.join(VALUES[field])}"
    return ""
