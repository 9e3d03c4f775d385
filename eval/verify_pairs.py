"""What must hold for preference pairs: each is what its tree says, and no database is in two files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from itertools import combinations
from pathlib import Path

from common.files import InputError, read_json
from common.manifest import pair_manifest_path
from common.rows import iterate_rows
from eval.verify import CheckedTree
from tree.pairs.extraction import STRATEGIES, certain_pairs, fragile_nodes, reach_of
from tree.tree_files import Finding
from tree.tree_node import RevisionTree

MERGED = ("final_data_train.manifest.json", "final_data_train.json", "final_data_test.json")
COLUMNS = {
    **{"prompt": list, "chosen": list, "rejected": list, "question_id": int, "db_id": str, "tree_id": str},
    **{"chosen_node": str, "rejected_node": str, "relation": str},
    **{"chosen_dist": int | None, "rejected_dist": int | None},
    **{"rejected_outcome": (str, None), "difficulty": (str, None)},
}


@dataclass(frozen=True)
class PairRow:
    """Row `number` of a pair file, with the digest of its prompt; texts are None unless they are one message.

    `rejected_outcome` and `difficulty` are None in files that do not say.
    """

    file: str
    number: int
    prompt: bytes | None
    chosen: str | None
    rejected: str | None
    question_id: int
    db_id: str
    tree_id: str
    chosen_node: str
    rejected_node: str
    chosen_dist: int | None
    rejected_dist: int | None
    relation: str
    rejected_outcome: str | None
    difficulty: str | None

    @property
    def source(self) -> str:
        return f"{self.file}: row {self.number}"

    @property
    def nodes(self) -> str:
        return f"{self.chosen_node} > {self.rejected_node}"


@dataclass(frozen=True)
class Rules:
    """How the pairs of a file were made: `match` "ex" or "strict", fragile nodes kept or not; None = not known."""

    match: str | None = None
    keep_fragile: bool | None = None


@dataclass
class Pairs:
    """The rows of all pair files by question, until their trees come; memory holds no prompts."""

    waiting: dict[int, list[PairRow]] = field(default_factory=dict)
    rules: dict[str, Rules] = field(default_factory=dict)
    databases: dict[str, dict[str, None]] = field(default_factory=dict)  # of each file, in order
    prompts: dict[bytes, dict[str, PairRow]] = field(default_factory=dict)  # by digest: the first row of each file
    count: int = 0


def digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def _text(messages: list) -> str | None:
    """The content of a list of one message."""
    if len(messages) == 1 and isinstance(messages[0], dict) and isinstance(messages[0].get("content"), str):
        return messages[0]["content"]
    return None


def read_pairs(paths: Sequence[str]) -> Pairs:
    """The rows of pair files. Raises InputError naming the first row that is no pair."""
    pairs = Pairs()
    for path in paths:
        pairs.rules[path], pairs.databases[path] = rules_of(path), {}
        for number, row in enumerate(
            iterate_rows(path, COLUMNS, "merge the shards first: python -m tree.merge_shards")
        ):
            prompt = _text(row["prompt"])
            pair = PairRow(
                file=path,
                number=number,
                prompt=None if prompt is None else digest(prompt),
                chosen=_text(row["chosen"]),
                rejected=_text(row["rejected"]),
                **{name: row[name] for name in COLUMNS if name not in ("prompt", "chosen", "rejected")},
            )
            pairs.waiting.setdefault(pair.question_id, []).append(pair)
            pairs.databases[path][pair.db_id] = None
            if pair.prompt:
                pairs.prompts.setdefault(pair.prompt, {}).setdefault(path, pair)
            pairs.count += 1
        if not pairs.databases[path]:
            raise InputError(f"{path}: an empty list, no pair to verify")
    return pairs


def rules_of(pair_file: str) -> Rules:
    """What the manifest beside a pair file says: that of a shard's pairs, or of the merged training and test file."""
    path = Path(pair_file)
    place = path.with_name(MERGED[0]) if path.name in MERGED[1:] else pair_manifest_path(path)
    run = read_json(place, dict).get("run") if place.is_file() else None
    return Rules(run.get("match"), run.get("keep_fragile")) if isinstance(run, dict) else Rules()


# --- the pairs of one tree --------------------------------------------------------------------------------------------


def check_pairs(
    rows: Sequence[PairRow], checked: CheckedTree, rules: Mapping[str, Rules]
) -> Iterator[tuple[PairRow, Finding]]:
    """The pairs of a question against its tree."""
    if not checked.sound:
        for row in rows:
            yield row, Finding(row.nodes, "tree", row.tree_id, "broken, see its own findings")
        return
    tree = checked.tree
    belief = cache(partial(believe, tree))
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        facts = list(_facts(row, tree))
        yield from ((row, finding) for finding in facts)
        if any(finding.what in NODES for finding in facts):
            continue
        rule = rules[row.file]
        match, doubts = rule.match or "ex", {True: [False], False: [True]}.get(rule.keep_fragile, [False, True])
        found = [list(_preference(row, belief(match, doubting))) for doubting in doubts]
        yield from ((row, finding) for finding in min(found, key=len))
        queries = (row.file, checked.originals[row.chosen_node], checked.originals[row.rejected_node])
        if (first := seen.setdefault(queries, row.number)) != row.number:
            yield row, Finding(row.nodes, "repeated", f"row {row.number}", f"row {first} has the same two queries")


NODES = ("chosen_node", "rejected_node")


def _facts(row: PairRow, tree: RevisionTree) -> Iterator[Finding]:
    """The pair repeats what the tree says."""
    question = tree.question
    compared = [
        ("db_id", row.db_id, question.db_id),
        ("tree_id", row.tree_id, f"{question.db_id}/{question.question_id}"),
        ("prompt", row.prompt, digest(tree.prompt)),
        ("difficulty", question.difficulty if row.difficulty is None else row.difficulty, question.difficulty),
    ]
    for side in ("chosen", "rejected"):
        node_id = getattr(row, f"{side}_node")
        if node := tree.nodes.get(node_id):
            compared.append((side, getattr(row, side), node.generated_sql))
        else:
            compared.append((f"{side}_node", node_id, "no such node"))
    rejected = tree.nodes.get(row.rejected_node)
    if rejected and rejected.outcome and row.rejected_outcome is not None:
        compared.append(("rejected_outcome", row.rejected_outcome, rejected.outcome))
    for what, stored, found in compared:
        if stored != found:
            if what == "prompt":
                stored, found = "another text", "the prompt of the tree (node_initial.input_seq)"
            yield Finding(row.nodes, what, stored, found)


@dataclass(frozen=True)
class Belief:
    """What a tree says: its revision distances, and the relations of its certain pairs by chosen and rejected node."""

    distances: Mapping[str, int | None]
    relations: Mapping[tuple[str, str], list[str]]


def believe(tree: RevisionTree, match: str, doubting: bool) -> Belief:
    """What a tree says with the verdict `match`; `doubting` its correct nodes that are fragile, or not."""
    doubted = fragile_nodes(tree) if doubting else frozenset()
    relations: dict[tuple[str, str], list[str]] = {}
    for strategy in STRATEGIES:
        for pair in certain_pairs(tree, strategy, match, doubted):
            relations.setdefault(pair.nodes, []).append(pair.relation)
    return Belief(reach_of(tree, doubted).distances, relations)


def _preference(row: PairRow, belief: Belief) -> Iterator[Finding]:
    """The pair is one that the tree makes certain."""
    for side in ("chosen", "rejected"):
        stored, found = getattr(row, f"{side}_dist"), belief.distances[getattr(row, f"{side}_node")]
        if stored != found:
            yield Finding(row.nodes, f"{side}_dist", stored, found)
    true = belief.relations.get((row.chosen_node, row.rejected_node), [])
    if not true:
        yield Finding(row.nodes, "certainty", "a pair", "the tree does not make it certain that chosen is better")
    elif row.relation not in true:
        yield Finding(row.nodes, "relation", row.relation, " or ".join(true))


# --- all pairs --------------------------------------------------------------------------------------------------------


def check_sides(pairs: Pairs) -> Iterator[tuple[str, Finding]]:
    """(database, finding) for each database or prompt that is in more than one file."""
    for one, other in combinations(pairs.databases, 2):
        for db_id in pairs.databases[one]:
            if db_id in pairs.databases[other]:
                yield db_id, Finding("", "database on both sides", one, other)
    for rows in pairs.prompts.values():
        first, *others = rows.values()
        for row in others:
            if row.db_id != first.db_id:
                yield row.db_id, Finding("", "prompt on both sides", first.source, row.source)
