"""A run with a reviser: its adapter writes the revisions and nothing else, and it must be one for this run."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.preference import user_prompt
from common.trained_on import write_trained_on
from tests.builders import make_reviser
from tests.conftest import assert_one_line_error, run_main
from tests.fake_worker import FakeGenerator, pretend
from tree import generator as generator_module
from tree import run_pipeline
from tree.cpu_adapter import add_low_rank
from tree.generator import Generator, Reviser, Sampling, encode, load_tokenizer
from tree.prompts import chat

SHAPES = ((2, 6), (2, 6)), ((3, 2), (4, 2))  # of A and of B: a layer of two parts


@pytest.fixture
def grow(dataset, tiny_model, tmp_path, monkeypatch):
    """Grows trees with a fake generator that notes which requests it was to revise for, and with which reviser."""
    asked = []

    class Noting(FakeGenerator):
        def __init__(self, model, tokenizer, sampling, engine):
            super().__init__()
            self.reviser = engine.reviser

        async def sample(self, messages, n, seed, revises=False):
            asked.append((messages, revises, self.reviser))
            return await super().sample(messages, n, seed)

    pretend(monkeypatch.setattr, Noting)

    def run(*flags: object) -> tuple:
        asked.clear()
        places = ("--data", dataset, "--db_root", dataset.parent / "databases", "--output_dir", tmp_path / "out")
        return run_main("tree.run_pipeline", *places, "--model", tiny_model, *flags), list(asked)

    return run


def manifests(output: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(output.glob("tree_dataset/part0/*/manifest.json"))]


def test_revisions_and_nothing_else_are_asked_of_the_reviser(grow, tiny_model, tmp_path):
    folder = make_reviser(tmp_path / "reviser", tiny_model)
    run, asked = grow("--reviser", folder)
    assert run.returncode == 0, run.stderr
    shown = "An earlier query was wrong."
    assert {revises for _, revises, _ in asked} == {True, False}
    assert all(revises == (shown in messages[0]["content"]) for messages, revises, _ in asked)
    assert {reviser for *_, reviser in asked} == {Reviser(folder, "facts", 12, ("o_proj", "q_proj"))}


def test_first_attempts_are_the_same_with_and_without_a_reviser(grow, tiny_model, tmp_path):
    first = []
    for flags in ((), ("--reviser", make_reviser(tmp_path / "reviser", tiny_model))):
        run, asked = grow(*flags)
        assert run.returncode == 0, run.stderr
        first.append([messages for messages, revises, _ in asked if not revises])
    assert first[0] == first[1]


def test_another_reviser_is_another_run_and_a_moved_one_is_not(grow, tiny_model, tmp_path):
    one, other = (make_reviser(tmp_path / name, tiny_model, weights=name.encode()) for name in ("one", "other"))
    for flags in ((), ("--reviser", one), ("--reviser", other)):
        run, asked = grow(*flags)
        assert run.returncode == 0 and asked, run.stderr
    one.rename(tmp_path / "moved")
    run, asked = grow("--reviser", tmp_path / "moved")
    assert run.returncode == 0 and not asked and "is finished" in run.stdout
    recorded = [manifest["inputs"].get("reviser", {}).get("sha256") for manifest in manifests(tmp_path / "out")]
    assert len(set(recorded)) == len(recorded) == 3 and recorded[0] is None
    assert [Path(manifest["arguments"]["reviser"]).name for manifest in manifests(tmp_path / "out")] == [
        *("", "one", "other")
    ]


def trained_on(folder: Path, *asked: tuple[str, str]) -> None:
    """Record that a reviser was trained on these questions: each a database and a prompt."""
    write_trained_on(folder, [SimpleNamespace(db_id=db_id, prompt=user_prompt(task)) for db_id, task in asked], {})


def test_a_reviser_that_knows_the_questions_is_warned_of(grow, tiny_model, tmp_path):
    folder = make_reviser(tmp_path / "reviser", tiny_model)
    run, asked = grow("--reviser", folder)
    assert run.returncode == 0 and "warning" not in run.stdout
    task = next(messages[0]["content"] for messages, revises, _ in asked if not revises)
    for known, words in (
        ([("shop", "another task")], "was trained on database 'shop';"),
        ([("library", task)], "was trained on 1 of its 3 prompts;"),
        (
            [("shop", task), ("store", "another task")],
            "on database 'shop' and 1 more databases, and on 1 of its 3 prompts;",
        ),
        (None, "trained_on.json: no such file"),
    ):
        trained_on(folder, *known) if known else (folder / "trained_on.json").unlink()
        for flags in (("--dry_run",), ("--fresh",)):
            run, _ = grow("--reviser", folder, *flags)
            (warning,) = [line for line in run.stdout.splitlines() if line.startswith("warning")]
            assert words in warning and str(folder) in warning and "may know answers by heart" in warning


def nothing(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def reward_model(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"arguments": {"result_length": 0}}))


def other_base(folder: Path) -> None:
    made = json.loads((folder / "manifest.json").read_text()) | {"model_fingerprint": "0"}
    (folder / "manifest.json").write_text(json.dumps(made))


def too_wide(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"r": 1024, "target_modules": ["q_proj"]}))


@pytest.mark.parametrize(
    ("damage", "flags", "words"),
    [
        (
            nothing,
            (),
            "manifest.json is missing, so it holds no reviser; train one with `python -m tree.train_reviser`",
        ),
        (reward_model, (), "no reviser of rank 512 or less"),
        (too_wide, (), "no reviser of rank 512 or less"),
        (other_base, (), "was trained on tiny, whose weights are not those of"),
        (None, ("--revision", "query"), "was trained for --revision facts, not for query"),
        (None, ("--max_depth", "1"), "with --max_depth 1 nothing is revised"),
        (None, ("--max_depth", "1", "--no_gold"), "with --max_depth 1 nothing is revised"),
    ],
)
def test_what_is_no_reviser_for_the_run_is_refused(grow, tiny_model, tmp_path, damage, flags, words):
    folder = make_reviser(tmp_path / "reviser", tiny_model)
    if damage:
        damage(folder)
    run, asked = grow("--reviser", folder, *flags)
    assert_one_line_error(run, str(folder), words)
    assert not asked and not (tmp_path / "out").exists()


# --- what vLLM is told ------------------------------------------------------------------------------------------------


@pytest.fixture
def requests(tiny_model, monkeypatch):
    """The requests that vLLM's engine gets from a generator with a reviser, or with none."""

    def ask(reviser: Reviser | None, *revises: bool) -> list[tuple]:
        seen = []

        class Engine:
            renderer = SimpleNamespace(default_cmpl_tok_params=None, render_cmpl=lambda prompts, _: prompts)

            async def generate(self, prompt, parameters, request_id, lora_request):
                seen.append((prompt["prompt_token_ids"], lora_request))
                yield SimpleNamespace(prompt_token_ids=[], num_cached_tokens=0, outputs=[])

        def started(arguments):
            seen.append(arguments)
            return Engine()

        monkeypatch.setattr("vllm.v1.engine.async_llm.AsyncLLM.from_engine_args", started)
        sampling, settings = Sampling(1.0, 1.0, 0, 24), generator_module.EngineSettings(512, reviser=reviser)
        engine = Generator(tiny_model, load_tokenizer(tiny_model), sampling, settings)
        for flag in revises:
            asyncio.run(engine.sample(chat("How many?"), 1, 1, flag))
        return seen

    return ask


def test_only_revisions_are_computed_with_the_adapter(requests, tiny_model, tmp_path):
    arguments, first, revision = requests(Reviser(tmp_path / "reviser", "facts", 12, ("q_proj",)), False, True)
    assert (arguments.enable_lora, arguments.max_loras, arguments.max_lora_rank) == (True, 1, 16)
    assert arguments.lora_target_modules == ["q_proj"]
    assert first[1] is None
    assert revision[1].lora_path == str(tmp_path / "reviser") and revision[1].lora_int_id == 1
    assert first[0] == revision[0] == encode(load_tokenizer(tiny_model), chat("How many?"))


def test_without_a_reviser_the_engine_knows_of_none(requests):
    arguments, first, revision = requests(None, False, True)
    assert not arguments.enable_lora and first[1] is revision[1] is None


@pytest.mark.parametrize(("rank", "room"), [(1, 1), (2, 8), (8, 8), (16, 16), (17, 32), (512, 512)])
def test_the_engine_has_room_for_the_rank(rank, room, tmp_path):
    assert generator_module._reviser_arguments(Reviser(tmp_path, "facts", rank, ()))["max_lora_rank"] == room


@given(st.lists(st.sampled_from([-1, 0]), min_size=1, max_size=20), st.booleans())
def test_on_a_cpu_tokens_without_the_adapter_are_untouched(indices, prefill):
    """In batches of both kinds, and of one; the adapter's tokens get what vLLM's own computation gives them."""
    import torch
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    ids = tuple(index + 1 for index in indices)
    wrapper = PunicaWrapperCPU(64, max_batches=32, device="cpu")
    wrapper.update_metadata(LoRAMapping(ids, ids, prefill), [1], 2, 100)
    draw = torch.Generator().manual_seed(len(indices))
    read, before = (torch.randn(len(indices), width, generator=draw) for width in (6, 7))
    downs, ups = ([torch.randn(1, 1, *shape, generator=draw) for shape in shapes] for shapes in SHAPES)
    found, expected = before.clone(), before.clone()
    add_low_rank(wrapper, found, read, downs, ups, 0.5, (3, 4))
    PunicaWrapperCPU.add_lora_linear(wrapper, expected, read, downs, ups, 0.5, (3, 4))
    adapted = torch.tensor(indices) == 0
    assert torch.equal(found[~adapted], before[~adapted])
    torch.testing.assert_close(found[adapted], expected[adapted])
    assert not torch.isclose(found[adapted], before[adapted]).all(-1).any()


def test_an_engine_on_a_cpu_computes_the_adapter_so(monkeypatch):
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    own, started = PunicaWrapperCPU.add_lora_linear, []
    monkeypatch.setattr(PunicaWrapperCPU, "add_lora_linear", own)  # put back at the end
    monkeypatch.setattr(generator_module, "_die_with_parent", lambda: None)
    monkeypatch.setattr("vllm.platforms.current_platform.is_cpu", lambda: True)
    monkeypatch.setattr(
        "vllm.v1.executor.multiproc_executor.WorkerProc.worker_main",
        lambda: started.append(PunicaWrapperCPU.add_lora_linear),
    )
    generator_module.run_engine_worker()
    assert started == [add_low_rank] != [own]


def test_the_script_for_all_gpus_passes_the_reviser_on():
    script = (Path(run_pipeline.__file__).parent / "run_parallel.sh").read_text()
    assert '--reviser "$REVISER"' in script
