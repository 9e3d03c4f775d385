"""What revisions give, compared with independent samples in their place.  Pure."""

from dataclasses import dataclass

from tree.tree_node import INITIAL, RevisionTree


@dataclass(frozen=True)
class Tally:
    """Of some queries (or the expected values for them): how many, how many correct, and the tokens they took."""

    queries: float = 0.0
    correct: float = 0.0
    tokens: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.queries + other.queries, self.correct + other.correct, self.tokens + other.tokens)

    def __str__(self) -> str:
        if not self.queries or not self.tokens:
            return "none"
        return (
            f"{self.correct:.0f} of {self.queries:.0f} correct ({self.correct / self.queries:.1%}), "
            f"{1000 * self.correct / self.tokens:.2f} correct per 1,000 tokens"
        )


def revision_gain(tree: RevisionTree) -> tuple[Tally, Tally]:
    """(revisions of first attempts, independent samples in their place) of one tree.

    The second is what as many further first attempts would give: for each revision, the mean over the first attempts
    that come after the one that it revises. Whether that is revised depends on itself and on those before it (it is
    wrong, repeats none of them, and the budget reaches so far), so those after it are a fair sample; revisions of the
    last one have nothing beside them and are not counted. Nor are later revisions: within a budget they happen where
    most first attempts were correct.
    Not fair for trees grown with `stop_after`, which looks at all first attempts before any is revised, nor with
    `redraws`, which draws wrong ones again.
    """
    revisions = independent = Tally()
    roots = sorted((node for node in tree.nodes.values() if node.parent_id == INITIAL), key=lambda node: node.j)
    for node in tree.nodes.values():
        if node.d != 2 or node.tokens is None:
            continue
        if later := roots[tree.nodes[node.parent_id].j + 1 :]:
            correct = sum(root.is_correct for root in later) / len(later)
            tokens = sum(root.tokens for root in later) / len(later)
            revisions += Tally(1, node.is_correct, node.tokens)
            independent += Tally(1, correct, tokens)
    return revisions, independent
