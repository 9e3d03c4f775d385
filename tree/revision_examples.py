"""What a reviser learns from: wrong queries of a tree, each with the right one that is nearest to it.  Pure.

The request is the one that the pipeline makes for revisions of such a query. Wrong is what ex says, right what strict
says too and no perturbed instance doubts. Left out: replies without a query, queries that repeat others of the tree,
queries that it judges both ways, trees whose feedback shows gold's rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.preference import Prompt, user_prompt
from tree.generator import encode
from tree.pairs.extraction import fragile_nodes
from tree.prompts import Attempt, Message, revision_chat
from tree.replies import CLOSING
from tree.sql.canonical import canonical_sql, query_distance
from tree.tree_builder import worth
from tree.tree_node import RevisionTree, TreeNode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RevisionExample:
    """A request for a revision, `messages`, and the query `sql` that answers it.

    `prompt`, the initial task, `question` (its id) and `db_id` say where it is from.
    """

    prompt: Prompt
    question: int
    db_id: str
    messages: Sequence[Message]
    sql: str


def revision_examples(tree: RevisionTree, revision: str, most: int = 0) -> list[RevisionExample]:
    """The examples of a tree for a way of asking, one of REVISIONS; `most` of them at most (0 = no bound).

    Those are kept whose wrong query is worth most: it returns rows, or none, before it fails; the nearer to a right one
    the better.
    """
    right, wrong = _right_and_wrong(tree)
    if not right or tree.feedback != "own":
        return []
    wrong.sort(key=lambda node: worth(node, right))
    return [
        RevisionExample(
            prompt=user_prompt(tree.prompt),
            question=tree.question.question_id,
            db_id=tree.question.db_id,
            messages=revision_chat(revision, tree.prompt, [_attempt(step) for step in tree.path(node)]),
            sql=min(right, key=lambda sql: query_distance(sql, node.generated_sql)),
        )
        for node in (wrong[:most] if most else wrong)
    ]


def _right_and_wrong(tree: RevisionTree) -> tuple[list[str], list[TreeNode]]:
    """The right queries to learn, and the nodes of the wrong ones, each query (in canonical form) once."""
    fragile = fragile_nodes(tree)
    nodes = sorted(tree.nodes.values(), key=lambda node: (node.d, node.j))
    correct = _first_of_each(node for node in nodes if node.is_correct)
    wrong = _first_of_each(node for node in nodes if not node.is_correct and node.outcome != "no_sql")
    trusted = _first_of_each(
        node for node in nodes if node.is_correct and node.strict_match and node.node_id not in fragile
    )
    right = [node.generated_sql for key, node in trusted.items() if key not in wrong]
    return right, [node for key, node in wrong.items() if key not in correct]


def _first_of_each(nodes: Iterable[TreeNode]) -> dict[str, TreeNode]:
    """The first node with each query, by its canonical form."""
    first: dict[str, TreeNode] = {}
    for node in nodes:
        first.setdefault(canonical_sql(node.generated_sql), node)
    first.pop("", None)
    return first


def _attempt(node: TreeNode) -> Attempt:
    return Attempt(node.generated_sql, node.execution_feedback)


def tokenized(example: RevisionExample, tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Token ids of the request, up to the opening of the reply, and of the rest of the reply that answers it."""
    answer = tokenizer.encode(f"{example.sql}\n{CLOSING}", add_special_tokens=False)
    return encode(tokenizer, example.messages), [*answer, tokenizer.eos_token_id]
