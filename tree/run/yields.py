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

    The second is what as many further first attempts would give: for each revision, the mean over the first attempts
    that come after the one that it revises. Whether that is revised depends on itself and on those before it (it is
    wrong, repeats none of them, and the budget reaches so far), so those after it are a fair sample; revisions of the
    last one have nothing beside them and are not counted. Nor are later revisions: within a budget they happen where
    most first attempts were right.
    Not fair for trees grown with `stop_after`, which looks at all first attempts before any is revised, nor with
    `redraws`, which draws wrong ones again.
    """
    revisions = fresh = Yield()
    roots = sorted((node for node in tree.nodes.values() if node.parent_id == INITIAL), key=lambda node: node.j)
    for node in tree.nodes.values():
        if node.d != 2 or node.tokens is None:
            continue
        others = roots[tree.nodes[node.parent_id].j + 1 :]
        if others:
            count = len(others)
            revisions += Yield(1, node.is_correct, node.tokens)
            fresh += Yield(
                1,
                sum(root.is_correct for root in others) / count,
                sum(root.tokens for root in others) / count,
            )
    return revisions, fresh
