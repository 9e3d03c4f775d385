"""The settings of `python -m tree.search`: its flags, what they must be, and the dataclass made of them once."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from common.files import InputError
from common.manifest import file_fingerprint
from common.model_folder import check_model_folder, fast_dtype, model_fingerprint
from common.trained_on import recorded_result_length
from eval.adapter_prompts import prompt_settings_of
from eval.best_of_n import CHOICES, WITH_REWARD
from eval.search.beam import SearchSettings
from tree.generator import (
    BATCHED_TOKENS,
    GPU_SEQUENCES,
    ROOM_PER_LEVEL,
    EngineSettings,
    Sampling,
    on_gpu,
    prepare_environment,
)
from tree.run.gpu_memory import first_card, fit, model_shape, share_beside
from tree.run.prompt_settings import PromptSettings
from tree.run.reviser import read_reviser
from tree.run.settings import (
    DEFAULT_SQL_WORKERS,
    add_attempt_flags,
    add_engine_flags,
    add_question_flags,
    check_common,
    context_limit,
    part,
    sql_beside_an_engine,
    with_context,
)
from tree.sql_utils import SqlSettings, add_sql_flags, sql_settings

SCORED_AT_ONCE = 16  # candidates in one step of the reward model


@dataclass(frozen=True)
class SearchRun:
    """A run: most fields are flags, see their help.

    `context_limit` is the longest prompt plus reply in tokens that the user or the generator allows; of what executing
    a query said the reward model reads `result_length` characters; `arguments` holds every flag by name, as the
    manifest records them; `facts` are fingerprints of the models for it.
    """

    data: str
    db_root: str
    output_dir: Path
    limit: int
    fresh: bool
    model: Path
    base_model: Path
    adapter: str
    reward_dtype: str
    choose: str
    gpu_gib: float
    context_limit: int
    result_length: int
    prompts: PromptSettings
    search: SearchSettings
    sampling: Sampling
    engine: EngineSettings
    sql: SqlSettings
    arguments: dict
    facts: dict

    def engine_for(self, longest: int) -> EngineSettings:
        """The engine's settings for prompts of at most `longest` tokens, with room for what revisions are shown.

        On a GPU it shares the memory with the reward model. Raises InputError where they do not fit together.
        """
        shown = self.search.most_rounds if self.search.revision == "chat" else min(1, self.search.most_rounds)
        needed = longest + shown * ROOM_PER_LEVEL + self.sampling.max_tokens
        engine = with_context(self.engine, needed, self.context_limit)
        if not on_gpu():
            return engine
        card = self.gpu_gib or first_card()
        if not card:
            raise InputError("nvidia-smi does not tell the memory of this GPU; give it, --gpu_gib 24")
        dtype = fast_dtype() if self.reward_dtype == "auto" else self.reward_dtype
        tokens = SCORED_AT_ONCE * (longest + self.sampling.max_tokens + self.result_length)
        share = share_beside(model_shape(self.base_model, dtype), card, engine.gpu_memory, tokens)
        sequences = engine.max_num_seqs or GPU_SEQUENCES
        found = fit(model_shape(self.model, engine.dtype), card, share, BATCHED_TOKENS, sequences)
        if found.tokens < engine.max_model_len:
            raise InputError(
                f"a GPU of {card:g} GiB is too small for {self.model} and {self.base_model} beside each other with "
                f"prompts of {longest} tokens; take smaller models or a larger GPU, or lower --max_num_seqs"
            )
        return replace(engine, gpu_memory=round(share, 3))


# --- flags ------------------------------------------------------------------------------------------------------------


def parse_arguments(words: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """The flags of `python -m tree.search`. Raises InputError for one out of its range."""
    parser = argparse.ArgumentParser(
        prog="python -m tree.search", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_question_flags(parser.add_argument_group("questions and files").add_argument, "dev", "output/search")
    add = parser.add_argument_group("search").add_argument
    add_attempt_flags(add)
    add("--beam", type=int, default=2, help="queries that are revised in each round")
    add("--budget", type=int, default=24, help="queries of a question; as many as --num_roots: no revisions")
    ways = [name for name in CHOICES if name in WITH_REWARD]
    add("--choose", choices=ways, default=ways[0], help="how the answer is chosen, see docs/evaluation.md")
    add = parser.add_argument_group("reward model").add_argument
    add("--base_model", default="Qwen2.5-Coder-1.5B-Instruct", help="folder of the reward model's base")
    add("--adapter", default="qwen-reward-model-sql-train", help="folder of the reward model's adapter (step 5)")
    types = ("auto", "float32", "bfloat16")
    add("--reward_dtype", choices=types, default="auto", help="precision of the base, as --dtype of evaluate.py")
    add = parser.add_argument_group("generator and engine").add_argument
    add_engine_flags(add, "engine and reward model", "where nvidia-smi does not tell")
    add_sql_flags(parser.add_argument_group("SQL").add_argument, DEFAULT_SQL_WORKERS)
    args = parser.parse_args(words)
    check_common(args)
    sql_settings(args.sql_workers, args.sql_timeout)
    if args.budget < args.num_roots:
        raise InputError(f"--budget {args.budget}: must not be below --num_roots {args.num_roots}")
    if args.reviser and args.budget == args.num_roots:
        raise InputError(f"--reviser {args.reviser}: with a --budget of {args.budget} drafts nothing is revised")
    return args


def search_run(args: argparse.Namespace) -> SearchRun:
    """The settings that the flags name for their models, which are looked at. Raises InputError."""
    prepare_environment()
    model, base = check_model_folder(args.model), check_model_folder(args.base_model)
    from reward.model import ADAPTER_WEIGHTS, check_adapter  # which loads torch

    check_adapter(args.adapter, base)
    prompts = prompt_settings_of([args.adapter])[args.adapter]
    if prompts is None:
        prompts = PromptSettings()
        print(f"warning: {args.adapter} does not say what its prompts were made with, so they are made with {prompts}")
    context = context_limit(args.max_model_len, model)
    prompts = replace(prompts, max_prompt_tokens=min(prompts.max_prompt_tokens, context - args.max_tokens))
    result_length = recorded_result_length(args.adapter)
    flags = vars(args) | vars(prompts) | {"result_length": result_length}
    parts = {
        "output_dir": Path(args.output_dir),
        "model": model,
        "base_model": base,
        "context_limit": context,
        "prompts": prompts,
        "search": part(SearchSettings, flags),
        "sampling": part(Sampling, flags),
        "engine": part(EngineSettings, flags | {"reviser": read_reviser(args.reviser, model, args.revision)}),
        "sql": sql_beside_an_engine(args),
        "arguments": flags,
        "facts": {
            "model_fingerprint": model_fingerprint(model),
            "base_fingerprint": model_fingerprint(base),
            "adapter_fingerprint": file_fingerprint(Path(args.adapter) / ADAPTER_WEIGHTS),
        },
    }
    return part(SearchRun, flags | parts)
