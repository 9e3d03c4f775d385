"""What a bench promises."""

import re


def promises(run) -> dict[str, float]:
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("PROMISE")]
    found = [re.fullmatch(r"PROMISE (\w+) (-?[\d.]+) GOAL [<>]=? [\d.]+", line).groups() for line in lines]
    return {name: float(value) for name, value in found}
