"""What the ways of writing a prompt give: both schema formats, with and without stored values that match the question.

    python -m bench.prompt_formats --model Qwen2.5-Coder-0.5B-Instruct         # the bundled demo, or BIRD in data/train
    python -m bench.prompt_formats --model Qwen2.5-Coder-0.5B-Instruct --output /tmp/formats \\
        --data spider.json bird.json --db_root spider/databases bird/databases --questions 320 210

Each way is one run of `python -m tree.run_pipeline` with first attempts only, so that every query answers the bare
prompt; all ways ask the same questions. One whose prompt shows no values is not asked twice: seeds are of the question,
so the replies would be the same. With --output the runs stay, and one that is there is read, not run again.

Per way: EX@1 (mean share of right first attempts), pass@N (share of questions with a right one: the good trees), pairs
per question after caps, the share of fragile queries among the right ones, mean prompt length, and the mean difference
of EX@1 to the first line with its 95 % interval over questions (normal approximation on paired differences).
"""

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from common.files import InputError, run_script, write_json_list
from common.model_folder import check_model_folder
from common.rows import iterate_json
from tree.generator import encode, load_tokenizer
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.prompts import chat
from tree.questions import limited, load_questions
from tree.run.preflight import find_values
from tree.run.work_list import WorkList
from tree.schema.write import FORMATS
from tree.tree_node import Question, RevisionTree, tree_from_json

ROOT = Path(__file__).resolve().parent.parent
BIRD, DEMO = ROOT / "data" / "train", ROOT / "data" / "demo"


@dataclass(frozen=True)
class FormatsBench:
    """The flags, by name; question files, folders of databases and numbers of questions belong together."""

    model: str
    data: list[str]
    db_root: list[str]
    questions: list[int]
    samples: int
    output: str | None


def parse_arguments(words: list[str] | None = None) -> FormatsBench:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = BIRD if (BIRD / "train.json").exists() else DEMO
    add = parser.add_argument
    add("--model", required=True, help="folder of the generator")
    add("--data", nargs="+", default=[str(data / "train.json")], help="question files")
    add("--db_root", nargs="+", default=[str(data / "train_databases")], help="their database folders")
    add("--questions", nargs="+", type=int, default=[100], help="questions of each file, spread over its databases")
    add("--samples", type=int, default=8, help="attempts at each question")
    add("--output", help="folder for the runs (default: a temporary one)")
    settings = FormatsBench(**vars(parser.parse_args(words)))
    if not len(settings.data) == len(settings.db_root) == len(settings.questions):
        raise InputError("--data, --db_root and --questions must name equally many")
    return settings


def with_values(questions: list[Question], db_root: str) -> list[Question]:
    """The questions whose prompt shows stored values."""
    work = WorkList(questions, "", db_root)
    find_values(work)
    return [question for question in questions if work.values[question.question_id]]


def trees_of(questions: list[Question], flags: Sequence[str], settings: FormatsBench, place: Path) -> list:
    """The trees of the questions, grown when the folder `place` does not hold them."""
    if not list(place.glob("tree_dataset/part0/*/all_trees.json")):
        data = place / "questions.json"
        rows = ({**vars(question), "SQL": question.sql} for question in questions)
        write_json_list(data, rows)
        command = [sys.executable, "-m", "tree.run_pipeline", "--max_depth", "1", "--num_roots", str(settings.samples)]
        command += ["--max_nodes", "0", "--redraws", "0", "--model", settings.model, "--output_dir", str(place)]
        with open(place / "log", "w") as log:
            code = subprocess.run([*command, "--data", str(data), *flags], cwd=ROOT, stdout=log, stderr=log).returncode
        if code:
            raise InputError(f"{place / 'log'}: the run failed with exit code {code}")
    (tree_file,) = place.glob("tree_dataset/part0/*/all_trees.json")
    return [tree_from_json(tree) for tree in iterate_json(tree_file)]


def shares(trees: list[RevisionTree]) -> dict[int, float]:
    """Question id -> share of right queries."""
    return {tree.question.question_id: mean(node.is_correct for node in tree.nodes.values()) for tree in trees}


def paired(found: dict[int, float], first: dict[int, float]) -> tuple[float, float]:
    """Mean difference over the questions that both have, and half of its 95 % interval."""
    both = found.keys() & first.keys()
    differences = [found[key] - first[key] for key in both]
    return mean(differences), 1.96 * stdev(differences) / math.sqrt(len(differences))


def row(name: object, trees: list[RevisionTree], lengths: list[int], first: dict[int, float]) -> str:
    """A line of the table."""
    nodes = [node for tree in trees for node in tree.nodes.values()]
    right = [node for node in nodes if node.is_correct]
    pairs = sum(len(extract_pairs(tree, PairSettings("emerge")).pairs) for tree in trees)
    fragile = sum("fragile" in node.flags for node in right)
    found = shares(trees)
    difference, half = paired(found, first)
    return (
        f"{name!s:24} {len(trees):9} {mean(found.values()):7.3f} {mean(share > 0 for share in found.values()):7.3f} "
        f"{pairs / len(trees):6.2f} {fragile / max(len(right), 1):8.3f} {mean(lengths):7.0f} "
        f"{difference:+7.3f} ± {half:.3f}"
    )


def measure(number: int, encode: Callable, settings: FormatsBench, folder: Path) -> None:
    """Print the table of one question file."""
    data, db_root = settings.data[number], settings.db_root[number]
    questions = limited(load_questions(data), settings.questions[number])
    matched = with_values(questions, db_root)
    if not matched:
        raise InputError(f"{data}: no question has stored values that match; give other questions")
    print(f"\n{data}: {len(matched)} of {len(questions)} questions have stored values that match")
    print(f"{'':24} questions    EX@1  pass@{settings.samples}  pairs  fragile  tokens  EX@1 - first")
    first: dict[int, float] = {}
    for layout in FORMATS:
        flags, place = ["--db_root", db_root, "--schema_format", layout], folder / f"{Path(data).parent.name}_{layout}"
        bare = trees_of(questions, [*flags, "--no_values"], settings, Path(f"{place}_bare"))
        asked = {
            tree.question.question_id: tree for tree in trees_of(matched, flags, settings, Path(f"{place}_values"))
        }
        both = [asked.get(tree.question.question_id, tree) for tree in bare]
        for name, trees in ((f"{layout} without values", bare), (layout, both)):
            first = first or shares(trees)
            lengths = [len(encode(chat(tree.prompt))) for tree in trees]
            print(row(name, trees, lengths, first), flush=True)


def main(words: list[str] | None = None) -> None:
    settings = parse_arguments(words)
    encoder = partial(encode, load_tokenizer(check_model_folder(settings.model)))
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(len(settings.data)):
            measure(number, encoder, settings, Path(settings.output or temporary))


if __name__ == "__main__":
    run_script(main)
