"""On a GPU nothing stays on the CPU: the reward model's path with tensors that have a device and a shape but no values.

torch's FakeTensorMode computes like a GPU, without one: an operation on tensors of two devices raises, unless one is a
single number. What it cannot do here is a backward pass, which asks for the device itself, and compiled kernels.
"""

import contextlib
import ctypes
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._pytree import tree_leaves

from common.preference import PreferencePair, user_prompt
from reward import model as model_module
from reward import packing
from reward.batches import QuestionCollator, question_rows
from reward.data import group_by_prompt
from reward.export import export
from reward.model import load_base, load_reward_model, score
from reward.packing import BLOCK_ATTENTION, FLEX_ATTENTION, pack, packed_scores, pad_rows, tree_mask
from reward.tokens import load_tokenizer, tokenize

CUDA = torch.device("cuda", 0)
DIFFERENT = "at least two devices|not on the expected device|on the same device"  # what torch says then


def allow_cuda_without_a_gpu() -> None:
    """Let fake tensors have the device cuda in a CPU build of torch, too.

    torch looks such devices up in a table. FakeTensorMode replaces an entry that counts no devices by one that does
    nothing, which is meant for CUDA builds on machines without a GPU; CPU builds have no entry. So they are lent one
    that counts none: whatever it is asked, it answers 0.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")  # [CPU, CUDA]
    if guards[1] is None:
        zero = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(lambda guard: 0)
        methods = (ctypes.c_void_p * 64)(*[ctypes.cast(zero, ctypes.c_void_p).value] * 64)
        lent = ctypes.c_void_p(ctypes.addressof(methods))
        guards[1] = ctypes.addressof(lent)
        torch._C._ensureCUDADeviceGuardSet()
        assert guards[1] != ctypes.addressof(lent)


@pytest.fixture
def gpu(monkeypatch):
    """The mode in which tensors are fake. What is moved there from outside becomes fake; models are built outside."""
    allow_cuda_without_a_gpu()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True)
    move = torch.nn.Module.to

    def to(module, *args, **named):
        with mode if CUDA in args else contextlib.nullcontext():
            return move(module, *args, **named)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setattr(model_module, "fast_device", lambda: CUDA)
    return mode


def with_lora(model):
    from peft import LoraConfig, get_peft_model

    targets = {"target_modules": "all-linear", "modules_to_save": ["score"]}
    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, lora_dropout=0.1, **targets))


def uncompiled(attention: str):
    """FlexAttention cannot be compiled for a GPU that is not there, nor be differentiated."""
    stack = contextlib.ExitStack()
    if attention == FLEX_ATTENTION:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.no_grad())
    return stack


def batch() -> dict[str, torch.Tensor]:
    return pad_rows(pack([(0, [1, 2, 3, 4]), (1, [1, 2, 3, 5, 6]), (2, [9, 9, 9])], 100), 0)


def on_gpu(tensors: dict[str, torch.Tensor], *but: str) -> dict[str, torch.Tensor]:
    return {name: tensor if name in but else tensor.to(CUDA) for name, tensor in tensors.items()}


def devices(found) -> set[torch.device]:
    return {leaf.device for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)}


# --- scores ---------------------------------------------------------------------------------------------------------


def test_on_a_gpu_the_model_is_there_and_takes_sdpa(gpu, tiny_model, tmp_path):
    with_lora(load_base(tiny_model, 0, torch.float32)).save_pretrained(tmp_path)
    model, _ = load_reward_model(tiny_model, tmp_path, "bfloat16")
    assert devices([*model.parameters(), *model.buffers()]) == {CUDA} and not model.training
    assert packing.attention_of(model) == "sdpa"


@pytest.mark.filterwarnings("ignore::UserWarning")  # that FlexAttention is not compiled
@pytest.mark.parametrize("attention", ["sdpa", BLOCK_ATTENTION, FLEX_ATTENTION])
@pytest.mark.parametrize("lora", [False, True])
def test_scores_are_computed_on_the_gpu(gpu, tiny_model, attention, lora):
    model = load_base(tiny_model, 0, torch.bfloat16)
    model.set_attn_implementation(attention)
    model = (with_lora(model) if lora else model).to(CUDA)
    with gpu, uncompiled(attention):
        scores = packed_scores(model, on_gpu(batch()))
        assert scores.device == CUDA and scores.shape == (3,) and scores.dtype == torch.float32
        rewards = score(model.eval(), load_tokenizer(tiny_model), [("How many?", ["SELECT 1", "SELECT 2"]), ("?", [])])
        assert [len(values) for values in rewards] == [2, 0]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("attention", ["sdpa", FLEX_ATTENTION])
@pytest.mark.parametrize("name", ["input_ids", "position_ids", "subtree_ends"])
def test_a_tensor_left_on_the_cpu_is_found(gpu, tiny_model, attention, name):
    model = load_base(tiny_model, 0, torch.bfloat16)
    model.set_attn_implementation(attention)
    model.to(CUDA)
    with gpu, uncompiled(attention), pytest.raises(RuntimeError, match=DIFFERENT):
        packed_scores(model, on_gpu(batch(), name))


def test_a_mask_made_on_the_cpu_is_found(gpu, tiny_model, monkeypatch):
    """As it would be made if a `device=` were forgotten."""
    monkeypatch.setattr(packing, "tree_mask", lambda stops: tree_mask(torch.ones(stops.shape, dtype=torch.long)))
    model = load_base(tiny_model, 0, torch.bfloat16).to(CUDA)
    with gpu, pytest.raises(RuntimeError, match=DIFFERENT):
        packed_scores(model, on_gpu(batch()))


def test_a_head_left_on_the_cpu_is_found(gpu, tiny_model):
    model = load_base(tiny_model, 0, torch.bfloat16)
    head = model.score
    model.to(CUDA)
    head._parameters["weight"] = torch.nn.Parameter(torch.ones(1, 32))
    with gpu, pytest.raises(RuntimeError, match=DIFFERENT):
        packed_scores(model, on_gpu(batch()))


def test_an_exported_model_is_merged_on_the_cpu(gpu, tiny_model, tmp_path):
    """Where there is a GPU, too: in float32 a model may not fit beside what else runs there."""
    with_lora(load_base(tiny_model, 0, torch.bfloat16)).save_pretrained(tmp_path / "adapter")
    export(tmp_path / "adapter", tiny_model, tmp_path / "merged")
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert devices(weights) == {torch.device("cpu")} and {weight.dtype for weight in weights.values()} == {
        torch.float32
    }


# --- training -------------------------------------------------------------------------------------------------------


def preference(question: int, chosen: str, rejected: str) -> PreferencePair:
    prompt = user_prompt("How many products are there? " * (question + 1))
    return PreferencePair(prompt, chosen, rejected, question, "shop", chosen_dist=0, relation="sibling")


PAIRS = [
    preference(0, "SELECT COUNT(*) FROM product", "SELECT 1"),
    preference(0, "SELECT COUNT(*) FROM product", "SELECT COUNT(id, name) FROM product"),
    preference(1, "SELECT name FROM product", "SELECT *"),
]


@pytest.fixture
def trainer(gpu, tiny_model, tmp_path, monkeypatch):
    """A trainer of three pairs on the GPU, its forward passes of two questions."""
    from accelerate import PartialState
    from datasets import Dataset
    from trl import RewardConfig

    from reward.trainer import PreferenceTrainer

    monkeypatch.setenv("CI", "true")  # TRL tells its makers of runs elsewhere, with the name of the GPU
    tokenizer = load_tokenizer(tiny_model)
    rows = question_rows(tokenize(group_by_prompt(PAIRS), tokenizer, 10_000), ["sibling"])
    common = {"bf16": False, "max_length": None, "report_to": [], "remove_unused_columns": False}
    args = RewardConfig(tmp_path, use_cpu=True, per_device_train_batch_size=2, **common)
    assert args.device.type == "cpu"
    args.__dict__["_setup_devices"] = CUDA
    monkeypatch.setitem(PartialState._shared_state, "device", CUDA)
    model = with_lora(load_base(tiny_model, 0, torch.bfloat16))
    with gpu:
        yield PreferenceTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            data_collator=QuestionCollator(tokenizer.pad_token_id, 400),
        )


def test_a_training_step_is_computed_on_the_gpu(trainer):
    assert devices([*trainer.model.parameters(), *trainer.model.buffers()]) == {CUDA}
    [inputs] = trainer.get_train_dataloader()
    assert devices(inputs) == {CUDA}
    pairs = trainer._get_num_items_in_batch([inputs, inputs], trainer.args.device)
    loss = trainer.compute_loss(trainer.model.train(), inputs, num_items_in_batch=pairs)
    assert loss.requires_grad and devices([loss, pairs, trainer._seen]) == {CUDA}


def test_validation_is_computed_on_the_gpu(trainer):
    [inputs] = trainer.get_eval_dataloader()
    nothing, *found = trainer.prediction_step(trainer.model.eval(), inputs, False)
    assert nothing is None and devices(found) == {CUDA}


@pytest.mark.parametrize("name", ["input_ids", "position_ids", "subtree_ends"])
def test_a_tensor_of_a_step_left_on_the_cpu_is_found(trainer, name):
    [inputs] = trainer.get_train_dataloader()
    with pytest.raises(RuntimeError, match=DIFFERENT):
        trainer.compute_loss(trainer.model, inputs | {name: inputs[name].to("cpu")})


def test_counts_left_on_the_cpu_are_found(trainer):
    [inputs] = trainer.get_train_dataloader()
    trainer._seen = torch.zeros(4)
    with pytest.raises(RuntimeError, match=DIFFERENT):
        trainer.compute_loss(trainer.model, inputs)


# --- FlexAttention --------------------------------------------------------------------------------------------------


@pytest.fixture
def compilations(monkeypatch):
    """The graphs for which FlexAttention is compiled, as transformers compiles it; they are computed uncompiled."""
    from transformers.integrations.flex_attention import WrappedFlexAttention

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **named: compiled(function, backend=backend))
    monkeypatch.setattr(WrappedFlexAttention, "_is_flex_compiled", False)
    torch.compiler.reset()
    yield graphs
    torch.compiler.reset()
    monkeypatch.setattr(WrappedFlexAttention, "_is_flex_compiled", False)


def rows_of_length(count: int, length: int) -> dict[str, torch.Tensor]:
    """`count` rows of that many tokens; in each two sequences begin alike, and the last row is shorter."""
    starts = [[3 + row] * (length - 9 * (row == count - 1)) for row in range(count)]
    sequences = [start + tail for start in starts for tail in ([1], [2, 2])]
    return pad_rows(pack(enumerate(sequences), 10_000), 0)


def test_flex_attention_is_compiled_for_few_shapes_and_gives_the_scores_of_sdpa(tiny_model, compilations):
    """PyTorch stops compiling it after 8 times; one and several rows, short and long ones, training and validation."""
    model = load_base(tiny_model, 0, torch.float32).requires_grad_(False)  # it has no gradients on a CPU
    shapes = [(2, 300), (1, 129), (3, 500), (1, 40), (2, 60), (1, 382)]
    for training in (True, False, True):
        for count, length in shapes:
            inputs = rows_of_length(count, length)
            assert len(inputs["lengths"]) == count
            found = {}
            for attention in (FLEX_ATTENTION, "sdpa"):
                model.set_attn_implementation(attention)
                with torch.set_grad_enabled(training):
                    found[attention] = packed_scores(model.train(training), inputs)
            assert found[FLEX_ATTENTION].shape == (2 * count,)
            torch.testing.assert_close(found[FLEX_ATTENTION], found["sdpa"], atol=1e-5, rtol=0)
    assert 1 < len(compilations) <= 6 < torch._dynamo.config.recompile_limit
