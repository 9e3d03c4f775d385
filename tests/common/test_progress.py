"""Progress bars in a file: whole lines, few of them, and nothing else is changed."""

import subprocess
import sys

from tests.conftest import ROOT

PROGRAM = """
import subprocess, sys, time
from common.files import InputError, run_script

def main():
    from tqdm import tqdm
    for _ in tqdm(range(12), desc="outer"):
        time.sleep(0.05)
    print("between", file=sys.stderr)
    with tqdm(total=6, desc="counts", unit="tree") as bar:
        for number in range(6):
            time.sleep(0.1)
            bar.set_postfix_str(f"good {number}", refresh=False)
            bar.update()
    print(file=sys.stderr)  # as before an error
    subprocess.run(["sh", "-c", "echo child >&2"], stderr=sys.stderr)
    raise InputError("wrong")

run_script(main)
"""


def said(tmp_path, **environment) -> str:
    """What the program writes on standard error, into a file."""
    path = tmp_path / "stderr"
    with path.open("wb") as file:
        run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stderr=file, env=environment)
    assert run.returncode == 2
    return path.read_bytes().decode()


def test_each_state_of_a_bar_is_a_line_in_a_file(tmp_path):
    text = said(tmp_path, TQDM_MININTERVAL="0.15", TQDM_DELAY="0.1")
    assert "\r" not in text and "\x1b" not in text
    lines = text.splitlines()
    outer = [line for line in lines if line.startswith("outer:")]
    assert 2 <= len(outer) <= 5 and "12/12" in outer[-1]  # after 0.6 s; a line for each turn would be 12
    counts = [line for line in lines if line.startswith("counts: 100%| 6/6")]
    assert counts and counts[0].endswith("tree/s, good 5]")
    assert max(map(len, lines)) < 100
    assert [line for line in lines if line and "/" not in line] == ["between", "child", "error: wrong"]


def test_what_is_done_sooner_than_a_line_is_due_has_none(tmp_path):
    assert said(tmp_path).splitlines() == ["between", "", "child", "error: wrong"]


def test_a_line_of_a_bar_is_whole_before_others_write():
    """Standard output in the same file: no line of one begins in a line of the other."""
    program = PROGRAM.replace("time.sleep(0.1)", "time.sleep(0.1); print('said', flush=True)")
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"TQDM_MININTERVAL": "0", "TQDM_DELAY": "0"},
    )
    starts = {line.split(":")[0].split()[0] for line in run.stdout.splitlines() if line}
    assert starts == {"outer", "counts", "between", "said", "child", "error"}
