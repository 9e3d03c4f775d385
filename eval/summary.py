"""Print what the steps of a run gave, recomputed from the files they wrote:

    python -m eval.summary --tree_file output/tree_dataset/part0/20260101_120000/all_trees.json

A file that is not there is an error; the defaults are where the README's commands write.
"""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from common.files import InputError, read_json, run_script
from common.rows import read_rows
from tree.tree_files import read_trees


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.summary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tree_file", required=True, help="all_trees.json of step 4.1")
    add("--train_data", default="final_data_train.json", help="pairs of step 4.2")
    add("--test_data", default="final_data_test.json", help="pairs of step 4.2")
    add("--adapter", default="qwen-reward-model-sql-train", help="folder of step 5")
    add("--evaluation", default="evaluation_report.json", help="report of step 6")
    add("--verification", default="verification_report.json", help="report of step 7")
    return parser.parse_args(words)


def tree_lines(path: str) -> list[str]:
    trees = list(read_trees(path))
    nodes = [node for tree in trees for node in tree.nodes.values()]
    good = sum(tree.good for tree in trees)
    return [
        f"questions            {len(trees)}",
        f"trees                {good} good, {len(trees) - good} bad",
        f"nodes                {len(nodes)}, {sum(node.is_correct for node in nodes)} correct",
    ]


@contextlib.contextmanager
def report_of(step: int, path: str | Path) -> Iterator[dict]:
    """The report of a step. Raises InputError when it lacks what is read from it in the block."""
    content = read_json(path, dict)
    try:
        yield content
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not the report of step {step} on pairs ({type(error).__name__}: {error})") from None


def training_line(adapter: str) -> str:
    with report_of(5, Path(adapter) / "metrics.json") as metrics:
        first, last = metrics["train_loss_first"], metrics["train_loss_last"]
        return f"training loss        {first:.4f} first, {last:.4f} last, {metrics['steps']} steps"


def accuracy_lines(path: str) -> list[str]:
    with report_of(6, path) as evaluation:
        return [
            f"pairwise accuracy    {report['accuracy']['value']:.4f} on held-out databases: {name}"
            for name, report in evaluation["pairs"]["adapters"].items()
        ]


def verification_line(path: str) -> str:
    with report_of(7, path) as verification:
        summary = verification["summary"]
        result, nodes, errors = (summary[name] for name in ("result", "nodes_executed", "errors"))
        return f"verification         {result}: {nodes} nodes executed again, {errors} errors"


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    train, test = (len(read_rows(path, {})) for path in (args.train_data, args.test_data))
    lines = [
        *tree_lines(args.tree_file),
        f"pairs                {train} train, {test} test",
        training_line(args.adapter),
        *accuracy_lines(args.evaluation),
        verification_line(args.verification),
        f"trees in             {args.tree_file}",
        f"pairs in             {args.train_data}, {args.test_data}",
        f"reward model in      {args.adapter}/ (curve: training_curve.png, numbers: metrics.json)",
        f"reports in           {args.evaluation}, {args.verification}",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    run_script(main)
