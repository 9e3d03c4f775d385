"""A reward model exported as a plain one, for transformers and for vLLM."""

import json
import os
from pathlib import Path

import pytest
import torch

from reward.model import load_reward_model, score
from reward.tokens import encode
from tests.builders import train
from tests.conftest import assert_one_line_error, run_main, run_script


def export(adapter: Path, base: Path, output: Path):
    return run_main("reward.export", "--adapter", adapter, "--base_model", base, "--output", output)


def test_export_gives_a_plain_model_with_the_same_rewards(trained, tiny_model, tmp_path):
    from transformers import AutoModelForSequenceClassification

    run = export(trained / "adapter", tiny_model, tmp_path / "merged")
    assert run.returncode == 0, run.stderr
    model, tokenizer = load_reward_model(tiny_model, trained / "adapter", "float32")
    queries = ["SELECT 1", "SELECT name FROM product"]
    [rewards] = score(model, tokenizer, [("How many?", queries)])
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert plain.config.num_labels == 1 and plain.dtype == torch.float32
    for ids, reward in zip(encode(tokenizer, "How many?", queries), rewards, strict=True):
        assert plain(input_ids=torch.tensor([ids])).logits.item() == pytest.approx(reward, abs=1e-4)
    assert_one_line_error(export(trained / "adapter", tiny_model, tmp_path / "merged"), "there already")


SERVE = """
import json, os, sys
from vllm import LLM

if __name__ == "__main__":
    engine = LLM(sys.argv[1], runner="pooling", dtype="float32", enforce_eager=True, max_model_len=512)
    outputs = engine.classify([{"prompt_token_ids": ids} for ids in json.loads(sys.argv[2])])
    engine.llm_engine.engine_core.shutdown()
    print("REWARDS", json.dumps([output.outputs.probs for output in outputs]), flush=True)
    os._exit(0)  # threads that vLLM leaves behind can abort the interpreter while it ends
"""


def test_vllm_serves_the_exported_model(tmp_path, tiny_generator, pairs):
    run = train(tmp_path, tiny_generator)
    assert run.returncode == 0, run.stderr
    assert export(tmp_path / "adapter", tiny_generator, tmp_path / "merged").returncode == 0
    model, tokenizer = load_reward_model(tiny_generator, tmp_path / "adapter", "float32")
    queries = ["SELECT 1", "SELECT name FROM product", "SELECT COUNT(*) FROM product"]
    [rewards] = score(model, tokenizer, [("How many?", queries)])
    (tmp_path / "serve.py").write_text(SERVE)
    ids = json.dumps(encode(tokenizer, "How many?", queries))
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    served = run_script(tmp_path / "serve.py", tmp_path / "merged", ids, **settings)
    assert served.returncode == 0, served.stderr[-3000:]
    [line] = [line for line in served.stdout.splitlines() if line.startswith("REWARDS")]
    assert [reward for [reward] in json.loads(line.split(" ", 1)[1])] == pytest.approx(rewards, abs=1e-4)
