"""Search by reward as a user runs it, with a fake generator, real SQL, and a fake reward model or a tiny one."""

import asyncio
import json
import os
import random
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.files import InputError
from common.preference import user_prompt
from common.trained_on import write_trained_on
from eval.search import settings as search_settings
from eval.search.settings import parse_arguments, search_run
from tests.builders import make_reviser
from tests.conftest import assert_one_line_error, run_main
from tests.fake_search import pretend
from tests.fake_worker import FakeGenerator, FaultyGenerator, in_child, kill_at
from tests.fake_worker import pretend as pretend_pipeline
from tests.tree.conftest import COUNT, read, the_run
from tree import search
from tree.run.gpu_memory import GIB, Shape, share_beside
from tree.sql_utils import Executor

FILES = ("predict.json", "candidates.json")
BUDGET = ("--num_roots", "4", "--budget", "12")


@pytest.fixture(scope="session")
def flags(places, tiny_model, adapter) -> list[str]:
    """Flags that name the questions, their databases and the models."""
    return [*places, "--base_model", str(tiny_model), "--adapter", str(adapter), *BUDGET]


def run_search(flags, output: Path, *more: object, **fakes):
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch.setattr, **fakes)
        return run_main("tree.search", *flags, "--output_dir", output, *more)


def results(output: Path) -> list[bytes]:
    return [(output / name).read_bytes() for name in FILES]


@pytest.fixture(scope="session")
def whole(flags, tmp_path_factory) -> Path:
    """What an undisturbed run writes."""
    output = tmp_path_factory.mktemp("whole")
    run = run_search(flags, output)
    assert run.returncode == 0, run.stderr
    (output / "printed.txt").write_text(run.stdout)
    return output


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_every_question_is_answered_within_its_budget(whole):
    predictions, rows = (read(whole / name) for name in FILES)
    assert [row["question_id"] for row in rows] == list(range(2 * COUNT)) and len(predictions) == 2 * COUNT
    for row in rows:
        sql, db_id = predictions[str(row["question_id"])].split("\t----- bird -----\t")
        assert (sql, db_id) == (row["chosen"], row["db_id"]) and sql in row["candidates"]
        assert [node["generated_sql"] for node in row["search"]] == row["candidates"]
        assert 4 <= len(row["search"]) <= 12 and (len(row["search"]) > 4) == (row["rounds"] > 0)
        assert row["prompt"].endswith(row["question"]) and "SQL" not in row
        told = {node["execution_feedback"] for node in row["search"] if node["generated_sql"]}
        assert all(told)
        rewards = {node["generated_sql"]: node["reward"] for node in row["search"]}
        assert all(node["reward"] == rewards[node["generated_sql"]] for node in row["search"])
    counts = read(whole / "manifest.json")["counts"]
    queries = sum(len(row["search"]) for row in rows)
    assert (counts["questions"], counts["queries"], counts["tokens"]) == (2 * COUNT, queries, 10 * queries)
    assert counts["rounds"] == sum(row["rounds"] for row in rows) > 0
    assert f"{2 * COUNT} questions, {queries} queries ({queries / 2 / COUNT:.1f} each)" in (
        (whole / "printed.txt").read_text()
    )


def without_gold(places_or_flags: list[str], folder: Path, gold: str | None = None) -> list[str]:
    """The flags with a question file without gold, or with another one for every question."""
    rows = [{name: value for name, value in row.items() if name != "SQL"} for row in read(Path(places_or_flags[1]))]
    rows = [row | ({} if gold is None else {"SQL": gold}) for row in rows]
    (folder / "questions.json").write_text(json.dumps(rows))
    return [places_or_flags[0], str(folder / "questions.json"), *places_or_flags[2:]]


@pytest.mark.parametrize("gold", [None, "", "SELECT nothing FROM nowhere"])
def test_gold_is_read_nowhere(flags, whole, tmp_path, monkeypatch, gold):
    """Neither from the file nor by the executor: without any, or with another one, it finds the same."""
    observe = Executor.observe

    async def observing(executor, path, sql, gold_sql):
        assert gold_sql == ""
        return await observe(executor, path, sql, gold_sql)

    monkeypatch.setattr(Executor, "observe", observing)
    for judging in ("judge", "judge_all", "run_gold", "prepare"):
        monkeypatch.setattr(Executor, judging, None)
    run = run_search(without_gold(flags, tmp_path, gold), tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert results(tmp_path / "out") == results(whole)


class Unsteady(FakeGenerator):
    """The same replies after times that are drawn anew in each run."""

    async def sample(self, messages, n, seed, revises):
        await asyncio.sleep(random.SystemRandom().random() * 0.02)
        return await super().sample(messages, n, seed, revises)


def test_the_order_of_replies_and_the_questions_beside_change_nothing(flags, whole, tmp_path):
    run = run_search(flags, tmp_path / "out", generator=Unsteady)
    assert run.returncode == 0, run.stderr
    assert results(tmp_path / "out") == results(whole)
    run = run_search(flags, tmp_path / "few", "--limit", "4")
    assert run.returncode == 0, run.stderr
    of_all = {row["question_id"]: row for row in read(whole / FILES[1])}
    few = read(tmp_path / "few" / FILES[1])
    assert len(few) == 4 and all(row == of_all[row["question_id"]] for row in few)


class Noting(FakeGenerator):
    """Notes which requests are to revise, and by which reviser."""

    asked: list[tuple] = []

    def __init__(self, model, tokenizer, sampling, engine):
        super().__init__()
        self.reviser = engine.reviser

    async def sample(self, messages, n, seed, revises):
        self.asked.append((messages, revises, self.reviser.folder.name))
        return await super().sample(messages, n, seed, revises)


def test_a_reviser_writes_the_revisions_and_is_part_of_the_run(flags, whole, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(Noting, "asked", [])
    folders = [make_reviser(tmp_path / name, tiny_model, weights=name.encode()) for name in ("one", "other")]
    run = run_search(flags, tmp_path / "out", "--reviser", folders[0], generator=Noting)
    assert run.returncode == 0, run.stderr
    assert {revises for _, revises, _ in Noting.asked} == {True, False}
    assert all(
        revises == ("An earlier query was wrong." in messages[0]["content"]) and name == "one"
        for messages, revises, name in Noting.asked
    )
    assert "warning" not in run.stdout
    prompts = [SimpleNamespace(db_id="library", prompt=user_prompt(row["prompt"])) for row in read(whole / FILES[1])]
    write_trained_on(folders[0], prompts[:3], {})
    run = run_search(flags, tmp_path / "known", "--reviser", folders[0])
    assert run.returncode == 0 and f"{folders[0]} was trained on 3 of its {2 * COUNT} prompts;" in run.stdout
    other = run_search(flags, tmp_path / "out", "--reviser", folders[1])
    assert_one_line_error(other, "holds a finished run with other settings")
    drafts = ("--budget", "4", "--reviser", folders[0])
    assert_one_line_error(run_search(flags, tmp_path / "new", *drafts), "nothing is revised")
    asked = ("--revision", "chat", "--reviser", folders[0])
    assert_one_line_error(run_search(flags, tmp_path / "new", *asked), "was trained for --revision facts")
    assert not (tmp_path / "new").exists()


# --- beside evaluate.py, with a real reward model ---------------------------------------------------------------------


def evaluate(tiny_model, adapter, flags, candidates: Path, folder: Path) -> tuple[dict, list[list[float | None]]]:
    """The predictions that evaluate.py chooses of candidates, and their rewards."""
    run = run_main(
        *("evaluate", "--base_model", tiny_model, "--adapters", adapter, "--candidates", candidates),
        *("--db_root", flags[3], "--predictions", folder / "predictions.json"),
        *("--output_file", folder / "report.json", "--dtype", "float32"),
    )
    assert run.returncode == 0 and "warning" not in run.stdout, run.stdout + run.stderr
    rows = read(folder / "report.json")["candidates"]
    rewards = [[next(iter(one["rewards"].values()), None) for one in row["candidates"]] for row in rows]
    return read(folder / "predictions.json"), rewards


def assert_same_as_evaluation(output: Path, predictions: dict, rewards: list) -> None:
    assert read(output / FILES[0]) == predictions
    for row, expected in zip(read(output / FILES[1]), rewards, strict=True):
        assert [node["reward"] for node in row["search"]] == [
            reward if reward is None else pytest.approx(reward, abs=1e-5) for reward in expected
        ]


def test_evaluation_of_its_candidates_gives_the_same_rewards_and_answers(flags, tiny_model, adapter, tmp_path):
    run = run_search(flags, tmp_path, "--limit", "6", "--reward_dtype", "float32", rewards=None)
    assert run.returncode == 0, run.stderr
    assert_same_as_evaluation(tmp_path, *evaluate(tiny_model, adapter, flags, tmp_path / FILES[1], tmp_path))


def test_as_many_drafts_as_the_budget_are_best_of_n(flags, places, tiny_model, adapter, tmp_path):
    """The same as step 4.1 without gold and evaluate.py give with the same reward model."""
    budget = ("--num_roots", "8", "--budget", "8", "--limit", "6")
    run = run_search(flags, tmp_path, *budget, "--reward_dtype", "float32", rewards=None)
    assert run.returncode == 0, run.stderr
    assert read(tmp_path / "manifest.json")["counts"]["rounds"] == 0
    with pytest.MonkeyPatch.context() as patch:
        pretend_pipeline(patch.setattr)
        drawn = ("--no_gold", "--max_depth", "1", "--redraws", "0", "--num_roots", "8", "--limit", "6")
        assert run_main("tree.run_pipeline", *places, "--output_dir", tmp_path / "drawn", *drawn).returncode == 0
    candidates = the_run(tmp_path / "drawn") / "candidates.json"
    prompts_and_candidates = [
        [(row["prompt"], row["candidates"]) for row in read(path)] for path in (candidates, tmp_path / FILES[1])
    ]
    assert prompts_and_candidates[0] == prompts_and_candidates[1]
    assert_same_as_evaluation(tmp_path, *evaluate(tiny_model, adapter, flags, candidates, tmp_path))


# --- killed and resumed -----------------------------------------------------------------------------------------------


def test_killed_anywhere_and_resumed_it_ends_the_same(flags, whole, tmp_path):
    """At the writing of the manifest, of questions, and of the results, before it or after it."""

    def search_and_die(moment: int) -> None:
        pretend(generator=Unsteady)
        kill_at(moment)
        search.main([*flags, "--output_dir", str(tmp_path)])
        os._exit(0)

    for moment in (1, 2, 3, 6, 9):
        assert in_child(partial(search_and_die, moment)) == signal.SIGKILL
        assert not (tmp_path / FILES[0]).exists()
    moment, code = 7, signal.SIGKILL
    while code:  # what is left, and the results
        assert code == signal.SIGKILL
        moment += 1
        code = in_child(partial(search_and_die, moment))
        for name in FILES:
            assert not (tmp_path / name).exists() or (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert results(tmp_path) == results(whole)
    assert not list(tmp_path.glob(".*.tmp"))
    manifest, undisturbed = (read(folder / "manifest.json") for folder in (tmp_path, whole))
    assert manifest["counts"] == undisturbed["counts"] and manifest["continued"] >= 5


def test_a_finished_run_is_written_again_and_another_one_is_refused(flags, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / FILES[0]).write_text("lost")
    run = run_search(flags, tmp_path)
    assert run.returncode == 0 and "written again" in run.stdout and "starting the engine" not in run.stdout
    assert results(tmp_path) == results(whole)
    other = run_search(flags, tmp_path, "--beam", "3")
    assert_one_line_error(other, "holds a finished run with other settings", "--output_dir", "--fresh")
    # an unfinished one is resumed by its own settings only
    manifest = {name: value for name, value in read(tmp_path / "manifest.json").items() if name != "ended"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    other = run_search(flags, tmp_path, "--beam", "3")
    assert_one_line_error(other, "holds an unfinished run with other settings")
    assert "\n  beam: 2 -> 3\n" in other.stderr
    assert results(tmp_path) == results(whole)
    run = run_search(flags, tmp_path, "--beam", "1", "--fresh")
    assert run.returncode == 0 and "20 questions, 20 to work on" in run.stdout
    assert results(tmp_path) != results(whole)


def test_a_question_that_fails_is_quarantined_and_predicted_to_have_no_answer(flags, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIL_ON", "Number 4:")
    run = run_search(flags, tmp_path, generator=FaultyGenerator)
    assert run.returncode == 0, run.stderr
    assert "skipped question 4 (shop): failed 2 times" in run.stdout and "1 questions skipped" in run.stdout
    rows = [row for row in read(whole / FILES[1]) if row["question_id"] != 4]
    assert read(tmp_path / FILES[1]) == rows
    expected = read(whole / FILES[0]) | {"4": "\t----- bird -----\tshop"}
    assert read(tmp_path / FILES[0]) == expected


# --- what cannot be run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--budget", "3"), ("--budget 3", "--num_roots 4")),
        (("--beam", "0"), ("--beam 0",)),
        (("--num_roots", "0"), ("--num_roots 0",)),
        (("--sample_num", "0"), ("--sample_num 0",)),
        (("--temperature", "0"), ("--temperature 0",)),
        (("--gpu_memory", "0"), ("--gpu_memory 0.0",)),
        (("--sql_timeout", "0"), ("--sql_timeout 0.0",)),
        (("--limit", "-1"), ("--limit -1",)),
        (("--adapter", "nowhere"), ("nowhere", "no such adapter folder")),
        (("--base_model", "nowhere"), ("nowhere", "no such model folder")),
        (("--model", "nowhere"), ("nowhere", "no such model folder")),
        (("--db_root", "nowhere"), ("nowhere", "no such database")),
        (("--data", "nowhere.json"), ("nowhere.json", "no such file")),
        (("--output_dir", "/proc/nowhere"), ("/proc/nowhere", "cannot be written")),
        (("--max_model_len", "600"), ("every prompt is too long",)),
    ],
)
def test_bad_input_is_refused_in_one_line_before_an_engine_starts(flags, tmp_path, changed, words):
    run = run_search(flags, tmp_path / "out", *changed)
    assert_one_line_error(run, *words)
    assert "starting the engine" not in run.stdout
    assert not list((tmp_path / "out").glob("*.json*"))


def test_an_adapter_of_another_base_is_refused(flags, tmp_path, tiny_generator):
    run = run_search(flags, tmp_path / "out", "--base_model", tiny_generator)
    assert_one_line_error(run, "another base model")


def test_a_folder_that_is_no_search_is_left_alone(flags, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    assert_one_line_error(run_search(flags, tmp_path), "manifest.json: not the manifest of a search", "--output_dir")
    assert (tmp_path / "manifest.json").read_text() == "{}"
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "candidates.json").write_text("[]")
    assert_one_line_error(run_search(flags, tmp_path), "candidates.json: not of a search", "--output_dir")
    assert (tmp_path / "candidates.json").read_text() == "[]"


# --- a GPU that engine and reward model share -------------------------------------------------------------------------


def test_the_engine_gets_what_the_reward_model_leaves(flags, tmp_path, monkeypatch):
    settings = search_run(parse_arguments([*flags, "--output_dir", str(tmp_path)]))
    assert settings.engine_for(1000).max_model_len == 1000 + 512 + 512  # one query is shown beside the prompt
    chats = replace(settings, search=replace(settings.search, revision="chat"))
    assert chats.engine_for(1000).max_model_len == 1000 + 2 * 512 + 512  # two rounds of four after four drafts
    only_drafts = replace(settings, search=replace(settings.search, num_roots=12))
    assert only_drafts.engine_for(1000).max_model_len == 1000 + 512
    monkeypatch.setattr(search_settings, "on_gpu", lambda: True)
    monkeypatch.setattr(search_settings, "first_card", lambda: 24.0)
    assert 0.8 < settings.engine_for(1000).gpu_memory < 0.9 - 1 / 24  # a tiny model, and CUDA's context
    big = Shape(weights=3 * GIB, per_token=1, step=GIB // 10_000, drawn=1)
    monkeypatch.setattr(search_settings, "model_shape", lambda model, dtype: big)
    tokens = 16 * (1000 + 512 + 300)  # prompt, query and what executing it said
    assert settings.engine_for(1000).gpu_memory == round(0.9 - (3 + 1 + tokens / 10_000) / 24, 3)
    monkeypatch.setattr(search_settings, "first_card", lambda: 8.0)
    with pytest.raises(InputError, match="a GPU of 8 GiB is too small for"):
        settings.engine_for(1000)
    monkeypatch.setattr(search_settings, "first_card", lambda: 0.0)
    with pytest.raises(InputError, match="--gpu_gib 24"):
        settings.engine_for(1000)
    assert replace(settings, gpu_gib=24.0).engine_for(1000).gpu_memory > 0


def test_the_share_beside_another_model():
    other = Shape(weights=3 * GIB, per_token=1, step=GIB // 1_000, drawn=1)
    assert share_beside(other, 20.0, 0.9, 2_000) == pytest.approx(0.9 - (3 + 1 + 2) / 20, abs=1e-4)
    assert share_beside(other, 4.0, 0.9, 2_000) < 0
