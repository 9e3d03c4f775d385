"""The figures of a run in a few lines, and what they are too few to say."""

import json

import pytest

from tests.conftest import assert_one_line_error, run_main
from tests.viewer_trees import TREES


def figure(value: float, low: float | None, high: float | None) -> dict:
    return {"value": value, "low": low, "high": high}


def choice(gain: dict) -> dict:
    """Of one of four or eight candidates of 64 questions."""
    ways = [
        ("", "executes_vote", 0.53),
        ("", "oracle", 0.7),
        *((adapter, "reward_vote", value) for adapter, value in (("none", 0.1), ("mine", 0.55))),
    ]
    return {
        "questions": 64,
        "sizes": [4, 8],
        "first": figure(0.41, 0.3, 0.53),
        "ways": [
            {"adapter": adapter, "choose": rule, "ex": {"4": figure(0, 0, 0), "8": figure(value, 0, 1)}}
            for adapter, rule, value in ways
        ],
        "differences": {"reward_vote (mine) minus executes_vote": {"4": figure(0, 0, 0), "8": gain}},
    }


@pytest.fixture
def run_files(tmp_path, pair_rows):
    """The files of a run, by the flag that names them."""
    reports = {
        "evaluation": {
            "pairs": {
                "adapters": {
                    "none": {"pairs": 88, "accuracy": figure(0.48, 0.4, 0.57)},
                    "mine": {"pairs": 88, "accuracy": figure(0.62, 0.51, 0.72)},
                }
            },
            "choice": choice(figure(0.02, -0.031, 0.06)),
        },
        "verification": {"summary": {"result": "passed", "nodes_executed": 7, "errors": 0}},
    }
    contents = {"tree_file": TREES[:4], "train_data": pair_rows, "test_data": pair_rows[:2], **reports}
    paths = {name: tmp_path / f"{name}.json" for name in contents}
    for name, content in contents.items():
        paths[name].write_text(json.dumps(content))
    (tmp_path / "adapter").mkdir()
    metrics = {"train_loss_first": 0.6931, "train_loss_last": 0.4412, "steps": 16}
    (tmp_path / "adapter" / "metrics.json").write_text(json.dumps(metrics))
    return paths | {"adapter": tmp_path / "adapter"}


def summary(paths: dict):
    return run_main("eval.summary", *(word for name, path in paths.items() for word in (f"--{name}", path)))


def change(path, **parts):
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def test_the_figures_that_matter(run_files):
    run = summary(run_files)
    assert run.returncode == 0, run.stderr
    queries = sum(len(tree["nodes"]) for tree in TREES[:4])
    assert run.stdout.splitlines()[:8] == [
        f"good trees           2 of 4 questions; 2 of {queries} queries are right",
        "pairs                12 of 6 questions to train on, 2 of 1 questions to test on",
        "training loss        0.693 first, 0.441 last, 16 steps",
        "held-out accuracy    0.480 [0.400, 0.570] of 88 pairs, none",
        "held-out accuracy    0.620 [0.510, 0.720] of 88 pairs, mine",
        "EX of one of 8       first 0.410 -> executes_vote 0.530 -> reward_vote 0.550 -> oracle 0.700 (64 questions)",
        "reward minus vote    +0.020 [-0.031, +0.060]",
        "                     64 questions are too few to tell the two apart",
    ]


@pytest.mark.parametrize(
    ("accuracy", "gain", "said"),
    [
        (figure(0.62, 0.51, 0.72), figure(0.05, 0.01, 0.09), []),
        (figure(0.62, 0.45, 0.72), figure(-0.05, -0.09, -0.01), ["pairs"]),
        (figure(0.62, None, None), figure(0.05, None, None), ["pairs", "questions"]),
    ],
)
def test_what_there_are_too_few_for_is_said(run_files, accuracy, gain, said):
    adapters = {"mine": {"pairs": 88, "accuracy": accuracy}}
    change(run_files["evaluation"], pairs={"adapters": adapters}, choice=choice(gain))
    lines = summary(run_files).stdout.splitlines()
    found = [line for line in lines if "too few" in line and line.startswith(" ")]
    assert len(found) == len(said) and all(word in line for word, line in zip(said, found, strict=True))


def test_an_evaluation_of_pairs_alone_or_of_candidates_alone_will_do(run_files):
    change(run_files["evaluation"], choice=None)
    assert "EX of one of" not in summary(run_files).stdout
    run_files["evaluation"].write_text(json.dumps({"choice": choice(figure(0, -1, 1))}))
    printed = summary(run_files).stdout
    assert "EX of one of 8" in printed and "held-out accuracy" not in printed


def test_a_report_of_another_kind_is_named(run_files):
    change(run_files["evaluation"], choice={"sizes": []})
    assert_one_line_error(summary(run_files), str(run_files["evaluation"]), "step 6")
