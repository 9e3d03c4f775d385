"""Revision trees as data: nodes, trees, revision distance, to and from JSON.

Pure: reading and checking files is in `tree.tree_files`; nothing here runs SQL or a model.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

INITIAL = "node_initial"
# The original format writes 999 where no correct query was reached; here that is None (null in JSON).
UNREACHED_IN_OLD_FILES = 999
BARE_TASK = "again"  # of old files: in the place of a revision the task once more, so a distance is luck
OLD_REVISIONS = (BARE_TASK, "error", "quoted")


@dataclass(frozen=True)
class Question:
    """A BIRD question. `sql` is the gold query; `evidence` and `difficulty` may be empty."""

    question_id: int
    db_id: str
    question: str
    evidence: str
    sql: str
    difficulty: str = ""


@dataclass
class TreeNode:
    """One SQL query of a tree; the edge to `parent_id` is one revision (or a first attempt, from `node_initial`).

    `d` is the depth from 1, `j` counts within the depth from 0. `outcome` is one of `tree.sql.results.OUTCOMES`.
    `is_correct` is BIRD's execution accuracy, `strict_match` also wants the multiset and gold's order (None in files
    that do not say). `flags` are reasons to doubt the verdict, see `tree.sql.results.FLAGS`.
    `input_seq` is what the request for this node's revisions added to the prompt, "" when it was never revised.
    `tokens` is how many tokens writing it took, `logprob` the sum of the natural log-probabilities of its reply's
    tokens under the generator, given the request that asked for it; both None in files that do not say.
    `duplicate_of` is the first node of the tree with the same query.
    `revision_distance`: revisions to the nearest correct query (0 = correct), None when none was reached.
    """

    node_id: str
    parent_id: str
    d: int
    j: int
    generated_sql: str
    execution_feedback: str
    outcome: str
    is_correct: bool
    strict_match: bool | None = None
    flags: list[str] = field(default_factory=list)
    tokens: int | None = None
    logprob: float | None = None
    input_seq: str = ""
    duplicate_of: str | None = None
    children_ids: list[str] = field(default_factory=list)
    revision_distance: int | None = None

    @property
    def revised(self) -> bool:
        return bool(self.input_seq or self.children_ids)


@dataclass
class RevisionTree:
    """All attempts at one question: a forest whose roots are the first samples (children of `node_initial`).

    `prompt` is what the generator saw as the initial task; `feedback` ("own" or "oracle") and `revision` (one of
    `tree.prompts.REVISIONS`, in older files of OLD_REVISIONS) say how revisions were asked for. With "chat" the whole
    prompt of a revision is the task, then SQL and `input_seq` of each node on the path; else the task with the node's
    `input_seq` before its question, in older files below it.
    `shortened` says what was left out of the prompt's schema for it to fit its budget.
    """

    question: Question
    prompt: str
    feedback: str = "own"
    revision: str = "chat"
    nodes: dict[str, TreeNode] = field(default_factory=dict)
    shortened: list[str] = field(default_factory=list)

    @property
    def conditioned(self) -> bool:
        """Whether revisions were made from what they revise; of trees with bare attempts in their place it is false."""
        return self.revision != BARE_TASK

    def add(self, parent_id: str, **content) -> TreeNode:
        """Append a child to `parent_id` (INITIAL for a first attempt), numbered next in its depth; returns it."""
        parent = self.nodes.get(parent_id)
        d = parent.d + 1 if parent else 1
        j = sum(node.d == d for node in self.nodes.values())
        node = TreeNode(node_id=f"node_{d}_{j}", parent_id=parent_id, d=d, j=j, **content)
        self.nodes[node.node_id] = node
        if parent:
            parent.children_ids.append(node.node_id)
        return node

    def path(self, node: TreeNode) -> list[TreeNode]:
        """The nodes from a root down to `node`, both included."""
        up = [node]
        while up[-1].parent_id != INITIAL:
            up.append(self.nodes[up[-1].parent_id])
        return up[::-1]

    def result(self, node: TreeNode) -> str:
        """What executing a node's query said, "" in trees whose feedback shows gold's rows beside it."""
        return node.execution_feedback if self.feedback == "own" else ""

    @property
    def good(self) -> bool:
        return any(node.is_correct for node in self.nodes.values())

    @property
    def max_depth(self) -> int:
        return max((node.d for node in self.nodes.values()), default=0)


# A revision leads from a query to each of its children. A query that repeats an earlier one of its tree is not revised
# again: a step from it to its original takes no revision. The original may be its own ancestor, so there are cycles.


def revision_distances(nodes: Mapping[str, TreeNode]) -> dict[str, int | None]:
    """Node id -> revisions to the nearest correct query; 0 when correct itself, None when none is in reach.

    ReLoc's revision distance (arXiv 2508.07434) on a tree of queries.
    """
    steps = _revisions_to([node.node_id for node in nodes.values() if node.is_correct], nodes)
    return {node_id: steps.get(node_id) for node_id in nodes}


def explored_levels(nodes: Mapping[str, TreeNode]) -> dict[str, float]:
    """Node id -> for how many revisions all that follows from it was tried: those to the nearest query that is wrong
    and was never revised; infinite when there is none, because every path is a cycle or ends correct.
    """
    untried = [node.node_id for node in nodes.values() if not (node.is_correct or node.duplicate_of or node.revised)]
    steps = _revisions_to(untried, nodes)
    return {node_id: steps.get(node_id, math.inf) for node_id in nodes}


def _revisions_to(goals: Iterable[str], nodes: Mapping[str, TreeNode]) -> dict[str, int]:
    """Node id -> revisions to the nearest goal, for those that reach one; a breadth-first search from the goals up."""
    before: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)  # node id -> (from where, revisions)
    for node in nodes.values():
        for child in node.children_ids:
            before[child].append((node.node_id, 1))
        if node.duplicate_of:
            before[node.duplicate_of].append((node.node_id, 0))
    steps: dict[str, int] = {}
    waiting = deque((goal, 0) for goal in goals)
    while waiting:
        node_id, count = waiting.popleft()
        if node_id in steps:
            continue
        steps[node_id] = count
        for other, revisions in before[node_id]:
            place = waiting.append if revisions else waiting.appendleft
            place((other, count + revisions))
    return steps


def tree_to_json(tree: RevisionTree) -> dict:
    """The tree as one JSON object as docs/formats.md describes it, distances computed."""
    question, distances = tree.question, revision_distances(tree.nodes)
    return {
        "question_id": question.question_id,
        "db_id": question.db_id,
        "question": question.question,
        "evidence": question.evidence,
        **({"difficulty": question.difficulty} if question.difficulty else {}),
        "SQL": question.sql,
        "feedback": tree.feedback,
        "revision": tree.revision,
        "node_initial": {"input_seq": tree.prompt, "shortened": list(tree.shortened)},
        "nodes": {node_id: _node_to_json(node, distances[node_id]) for node_id, node in tree.nodes.items()},
        "max_depth": tree.max_depth,
        "tree_status": "good" if tree.good else "bad",
    }


def _node_to_json(node: TreeNode, distance: int | None) -> dict:
    return {
        "parent_id": node.parent_id,
        "d": node.d,
        "j": node.j,
        "children_num": len(node.children_ids),
        "children_ids": list(node.children_ids),
        "generated_sql": node.generated_sql,
        "execution_feedback": node.execution_feedback,
        "outcome": node.outcome,
        "is_correct": node.is_correct,
        "strict_match": node.strict_match,
        "flags": list(node.flags),
        "tokens": node.tokens,
        "logprob": node.logprob,
        "input_seq": node.input_seq,
        "revision_distance": distance,
        **({"duplicate_of": node.duplicate_of} if node.duplicate_of else {}),
    }


def tree_from_json(content: dict) -> RevisionTree:
    """The tree of one JSON object. Accepts `gold_sql` for `SQL` and 999 for an unreached distance.

    Where `children_ids` is missing, children are the nodes that name their parent. Stored distances are kept as they
    are (verification compares them). Raises ValueError naming what is missing.
    """
    try:
        question = Question(
            question_id=content["question_id"],
            db_id=content["db_id"],
            question=content["question"],
            evidence=content.get("evidence") or "",
            sql=content["SQL"] if "SQL" in content else content["gold_sql"],
            difficulty=content.get("difficulty") or "",
        )
        children: dict[str, list[str]] = {}
        for node_id, node in content["nodes"].items():
            children.setdefault(node["parent_id"], []).append(node_id)
        nodes = {
            node_id: _node_from_json(node_id, node, children.get(node_id, []))
            for node_id, node in content["nodes"].items()
        }
        initial = content.get("node_initial") or {}
        prompt, shortened = initial.get("input_seq", ""), list(initial.get("shortened", ()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a revision tree ({type(error).__name__}: {error})") from None
    feedback, revision = content.get("feedback", "own"), content.get("revision", "chat")
    return RevisionTree(question, prompt, feedback, revision, nodes, shortened)


def _node_from_json(node_id: str, node: dict, children: list[str]) -> TreeNode:
    distance = node.get("revision_distance")
    return TreeNode(
        node_id=node_id,
        parent_id=node["parent_id"],
        d=node["d"],
        j=node["j"],
        generated_sql=node["generated_sql"],
        execution_feedback=node.get("execution_feedback", ""),
        outcome=node.get("outcome", ""),
        is_correct=node["is_correct"],
        strict_match=node.get("strict_match"),
        flags=list(node.get("flags", ())),
        tokens=node.get("tokens"),
        logprob=node.get("logprob"),
        input_seq=node.get("input_seq", ""),
        duplicate_of=node.get("duplicate_of"),
        children_ids=list(node.get("children_ids", children)),
        revision_distance=None if distance == UNREACHED_IN_OLD_FILES else distance,
    )
