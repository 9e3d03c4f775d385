"""How many shards on how many GPUs: makespan and efficiency of growing trees for all of BIRD train, by simulation.

    python -m bench.scale_simulation                                        # BIRD in data/train, else the bundled demo
    python -m bench.scale_simulation --data train_full.json
    python -m bench.scale_simulation --data train_full.json --slower 10     # a larger model, or longer replies

Nothing is generated. Each question gets a tree whose size and reply lengths are drawn from measured figures; an engine
is simulated event by event (replies at the same time share its throughput, revisions wait for their parents and for
SQL, the last trees of a shard run at small batches), and so is a queue of shards on GPUs. Only the questions file is
read; ids are not needed. The flags are the figures, with their source: "measured" is in docs/RESULTS.md, "assumed"
stands where nothing was measured on a GPU.

static     whole databases, one shard per GPU
k          `tree.questions.shards` with k shards per GPU, taken from a queue; every shard starts an engine
k, kept    the same with one engine per GPU that takes shard after shard (which the workers do not)
default    k as `tree.questions.shard_count` sets it for a cluster

Three clusters: all GPUs equal; every fourth half as fast (`uneven`); the second of every eight gone in the middle of
the work, its shard continued from the journal by the next that is free (`lost`).

Efficiency is the time of one engine for everything, without its start, over GPUs x makespan, where a slow GPU counts as
a half and a lost one as the time it had; medians over the seeds.
"""

import argparse
import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from random import Random
from statistics import mean, median

from common.files import InputError, run_script
from common.rows import read_rows
from tree.questions import by_database, estimated_cost, shard_count, shards
from tree.tree_node import Question

CLUSTERS = ("equal", "uneven", "lost")
GPUS = (1, 2, 4, 8, 16, 32, 64)
PER_GPU = (1, 2, 4, 8, 16)
ROOTS, SAMPLES, DEPTH, NODES = 8, 2, 3, 24  # the default tree of tree/run_parallel.sh
SEQUENCES = 256  # replies written at the same time, tree.generator.GPU_SEQUENCES
IN_FLIGHT = 2 * SEQUENCES // max(ROOTS, SAMPLES)  # questions at the same time, as tree.run_pipeline has them


# --- the cost of a tree ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What trees and engines are made of; the help of the flags says what each figure is, and where it comes from."""

    pass_at_1: float = 0.38
    pass_at_4: float = 0.60
    alike: float = 0.1
    repeated: float = 0.2
    reply_tokens: float = 60
    spread: float = 0.5
    start: float = 60
    one_rate: float = 183
    full_rate: float = 12_000
    read_rate: float = 50_000
    schema_tokens: float = 900
    question_tokens: float = 200
    sql_seconds: float = 0.05
    slow_queries: float = 0.002
    sql_timeout: float = 30

    def slower(self, divisor: float) -> "Figures":
        """With the engine's rates divided."""
        rates = {name: getattr(self, name) / divisor for name in ("one_rate", "full_rate", "read_rate")}
        return replace(self, **rates)


@dataclass
class SimulatedRequest:
    """`n` replies to one prompt: their length in tokens, seconds of SQL after them, and what is asked for next."""

    n: int
    tokens: float
    sql: float
    children: list["SimulatedRequest"]


@dataclass(frozen=True)
class Tree:
    """The first request of a question, how many requests there are, and whose schema its prompt begins with."""

    db_id: str
    first: SimulatedRequest
    requests: int


def beta_shape(at_1: float, at_4: float) -> tuple[float, float]:
    """The Beta distribution of a question's share of right replies that has these pass@1 and pass@4.

    Raises InputError when there is none: pass@4 must lie between pass@1 and 1 - (1 - pass@1)^4.
    """
    if not 0 < at_1 < at_4 < 1 - (1 - at_1) ** 4:
        raise InputError(f"--pass_at_1 {at_1} --pass_at_4 {at_4}: no questions have these shares of right replies")

    def found(total: float) -> float:
        return 1 - math.prod(((1 - at_1) * total + i) / (total + i) for i in range(4))

    low, high = 1e-6, 1e6  # a + b; pass@4 grows with it
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if found(middle) < at_4 else (low, middle)
    return at_1 * low, (1 - at_1) * low


def shares_right(questions: Sequence[Question], figures: Figures, random: Random) -> list[float]:
    """How often a reply to each question is right: Beta distributed, alike within a database (Gaussian copula)."""
    a, b = beta_shape(figures.pass_at_1, figures.pass_at_4)
    shared = {db_id: random.gauss() for db_id in sorted({question.db_id for question in questions})}
    alike = figures.alike
    ranks = [math.sqrt(alike) * shared[q.db_id] + math.sqrt(1 - alike) * random.gauss() for q in questions]
    drawn = sorted(random.betavariate(a, b) for _ in questions)
    found = [0.0] * len(drawn)
    for share, place in zip(drawn, sorted(range(len(ranks)), key=ranks.__getitem__), strict=True):
        found[place] = share
    return found


def draw_tree(question: Question, right: float, tokens: float, figures: Figures, random: Random) -> Tree:
    """A tree in which each reply is right with probability `right`, its replies about `tokens` long."""
    sigma = figures.spread

    def request(n: int) -> SimulatedRequest:
        length = max(1.0, tokens * math.exp(random.gauss(-sigma * sigma / 2, sigma)))
        slow = any(random.random() < figures.slow_queries for _ in range(n))
        return SimulatedRequest(n, length, figures.sql_timeout if slow else figures.sql_seconds, [])

    first = request(ROOTS)
    level, nodes, requests = [first], ROOTS, 1
    for _ in range(DEPTH - 1):
        below = []
        for parent in level:
            for _ in range(parent.n):
                revised = random.random() >= right and random.random() >= figures.repeated
                if revised and nodes < NODES:
                    parent.children.append(request(min(SAMPLES, NODES - nodes)))
                    nodes += parent.children[-1].n
                    requests += 1
            below += parent.children
        level = below
    return Tree(question.db_id, first, requests)


def draw_trees(questions: Sequence[Question], figures: Figures, seed: int) -> dict[int, Tree]:
    """A tree for each question id; replies are as long as gold is, on average --reply_tokens."""
    random = Random(seed)
    scale = figures.reply_tokens / mean(len(question.sql) for question in questions)
    rights = shares_right(questions, figures, random)
    return {
        question.question_id: draw_tree(question, right, scale * len(question.sql), figures, random)
        for question, right in zip(questions, rights, strict=True)
    }


# --- one engine -----------------------------------------------------------------------------------------------------


class Engine:
    """A simulated engine that grows trees; `now` is its clock in seconds.

    With b replies at a time each gets r / (1 + (b - 1) / h) tokens per second, where r is the rate of a single reply
    and r h that of a full batch: processor sharing. The form fits what was measured on a CPU (38, 133, 212 tokens/s
    at 1, 8, 32 replies) within 13 %. Reading a prompt stops everything else.
    """

    def __init__(self, figures: Figures):
        self.figures = figures
        self.half = figures.full_rate / figures.one_rate
        self.now = 0.0
        self.given = 0.0  # tokens that every reply in progress has been given since the start
        self.active = 0
        self.writing: list[tuple[float, int, SimulatedRequest, Tree]] = []  # by the amount given at which it ends
        self.in_sql: list[tuple[float, int, SimulatedRequest, Tree]] = []  # by the time at which it ends
        self.waiting: deque[tuple[SimulatedRequest, Tree]] = deque()
        self.number = 0  # keeps the heaps from comparing requests

    def _rate(self) -> float:
        return self.figures.one_rate / (1 + (self.active - 1) / self.half)

    def _ask(self, request: SimulatedRequest, tree: Tree) -> None:
        self.waiting.append((request, tree))
        self._write_waiting()

    def _write_waiting(self) -> None:
        """Begin with the requests that there is room for, first come, first served."""
        while self.waiting and self.active + self.waiting[0][0].n <= SEQUENCES:
            request, tree = self.waiting.popleft()
            self.active += request.n
            self.number += 1
            heapq.heappush(self.writing, (self.given + request.tokens, self.number, request, tree))

    def _step(self) -> Tree | None:
        """Go on to the next event; the tree that a request of which ended, SQL included, if one did."""
        written = self.now + (self.writing[0][0] - self.given) / self._rate() if self.writing else math.inf
        if self.in_sql and self.in_sql[0][0] <= written:
            time, _, request, tree = heapq.heappop(self.in_sql)
            if self.writing:
                self.given += max(0.0, time - self.now) * self._rate()
            self.now = max(self.now, time)
            for child in request.children:
                self._ask(child, tree)
            return tree
        self.given, self.now = self.writing[0][0], written
        _, number, request, tree = heapq.heappop(self.writing)
        self.active -= request.n
        heapq.heappush(self.in_sql, (self.now + request.sql, number, request, tree))
        self._write_waiting()
        return None

    def grow(self, trees: Sequence[Tree]) -> float:
        """Seconds until all trees are done."""
        start, read, left = self.now, set(), {}
        queue = iter(trees)

        def begin() -> None:
            tree = next(queue, None)
            if tree:
                new = self.figures.question_tokens + (tree.db_id not in read) * self.figures.schema_tokens
                self.now += new / self.figures.read_rate
                read.add(tree.db_id)
                left[id(tree)] = tree.requests
                self._ask(tree.first, tree)

        for _ in range(IN_FLIGHT):
            begin()
        while left:
            if tree := self._step():
                left[id(tree)] -= 1
                if not left[id(tree)]:
                    del left[id(tree)]
                    begin()
        return self.now - start


# --- many GPUs ------------------------------------------------------------------------------------------------------


def whole_databases(questions: Sequence[Question], number: int) -> list[list[Question]]:
    """`number` shards of whole databases of about equal estimated cost, largest first to the lightest."""
    groups = [list(group) for _, group in groupby(by_database(questions), key=lambda question: question.db_id)]
    parts: list[list[Question]] = [[] for _ in range(number)]
    loads = [0] * number
    for group in sorted(groups, key=lambda group: -sum(map(estimated_cost, group))):
        lightest = loads.index(min(loads))
        parts[lightest] += group
        loads[lightest] += sum(map(estimated_cost, group))
    return parts


@dataclass(frozen=True)
class Gpu:
    """How fast a GPU is, 1 being what the figures say, and when it is gone, in seconds."""

    speed: float = 1.0
    gone: float = math.inf


def cluster(name: str, gpus: int, middle: float) -> list[Gpu]:
    """The GPUs of a cluster; `middle` is when some are gone if it is "lost"."""
    if name == "uneven":
        return [Gpu(speed=0.5 if number % 4 == 3 else 1) for number in range(gpus)]
    if name == "lost":
        return [Gpu(gone=middle if number % 8 == 1 else math.inf) for number in range(gpus)]
    return [Gpu()] * gpus


def makespan(durations: Sequence[float], gpus: Sequence[Gpu], start: float, kept: bool = False) -> float:
    """When the last of the shards is done that GPUs take from a queue; an engine needs `start` seconds."""
    free = [(0.0, -gpu.speed, number) for number, gpu in enumerate(gpus)]  # the fast ones first
    heapq.heapify(free)
    ready = dict.fromkeys(range(len(gpus)), False)
    queue = [(0.0, number, duration) for number, duration in enumerate(durations)]  # by when it can be taken
    end = 0.0
    while queue:
        known, shard, duration = heapq.heappop(queue)
        now, _, number = heapq.heappop(free)
        now, gpu = max(now, known), gpus[number]
        if now >= gpu.gone:
            heapq.heappush(queue, (known, shard, duration))
            continue
        begun = now + (0 if ready[number] else start)
        ready[number] = kept
        done = begun + duration / gpu.speed
        if done > gpu.gone:
            left = duration - max(0.0, gpu.gone - begun) * gpu.speed
            heapq.heappush(queue, (gpu.gone, -1, left))
            continue
        end = max(end, done)
        heapq.heappush(free, (done, -gpu.speed, number))
    return end


def capacity(gpus: Sequence[Gpu], seconds: float) -> float:
    """What the GPUs could do in that time, in seconds of one engine."""
    return sum(gpu.speed * min(seconds, gpu.gone) for gpu in gpus)


@dataclass(frozen=True)
class Outcome:
    seconds: float
    efficiency: float


def simulate(questions: Sequence[Question], figures: Figures, seed: int) -> dict[tuple, Outcome]:
    """What comes of each cluster, number of GPUs and policy; and of one engine without its start, as ("work",)."""
    trees = draw_trees(questions, figures, seed)

    def durations(parts: Sequence[Sequence[Question]]) -> list[float]:
        return [Engine(figures).grow([trees[q.question_id] for q in part]) for part in parts if part]

    counts = sorted({gpus * per_gpu for gpus in GPUS for per_gpu in PER_GPU})
    by_count = {count: durations(shards(questions, count)) for count in counts}
    [work] = by_count[1]
    found = {("work",): Outcome(work, 1)}
    for number in GPUS:
        default = shard_count(len(questions), number)
        policies = {"static": durations(whole_databases(questions, number)), "default": by_count[default]}
        policies |= {f"{k}": by_count[number * k] for k in PER_GPU}
        for name in CLUSTERS:
            gpus = cluster(name, number, figures.start + work / number / 2)
            for policy, of_shards in policies.items():
                for kept in (False, True) if policy.isdigit() else (False,):
                    seconds = makespan(of_shards, gpus, figures.start, kept)
                    key = (name, number, policy + ", kept" * kept)
                    found[key] = Outcome(seconds, work / capacity(gpus, seconds))
    return found


# --- the report -----------------------------------------------------------------------------------------------------


TREES = {
    "pass_at_1": "share of right replies (measured: 1.5B on BIRD)",
    "pass_at_4": "questions with a right one among 4 (measured: 0.66 with Spider)",
    "alike": "correlation of questions of a database, 0 to 1 (assumed)",
    "repeated": "share of wrong replies not revised (measured: 0.07 to 0.3)",
    "reply_tokens": "mean reply in tokens (measured: 51 to 66, 1.5B)",
    "spread": "of a reply's length: standard deviation of its logarithm (assumed)",
}
ENGINE = {
    "start": "seconds until a worker writes (measured: 25 to 77 s on a CPU)",
    "one_rate": "tokens/s of a single reply (Qwen's docs: 1.5B, vLLM, A100)",
    "full_rate": "tokens/s of a batch without end (assumed)",
    "read_rate": "prompt tokens/s (assumed)",
    "schema_tokens": "of a database, read once per engine (measured: 850 to 990)",
    "question_tokens": "of a question, not in the prefix cache (assumed)",
    "sql_seconds": "until the queries of a request are judged (assumed)",
    "slow_queries": "share that run into the time limit (assumed)",
    "sql_timeout": "the time limit in seconds",
}


def parse_arguments(words: list[str] | None = None) -> tuple[str, int, Figures]:
    """The question file, how often trees are drawn, and what they and engines are made of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = "data/train" if Path("data/train/train.json").is_file() else "data/demo"
    add = parser.add_argument
    add("--data", default=f"{home}/train.json", help="question file")
    add("--seeds", type=int, default=5, help="how often trees are drawn")
    add("--slower", type=float, default=1.0, help="what divides the engine's rates: larger models, slower GPUs")
    for title, figures in (("trees", TREES), ("engine", ENGINE)):
        add = parser.add_argument_group(title).add_argument
        for name, text in figures.items():
            add(f"--{name}", type=float, default=getattr(Figures, name), help=text)
    args = parser.parse_args(words)
    figures = Figures(**{name: getattr(args, name) for name in (*TREES, *ENGINE)})
    return args.data, args.seeds, figures.slower(args.slower)


def load(path: str) -> list[Question]:
    rows = read_rows(path, {"db_id": str, "question": str, "SQL": str}, "name a question file with --data")
    return [
        Question(number, row["db_id"], row["question"], row.get("evidence") or "", row["SQL"])
        for number, row in enumerate(rows)
    ]


def print_tables(runs: Sequence[dict[tuple, Outcome]]) -> None:
    policies = list(dict.fromkeys(key[2] for key in runs[0] if len(key) == 3))
    for name in CLUSTERS:
        print(f"\n{name}: makespan in seconds (efficiency)")
        print(f"| GPUs | {' | '.join(policies)} |\n|{'---|' * (len(policies) + 1)}")
        for number in GPUS:
            cells = [
                f"{middle(runs, name, number, policy, 'seconds'):.0f} "
                f"({middle(runs, name, number, policy, 'efficiency'):.2f})"
                for policy in policies
            ]
            print(f"| {number} | {' | '.join(cells)} |")


def middle(runs: Sequence[dict[tuple, Outcome]], name: str, gpus: int, policy: str, what: str) -> float:
    return median(getattr(run[name, gpus, policy], what) for run in runs)


def main(words: list[str] | None = None) -> None:
    data, seeds, figures = parse_arguments(words)
    questions = load(data)
    runs = [simulate(questions, figures, seed) for seed in range(seeds)]
    work = median(run["work",].seconds for run in runs)
    databases = len({question.db_id for question in questions})
    print(f"{data}: {len(questions)} questions on {databases} databases")
    print(f"one engine needs {work:.0f} s, and {figures.start:.0f} s to start")
    print_tables(runs)
    ratio = middle(runs, "equal", 64, "static", "seconds") / middle(runs, "equal", 64, "default", "seconds")
    print(f"\nPROMISE scale_efficiency_8_gpus {middle(runs, 'equal', 8, 'default', 'efficiency'):.2f} GOAL >= 0.80")
    print(f"PROMISE scale_static_over_default_64_gpus {ratio:.2f} GOAL >= 1.00")


if __name__ == "__main__":
    run_script(main)
