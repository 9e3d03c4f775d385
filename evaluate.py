"""Evaluate reward models, and choose the best of several queries with them (step 6):

    python evaluate.py --base_model Qwen2.5-Coder-1.5B-Instruct --adapters none qwen-reward-model-sql-train \\
        --test_data final_data_test.json --batch_size 64
    python evaluate.py --candidates all_trees.json --db_root data/dev/dev_databases          # EX of the best of N
    python evaluate.py --candidates candidates.json --db_root data/dev/dev_databases --predictions predict_dev.json

Preference pairs (--test_data): accuracy, AUC, margins, calibration, by relation, distance gap, difficulty and database.
Candidates (--candidates; of trees, the first attempts): execution accuracy after choosing one of N by reward, by
votes, and by both. With --predictions the chosen query of each question, in BIRD's format. All intervals are 95 %,
over questions. `none` is the untrained base model. Each distinct candidate is scored once; where candidates bring no
prompt, each adapter is asked behind one that is made as those of its training pairs.

Writes --output_file (JSON), and beside it the same name with .md (tables) and .png (curves).
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.files import InputError, check_writable, replacing, run_script, write_json
from tree.run.prompt_settings import PromptSettings, made_with
from tree.sql_utils import add_sql_flags, sql_settings

UNTRAINED = "none"
TEST_DATA = "final_data_test.json"
CHOICES = ("reward_vote", "executes_reward", "reward", "majority_vote", "executes_vote")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base_model", default="Qwen2.5-Coder-1.5B-Instruct", help="folder of the base model")
    add("--adapters", nargs="+", default=["qwen-reward-model-sql-train"], help="adapter folders; none = untrained base")
    add("--test_data", help=f"preference pairs (step 4.2; default {TEST_DATA} unless --candidates is given)")
    add("--candidates", help="all_trees.json, or a list of {question_id, db_id, question, evidence, candidates}")
    add("--db_root", default="data/train/train_databases", help="folder of the candidates' databases")
    add("--predictions", help="file to write the chosen queries to, in BIRD's format (one adapter only)")
    add("--choose", choices=CHOICES, default=CHOICES[0], help="how --predictions are chosen, see docs/evaluation.md")
    add("--allow_overlap", action="store_true", help="evaluate on databases or prompts that an adapter was trained on")
    add("--batch_size", type=int, default=64, help="candidates scored at the same time")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="auto: bfloat16 if the machine has it")
    add_sql_flags(add, "one per core")
    add("--output_file", default="evaluation_report.json", help="report to write; .md and .png beside it")
    args = parser.parse_args(words)
    if args.batch_size < 1:
        raise InputError(f"--batch_size {args.batch_size}: must be 1 or more")
    sql_settings(args)
    if repeated := [name for name in args.adapters if args.adapters.count(name) > 1]:
        raise InputError(f"--adapters: {repeated[0]} stands more than once")
    if args.predictions and (not args.candidates or len(args.adapters) > 1):
        raise InputError("--predictions needs --candidates to choose from, and one adapter to choose by")
    if Path(args.output_file).suffix != ".json":
        raise InputError(f"--output_file {args.output_file}: must end in .json")
    if not args.candidates:
        args.test_data = args.test_data or TEST_DATA
    return args


# --- what is asked ----------------------------------------------------------------------------------------------------


def read_asked(args: argparse.Namespace) -> list:
    """The questions of --candidates, their databases checked."""
    from eval.candidates import read_candidates, warn_of_redraws
    from tree.sql_utils import check_database, database_path

    if not args.candidates:
        return []
    asked = read_candidates(args.candidates)
    for db_id in sorted({one.question.db_id for one in asked}):
        check_database(database_path(args.db_root, db_id))
    warn_of_redraws(args.candidates)
    return asked


def settings_of(adapters: Sequence[str]) -> dict[str, PromptSettings | None]:
    """Adapter -> what the prompts that it was trained behind were made with; None when its folder does not say.

    The untrained base is asked as the first adapter beside it, alone as step 4.1 does unless told otherwise.
    """
    from reward.trained_on import FILE, recorded_prompt_settings

    found = {}
    for adapter in adapters:
        if adapter != UNTRAINED:
            recorded = recorded_prompt_settings(adapter)
            found[adapter] = PromptSettings.of(recorded)
            if recorded is not None and found[adapter] is None:
                raise InputError(f"{Path(adapter) / FILE}: 'prompt_settings' are none that can be used; train again")
    return {UNTRAINED: next(iter(found.values()), PromptSettings())} | found


def other_prompts(args: argparse.Namespace, asked: Sequence, settings: dict) -> Iterator[str]:
    """A warning for every file whose prompts were made in another way than those that an adapter was trained behind."""
    from common.manifest import differences

    brought = [args.test_data, args.candidates if any(one.prompt for one in asked) else None]
    for path in filter(None, brought):
        made = made_with(path)
        for adapter in args.adapters:
            own = settings[adapter]
            if adapter != UNTRAINED and made and own and made != own:
                changed = ", ".join(differences(vars(own), vars(made)))
                yield f"warning: {path}: {adapter} was trained behind other prompts than these ({changed})"


def with_own_prompts(args: argparse.Namespace, asked: Sequence, settings: dict, tokenizer) -> dict[str, list]:
    """Adapter -> the questions, where they bring no prompt with one that is made as those it was trained behind."""
    from eval.candidates import with_prompts

    lacking = sum(not one.prompt for one in asked)
    made, found = {}, {}
    for adapter in args.adapters:
        if lacking and settings[adapter] is None and adapter != UNTRAINED:
            print(
                f"warning: {adapter} does not say what its prompts were made with, so the {lacking} questions of "
                f"{args.candidates} without a prompt get one as step 4.1 makes it by default ({PromptSettings()}); if "
                "the adapter was trained behind others, give the rows a 'prompt'"
            )
        own = settings[adapter] or PromptSettings()
        if own not in made:
            made[own] = with_prompts(asked, own, args.candidates, args.db_root, tokenizer)
        found[adapter] = made[own]
    return found


def prompt_of(one) -> tuple:
    from reward.data import Turn

    return (Turn("user", one.prompt),)


def distinct_queries(pairs: Sequence, asked: Sequence) -> dict[tuple, list[str]]:
    """Each prompt with its distinct queries."""
    found: dict[tuple, dict[str, None]] = {}
    for pair in pairs:
        found.setdefault(pair.prompt, {}).update({pair.chosen: None, pair.rejected: None})
    for one in asked:
        found.setdefault(prompt_of(one), {}).update(dict.fromkeys(one.distinct))
    return {prompt: list(queries) for prompt, queries in found.items() if queries}


def check_overlaps(args: argparse.Namespace, pairs: Sequence, asked: dict[str, list]) -> None:
    """Raise InputError when an adapter was trained on what it is to be judged by: pairs, and questions with gold."""
    from reward.trained_on import check_overlap

    for adapter in args.adapters:
        if adapter == UNTRAINED or args.allow_overlap:
            continue
        if pairs:
            check_overlap(adapter, args.test_data, {pair.db_id for pair in pairs}, {pair.prompt for pair in pairs})
        if judged := [one for one in asked[adapter] if one.question.sql]:
            prompts = {prompt_of(one) for one in judged}
            check_overlap(adapter, args.candidates, {one.question.db_id for one in judged}, prompts)


def score_all(args: argparse.Namespace, base: Path, pairs: Sequence, asked: dict[str, list]) -> dict[str, dict]:
    """Adapter -> prompt -> query -> reward, each distinct candidate scored once."""
    from reward.model import load_reward_model, score

    rewards = {}
    for adapter in args.adapters:
        queries = distinct_queries(pairs, asked[adapter])
        print(f"{adapter}: {len(queries)} prompts, {sum(map(len, queries.values()))} distinct candidates", flush=True)
        model, tokenizer = load_reward_model(base, None if adapter == UNTRAINED else adapter, args.dtype)
        scores = score(model, tokenizer, list(queries.items()), args.batch_size, progress=adapter)
        rewards[adapter] = {
            prompt: dict(zip(candidates, values, strict=True))
            for (prompt, candidates), values in zip(queries.items(), scores, strict=True)
        }
        del model
    return rewards


# --- reports ----------------------------------------------------------------------------------------------------------


def pair_part(pairs: Sequence, rewards: dict[str, dict]) -> dict:
    """Figures of every adapter on the pairs, of the baselines, and each adapter less the one before."""
    from eval.pair_report import PairReport

    report = PairReport(pairs)
    adapters = {}
    for name, of in rewards.items():
        chosen, rejected = ([of[pair.prompt][getattr(pair, side)] for pair in pairs] for side in ("chosen", "rejected"))
        adapters[name] = report.figures(chosen, rejected)
    names = list(adapters)
    return {
        "adapters": adapters,
        "baselines": report.baselines(),
        "differences": {
            f"{one} less {other}": report.difference(adapters[one]["margins"], adapters[other]["margins"]).to_json()
            for other, one in zip(names, names[1:], strict=False)
        },
    }


def candidate_rows(asked: Sequence, executed: Sequence, rewards: dict[str, list[dict]]) -> list[dict]:
    """Every question's candidates in order, with outcome, whether it is right, and its rewards."""
    rows = []
    for number, (one, found) in enumerate(zip(asked, executed, strict=True)):
        listed = [
            {
                "SQL": sql,
                "outcome": found.results[sql].outcome if sql else "no_sql",
                "is_correct": found.results[sql].ex if sql else None,
                "rewards": {name: round(of[number][sql], 6) for name, of in rewards.items() if sql},
            }
            for sql in one.candidates
        ]
        rows.append({"question_id": one.question.question_id, "db_id": one.question.db_id, "candidates": listed})
    return rows


def write_predictions(path: str, asked: Sequence, known: Sequence, choose: str) -> None:
    """The chosen query of each question in BIRD's format, "" where there is none."""
    from eval.best_of_n import WITH_REWARD, WITHOUT_REWARD, choice
    from eval.execution_accuracy import SEPARATOR

    predictions = {}
    for one, these in zip(asked, known, strict=True):
        place = choice(these, (WITH_REWARD | WITHOUT_REWARD)[choose])
        sql = "" if place is None else one.candidates[place]
        predictions[str(one.question.question_id)] = f"{sql}{SEPARATOR}{one.question.db_id}"
    write_json(path, predictions)
    print(f"predictions: {path} ({len(predictions)} questions, chosen by {choose})")


def choice_part(args: argparse.Namespace, asked: Sequence, executed: Sequence, rewards: dict[str, list[dict]]) -> dict:
    """Best-of-N accuracy of the questions with gold (None without any), every candidate; writes the predictions.

    `rewards` are those of the queries of each question, by adapter.
    """
    from eval.candidates import known
    from eval.choice_report import choice_report

    rewarded = {
        name: [known(one, found.results, of) for one, found, of in zip(asked, executed, by_question, strict=True)]
        for name, by_question in rewards.items()
    }
    if args.predictions:
        write_predictions(args.predictions, asked, rewarded[args.adapters[0]], args.choose)
    for one, found in zip(asked, executed, strict=True):
        if found.gold and not found.judged:
            print(
                f"left out: question {one.question.question_id} ({one.question.db_id}), whose gold fails: {found.gold}"
            )
    if not any(found.judged for found in executed):
        print("no question has gold that runs, so there is no accuracy to report")

    def with_gold(these: Sequence) -> list:
        return [item for item, found in zip(these, executed, strict=True) if found.judged]

    plain = with_gold([known(one, found.results) for one, found in zip(asked, executed, strict=True)])
    report = choice_report(plain, {name: with_gold(these) for name, these in rewarded.items()}) if plain else None
    return {"choice": report, "candidates": candidate_rows(asked, executed, rewards)}


def write_report(path: Path, report: dict) -> None:
    """JSON, Markdown and curves."""
    from eval.evaluation_report import draw, markdown_page, terminal_lines

    picture = path.with_suffix(".png")
    print("\n".join(terminal_lines(report)))
    if report.get("pairs") or report.get("choice"):
        draw(report, picture)
        with replacing(path.with_suffix(".md")) as file:
            file.write(markdown_page(report, picture.name))
    write_json(path, report)
    print(f"report: {path}")


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)

    # --- everything that can be wrong, before a model is loaded ---
    from common.manifest import Manifest
    from common.model_folder import check_model_folder, model_fingerprint
    from reward.data import load_pairs
    from tree.run.databases import check_unchanged, database_fingerprints

    base = check_model_folder(args.base_model)
    report_file = Path(args.output_file)
    check_writable(
        *filter(None, (args.predictions, *(report_file.with_suffix(end) for end in (".json", ".md", ".png"))))
    )
    pairs = load_pairs(args.test_data) if args.test_data else []
    asked = read_asked(args)
    inputs = {name: path for name in ("test_data", "candidates") if (path := getattr(args, name))}
    databases = database_fingerprints(args.db_root, [one.question.db_id for one in asked])
    facts = {"databases": databases, "model": str(base), "model_fingerprint": model_fingerprint(base)}
    manifest = Manifest(vars(args), inputs, **facts)
    from eval.candidates import execute
    from reward.model import check_adapter, load_tokenizer

    for adapter in args.adapters:
        if adapter != UNTRAINED:
            check_adapter(adapter, base)
    settings = settings_of(args.adapters)
    manifest.content["prompt_settings"] = {name: settings[name] and vars(settings[name]) for name in args.adapters}
    for warning in other_prompts(args, asked, settings):
        print(warning)
    by_adapter = with_own_prompts(args, asked, settings, load_tokenizer(base))
    check_overlaps(args, pairs, by_adapter)

    # --- candidates are executed before a model takes the machine ---
    executed = asyncio.run(execute(asked, args)) if asked else []
    check_unchanged(args.db_root, databases, "evaluate again")

    # --- rewards, behind the prompts that each adapter knows ---
    rewards = score_all(args, base, pairs, by_adapter)

    # --- report ---
    report = {"manifest": manifest.ended(pairs=len(pairs), questions=len(asked))}
    if pairs:
        report["pairs"] = pair_part(pairs, rewards)
    if asked:
        by_question = {name: [of.get(prompt_of(one), {}) for one in by_adapter[name]] for name, of in rewards.items()}
        report |= choice_part(args, asked, executed, by_question)
    write_report(report_file, report)


if __name__ == "__main__":
    run_script(main)
