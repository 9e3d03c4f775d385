"""Which preference pairs a tree makes certain, and which of them are kept.  Pure.

A query with a smaller revision distance is preferred (ReLoc, arXiv 2508.07434). *Emerge* pairs join nodes that are next
to each other in the tree: `relation` says what the rejected node is to the chosen one (its parent, its child, its
sibling). *Baseline* pairs take the deepest correct against the shallowest incorrect ones.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from common.files import InputError
from common.preference import PreferencePair, user_prompt
from tree.sql.canonical import canonical_sql
from tree.sql.results import FRAGILE
from tree.tree_node import RevisionTree, TreeNode, explored_levels, revision_distances

RELATIONS = ("parent", "child", "sibling", "baseline")
STRATEGIES = ("emerge", "baseline")
# for which pairs are dropped, in this order
REASONS = {
    "fragile": "rests on a query that is right only by coincidence",
    "disagreeing": "one of its queries is right and wrong in the tree, or each of the two is better than the other",
    "repeated": "the same two queries as another pair of the question",
    "over the cap": "the question has enough, harder ones",
}


@dataclass(frozen=True)
class PairSettings:
    """How pairs are made from a tree.

    A correct chosen query must have the verdict `match` ("ex" or "strict"). `keep_fragile` trusts correct queries that
    are right only by coincidence. A tree gives at most `max_pairs`, `max_per_relation` of each relation (0 = no bound).
    Raises InputError for a bound below 0.
    """

    strategy: str = "emerge"
    match: str = "strict"
    keep_fragile: bool = False
    max_pairs: int = 16
    max_per_relation: int = 8

    def __post_init__(self):
        for name in ("max_pairs", "max_per_relation"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} {getattr(self, name)}: must not be negative")


@dataclass(frozen=True)
class Extraction:
    """The pairs of a tree, and how many were dropped for each of REASONS."""

    pairs: list[PreferencePair]
    dropped: Counter[str]


# --- which pairs are certain ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TreeDistances:
    """Of each node of a tree, by id: its revision distance, and for how many revisions all that follows was tried.

    `shown`: the requests for revisions showed what was wrong, so distances of wrong queries mean something.
    """

    revisions: Mapping[str, int | None]
    explored: Mapping[str, float]
    shown: bool


def tree_distances(tree: RevisionTree, distrusted: frozenset[str] = frozenset()) -> TreeDistances:
    """The distances in a tree when its correct nodes that are `distrusted` (by id) count as wrong."""
    nodes = {
        node_id: replace(node, is_correct=node.is_correct and node_id not in distrusted)
        for node_id, node in tree.nodes.items()
    }
    return TreeDistances(revision_distances(nodes), explored_levels(nodes), tree.conditioned)


def prefers(chosen: TreeNode, rejected: TreeNode, distances: TreeDistances, match: str) -> bool:
    """Whether the tree makes it certain that `chosen` is the better query.

    A smaller distance wins. A number wins over None when that many revisions were tried from `rejected`, in vain: with
    fewer (depth or budget ended, a prompt too long) it might be as near. None against None is open.
    When the requests for revisions did not show what was wrong, the distances of wrong queries are luck, and only a
    correct query is preferred.
    A correct query counts as chosen only when `match` ("ex" or "strict") holds. Queries equal in canonical form and
    replies without a query make no pair: a reward model chooses among different queries.
    """
    better, worse = distances.revisions[chosen.node_id], distances.revisions[rejected.node_id]
    if better is None or (better > 0 and not distances.shown):
        return False
    if worse is None and better > distances.explored[rejected.node_id]:
        return False
    if worse is not None and better >= worse:
        return False
    if better == 0 and match == "strict" and not chosen.strict_match:
        return False
    one, other = canonical_sql(chosen.generated_sql), canonical_sql(rejected.generated_sql)
    return bool(one and other) and one != other


PossiblePairs = Iterator[tuple[TreeNode, TreeNode, str]]  # to be chosen, to be rejected, relation of that to the chosen


def _neighbours(nodes: Sequence[TreeNode]) -> PossiblePairs:
    """Nodes next to each other in the tree, both ways round."""
    by_id = {node.node_id: node for node in nodes}
    for node in nodes:
        if parent := by_id.get(node.parent_id):
            yield node, parent, "parent"
            yield parent, node, "child"
    by_parent = sorted(nodes, key=lambda node: node.parent_id)
    for _, siblings in itertools.groupby(by_parent, key=lambda node: node.parent_id):
        for one, other in itertools.permutations(siblings, 2):
            yield one, other, "sibling"


def _deepest_and_shallowest(nodes: Sequence[TreeNode]) -> PossiblePairs:
    """The deepest correct nodes against the shallowest incorrect ones."""
    correct = [node for node in nodes if node.is_correct]
    wrong = [node for node in nodes if not node.is_correct]
    deepest = max((node.d for node in correct), default=0)
    shallowest = min((node.d for node in wrong), default=0)
    for chosen, rejected in itertools.product(correct, wrong):
        if chosen.d == deepest and rejected.d == shallowest:
            yield chosen, rejected, "baseline"


def fragile_nodes(tree: RevisionTree) -> frozenset[str]:
    """Ids of the correct nodes that are right only by coincidence."""
    return frozenset(node.node_id for node in tree.nodes.values() if node.is_correct and FRAGILE in node.flags)


def certain_pairs(
    tree: RevisionTree, strategy: str, match: str, distrusted: frozenset[str] = frozenset()
) -> list[PreferencePair]:
    """Every pair that the tree makes certain, whatever the order of its nodes.

    Correct nodes that are `distrusted` (by id) make no pair, and reaching one counts for nothing.
    """
    distances = tree_distances(tree, distrusted)
    trusted = (node for node in tree.nodes.values() if node.node_id not in distrusted)
    nodes = sorted(trusted, key=lambda node: (node.d, node.j))
    possible = _neighbours(nodes) if strategy == "emerge" else _deepest_and_shallowest(nodes)
    return [
        pair_of(tree, chosen, rejected, distances, relation)
        for chosen, rejected, relation in possible
        if prefers(chosen, rejected, distances, match)
    ]


def pair_of(
    tree: RevisionTree, chosen: TreeNode, rejected: TreeNode, distances: TreeDistances, relation: str
) -> PreferencePair:
    """Two nodes of a tree as a pair, certain or not."""
    question = tree.question
    return PreferencePair(
        prompt=user_prompt(tree.prompt),
        chosen=chosen.generated_sql,
        rejected=rejected.generated_sql,
        question_id=question.question_id,
        db_id=question.db_id,
        chosen_node=chosen.node_id,
        rejected_node=rejected.node_id,
        chosen_dist=distances.revisions[chosen.node_id],
        rejected_dist=distances.revisions[rejected.node_id],
        relation=relation,
        tree_id=f"{question.db_id}/{question.question_id}",
        rejected_outcome=rejected.outcome,
        difficulty=question.difficulty,
        chosen_result=tree.result(chosen),
        rejected_result=tree.result(rejected),
    )


# --- which of them are kept -----------------------------------------------------------------------------------------


def extract_pairs(tree: RevisionTree, settings: PairSettings) -> Extraction:
    """The preference pairs of a tree, each pair of queries once."""
    fragile = frozenset() if settings.keep_fragile else fragile_nodes(tree)
    certain = certain_pairs(tree, settings.strategy, settings.match, fragile)
    agreeing = _agreeing(certain, tree)
    first: dict[tuple[str, str], PreferencePair] = {}
    for pair in agreeing:
        first.setdefault(canonical_queries(pair), pair)
    repeats = Counter(canonical_sql(node.generated_sql) for node in tree.nodes.values())
    kept = within_caps(list(first.values()), repeats, settings.max_pairs, settings.max_per_relation)
    dropped = {
        "fragile": _certain_by_coincidence(certain, tree, settings) if fragile else 0,
        "disagreeing": len(certain) - len(agreeing),
        "repeated": len(agreeing) - len(first),
        "over the cap": len(first) - len(kept),
    }
    return Extraction(kept, Counter(dropped))


def canonical_queries(pair: PreferencePair) -> tuple[str, str]:
    """Canonical form of the chosen and of the rejected query."""
    return canonical_sql(pair.chosen), canonical_sql(pair.rejected)


def _certain_by_coincidence(certain: Sequence[PreferencePair], tree: RevisionTree, settings: PairSettings) -> int:
    """How many pairs there would be besides the `certain` ones if fragile nodes were trusted."""
    known = {pair.nodes for pair in certain}
    return sum(pair.nodes not in known for pair in certain_pairs(tree, settings.strategy, settings.match))


def _agreeing(pairs: Sequence[PreferencePair], tree: RevisionTree) -> list[PreferencePair]:
    """The pairs about which the tree does not contradict itself.

    It does when the same query (in canonical form) is in the tree as correct and as wrong, or when the tree prefers
    each of two queries to the other.
    """
    verdicts: dict[str, set[bool]] = {}
    for node in tree.nodes.values():
        verdicts.setdefault(canonical_sql(node.generated_sql), set()).add(node.is_correct)
    preferred = set(map(canonical_queries, pairs))

    def agrees(pair: PreferencePair) -> bool:
        chosen, rejected = canonical_queries(pair)
        return (rejected, chosen) not in preferred and len(verdicts[chosen]) == len(verdicts[rejected]) == 1

    return list(filter(agrees, pairs))


def hardness(outcome: str, similarity: float, repeats: int) -> float:
    """How much there is to learn from a rejected query, from 0 to 3: what a good one is easily taken for.

    First of all it runs (2 when it returns rows, 1 when it returns none, 0 otherwise). Then, in equal parts, it is like
    the chosen query (`similarity`, from 0 to 1) and the model believes in it (`repeats` of it in the tree, at least 1).
    """
    return {"ok": 2, "empty": 1}.get(outcome, 0) + (similarity + 1 - 1 / repeats) / 2


def within_caps(
    pairs: list[PreferencePair], repeats: Counter[str], max_pairs: int, max_per_relation: int
) -> list[PreferencePair]:
    """At most `max_pairs`, and `max_per_relation` of each relation (0 = no bound), in the order given.

    Taken in rounds, the hardest first: a rejected query comes again only when every other one has had its turn.
    `repeats` counts the nodes with each query (in canonical form).
    """
    kept: set[tuple[str, str]] = set()
    of_relation: Counter[str] = Counter()
    for pair in _in_rounds(_hardest_first(pairs, repeats)):
        full = 0 < max_pairs <= len(kept) or 0 < max_per_relation <= of_relation[pair.relation]
        if not full:
            kept.add(pair.nodes)
            of_relation[pair.relation] += 1
    return [pair for pair in pairs if pair.nodes in kept]


def _hardest_first(pairs: Sequence[PreferencePair], repeats: Counter[str]) -> list[PreferencePair]:
    from rapidfuzz.fuzz import ratio

    def key(pair: PreferencePair) -> float:
        chosen, rejected = canonical_queries(pair)
        return -hardness(pair.rejected_outcome, ratio(chosen, rejected) / 100, repeats[rejected])

    return sorted(pairs, key=key)


def _in_rounds(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """The first pair of each rejected query, then the second of each, and so on."""
    turns: Counter[str] = Counter()
    numbered = []
    for pair in pairs:
        rejected = canonical_sql(pair.rejected)
        numbered.append((turns[rejected], pair))
        turns[rejected] += 1
    return [pair for _, pair in sorted(numbered, key=lambda item: item[0])]


# --- flags ----------------------------------------------------------------------------------------------------------


def add_pair_flags(add: Callable) -> None:
    """The flags of PairSettings but for the strategy, by a parser's `add_argument`."""
    add("--match", choices=("strict", "ex"), default="strict", help="verdict that a correct chosen query must have")
    add("--keep_fragile", action="store_true", help="trust correct queries that are right only by coincidence")
    add("--max_pairs", type=int, default=16, help="pairs of a question at most, the hardest are kept (0 = no bound)")
    add("--max_per_relation", type=int, default=8, help="and of each relation at most (0 = no bound)")
