"""What revisions give, against fresh attempts at the same places.  Pure."""

from dataclasses import dataclass

from tree.tree_node import INITIAL, RevisionTree


@dataclass(frozen=True)
class Yield:
    """Of some queries (or the expected values for them): how many, how many right, and the tokens they took."""

    queries: float = 0.0
    right: float = 0.0
    tokens: float = 0.0

    def __add__(self, other: "Yield") -> "Yield":
        return Yield(self.queries + other.queries, self.right + other.right, self.tokens + other.tokens)

    def __str__(self) -> str:
        if not self.queries or not self.tokens:
            return "none"
        return (
            f"{self.right:.0f} of {self.queries:.0f} right ({self.right / self.queries:.1%}), "
            f"{1000 * self.right / self.tokens:.2f} right per 1,000 tokens"
        )


def yields(tree: RevisionTree) -> tuple[Yield, Yield]:
    """(revisions of first attempts, fresh attempts in their place) of one tree.

    The second is what as many further first attempts would give: for each revision, the mean over the tree's first
    attempts without the one that it revises, because leaving that out keeps the choice of wrong ones out of the
    estimate. Later revisions are not counted: within a budget they happen where most first attempts were right. A tree
    with a single first attempt says nothing about fresh ones.
    """
    revisions = fresh = Yield()
    roots = [node for node in tree.nodes.values() if node.parent_id == INITIAL]
    for node in tree.nodes.values():
        if node.d != 2 or node.tokens is None:
            continue
        revisions += Yield(1, node.is_correct, node.tokens)
        others = [root for root in roots if root.node_id != node.parent_id]
        if others:
            count = len(others)
            fresh += Yield(
                1,
                sum(root.is_correct for root in others) / count,
                sum(root.tokens for root in others) / count,
            )
    return revisions, fresh
