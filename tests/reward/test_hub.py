"""The folders for the model hub: their snippets run, libraries read them as they are, nothing of this machine is in."""

import errno
import json
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.manifest import file_fingerprint
from common.preference import read_pairs
from eval.best_of_n import Candidates, choice_report
from reward.hub.names import SOURCES, Names
from reward.hub.pairs_card import pairs_card
from reward.hub.snippets import PLAIN, literal, snippet
from reward.model import load_reward_model, score
from tests.conftest import assert_one_line_error, make_tiny_model, run_main
from tree.run.prompt_settings import PromptSettings, made_with

REPO = "ada/judge"
BASE = "Qwen2.5-Coder-Tiny"
CARD_OF_BASE = "---\nlicense: other\nlicense_name: of-the-base\n---\n# Base\n"


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def rows_for_testing(pair_rows: list[dict]) -> list[dict]:
    """Pairs on a database that is not trained on; the prompts of the last are the shortest, and hard to quote."""
    rows = []
    for row in pair_rows[:4]:
        prompt = f"Question {row['question_id']}, of another database?"
        rows.append(row | {"db_id": "market", "prompt": [{"role": "user", "content": prompt}]})
    hard = 'a "b" \\n \\""" é\u00a0"'
    rows[-1] |= {"prompt": [{"role": "user", "content": hard}], "rejected_result": "x" * 400, "rejected_dist": 2}
    return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory, pair_rows) -> Path:
    """A folder where steps 4.2 to 6 have run with a tiny model."""
    folder = tmp_path_factory.mktemp("project")
    base = make_tiny_model(folder / BASE)
    (base / "README.md").write_text(CARD_OF_BASE)
    (base / "LICENSE").write_text("the licence")
    write(folder / "final_data_train.json", pair_rows)
    write(folder / "final_data_test.json", rows_for_testing(pair_rows))
    (folder / "final_data_train.md").write_text("# Preference pairs\n\n## Counted\n")
    with chdir(folder):
        outputs = {name: file_fingerprint(name) for name in ("final_data_train.json", "final_data_test.json")}
        write(folder / "final_data_train.manifest.json", {"run": vars(PromptSettings()), "outputs": outputs})
        steps = ("--max_steps", "4", "--batch_size", "2", "--learning_rate", "1e-2", "--result_length", "300")
        data = ("--data_path", "final_data_train.json", "--model_id", folder / BASE)  # a path of this machine
        assert run_main("train", *data, *steps, cwd=folder).returncode == 0
        adapters = ("--adapters", "none", "qwen-reward-model-sql-train")
        assert run_main("evaluate", "--base_model", BASE, *adapters, "--batch_size", "4", cwd=folder).returncode == 0
    add_choice(folder / "evaluation_report.json")
    return folder


def add_choice(path: Path) -> None:
    """Choosing one of four, of which the adapter prefers the right one."""
    plain = Candidates(np.array([2, 2, 2, 0]), np.array([0, 0, 1, 2]), np.array([0, 0, 1, 0]))
    with_rewards = Candidates(*list(vars(plain).values())[:3], np.array([0.0, 0.0, 9.0, 0.0]))
    rewarded = {name: [with_rewards] * 3 for name in ("none", "qwen-reward-model-sql-train")}
    write(path, json.loads(path.read_text()) | {"choice": choice_report([plain] * 3, rewarded)})


def export(place: Path, *flags: object, hub_folder: str = "hub"):
    fixed = ("--base_model", BASE, "--hub_folder", hub_folder, "--hub_repo", REPO)
    return run_main("reward.export", *fixed, *flags, cwd=place)


@pytest.fixture(scope="module")
def hub(place) -> Path:
    run = export(place)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-3:] == [
        "hf upload ada/judge hub/judge .",
        "hf upload ada/judge-merged hub/judge-merged .",
        "hf upload ada/judge-pairs hub/judge-pairs . --repo-type dataset",
    ]
    (place / "ada").symlink_to(place / "hub")  # so that what is read from the hub is read from here
    return place / "hub"


# --- what is shared ---------------------------------------------------------------------------------------------------


def test_what_the_folders_hold_and_that_nothing_is_of_this_machine(hub, place):
    files = {str(path.relative_to(hub)) for path in hub.rglob("*") if path.is_file()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    adapter = {"adapter_config.json", "adapter_model.safetensors", "trained_on.json", "manifest.json", "metrics.json"}
    adapter |= {"README.md", "training_curve.png"} | tokenizer
    merged = {"README.md", "LICENSE", "config.json", "model.safetensors"} | tokenizer
    pairs = {"README.md", "train.jsonl", "test.jsonl", "final_data_train.manifest.json"}
    folders = {"judge": adapter, "judge-merged": merged, "judge-pairs": pairs}
    assert files == {f"{folder}/{name}" for folder, names in folders.items() for name in names}
    for path in map(hub.joinpath, files):
        content = path.read_bytes()
        for word in (str(place), str(place.parent), "final_data_train.json", "local_files_only"):
            assert word.encode() not in content, path
    assert not list(place.glob(".hub.*"))


def snippet_of(card: Path) -> str:
    (code,) = card.read_text().split("````python\n")[1:]
    return code.split("\n````")[0]


def rewards_here(place: Path, result_length: int = 300) -> list[float]:
    """Of both queries of the pair that is the example, by the adapter as it was trained."""
    pair = read_pairs(place / "final_data_test.json")[-1].as_read(result_length)
    model, tokenizer = load_reward_model(place / BASE, place / "qwen-reward-model-sql-train", "float32")
    [rewards] = score(model, tokenizer, [(pair.prompt, [pair.chosen, pair.rejected])])
    return rewards


def printed_by(code: str, place: Path, capsys) -> object:
    """What code prints, as JSON, that is run where the repositories are found as folders."""
    with chdir(place):
        exec(code, {})
    return json.loads(capsys.readouterr().out)


def test_the_snippet_of_the_merged_model_needs_transformers_alone(hub, place, capsys):
    code = snippet_of(hub / "judge-merged" / "README.md")
    assert [line for line in code.splitlines() if "import" in line] == [
        "import torch",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
    ]
    assert printed_by(code, place, capsys) == pytest.approx(rewards_here(place), abs=1e-4)


def test_the_snippet_of_the_adapter_gives_the_same(hub, place, capsys):
    (place / "judge").symlink_to(hub / "judge")
    printed = printed_by(snippet_of(hub / "judge" / "README.md"), place, capsys)
    assert printed == pytest.approx(rewards_here(place), abs=1e-5)


def test_a_snippet_for_a_model_that_reads_the_query_alone(hub, place, capsys):
    pair = read_pairs(place / "final_data_test.json")[-1]
    code = snippet(PLAIN, Names(REPO, f"Qwen/{BASE}"), pair, 0)
    assert "result" not in code
    assert printed_by(code, place, capsys) == pytest.approx(rewards_here(place, 0), abs=1e-4)


def test_the_shared_adapter_is_taken_by_evaluation_as_the_one_it_was_made_of(hub, place):
    report = ("--output_file", place / "again.json", "--batch_size", "4", "--adapters", hub / "judge")
    run = run_main("evaluate", "--base_model", BASE, *report, cwd=place)
    assert run.returncode == 0 and "warning" not in run.stdout, run.stderr
    again, before = (json.loads((place / name).read_text()) for name in ("again.json", "evaluation_report.json"))
    margins = [list(one["pairs"]["adapters"].values())[-1]["margins"] for one in (again, before)]
    assert margins[0] == margins[1]


def test_the_model_cards_have_the_hubs_metadata_and_the_figures_of_the_report(hub, place):
    from huggingface_hub import ModelCard

    report = json.loads((place / "evaluation_report.json").read_text())
    judged = report["pairs"]["adapters"]["qwen-reward-model-sql-train"]["accuracy"]
    for name, relation, library in (("judge", "adapter", "peft"), ("judge-merged", "finetune", "transformers")):
        card = ModelCard.load(hub / name / "README.md")
        data = card.data
        assert (data.base_model, data.base_model_relation) == (f"Qwen/{BASE}", relation)
        assert (data.library_name, data.datasets, data.metrics) == (library, ["ada/judge-pairs"], ["accuracy"])
        assert (data.license, data.license_name) == ("other", "of-the-base")
        results = {result.metric_name: result.metric_value for result in data.eval_results}
        assert results.pop("Pairwise accuracy") == judged["value"]
        chosen = [f"Execution accuracy, one of 4 by {rule}" for rule in ("reward", "executes_reward", "reward_vote")]
        assert results == dict.fromkeys(chosen, 1.0)
        assert f"| this model | {judged['value']:.3f} [{judged['low']:.3f}, {judged['high']:.3f}] |" in card.text
        assert "| the untrained base model | " in card.text and "| shorter wins | " in card.text
        assert "| choosing one of 4 queries, 3 questions | execution accuracy [95 %] |" in card.text
        assert "| majority_vote | 0.000" in card.text and "the first 300 characters" in card.text
        assert "schema_format ddl" in card.text and "CC BY-SA 4.0" in card.text


# --- the pairs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits(hub, tmp_path_factory):
    from datasets import load_dataset

    return load_dataset(str(hub / "judge-pairs"), cache_dir=str(tmp_path_factory.mktemp("datasets")))


def test_datasets_loads_the_pairs_with_their_columns_and_splits(splits, hub, place):
    from huggingface_hub import DatasetCard

    assert {split: len(rows) for split, rows in splits.items()} == {"train": 12, "test": 4}
    assert splits["train"].features == splits["test"].features
    for split, name in (("train", "final_data_train.json"), ("test", "final_data_test.json")):
        assert list(splits[split]) == [pair.to_json() for pair in read_pairs(place / name)]
        # and this project reads them, and what their prompts were made with
        shared = hub / "judge-pairs" / f"{split}.jsonl"
        assert read_pairs(shared) == read_pairs(place / name) and made_with(shared) == PromptSettings()
    card = DatasetCard.load(hub / "judge-pairs" / "README.md")
    assert card.data.license == "cc-by-sa-4.0" and "arXiv 2305.03111" in card.text
    assert "## Preference pairs\n\n### Counted" in card.text
    assert all(f"{column}" in card.text for column in splits["train"].column_names)


def trainer_settings(folder: Path) -> dict:
    return {
        **{"output_dir": str(folder), "max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none"},
        **{"bf16": False, "use_cpu": True, "save_strategy": "no", "gradient_checkpointing": False},
    }


def test_trls_reward_trainer_takes_the_pairs(splits, place, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    trainer = RewardTrainer(
        AutoModelForSequenceClassification.from_pretrained(place / BASE, num_labels=1),
        RewardConfig(**trainer_settings(tmp_path)),
        train_dataset=splits["train"],
        eval_dataset=splits["test"],
        processing_class=AutoTokenizer.from_pretrained(place / BASE),
    )
    assert trainer.train().training_loss > 0 and len(trainer.train_dataset) == 12


def test_trls_dpo_trainer_takes_the_pairs(splits, place, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(place / BASE),
        args=DPOConfig(**trainer_settings(tmp_path)),
        train_dataset=splits["train"],
        eval_dataset=splits["test"],
        processing_class=AutoTokenizer.from_pretrained(place / BASE),
    )
    assert trainer.train().training_loss > 0 and len(trainer.train_dataset) == 12


# --- what cannot be shared --------------------------------------------------------------------------------------------


def changed(path: Path, **entries: object) -> None:
    write(path, json.loads(path.read_text()) | entries)


ADAPTER = "qwen-reward-model-sql-train"
DAMAGES = {
    "unfinished": (lambda place: (place / ADAPTER / "unfinished.json").touch(), ("training is not finished", "step 5")),
    "no manifest": (lambda place: (place / ADAPTER / "manifest.json").unlink(), ("manifest.json: no such file",)),
    "no curve": (lambda place: (place / ADAPTER / "training_curve.png").unlink(), ("training_curve.png is missing",)),
    "other version": (
        lambda place: changed(place / ADAPTER / "manifest.json", arguments={}),
        (ADAPTER, "not what this version of train.py writes"),
    ),
    "other training pairs": (
        lambda place: shutil.copy(place / "final_data_test.json", place / "final_data_train.json"),
        ("final_data_train.json: not the file that", "--train_data"),
    ),
    "no test pairs": (lambda place: (place / "final_data_test.json").unlink(), ("final_data_test.json: no such file",)),
    "tested on what was trained on": (
        lambda place: shutil.copy(place / "final_data_train.json", place / "final_data_test.json"),
        ("was trained on database 'shop'", "--test_data"),
    ),
    "other test pairs": (
        lambda place: write(
            place / "final_data_test.json", json.loads((place / "final_data_test.json").read_text())[:2]
        ),
        ("evaluation_report.json: says nothing of", "(step 6)"),
    ),
    "judged by what may be known": (
        lambda place: write(
            place / "evaluation_report.json",
            {"manifest": {"arguments": {"allow_overlap": True}}},
        ),
        ("evaluation_report.json: was made with --allow_overlap",),
    ),
    "no report": (lambda place: (place / "evaluation_report.json").unlink(), ("evaluation_report.json", "step 6")),
    "report of candidates only": (
        lambda place: changed(place / "evaluation_report.json", pairs={}),
        ("evaluation_report.json: not a report of evaluate.py on pairs",),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_belong_together_is_refused_before_anything_is_written(place, tmp_path, damage, monkeypatch):
    spoil, words = DAMAGES[damage]
    shutil.copytree(place, tmp_path / "copy", ignore=shutil.ignore_patterns("hub", "ada", "judge", "checkpoint-*"))
    spoil(tmp_path / "copy")
    monkeypatch.setattr("reward.export.write_for_hub", None)
    assert_one_line_error(export(tmp_path / "copy"), *words)
    assert not [path for path in (tmp_path / "copy").iterdir() if "hub" in path.name]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--hub_repo", "judge"), ("--hub_repo judge: expected OWNER/NAME",)),
        (("--hub_repo", "ada/a b"), ("--hub_repo ada/a b",)),
        (("--hub_repo", ""), ("--hub_repo: give the name",)),
        (("--base_repo", "tiny"), ("--base_repo tiny: expected OWNER/NAME",)),
        (("--adapter", "nowhere"), ("nowhere: no such adapter folder",)),
        (("--hub_folder", BASE), (f"{BASE}: is there already; name a new folder with --hub_folder",)),
    ],
)
def test_wrong_flags_are_refused(place, flags, words):
    assert_one_line_error(export(place, *flags, hub_folder="new"), *words)
    assert not (place / "new").exists()


def test_a_base_of_another_name_must_be_called_by_that_of_the_hub(place, tiny_model):
    run = run_main(
        *("reward.export", "--base_model", tiny_model, "--hub_folder", "new", "--hub_repo", REPO),
        *("--adapter", place / ADAPTER),
        cwd=place,
    )
    assert_one_line_error(run, "--base_repo: give the name of", str(tiny_model))


def test_a_full_disk_is_one_line_and_leaves_nothing(place, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reward.export.finish_merged", fail)
    assert_one_line_error(export(place, hub_folder="broken"), "broken: cannot be written", "export again")
    assert_one_line_error(export(place, hub_folder="/proc/no/hub"), "/proc/no", "cannot be written")
    assert not [path for path in place.iterdir() if "broken" in path.name]


@pytest.mark.parametrize(("source", "licence"), [("BIRD", "cc-by-sa-4.0"), ("demo", "apache-2.0"), ("own", None)])
def test_the_licence_of_the_pairs_is_that_of_their_source(source, licence):
    from huggingface_hub import DatasetCard

    card = DatasetCard(pairs_card(Names(REPO, BASE), SOURCES[source], {"train": 1, "test": 1}, ""))
    assert card.data.license == licence and ("bird-bench" in card.text) == (source == "BIRD")


@given(st.text())
@example('"')
@example('a""""\\')
@example("\r\n\0\x1b \u2028")
def test_any_text_can_stand_in_a_snippet(text):
    assert eval(literal(text)) == text
