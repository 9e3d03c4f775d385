"""The tree viewer: revision trees as one HTML page that opens in a browser without network, server or build step.

The page holds an index (a short row per question, read first) and the trees in blocks of BLOCK, each JSON, deflated,
in base64. Its script inflates a block when one of its trees is opened, and draws only what is seen. Nothing of the
data stands in the page as HTML, and a content security policy lets only the page's own script and style run.
"""

import base64
import hashlib
import json
import math
import os
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from common.files import InputError, read_json, replacing
from common.preference import PreferencePair
from common.rows import fit_row
from tree.tree_node import RevisionTree, tree_from_json

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("labels.js", "dom.js", "sql.js", "overview.js", "list.js", "tree.js", "node.js", "main.js")
BLOCK = 64  # trees that are inflated together: larger blocks are smaller in all, but slower to open

Key = tuple[str, str]  # database and id of a question


@dataclass(frozen=True)
class PageCounts:
    """What a page holds: trees, pairs of its trees, pairs that are of other trees, and nodes with a reward.

    `example` is the link, behind the page's name, to the smallest tree in which a revision came right ("" for none).
    """

    trees: int
    pairs: int
    foreign_pairs: int
    rewarded_nodes: int
    example: str


def write_viewer(
    path: str | os.PathLike,
    trees: Iterable[dict],
    findings: Iterable[dict],
    pairs: Iterable[PreferencePair] = (),
    rewards: Iterable[dict] | None = None,
    source: str = "",
) -> PageCounts:
    """Replace `path` with the viewer of `trees` (objects of all_trees.json), which are read once, one at a time.

    `findings`: {question_id, db_id, node ("" = the tree), what, stored, found, limit?}, as verification has them.
    `pairs`: those whose nodes or queries are not in these trees are counted, not shown.
    `rewards`: the `candidates` of evaluate.py's report, matched by question and query. `source` names the trees.
    Broken structures are drawn as far as they go. Raises ValueError for an object that is no tree, and for NaN in it.
    """
    from jinja2 import Environment, FileSystemLoader

    notes = Annotations(findings, pairs, rewards or ())
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True)
    with replacing(path) as file, tempfile.TemporaryFile("w+", encoding="ascii") as spool:
        index, example = _write_blocks(spool, trees, notes)
        spool.seek(0)
        stream = environment.get_template("page.html").generate(
            source=source.encode("utf-8", "backslashreplace").decode(),  # a file's name can be any bytes
            style=_own_text("page.css"),
            script=_own_text(*SCRIPTS),
            digest=_digest,
            index=_packed({"rows": index, "block": BLOCK, "adapters": notes.adapters}),
            blocks=(line.rstrip("\n") for line in spool),
        )
        for part in stream:
            file.write(part)
    pair_count = sum(row["pairs"] for row in index)
    return PageCounts(len(index), pair_count, notes.pair_count - pair_count, notes.rewarded_nodes, example)


# --- what is known about the trees from elsewhere ---------------------------------------------------------------------

FINDING_COLUMNS = ("node", "what", "stored", "found")
PAIR_COLUMNS = ("chosen_node", "rejected_node", "chosen_dist", "rejected_dist", "relation")
SCORE_FIRST = "score the trees first: python evaluate.py --candidates all_trees.json"


def read_rewards(path: str | os.PathLike) -> list[dict]:
    """The candidates of evaluate.py's report, for `write_viewer`. Raises InputError naming the row."""
    rows = read_json(path, dict, SCORE_FIRST).get("candidates")
    if not isinstance(rows, list):
        raise InputError(f"{path}: no list of 'candidates' in it; {SCORE_FIRST}")
    for number, row in enumerate(rows):
        fit_row(path, number, row, {"question_id": int, "db_id": str, "candidates": list})
        for one in row["candidates"]:
            fit_row(path, number, one, {"SQL": str, "rewards": dict})
    return rows


class Annotations:
    """Findings, pairs and rewards by question; counts the pairs given and the nodes that were found to have rewards."""

    def __init__(self, findings: Iterable[dict], pairs: Iterable[PreferencePair], rewards: Iterable[dict]):
        self._findings: dict[Key, list[dict]] = defaultdict(list)
        self._pairs: dict[Key, list[tuple[dict, int]]] = defaultdict(list)
        self._rewards: dict[Key, dict[str, dict[str, float]]] = {}
        self.pair_count = self.rewarded_nodes = 0
        for finding in findings:
            shown = {name: finding.get(name) for name in FINDING_COLUMNS}
            self._findings[_key(finding)].append({**shown, "limit": bool(finding.get("limit"))})
        for pair in pairs:
            shown = {name: getattr(pair, name) for name in PAIR_COLUMNS}
            queries = hash((pair.chosen, pair.rejected))  # smaller than the texts
            self._pairs[pair.db_id, str(pair.question_id)].append((shown, queries))
            self.pair_count += 1
        for row in rewards:
            self._rewards[_key(row)] = {one["SQL"]: one["rewards"] for one in row["candidates"] if one["rewards"]}
        by_query = (rewards for queries in self._rewards.values() for rewards in queries.values())
        self.adapters = list(dict.fromkeys(name for rewards in by_query for name in rewards))

    def of(self, tree: RevisionTree) -> dict:
        """The findings of a tree, the pairs that were made of it, and the rewards of its queries."""
        key = str(tree.question.db_id), str(tree.question.question_id)
        pairs = [pair for pair, queries in self._pairs.get(key, ()) if _is_of(pair, queries, tree)]
        rewards = self._rewards.get(key, {})
        rewarded = {  # node -> rewards in the order of the adapters
            node.node_id: [rewards[node.generated_sql].get(name) for name in self.adapters]
            for node in tree.nodes.values()
            if node.generated_sql in rewards
        }
        self.rewarded_nodes += len(rewarded)
        return {"findings": self._findings.get(key, []), "pairs": pairs, "rewards": rewarded}


def _key(row: dict) -> Key:
    return str(row["db_id"]), str(row["question_id"])


def _is_of(pair: dict, queries: int, tree: RevisionTree) -> bool:
    """Whether both nodes of a pair are in a tree and have its queries, given by hash."""
    chosen, rejected = (tree.nodes.get(pair[name]) for name in ("chosen_node", "rejected_node"))
    return bool(chosen and rejected) and hash((chosen.generated_sql, rejected.generated_sql)) == queries


# --- index and blocks -------------------------------------------------------------------------------------------------


def _write_blocks(spool: IO[str], trees: Iterable[dict], notes: Annotations) -> tuple[list[dict], str]:
    """Write the trees as one line per block; returns the index, a row per tree, and the example (see PageCounts)."""
    index: list[dict] = []
    smallest, example = math.inf, ""
    block: list[tuple[dict, str]] = []
    for stored in trees:
        tree = tree_from_json(stored)
        opened = _opened_tree(tree) | notes.of(tree)
        index.append(_index_row(tree, opened))
        block.append((opened, tree.prompt))
        if len(tree.nodes) < smallest and (node := _revised_right(tree)):
            smallest, example = len(tree.nodes), _link_to(tree, node)
        if len(block) == BLOCK:
            spool.write(_packed_block(block) + "\n")
            block = []
    if block:
        spool.write(_packed_block(block) + "\n")
    return index, example


def _revised_right(tree: RevisionTree) -> str | None:
    """The first new query of a tree that revises a wrong one and is right beyond doubt."""
    sure = [node for node in tree.nodes.values() if node.is_correct and node.strict_match and not node.flags]
    new = [node for node in sure if not node.duplicate_of]
    parents = ((node.node_id, tree.nodes.get(node.parent_id)) for node in new)
    return next((node_id for node_id, parent in parents if parent and not parent.is_correct), None)


def _link_to(tree: RevisionTree, node: str) -> str:
    """What opens the page at a node, as `linkTo` in its script has it."""
    parts = (tree.question.db_id, tree.question.question_id, node)
    return "#tree=" + "/".join(quote(str(part), safe="!~*'()", errors="replace") for part in parts)


def _opened_tree(tree: RevisionTree) -> dict:
    """What the page shows of an opened tree, but for its prompt and what is known of it from elsewhere."""
    return {
        "evidence": tree.question.evidence,
        "sql": tree.question.sql,
        "feedback": tree.feedback,
        "revision": tree.revision,
        "shortened": tree.shortened,
        # children are found by their parent
        "nodes": [
            {key: value for key, value in vars(node).items() if key not in ("children_ids", "d", "j")}
            for node in tree.nodes.values()
        ],
    }


def _index_row(tree: RevisionTree, opened: dict) -> dict:
    """What lists, filters and the overview need: `outcomes` maps to [queries, correct ones]."""
    outcomes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for node in tree.nodes.values():
        outcomes[str(node.outcome)][0] += 1
        outcomes[str(node.outcome)][1] += bool(node.is_correct)
    return {
        "id": tree.question.question_id,
        "db": tree.question.db_id,
        "difficulty": tree.question.difficulty,
        "question": tree.question.question,
        "good": tree.good,
        "depth": tree.max_depth,
        "outcomes": outcomes,
        "distances": Counter(str(node.revision_distance) for node in tree.nodes.values()),
        "findings": Counter(finding["what"] for finding in opened["findings"] if not finding["limit"]),
        "limits": sum(finding["limit"] for finding in opened["findings"]),
        "pairs": len(opened["pairs"]),
    }


def _packed_block(block: list[tuple[dict, str]]) -> str:
    """Prompts are side by side, because those of a database share their schema and deflate looks 32 KiB back."""
    return _packed({"trees": [opened for opened, _ in block], "prompts": [prompt for _, prompt in block]})


def _packed(content: object) -> str:
    """JSON, deflated, in base64."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode()


# --- the page's own texts ---------------------------------------------------------------------------------------------


def _own_text(*names: str):
    """The page's own files one after the other, not to be escaped."""
    from markupsafe import Markup

    return Markup("\n".join((PAGE / name).read_text(encoding="utf-8") for name in names))


def _digest(text: str) -> str:
    """A text's hash as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
