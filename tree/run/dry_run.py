"""What a run would do, in lines for people: nothing is generated and nothing written."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean

from tree.generator import BATCHED_TOKENS, GPU_SEQUENCES
from tree.run.gpu_memory import first_card, fit, fit_lines, model_shape
from tree.run.settings import RunSettings
from tree.run.work_list import WorkList

BINS = 10  # of the prompt-length histogram
BAR = 40  # characters


def dry_run_lines(work: WorkList, lengths: Sequence[int], settings: RunSettings) -> Iterator[str]:
    """How much there is to do for the questions of `work`, whose prompts have `lengths` in tokens."""
    count = len(work.questions)
    yield f"shard {settings.shard_id}: {count} questions to work on, {len(work.skipped)} skipped"
    yield f"prompts of {min(lengths)} to {max(lengths)} tokens:"
    yield from histogram(lengths)
    yield (
        f"generations: from {count * settings.tree.num_roots} (first attempts only) to "
        f"{count * settings.most_nodes()} (every query wrong and new), and redraws of repeated ones"
    )
    yield from memory_lines(lengths, settings)


def histogram(lengths: Sequence[int]) -> list[str]:
    """Lines of a text histogram of prompt lengths in tokens."""
    width = max(1, -(-(max(lengths) + 1 - min(lengths)) // BINS))
    counts = Counter((length - min(lengths)) // width for length in lengths)
    lines = []
    for place in range(max(counts) + 1):
        low = min(lengths) + place * width
        bar = "#" * round(BAR * counts[place] / max(counts.values()))
        lines.append(f"{low:>7} to {low + width - 1:>7} tokens {counts[place]:>6} {bar}")
    return lines


def memory_lines(lengths: Sequence[int], settings: RunSettings) -> Iterator[str]:
    """What of the engine fits into the GPU that is here, or that --gpu_gib names; nothing without a GPU."""
    card = settings.gpu_gib or first_card()
    if card is None:
        return
    if not card:
        yield "nvidia-smi does not tell the memory of this GPU, so what fits is not known: give it, --gpu_gib 24"
        return
    engine = settings.engine_for(max(lengths))
    sequences = engine.max_num_seqs or GPU_SEQUENCES
    usual = round(fmean(lengths)) + settings.sampling.max_tokens
    found = fit(model_shape(settings.model, engine.dtype), card, engine.gpu_memory, BATCHED_TOKENS, sequences)
    yield from fit_lines(found, card, engine.gpu_memory, engine.max_model_len, usual, sequences)
