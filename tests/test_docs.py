"""The pages are kept: both languages show the same commands, and every script, flag, link and file in them exists."""

import re
import shlex
from functools import cache

import pytest

from tests.conftest import ROOT, run_script

READMES = ("README.md", "README.zh-CN.md")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*map(ROOT.joinpath, READMES), *sorted((ROOT / "docs").rglob("*.md"))]
}
PRESENT = [page for page in PAGES if not page.startswith("docs/log/")]  # the log tells what was run then


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks(page, "bash") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


EVERY = list(dict.fromkeys(tuple(command) for page in PRESENT for command in commands(page)))


@cache
def help_of(*script: str) -> str:
    return run_script(*script, "--help").stdout


def headings(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_both_languages_show_the_same():
    assert commands("README.md") == commands("README.zh-CN.md")
    assert blocks("README.md", "python") == blocks("README.zh-CN.md", "python")
    one, other = ([len(level) for level in re.findall(r"^(#+) ", PAGES[page], re.MULTILINE)] for page in READMES)
    assert one == other  # section by section
    folders = [re.findall(r"[├└]── (\S+)", PAGES[page].split("ReSQLver/\n")[1]) for page in READMES]
    assert folders[0] == folders[1]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_script_and_flags_of_a_command_exist(command):
    settings = [word.split("=")[0] for word in command if re.match(r"[A-Z_]+=", word)]
    words = [word for word in command if not re.match(r"[A-Z_]+=", word)]
    if words[0] in ("pip", "source", "ray", "conda"):
        assert words[0] != "pip" or (ROOT / words[-1]).is_file()
        return
    script, text = words[1], ""
    if words[:2] == ["hf", "upload"]:
        text = help_of("-m", "huggingface_hub.cli.hf", "upload")
    elif words[0] in ("bash", "sbatch"):
        script = next(word for word in words if word.endswith(".sh"))
        text = (ROOT / script).read_text(encoding="utf-8")
        if "tree.run_pipeline" in text:
            text += help_of("-m", "tree.run_pipeline")
    elif words[:2] == ["accelerate", "launch"]:
        assert all((ROOT / word).is_file() for word in words if word.endswith((".py", ".yaml")))
        if len(words) > 3:
            text = help_of("-m", "accelerate.commands.launch")
    else:
        assert words[0] == "python"
        text = help_of(*(words[1:3] if script == "-m" else [script]))
        for passing_on, to in {"tree.cluster.run_ray": "tree.run_pipeline", "tree.ask": "tree.search"}.items():
            if passing_on in words:
                text += help_of("-m", to)
    for flag in [word for word in words if word.startswith("--")] + settings:
        assert flag in text, f"{flag} is not known to {script}"


@pytest.mark.parametrize("page", PRESENT)
def test_what_a_page_names_in_code_exists(page):
    """Flags, paths and modules between backticks."""
    scripts = [("-m", "tree.run_pipeline"), ("-m", "tree.cluster.run_ray"), ("-m", "tree.merge_shards"), ("-m", "eval")]
    scripts += [
        ("-m", "tree.search"),
        ("-m", "tree.ask"),
        ("-m", "reward.export"),
        ("evaluate.py",),
        ("train.py",),
        ("-m", "tree.train_reviser"),
        ("-m", "tree.dpo_extractor"),
        ("-m", "bench.scale_simulation"),
    ]
    scripts.append(("-m", "huggingface_hub.cli.hf", "upload"))
    known = "".join(help_of(*script) for script in scripts) + (ROOT / "download_model.sh").read_text()
    for code in re.findall(r"`([^`\n]+)`", PAGES[page]):
        bench = re.match(r"python -m (bench\.\w+)", code)
        for flag in re.findall(r"(?<![\w-])--[a-z_]+", code):
            assert flag in (help_of("-m", bench[1]) if bench else known), f"{page}: {flag}"
        for path in re.findall(r"^(?:tree|eval|reward|common|bench|tests|docs)/[\w/.]*$", code):
            assert (ROOT / path).exists(), f"{page}: {path}"
        for module in re.findall(r"python -m ((?:bench|tree|eval|reward|common)[\w.]*)", code):
            path = ROOT / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), f"{page}: {module}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(str(target.resolve().relative_to(ROOT))), link


def test_folders_of_the_map_exist():
    folders = re.findall(r"[├└]── (\w+)/", PAGES["README.md"].split("## The project")[1])
    known = [path.name for path in [*ROOT.iterdir(), *ROOT.glob("*/*/")] if path.is_dir()]
    assert folders and set(folders) <= set(known) | {"output"}
    for name in re.findall(r"[\w.-]+\.(?:py|sh|txt|md)\b", PAGES["README.md"].split("## The project")[1]):
        assert list(ROOT.glob(name)) or list(ROOT.glob(f"*/{name}")) or list(ROOT.glob(f"*/*/{name}")), name


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
