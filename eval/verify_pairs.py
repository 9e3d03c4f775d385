"""What must hold for preference pairs: each is what its tree says, and no database is in two files.

A pair is compared with those that `tree.pairs.extraction.certain_pairs` makes of its tree. That all of those which are
worth keeping are in the file is not checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path

from common.files import InputError, read_json
from common.manifest import MERGED_MANIFEST
from common.preference import OWN_COLUMNS, RESULTS, PreferencePair, Prompt, iterate_pairs, prompt_digest, user_prompt
from eval.verify import CheckedTree
from tree.pairs.extraction import STRATEGIES, certain_pairs, fragile_nodes, tree_distances
from tree.pairs.pair_files import pair_manifest_path
from tree.tree_files import Finding
from tree.tree_node import RevisionTree

MERGED = ("final_data_train.json", "final_data_test.json")
NODES = ("chosen_node", "rejected_node")
REQUIRED = OWN_COLUMNS.keys() - {"rejected_outcome", "difficulty", *RESULTS}  # which old files do not have
NO_PROMPT: Prompt = ()


@dataclass(frozen=True)
class StoredPair:
    """The pair in row `number` of a file, without its prompt, of which `prompt` is the digest."""

    file: str
    number: int
    prompt: str
    pair: PreferencePair

    @property
    def source(self) -> str:
        return f"{self.file}: row {self.number}"

    @property
    def nodes(self) -> str:
        return " > ".join(self.pair.nodes)


@dataclass(frozen=True)
class Rules:
    """How the pairs of a file were made: `match` "ex" or "strict", fragile nodes kept or not; None = not known."""

    match: str | None = None
    keep_fragile: bool | None = None


@dataclass
class StoredPairs:
    """The pairs of all files by question, until their trees come; memory holds no prompts."""

    waiting: dict[int, list[StoredPair]] = field(default_factory=dict)
    rules: dict[str, Rules] = field(default_factory=dict)
    databases: dict[str, dict[str, None]] = field(default_factory=dict)  # of each file, in order
    prompts: dict[str, dict[str, StoredPair]] = field(default_factory=dict)  # by digest: the first pair of each file
    count: int = 0

    def add(self, row: StoredPair) -> None:
        self.waiting.setdefault(row.pair.question_id, []).append(row)
        self.databases[row.file][row.pair.db_id] = None
        self.prompts.setdefault(row.prompt, {}).setdefault(row.file, row)
        self.count += 1


def stored_pairs(paths: Sequence[str]) -> StoredPairs:
    """The pairs of files. Raises InputError naming the first row that is no pair."""
    pairs = StoredPairs()
    for path in paths:
        pairs.rules[path], pairs.databases[path] = rules_of(path), {}
        for number, pair in enumerate(iterate_pairs(path, REQUIRED)):
            pairs.add(StoredPair(path, number, prompt_digest(pair.prompt), replace(pair, prompt=NO_PROMPT)))
        if not pairs.databases[path]:
            raise InputError(f"{path}: an empty list, no pair to verify")
    return pairs


def rules_of(pair_file: str) -> Rules:
    """What the manifest beside a pair file says: that of a shard's pairs, or of the merged training and test file."""
    path = Path(pair_file)
    manifest = path.with_name(MERGED_MANIFEST) if path.name in MERGED else pair_manifest_path(path)
    run = read_json(manifest, dict).get("run") if manifest.is_file() else None
    return Rules(run.get("match"), run.get("keep_fragile")) if isinstance(run, dict) else Rules()


# --- the pairs of one tree --------------------------------------------------------------------------------------------


def check_pairs(
    rows: Sequence[StoredPair], checked: CheckedTree, rules: Mapping[str, Rules]
) -> Iterator[tuple[StoredPair, Finding]]:
    """The pairs of a question against its tree; `rules` are those of each file."""
    if not checked.sound:
        for row in rows:
            yield row, Finding(row.nodes, "tree", row.pair.tree_id, "broken, see its own findings")
        return
    certain = cache(partial(certain_in, checked.tree))
    first: dict[tuple[str, ...], int] = {}  # the row of each two queries of a file
    for row in rows:
        found = list(_facts(row, checked.tree))
        if not any(finding.what in NODES for finding in found):
            rule = rules[row.file]
            keeps_fragile = [False, True] if rule.keep_fragile is None else [rule.keep_fragile]
            by_rule = [list(_preference(row, certain(rule.match or "ex", keeps))) for keeps in keeps_fragile]
            found += min(by_rule, key=len)
            queries = (row.file, *(checked.originals[node] for node in row.pair.nodes))
            if (earlier := first.setdefault(queries, row.number)) != row.number:
                found.append(Finding(row.nodes, "repeated", f"row {row.number}", f"row {earlier} has the same queries"))
        yield from ((row, finding) for finding in found)


def _facts(row: StoredPair, tree: RevisionTree) -> Iterator[Finding]:
    """The pair repeats what the tree says."""
    pair, question = row.pair, tree.question
    compared = [
        ("db_id", pair.db_id, question.db_id),
        ("tree_id", pair.tree_id, f"{question.db_id}/{question.question_id}"),
    ]
    queries, results = (pair.chosen, pair.rejected), (pair.chosen_result, pair.rejected_result)
    for side, node_id, query, result in zip(NODES, pair.nodes, queries, results, strict=True):
        if node := tree.nodes.get(node_id):
            compared.append((side.removesuffix("_node"), query, node.generated_sql))
            if result:
                compared.append((side.replace("node", "result"), result, tree.result(node)))
        else:
            compared.append((side, node_id, "no such node"))
    rejected = tree.nodes.get(pair.rejected_node)
    if pair.rejected_outcome and rejected and rejected.outcome:
        compared.append(("rejected_outcome", pair.rejected_outcome, rejected.outcome))
    if pair.difficulty:
        compared.append(("difficulty", pair.difficulty, question.difficulty))
    for what, stored, found in compared:
        if stored != found:
            yield Finding(row.nodes, what, stored, found)
    if row.prompt != prompt_digest(user_prompt(tree.prompt)):
        yield Finding(row.nodes, "prompt", "another text", "the prompt of the tree (node_initial.input_seq)")


@dataclass(frozen=True)
class CertainPairs:
    """The revision distances in a tree, and the relations of its certain pairs by chosen and rejected node."""

    distances: Mapping[str, int | None]
    relations: Mapping[tuple[str, str], list[str]]


def certain_in(tree: RevisionTree, match: str, keep_fragile: bool) -> CertainPairs:
    """What a tree makes certain with the verdict `match`, its fragile nodes trusted or not."""
    distrusted = frozenset() if keep_fragile else fragile_nodes(tree)
    relations: dict[tuple[str, str], list[str]] = {}
    for strategy in STRATEGIES:
        for pair in certain_pairs(tree, strategy, match, distrusted):
            relations.setdefault(pair.nodes, []).append(pair.relation)
    return CertainPairs(tree_distances(tree, distrusted).revisions, relations)


def _preference(row: StoredPair, certain: CertainPairs) -> Iterator[Finding]:
    """The pair is one that the tree makes certain."""
    pair = row.pair
    for what, node_id, stored in (
        ("chosen_dist", pair.chosen_node, pair.chosen_dist),
        ("rejected_dist", pair.rejected_node, pair.rejected_dist),
    ):
        if stored != certain.distances[node_id]:
            yield Finding(row.nodes, what, stored, certain.distances[node_id])
    relations = certain.relations.get(pair.nodes, [])
    if not relations:
        yield Finding(row.nodes, "certainty", "a pair", "the tree does not make it certain that chosen is better")
    elif pair.relation not in relations:
        yield Finding(row.nodes, "relation", pair.relation, " or ".join(relations))


# --- all pairs --------------------------------------------------------------------------------------------------------


def check_sides(pairs: StoredPairs) -> Iterator[tuple[str, Finding]]:
    """(database, finding) for each database or prompt that is in more than one file."""
    for one, other in combinations(pairs.databases, 2):
        for db_id in pairs.databases[one]:
            if db_id in pairs.databases[other]:
                yield db_id, Finding("", "database on both sides", one, other)
    for rows in pairs.prompts.values():
        first, *others = rows.values()
        for row in others:
            if row.pair.db_id != first.pair.db_id:
                yield row.pair.db_id, Finding("", "prompt on both sides", first.source, row.source)
