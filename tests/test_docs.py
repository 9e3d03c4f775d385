"""The README is kept: both languages show the same commands, and every script and flag in it exists."""

import re
import shlex

import pytest

from tests.conftest import ROOT, run_script

PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "README.zh-CN.md")}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks(page, "bash") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


def test_both_pages_show_the_same():
    assert commands("README.md") == commands("README.zh-CN.md")
    assert blocks("README.md", "python") == blocks("README.zh-CN.md", "python")
    one, other = ([len(level) for level in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in PAGES.values())
    assert one == other  # section by section
    trees = [re.findall(r"[├└]── (\S+)", text) for text in PAGES.values()]
    assert trees[0] == trees[1]


@pytest.mark.parametrize("command", commands("README.md"), ids=" ".join)
def test_script_and_flags_of_a_command_exist(command):
    settings = [word.split("=")[0] for word in command if re.match(r"[A-Z_]+=", word)]
    words = [word for word in command if not re.match(r"[A-Z_]+=", word)]
    if words[0] in ("pip", "source", "ray"):
        assert words[0] != "pip" or (ROOT / words[-1]).is_file()
        return
    script, text = words[1], ""
    if words[0] in ("bash", "sbatch"):
        script = next(word for word in words if word.endswith(".sh"))
        text = (ROOT / script).read_text(encoding="utf-8")
        if "tree.run_pipeline" in text:
            text += run_script("-m", "tree.run_pipeline", "--help").stdout
    elif words[:2] == ["accelerate", "launch"]:
        assert all((ROOT / word).is_file() for word in words if word.endswith((".py", ".yaml")))
        if len(words) > 3:
            text = run_script("-m", "accelerate.commands.launch", "--help").stdout
    else:
        assert words[0] == "python"
        text = run_script(*(words[1:3] if script == "-m" else [script]), "--help").stdout
        if words[:3] == ["python", "-m", "tree.run_ray"]:
            text += run_script("-m", "tree.run_pipeline", "--help").stdout
    for flag in [word for word in words if word.startswith("--")] + settings:
        assert flag in text, f"{flag} is not known to {script}"


def test_project_tree_names_files_that_exist():
    tree = PAGES["README.md"].split("## The project")[1]
    names = re.findall(r"[\w.-]+\.(?:py|sh|txt|md)\b", tree)
    rooms = ("", "tree", "reward", "eval", "data", "docs")
    missing = [name for name in names if not any((ROOT / room / name).is_file() for room in rooms)]
    assert names and not missing


def test_requirements_name_the_same_versions():
    def pins(name: str) -> dict[str, str]:
        lines = (ROOT / name).read_text().splitlines()
        return dict(
            re.match(r"([\w-]+)((?:==|>=).+)", line).groups() for line in lines if re.match(r"[\w-]+(==|>=)", line)
        )

    gpu, cpu, setup = pins("requirements.txt"), pins("requirements-cpu.txt"), (ROOT / "setup_env.sh").read_text()
    assert {name: cpu.get(name) for name in gpu if name not in ("vllm", "torch")} == {
        name: version for name, version in gpu.items() if name not in ("vllm", "torch")
    }
    assert f"TORCH={gpu['torch'].removeprefix('==')}\n" in setup and f"VLLM={gpu['vllm'].removeprefix('==')}\n" in setup
