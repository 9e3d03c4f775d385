"""Print what the steps of a run gave, recomputed from the files they wrote:

    python -m eval.summary --tree_file output/tree_dataset/part0/20260101_120000/all_trees.json

A file that is not there is an error; the defaults are where the README's commands write.
"""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from common.files import InputError, read_json, run_script
from common.preference import read_pairs
from eval.best_of_n import FIRST, label
from eval.evaluation_picture import REWARD, VOTE, signed
from eval.evaluation_report import interval
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


def tree_line(path: str) -> str:
    trees = list(read_trees(path))
    nodes = [node for tree in trees for node in tree.nodes.values()]
    good = sum(tree.good for tree in trees)
    right = sum(node.is_correct for node in nodes)
    return f"good trees           {good} of {len(trees)} questions; {right} of {len(nodes)} queries are right"


def pair_line(train: str, test: str) -> str:
    on = {"to train on": read_pairs(train), "to test on": read_pairs(test)}
    counts = [f"{len(pairs)} of {len({pair.question for pair in pairs})} questions {use}" for use, pairs in on.items()]
    return f"pairs                {', '.join(counts)}"


@contextlib.contextmanager
def report_of(step: int, path: str | Path) -> Iterator[dict]:
    """The report of a step. Raises InputError when it lacks what is read from it in the block."""
    content = read_json(path, dict)
    try:
        yield content
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not the report of step {step} ({type(error).__name__}: {error})") from None


def training_line(adapter: str) -> str:
    with report_of(5, Path(adapter) / "metrics.json") as metrics:
        first, last = metrics["train_loss_first"], metrics["train_loss_last"]
        return f"training loss        {first:.3f} first, {last:.3f} last, {metrics['steps']} steps"


def evaluation_lines(path: str) -> list[str]:
    """Accuracy on held-out pairs, execution accuracy of choosing, and what there are too few questions for."""
    with report_of(6, path) as evaluation:
        pairs, choice = (evaluation.get(part) for part in ("pairs", "choice"))
        return [*(pair_accuracy_lines(pairs) if pairs else []), *(choice_lines(choice) if choice else [])]


def pair_accuracy_lines(pairs: dict) -> list[str]:
    reports = pairs["adapters"]
    lines = [
        f"held-out accuracy    {interval(report['accuracy'])} of {report['pairs']} pairs, {name}"
        for name, report in reports.items()
    ]
    if may_be(0.5, list(reports.values())[-1]["accuracy"]):
        lines.append("                     too few pairs to tell the reward model from a coin")
    return lines


def choice_lines(choice: dict) -> list[str]:
    """Of the last adapter's rewards."""
    most, adapter = str(choice["sizes"][-1]), choice["ways"][-1]["adapter"]
    ways = {way["choose"]: way["ex"][most] for way in choice["ways"] if way["adapter"] in ("", adapter)}
    figures = {FIRST: choice[FIRST], **{rule: ways[rule] for rule in (VOTE, REWARD, "oracle")}}
    steps = " -> ".join(f"{rule} {figure['value']:.3f}" for rule, figure in figures.items())
    gain = choice["differences"][f"{label(REWARD, adapter)} minus {VOTE}"][most]
    lines = [
        f"EX of one of {most:<7} {steps} ({choice['questions']} questions)",
        f"reward minus vote    {signed(gain)}",
    ]
    if may_be(0, gain):
        lines.append(f"                     {choice['questions']} questions are too few to tell the two apart")
    return lines


def may_be(value: float, figure: dict[str, float | None]) -> bool:
    """Whether a value is within the interval of a figure, or the figure has none."""
    return figure["low"] is None or figure["low"] <= value <= figure["high"]


def verification_line(path: str) -> str:
    with report_of(7, path) as verification:
        summary = verification["summary"]
        result, nodes, errors = (summary[name] for name in ("result", "nodes_executed", "errors"))
        return f"verification         {result}: {nodes} nodes executed again, {errors} errors"


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    lines = [
        tree_line(args.tree_file),
        pair_line(args.train_data, args.test_data),
        training_line(args.adapter),
        *evaluation_lines(args.evaluation),
        verification_line(args.verification),
        f"trees in             {args.tree_file}",
        f"pairs in             {args.train_data}, {args.test_data}",
        f"reward model in      {args.adapter}/ (curve: training_curve.png, numbers: metrics.json)",
        f"reports in           {args.evaluation}, {args.verification} (pages for reading: .md)",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    run_script(main)
