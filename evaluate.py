"""Evaluate reward models, and choose the best of several queries with them (step 6):

    python evaluate.py --base_model Qwen2.5-Coder-1.5B-Instruct --adapters none qwen-reward-model-sql-train \\
        --test_data final_data_test.json --batch_size 64
    python evaluate.py --candidates all_trees.json --db_root data/dev/dev_databases          # EX of the best of N
    python evaluate.py --candidates candidates.json --db_root data/dev/dev_databases --predictions predict_dev.json

Preference pairs (--test_data): accuracy, AUC, margins, calibration; by what the chosen and the rejected query are, by
relation, distance gap, difficulty and database.
Candidates (--candidates; of trees, the first attempts): execution accuracy after choosing one of N by reward, by
votes, and by both. With --predictions the chosen query of each question, in BIRD's format. All intervals are 95 %,
over questions. `none` is the untrained base model; several adapters are also judged, and choose, by the mean of their
rewards. Each distinct candidate is scored once; where candidates bring no prompt, each adapter is asked behind one that
is made as those of its training pairs, and it reads as much of what executing a candidate said as it was trained with
(`none` as the first adapter beside it).

Writes --output_file (JSON), and beside it the same name with .md (tables) and .png (curves).
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import compress
from pathlib import Path
from statistics import fmean

from common.files import InputError, check_writable, replacing, run_script, write_json
from common.manifest import Manifest
from common.model_folder import check_model_folder, model_fingerprint
from common.preference import PreferencePair, Prompt, answer, check_results, read_pairs
from common.trained_on import check_overlap, recorded_result_length
from eval.adapter_prompts import UNTRAINED, pools_by_adapter, prompt_settings_of, warn_of_other_prompts
from eval.best_of_n import CHOICES, Candidates, choice_report
from eval.candidates import (
    CandidatePool,
    PoolResults,
    as_candidates,
    chosen_query,
    execute,
    read_pools,
    warn_of_redraws,
)
from eval.evaluation_picture import draw
from eval.evaluation_report import markdown_page, terminal_lines
from eval.execution_accuracy import in_birds_format
from eval.pair_report import Rewards, pair_report
from reward.launch import stay_offline
from reward.tokens import load_tokenizer
from tree.run.databases import check_unchanged, database_fingerprints
from tree.sql.results import Result
from tree.sql_utils import SqlSettings, add_sql_flags, check_database, database_path, sql_settings

TEST_DATA = "final_data_test.json"


@dataclass(frozen=True)
class EvaluationSettings:
    """The flags, by name; `test_data`, `candidates` and `predictions` are None where there are none."""

    base_model: str
    adapters: list[str]
    test_data: str | None
    candidates: str | None
    db_root: str
    predictions: str | None
    choose: str
    allow_overlap: bool
    batch_size: int
    dtype: str
    output_file: str
    sql: SqlSettings

    @property
    def trained(self) -> list[str]:
        return [adapter for adapter in self.adapters if adapter != UNTRAINED]

    @property
    def report_files(self) -> list[Path]:
        """JSON, Markdown and PNG."""
        return [Path(self.output_file).with_suffix(suffix) for suffix in (".json", ".md", ".png")]


def parse_arguments(words: list[str] | None = None) -> EvaluationSettings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base_model", default="Qwen2.5-Coder-1.5B-Instruct", help="folder of the base model")
    add("--adapters", nargs="+", default=["qwen-reward-model-sql-train"], help="adapter folders; none = untrained base")
    add("--test_data", help=f"preference pairs (step 4.2; default {TEST_DATA} unless --candidates is given)")
    add("--candidates", help="all_trees.json, or a list of {question_id, db_id, question, evidence, candidates}")
    add("--db_root", default="data/train/train_databases", help="folder of the candidates' databases")
    add("--predictions", help="file to write the chosen queries to, in BIRD's format")
    add("--choose", choices=CHOICES, default=CHOICES[0], help="how --predictions are chosen, see docs/evaluation.md")
    add("--allow_overlap", action="store_true", help="evaluate on databases or prompts that an adapter was trained on")
    add("--batch_size", type=int, default=64, help="candidates scored at the same time")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="auto: bfloat16 if the machine has it")
    add_sql_flags(add, "one per core")
    add("--output_file", default="evaluation_report.json", help="report to write; .md and .png beside it")
    args = parser.parse_args(words)
    if args.batch_size < 1:
        raise InputError(f"--batch_size {args.batch_size}: must be 1 or more")
    if repeated := [name for name in args.adapters if args.adapters.count(name) > 1]:
        raise InputError(f"--adapters: {repeated[0]} is duplicated")
    if args.predictions and not args.candidates:
        raise InputError("--predictions needs --candidates to choose from")
    if Path(args.output_file).suffix != ".json":
        raise InputError(f"--output_file {args.output_file}: must end in .json")
    args.test_data = args.test_data or (None if args.candidates else TEST_DATA)
    args.sql = sql_settings(args.sql_workers, args.sql_timeout)
    return EvaluationSettings(**{field.name: getattr(args, field.name) for field in fields(EvaluationSettings)})


# --- inputs -----------------------------------------------------------------------------------------------------------


def checked_pools(settings: EvaluationSettings) -> list[CandidatePool]:
    """The questions of --candidates, their databases checked."""
    if not settings.candidates:
        return []
    pools = read_pools(settings.candidates)
    for db_id in sorted({pool.question.db_id for pool in pools}):
        check_database(database_path(settings.db_root, db_id))
    warn_of_redraws(settings.candidates)
    return pools


def check_overlaps(
    settings: EvaluationSettings, pairs: Sequence[PreferencePair], pools: dict[str, list[CandidatePool]]
) -> None:
    """Raise InputError when an adapter was trained on what it is to be judged by: pairs, and questions with gold."""
    for adapter in settings.trained:
        if pairs:
            check_overlap(adapter, settings.test_data, {pair.db_id for pair in pairs}, {pair.prompt for pair in pairs})
        if judged := [pool for pool in pools[adapter] if pool.question.sql]:
            prompts = {pool.conversation for pool in judged}
            check_overlap(adapter, settings.candidates, {pool.question.db_id for pool in judged}, prompts)


# --- rewards ----------------------------------------------------------------------------------------------------------

Queries = dict[Prompt, dict[str, str]]  # prompt -> its distinct queries -> what executing each said


def result_lengths(adapters: Sequence[str]) -> dict[str, int]:
    """Adapter -> how much of a result it reads; the untrained base as much as the first adapter beside it."""
    trained = {adapter: recorded_result_length(adapter) for adapter in adapters if adapter != UNTRAINED}
    return {adapter: trained.get(adapter, next(iter(trained.values()), 0)) for adapter in adapters}


def distinct_queries(
    pairs: Sequence[PreferencePair], pools: Sequence[CandidatePool], executed: Sequence[PoolResults]
) -> Queries:
    """Each prompt with its distinct queries."""
    found: Queries = {}
    for pair in pairs:
        found.setdefault(pair.prompt, {}).update({pair.chosen: pair.chosen_result, pair.rejected: pair.rejected_result})
    for pool, results in zip(pools, executed, strict=True):
        queries = found.setdefault(pool.conversation, {})
        queries.update({sql: results.results[sql].feedback for sql in pool.distinct})
    return {prompt: queries for prompt, queries in found.items() if queries}


def score_all(settings: EvaluationSettings, adapter: str, queries: Queries, result_length: int) -> Rewards:
    """The rewards that an adapter gives to queries, by prompt."""
    from reward.model import load_reward_model, score

    print(f"{adapter}: {len(queries)} prompts, {sum(map(len, queries.values()))} distinct candidates", flush=True)
    folder = None if adapter == UNTRAINED else adapter
    model, tokenizer = load_reward_model(Path(settings.base_model), folder, settings.dtype)
    asked = [
        (prompt, [answer(sql, result, result_length) for sql, result in candidates.items()])
        for prompt, candidates in queries.items()
    ]
    scores = score(model, tokenizer, asked, settings.batch_size, progress=adapter)
    return {
        (prompt, sql): value
        for (prompt, candidates), values in zip(queries.items(), scores, strict=True)
        for sql, value in zip(candidates, values, strict=True)
    }


def averaged(adapters: Sequence[str], pools_of: dict[str, list[CandidatePool]]) -> list[str]:
    """The trained adapters, where they are several that are asked behind the same prompts; otherwise none."""
    trained = [adapter for adapter in adapters if adapter != UNTRAINED]
    same = all(pools_of[adapter] == pools_of[trained[0]] for adapter in trained)
    return trained if same and len(trained) > 1 else []


def mean_rewards(rewards: Sequence[Rewards]) -> Rewards:
    """The mean reward of each query. Rewards are log-odds (Bradley-Terry), so the surer adapter counts more.

    Coste et al., "Reward Model Ensembles Help Mitigate Overoptimization", arXiv 2310.02743, "mean optimization".
    """
    return {key: fmean(of[key] for of in rewards) for key in rewards[0]}


# --- reports ----------------------------------------------------------------------------------------------------------


def candidate_rows(
    pools_of: dict[str, list[CandidatePool]], executed: Sequence[PoolResults], rewards: dict[str, Rewards]
) -> Iterator[dict]:
    """Every question's candidates in order, each with outcome, whether it is right, and the rewards of each adapter."""
    for pools, found in zip(zip(*pools_of.values(), strict=True), executed, strict=True):
        listed = []
        for sql in pools[0].queries:
            result = found.results.get(sql, Result("no_sql", "", None))
            given = {
                name: round(rewards[name][pool.conversation, sql], 6)
                for name, pool in zip(pools_of, pools, strict=True)
                if sql
            }
            listed.append({"SQL": sql, "outcome": result.outcome, "is_correct": result.ex, "rewards": given})
        question = pools[0].question
        yield {"question_id": question.question_id, "db_id": question.db_id, "candidates": listed}


def write_predictions(path: str, pools: Sequence[CandidatePool], known: Sequence[Candidates], choose: str) -> None:
    """The chosen query of each question in BIRD's format, "" where there is none."""
    chosen = [
        (pool.question, chosen_query(pool, candidates, choose)) for pool, candidates in zip(pools, known, strict=True)
    ]
    predictions = in_birds_format(chosen)
    write_json(path, predictions)
    print(f"predictions: {path} ({len(predictions)} questions, chosen by {choose})")


def best_of_n(
    settings: EvaluationSettings,
    pools_of: dict[str, list[CandidatePool]],
    executed: Sequence[PoolResults],
    rewards: dict[str, Rewards],
) -> dict | None:
    """Execution accuracy over the questions with gold that runs, None without any; writes the predictions."""
    pools = next(iter(pools_of.values()))  # those of another adapter differ in their prompts only
    plain = list(map(as_candidates, pools, executed))
    rewarded = {
        name: [as_candidates(pool, found, rewards[name]) for pool, found in zip(own, executed, strict=True)]
        for name, own in pools_of.items()
    }
    if settings.predictions:
        by = next((name for name in reversed(rewarded) if name != UNTRAINED), UNTRAINED)  # the mean, where there is one
        write_predictions(settings.predictions, pools, rewarded[by], settings.choose)
    for pool, found in zip(pools, executed, strict=True):
        if found.gold and not found.judged:
            question = pool.question
            print(f"left out: question {question.question_id} ({question.db_id}), whose gold fails: {found.gold}")
    judged = [found.judged for found in executed]
    if not any(judged):
        print("no question has gold that runs, so there is no accuracy to report")
        return None
    rewarded = {name: list(compress(known, judged)) for name, known in rewarded.items()}
    return choice_report(list(compress(plain, judged)), rewarded)


def write_report(settings: EvaluationSettings, report: dict) -> None:
    """JSON, Markdown and curves."""
    json_file, page, picture = settings.report_files
    print("\n".join(terminal_lines(report)))
    if report.get("pairs") or report.get("choice"):
        draw(report, picture)
        with replacing(page) as file:
            file.write(markdown_page(report, picture.name))
    write_json(json_file, report)
    print(f"report: {json_file}")


def main(words: list[str] | None = None) -> None:
    settings = parse_arguments(words)
    stay_offline()

    # --- everything that can be wrong, before a model is loaded ---
    base = check_model_folder(settings.base_model)
    check_writable(*filter(None, (settings.predictions, *settings.report_files)))
    pairs = read_pairs(settings.test_data) if settings.test_data else []
    pools = checked_pools(settings)
    databases = database_fingerprints(settings.db_root, [pool.question.db_id for pool in pools])
    inputs = {name: path for name in ("test_data", "candidates") if (path := getattr(settings, name))}
    facts = {"databases": databases, "model": str(base), "model_fingerprint": model_fingerprint(base)}
    manifest = Manifest(asdict(settings), inputs, **facts)
    from reward.model import check_adapter  # which loads torch

    for adapter in settings.trained:
        check_adapter(adapter, base)
    lengths = result_lengths(settings.adapters)
    if any(lengths.values()):
        check_results(settings.test_data, pairs)
    trained_behind = prompt_settings_of(settings.adapters)
    manifest.content["prompt_settings"] = {name: own and vars(own) for name, own in trained_behind.items()}
    with_prompt = settings.candidates if any(pool.prompt for pool in pools) else None
    for path in filter(None, (settings.test_data, with_prompt)):
        warn_of_other_prompts(path, trained_behind)
    pools_of = pools_by_adapter(pools, trained_behind, settings.candidates, settings.db_root, load_tokenizer(base))
    if not settings.allow_overlap:
        check_overlaps(settings, pairs, pools_of)
    together = averaged(settings.adapters, pools_of)
    if settings.predictions and len(settings.trained) > 1 and not together:
        raise InputError(
            "--predictions: the adapters know other prompts, so their rewards have no mean; give one adapter"
        )

    # --- candidates are executed before a model takes the machine ---
    executed = asyncio.run(execute(pools, settings.db_root, settings.sql)) if pools else []
    check_unchanged(settings.db_root, databases, "evaluate again")

    # --- rewards, behind the prompts that each adapter knows ---
    rewards = {
        adapter: score_all(settings, adapter, distinct_queries(pairs, pools_of[adapter], executed), lengths[adapter])
        for adapter in settings.adapters
    }
    if together:
        mean = f"mean of {len(together)}"
        rewards[mean] = mean_rewards([rewards[adapter] for adapter in together])
        pools_of[mean] = pools_of[together[0]]

    # --- report ---
    report = {"manifest": manifest.ended(pairs=len(pairs), questions=len(pools))}
    if pairs:
        report["pairs"] = pair_report(pairs, rewards)
    if pools:
        report["choice"] = best_of_n(settings, pools_of, executed, rewards)
        report["candidates"] = list(candidate_rows(pools_of, executed, rewards))
    write_report(settings, report)


if __name__ == "__main__":
    run_script(main)
