"""Pair files and their manifests: written from trees, one tree in memory at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import UnionType

from common.files import InputError, read_json, write_json_list
from common.manifest import WHOLE, PairManifest, Shard, code_version, file_fingerprint, shard_of
from common.rows import iterate_json
from tree.pairs.extraction import REASONS, PairSettings, extract_pairs
from tree.tree_node import INITIAL, Question, RevisionTree, TreeNode, tree_from_json


def pair_file(output_dir: str, strategy: str, shard_id: int) -> Path:
    return Path(output_dir) / f"final_data_{strategy}_shard_{shard_id}.json"


def write_pairs(path: Path, trees: Iterable[RevisionTree], settings: PairSettings, shard: Shard) -> PairManifest:
    """Replace `path` with the pairs of the trees, one tree in memory at a time, and its manifest; returns that."""
    dropped = Counter(dict.fromkeys(REASONS, 0))
    count = 0

    def rows() -> Iterator[dict]:
        nonlocal count
        for tree in trees:
            extraction = extract_pairs(tree, settings)
            dropped.update(extraction.dropped)
            count += 1
            yield from (pair.to_json() for pair in extraction.pairs)

    pairs = write_json_list(path, rows())
    made_by = asdict(settings)
    strategy = made_by.pop("strategy")
    manifest = PairManifest(
        strategy=strategy,
        shard_id=shard.shard_id,
        run=shard.run | made_by,
        sha256=file_fingerprint(path),
        trees=count,
        pairs=pairs,
        dropped=dict(dropped),
        grown_with=shard.grown_with,
        extracted_with=code_version(),
    )
    manifest.write(path)
    return manifest


def counts_line(path: Path, manifest: PairManifest) -> str:
    """One line of counts of a pair file."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
    return f"{path}: {manifest.pairs} pairs of {manifest.trees} trees; dropped: {dropped}"


# what pairs are made from, by attribute
QUESTION_KINDS = {"question_id": int, **dict.fromkeys(("db_id", "question", "evidence", "sql", "difficulty"), str)}
NODE_KINDS = {
    **dict.fromkeys(("parent_id", "generated_sql", "execution_feedback", "outcome", "input_seq"), str),
    **{"d": int, "j": int, "is_correct": bool, "strict_match": bool | None, "duplicate_of": str | None},
}


def _unfit(thing: Question | TreeNode, kinds: Mapping[str, type | UnionType]) -> str:
    """What is wrong with the first attribute that is not of its kind, "" when all are."""
    for name, kind in kinds.items():
        value = getattr(thing, name)
        if not isinstance(value, kind):
            expected = kind.__name__ if isinstance(kind, type) else kind
            return f"{name} is {type(value).__name__}, expected {expected}"
    return ""


def _problem(tree: RevisionTree) -> str:
    """Why pairs cannot be made from a tree that was read, "" when they can."""
    if unfit := _unfit(tree.question, QUESTION_KINDS):
        return unfit
    if not isinstance(tree.prompt, str) or not tree.prompt.strip():
        return "the prompt (node_initial.input_seq) is missing"
    for node in tree.nodes.values():
        if problem := _unfit(node, NODE_KINDS) or _misplaced(node, tree.nodes):
            return f"{node.node_id}: {problem}"
    return ""


def _misplaced(node: TreeNode, nodes: Mapping[str, TreeNode]) -> str:
    """What is wrong with a node's place among the others, "" when nothing is."""
    parent = nodes.get(node.parent_id)
    if (parent is None and node.parent_id != INITIAL) or node.d != (parent.d + 1 if parent else 1):
        return f"it does not stand one level below its parent {node.parent_id}"
    if node.duplicate_of is not None and node.duplicate_of not in nodes:
        return f"duplicate_of names {node.duplicate_of}, which is not in the tree"
    for child in node.children_ids:
        if not isinstance(child, str) or child not in nodes or nodes[child].parent_id != node.node_id:
            return f"children_ids names {child}, which is not its child"
    return ""


def read_trees(path: str) -> Iterator[RevisionTree]:
    """The trees of a file (a list, or a single one), one at a time. Raises InputError naming the tree."""
    fix = f"see what is wrong with `python -m eval --tree_file {path}`, or grow the trees again"
    number = -1
    for number, content in enumerate(iterate_json(path, "grow trees first: bash tree/run_parallel.sh")):
        try:
            tree = tree_from_json(content)
        except ValueError as error:
            raise InputError(f"{path}: tree {number}: {error}; {fix}") from None
        if problem := _problem(tree):
            raise InputError(f"{path}: tree {number}: {problem}; {fix}")
        yield tree
    if number < 0:
        raise InputError(f"{path}: an empty list, no tree to make pairs from; grow trees first")


def shard_of_trees(tree_file: str) -> Shard:
    """Which part of which run the trees are, from the manifest beside them."""
    path = Path(tree_file).parent / "manifest.json"
    if not path.exists():
        print(f"note: no {path}, so the trees are taken as shard 0 of 1")
        return WHOLE
    try:
        return shard_of(read_json(path, dict))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not the manifest of grown trees ({error}); move it away if it is not") from None
