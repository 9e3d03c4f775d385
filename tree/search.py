"""Answer questions without gold by search: drafts, and revisions of those that a reward model holds for the best.

    python -m tree.search --data data/dev/dev.json --db_root data/dev/dev_databases --output_dir output/search
    python -m tree.search --num_roots 24 --budget 24 --output_dir output/best_of_24      # best-of-24, no revisions
    python -m tree.search --data data/demo/train.json --db_root data/demo/train_databases --limit 10 \\
        --model Qwen2.5-Coder-0.5B-Instruct --base_model Qwen2.5-Coder-0.5B-Instruct     # a trial on a CPU

NUM_ROOTS drafts of each question are executed and scored by the reward model; the best of them (--beam) are revised,
their revisions executed and scored, and so on, until a round brings nothing better. What is left of the --budget of
queries is spent on further drafts. The answer is chosen of all queries as evaluate.py chooses. Gold is read nowhere: a
SQL column is ignored.

Writes into --output_dir: predict.json (BIRD's format), candidates.json (every query with what executing it said and its
reward, for `evaluate.py --candidates`), manifest.json. A run that was killed is resumed by the same command.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import InputError, JsonList, dump_json, read_json, remove_leftovers, replacing_together, run_script
from common.locks import alone_in
from common.manifest import Manifest, refuse_other_run, run_of, warn_of_other_code
from common.preference import answer
from eval.execution_accuracy import in_birds_format
from eval.search.beam import Rated, chosen, search
from eval.search.score_queue import ScoreQueue
from eval.search.settings import SCORED_AT_ONCE, SearchRun, parse_arguments, search_run
from reward.launch import stay_offline
from tree.generator import Generator, check_device, encode, load_tokenizer, sequences_at_once
from tree.pairs.shard import PER_SHARD
from tree.run.databases import RESUME, check_unchanged, database_fingerprints
from tree.run.preflight import prepare_prompts
from tree.run.question_log import QuestionLog
from tree.run.reviser import reviser_inputs, warn_of_overlap
from tree.run.run_folder import StoredRun
from tree.run.work_list import WorkList, checked_questions
from tree.run.workers import leave_out_quarantined, run_questions, run_whole
from tree.sql_utils import Executor
from tree.tree_node import Question

if TYPE_CHECKING:
    from tqdm import tqdm

JOURNAL = ("candidates.jsonl", "attempts.jsonl", "crash.txt")
RESULTS = ("predict.json", "candidates.json")
# settings in which a resumed run may differ: models have fingerprints
MAY_DIFFER = PER_SHARD | {"base_model", "adapter"}
FACTS = ("databases", "base_fingerprint", "adapter_fingerprint")


# --- from a question to its candidates --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Searcher:
    """Searches for answers: `generator` writes queries, `executor` runs them, `rewards` scores them."""

    work: WorkList
    settings: SearchRun
    generator: Generator
    executor: Executor
    rewards: ScoreQueue
    bar: "tqdm"
    counts: Counter = field(default_factory=Counter)

    async def candidates_of(self, question: Question) -> dict:
        """What the search for one question found, as its line of the journal and row of candidates.json."""
        task = self.work.prompt(question)
        rate = partial(self._rate, question, task)
        nodes, rounds = await search(
            question.question_id, task, self.settings.search, self.generator.sample, rate, self.generator.fits
        )
        fingerprint = self.work.fingerprints[question.db_id]
        check_unchanged(self.settings.db_root, {question.db_id: fingerprint}, RESUME)
        self.counts.update(queries=len(nodes), rounds=rounds)
        self.bar.set_postfix_str(f"{self.counts['queries']} queries, {self.counts['rounds']} rounds", refresh=False)
        self.bar.update()
        return {
            **{name: getattr(question, name) for name in ("question_id", "db_id", "question", "evidence")},
            "prompt": task,
            "candidates": [node.sql for node in nodes],
            "chosen": chosen(question, task, nodes, self.settings.choose),
            "rounds": rounds,
            "search": [node.to_json() for node in nodes],
        }

    async def _rate(self, question: Question, task: str, queries: Sequence[str]) -> list[Rated]:
        """Execute queries without any gold, and score them with what that said."""
        path = self.work.database(question.db_id)
        results = await asyncio.gather(*(self.executor.observe(path, sql, "") for sql in queries))
        length = self.settings.result_length
        read = [answer(sql, result.feedback, length) for sql, result in zip(queries, results, strict=True)]
        return list(map(Rated, results, await self.rewards.score(task, read)))


def load_rewards(settings: SearchRun) -> ScoreQueue:
    """The reward model, ready to score."""
    from reward.model import load_reward_model, score

    model, tokenizer = load_reward_model(settings.base_model, settings.adapter, settings.reward_dtype)
    return ScoreQueue(partial(score, model, tokenizer, batch_size=SCORED_AT_ONCE))


async def search_all(
    work: WorkList, settings: SearchRun, generator: Generator, executor: Executor, log: QuestionLog
) -> None:
    """Search for the answers to all questions, many at a time, into the log."""
    from tqdm import tqdm

    rewards = load_rewards(settings)  # after the engine has started, before which nothing may ask CUDA
    # twice what the engine needs, because searches wait for SQL and rewards too
    in_flight = settings.search.beam * settings.search.sample_num
    at_once = max(8, 2 * sequences_at_once(settings.engine.max_num_seqs) // in_flight)
    with tqdm(total=len(log.unfinished(work.questions)), desc="searches", unit="question") as bar:
        searcher = Searcher(work, settings, generator, executor, rewards, bar)
        await run_questions(work.questions, searcher.candidates_of, log, at_once)


# --- files ------------------------------------------------------------------------------------------------------------


def find_run(settings: SearchRun, content: dict) -> StoredRun | None:
    """The run of the output folder, when it is the one of the manifest `content`; None when a new one is to be begun.

    Raises InputError when it is another one, or holds files of these names that are of none.
    """
    folder = settings.output_dir
    path = folder / "manifest.json"
    if settings.fresh:
        return None
    if not path.exists():
        if foreign := [name for name in RESULTS if (folder / name).exists()]:
            raise InputError(f"{folder / foreign[0]}: not of a search; give another --output_dir")
        return None
    stored = StoredRun(folder, read_json(path, dict))
    try:
        before, now = (run_of(manifest, MAY_DIFFER, FACTS) for manifest in (stored.manifest, content))
    except (KeyError, TypeError):
        raise InputError(f"{path}: not the manifest of a search; give another --output_dir") from None
    if before != now and stored.finished:
        raise InputError(f"{folder} holds a finished run with other settings; give another --output_dir, or --fresh")
    if before != now:
        refuse_other_run(folder, before, now, "--fresh to begin anew")
    warn_of_other_code(folder, stored.manifest, content)
    return stored


def clear(folder: Path) -> None:
    """Delete what another run left; its manifest first, so that nothing of it can be resumed."""
    for name in ("manifest.json", *JOURNAL, *RESULTS):
        (folder / name).unlink(missing_ok=True)


def write_results(asked: Sequence[Question], log: QuestionLog, folder: Path) -> dict[str, int | float]:
    """What the log holds, as predictions ("" for a question without an answer) and candidates; returns counts."""
    predictions, candidates = paths = [folder / name for name in RESULTS]
    remove_leftovers(*paths, folder / "manifest.json")
    answers: dict[int, str] = {}
    counts: Counter = Counter()
    with replacing_together(predictions, candidates) as (prediction_file, candidate_file):
        rows = JsonList(candidate_file)
        for row in log.read(asked):
            rows.add(row)
            answers[row["question_id"]] = row["chosen"]
            tokens = sum(node["tokens"] for node in row["search"])
            counts.update(queries=len(row["search"]), tokens=tokens, rounds=row["rounds"])
        rows.end()
        chosen_of = ((question, answers.get(question.question_id, "")) for question in asked)
        dump_json(prediction_file, in_birds_format(chosen_of))
    return {"questions": len(answers), **counts}


def summary(counts: dict, folder: Path) -> str:
    questions, queries, rounds = (counts[name] for name in ("questions", "queries", "rounds"))
    return (
        f"{questions} questions, {queries} queries ({queries / questions:.1f} each), {counts['tokens']} tokens, "
        f"{rounds / questions:.1f} rounds of revisions each, {len(counts['skipped_questions'])} questions skipped "
        f"-> {folder / RESULTS[0]}, {RESULTS[1]}"
    )


# --- the run ----------------------------------------------------------------------------------------------------------


async def run(work: WorkList, settings: SearchRun, manifest: Manifest, stored: StoredRun | None) -> None:
    """From questions to predictions; resumes a stored run."""
    folder, asked = settings.output_dir, list(work.questions)
    # SQL workers start before the engine takes the machine
    with Executor(settings.sql.workers, settings.sql.timeout) as executor:
        # --- what there is to do ---
        tokenizer = load_tokenizer(settings.model)
        lengths = prepare_prompts(work, partial(encode, tokenizer))
        work.report("every prompt is too long; use a larger --max_model_len, or an adapter of longer prompts")
        warn_of_overlap(settings.engine.reviser, work)
        check_unchanged(settings.db_root, work.fingerprints, RESUME)
        engine = settings.engine_for(max(lengths.values()))
        if not stored:
            clear(folder)
        log = QuestionLog(folder / JOURNAL[0])
        log.start()
        manifest.begin(folder / "manifest.json", stored.manifest if stored else None)
        leave_out_quarantined(work, log)
        left = len(log.unfinished(work.questions))
        print(f"{len(work.questions)} questions, {left} to work on -> {folder}", flush=True)

        # --- searches ---
        if left:
            generator = Generator(settings.model, tokenizer, settings.sampling, engine)
            try:
                with log.recording_crashes():
                    await search_all(work, settings, generator, executor, log)
            finally:
                generator.close()
    leave_out_quarantined(work, log)

    # --- files ---
    counts = write_results(asked, log, folder) | {"skipped_questions": work.skipped}
    manifest.write(folder / "manifest.json", **counts)
    print(summary(counts, folder), flush=True)


def write_again(asked: Sequence[Question], stored: StoredRun) -> None:
    """The files of a finished run from its journal, whatever became of them."""
    path = stored.folder / JOURNAL[0]
    if not path.exists():
        raise InputError(f"{path}: no such file; begin anew with --fresh")
    print(f"{stored.folder} is finished: its files are written again from {path.name} (see --fresh)")
    write_results(asked, QuestionLog(path), stored.folder)
    print(summary(stored.manifest["counts"], stored.folder), flush=True)


def main(words: list[str] | None = None) -> None:
    # --- everything that can be wrong, before anything expensive ---
    args = parse_arguments(words, __doc__)
    check_device()
    stay_offline()
    settings = search_run(args)
    questions = checked_questions(settings.data, settings.db_root, settings.limit, with_gold=False)
    databases = database_fingerprints(settings.db_root, {question.db_id for question in questions})
    work = WorkList(questions, settings.data, settings.db_root, settings.prompts, fingerprints=databases)
    inputs = {"data": settings.data} | reviser_inputs(settings.engine.reviser)
    manifest = Manifest(settings.arguments, inputs, databases=databases, **settings.facts)

    # --- the run ---
    with alone_in(settings.output_dir):
        stored = find_run(settings, manifest.content)
        if stored and stored.finished:
            write_again(questions, stored)
            return
        run_whole(run(work, settings, manifest, stored))


if __name__ == "__main__":
    run_script(main)
