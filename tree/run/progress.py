"""What a run is doing and where its time went: work in flight, live figures, the summary at the end."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tree.tree_node import RevisionTree

if TYPE_CHECKING:
    from tree.generator import Generator


class Gauge:
    """How much of something is in flight, and its history.

    `now` is the present amount, `busy` the seconds in which it was above 0, `area` the amount summed over time, so
    that `area / seconds` is its mean.
    """

    def __init__(self):
        self.now = 0
        self.busy = self.area = 0.0
        self._since = time.perf_counter()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """`amount` is in flight while the block runs."""
        self._step(amount)
        try:
            yield
        finally:
            self._step(-amount)

    def _step(self, amount: int) -> None:
        now = time.perf_counter()
        self.busy += (now - self._since) * (self.now > 0)
        self.area += (now - self._since) * self.now
        self._since = now
        self.now += amount


class Progress:
    """The bar of a run over `total` trees, and its sums; memory does not grow with the trees.

    `generator` is asked for its counts of tokens. Put what is in flight into `replies` and `queries`. Trees count that
    were `grown` before; times and the engine's counts are of this process.
    """

    def __init__(self, total: int, generator: "Generator", grown: Iterable[RevisionTree] = ()):
        from tqdm import tqdm

        self.generator = generator
        self.replies, self.queries = Gauge(), Gauge()
        self.counts: Counter = Counter()
        for tree in grown:
            self._count(tree)
        self.start = time.perf_counter()
        self._bar = tqdm(total=total, initial=self.counts["trees"], desc="trees", unit="tree")

    def _count(self, tree: RevisionTree) -> None:
        nodes = tree.nodes.values()
        self.counts.update(trees=1, good=int(tree.good), bad=int(not tree.good), nodes=len(nodes))
        self.counts.update(f"outcome {node.outcome}" for node in nodes)
        self.counts.update(
            correct_nodes=sum(node.is_correct for node in nodes),
            duplicates=sum(node.duplicate_of is not None for node in nodes),
        )

    def add(self, tree: RevisionTree) -> None:
        """Count a finished tree."""
        self._count(tree)
        rate = self.generator.counts()["output_tokens"] / (time.perf_counter() - self.start)
        self._bar.set_postfix_str(
            f"good {self.counts['good']}, bad {self.counts['bad']}, nodes {self.counts['nodes']}, {rate:.0f} tokens/s, "
            f"in flight: {self.replies.now} replies, {self.queries.now} queries",
            refresh=False,
        )
        self._bar.update()

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()

    def finish(self) -> dict:
        """The counts and shares of the whole run."""
        seconds = time.perf_counter() - self.start
        tokens = self.generator.counts()
        self.counts.update(tokens)
        return dict(self.counts) | {
            "seconds_growing": round(seconds, 1),
            "engine_busy": round(self.replies.busy / seconds, 3),
            "mean_replies_in_flight": round(self.replies.area / seconds, 1),
            "sql_busy": round(self.queries.busy / seconds, 3),
            "prefix_cache_hits": round(tokens["cached_prompt_tokens"] / max(1, tokens["prompt_tokens"]), 3),
        }

    @staticmethod
    def lines(figures: dict) -> list[str]:
        """The summary for people: where the time went."""
        return [
            f"time       {figures['seconds_growing']} s; the engine was busy {figures['engine_busy']:.0%} of it, with "
            f"{figures['mean_replies_in_flight']} replies at a time, SQL was running {figures['sql_busy']:.0%} of it",
            f"tokens     {figures['output_tokens']} written, {figures['prompt_tokens']} read, of which "
            f"{figures['prefix_cache_hits']:.0%} came from the prefix cache",
        ]
