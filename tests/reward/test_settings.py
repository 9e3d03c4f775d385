"""train.py's constants as a user edits them: the values are Python's, and flags take their places."""

import json
import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from common.files import InputError, write_json
from reward.settings import TrainingSettings, read_settings
from tests.conftest import ROOT, assert_one_line_error, run_script


@pytest.fixture
def edited(tmp_path):
    """Puts lines in the places of those of constants in a copy of train.py, which it returns."""

    def edit(lines: dict[str, str]) -> Path:
        source = (ROOT / "train.py").read_text()
        for name, line in lines.items():
            source, count = re.subn(rf"^{name} = .*$", lambda _, line=line: line, source, flags=re.MULTILINE)
            assert count == 1
        (tmp_path / "train.py").write_text(source)
        return tmp_path / "train.py"

    return edit


@pytest.fixture
def settings_after(edited, monkeypatch):
    """The settings of a copy that was edited, with flags."""

    def settings(name: str, line: str, *flags: str) -> TrainingSettings:
        copy = edited({name: line})
        monkeypatch.setattr("sys.argv", [str(copy), *flags])
        return read_settings(TrainingSettings, runpy.run_path(str(copy)))

    return settings


EDITS = [
    ("BATCH_SIZE = 2 * 3  # questions", 6),
    ("BATCH_SIZE = 6", 6),
    ("BATCH_SIZE=6 # one space", 6),
    ("BATCH_SIZE = (\n    2  # two\n    * 3  # times three\n)", 6),
    ("BATCH_SIZE: int = 6", 6),
    ("BATCH_SIZE = 12 / 2  # a whole number all the same", 6),
    ("if True:\n    BATCH_SIZE = 6  # as always", 6),
    ("SMALL = 3\nBATCH_SIZE = SMALL * 2", 6),
    ("BATCH_SIZE, SEED_OF_MINE = 6, 7  # two at once", 6),
    ("MAX_STEPS = -5", -5),
    ("EPOCHS = 2  # whole", 2.0),
    ("LEARNING_RATE = 1 / 4", 0.25),
    ('OUTPUT_DIR = f"adapter-r{LORA_R}-s{SEED}"  # of its own', "adapter-r16-s0"),
    ('OUTPUT_DIR = Path("a") / "b"', "a/b"),
    ('MODEL_ID = os.environ.get("NO_SUCH_VARIABLE", "models") + "/0.5B"  # 50 % of "it" # twice', "models/0.5B"),
    ("FRESH = not bool(0)", True),
]


@pytest.mark.parametrize(("line", "value"), EDITS, ids=[line for line, _ in EDITS])
def test_an_edited_constant_works_and_shows_in_help(edited, settings_after, line, value):
    name = re.search(r"(?:^| )((?!SMALL)[A-Z_]{4,})\b", line, re.MULTILINE)[1]
    found = getattr(settings_after(name, line), name.lower())
    assert found == value and type(found) is type(value)
    run = run_script(edited({name: line}), "--help")
    assert run.returncode == 0, run.stderr
    [shown] = re.findall(rf"^  --{name.lower()} {name}\n?((?:(?!\n  --).)*)", run.stdout, re.MULTILINE | re.DOTALL)
    comment = ["", *re.findall(r" # (.+)", line)][-1]
    shown = " ".join(shown.split())
    assert shown.startswith(f"{comment} (default ".strip()) and shown.endswith(")")


def test_every_constant_of_the_block_is_a_setting():
    """So that what a user edits has an effect, in the order of --help."""
    block = (ROOT / "train.py").read_text().split("# " + "-" * 98)[1]
    names = re.findall(r"^([A-Z_]+) = .+  # .+$", block, re.MULTILINE)
    assert sorted(names) == sorted(field.name.upper() for field in fields(TrainingSettings))
    shown = run_script("train.py", "--help").stdout
    assert re.findall(r"^  --([a-z_]+) ", shown, re.MULTILINE) == [name.lower() for name in names]
    assert len(names) == len(re.findall(r"^[^#\n]", block, re.MULTILINE))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('BATCH_SIZE = "4"', "BATCH_SIZE is '4', but must be a whole number"),
        ("BATCH_SIZE = 4.5", "BATCH_SIZE is 4.5, but must be a whole number"),
        ("BATCH_SIZE = True", "BATCH_SIZE is True, but must be a whole number"),
        ("BATCH_SIZE = None", "BATCH_SIZE is None, but must be a whole number"),
        ("BATCH_SIZE = 4,", "BATCH_SIZE is"),
        ("BATCH_SIZE = -4", "--batch_size -4: must be 1 or more"),
        ("# BATCH_SIZE = 4", "the constant BATCH_SIZE is missing"),
        ("del_me = 4", "the constant BATCH_SIZE is missing"),
        ('EPOCHS = "1.0"', "EPOCHS is '1.0', but must be a number"),
        ('EPOCHS = float("nan")', "EPOCHS is nan, but must be a number"),
        ("FRESH = 0", "FRESH is 0, but must be True or False"),
        ("REPORT_TO = None", "REPORT_TO is None, but must be text"),
        ('LORA_TARGETS = ["q_proj", "v_proj"]', "LORA_TARGETS is"),
        ('OUTPUT_DIR = ""', "--output_dir : must be a path, not empty"),
        ("SEED = -1", "--seed -1: must be from 0"),
        ("WARMUP_FRACTION = 5", "--warmup_fraction 5.0: must be from 0 to below 1"),
    ],
)
def test_a_wrong_constant_is_one_error(settings_after, line, words):
    name = re.search(r"[A-Z_]{4,}", line + " BATCH_SIZE")[0]
    with pytest.raises(InputError, match=re.escape(words)):
        settings_after(name, line)


def test_a_wrong_constant_is_one_line_of_the_script_and_a_flag_mends_it(edited, tmp_path):
    copy = edited({"BATCH_SIZE": 'BATCH_SIZE = "4"'})
    assert_one_line_error(run_script(copy), "train.py: BATCH_SIZE is '4'")
    mended = run_script(copy, "--batch_size", "4", "--model_id", tmp_path / "nowhere")
    assert_one_line_error(mended, "nowhere")
    assert run_script(copy, "--help").returncode == 0


def test_flags_have_the_type_of_the_setting_whatever_the_constant(settings_after):
    assert settings_after("EPOCHS", "EPOCHS = 2", "--epochs", "0.5").epochs == 0.5
    assert settings_after("LEARNING_RATE", "LEARNING_RATE = 1", "--learning_rate", "1e-4").learning_rate == 1e-4
    assert settings_after("FRESH", "FRESH = True", "--fresh", "False").fresh is False
    with pytest.raises(SystemExit):
        settings_after("FRESH", "MINE = 1\nFRESH = True", "--mine", "3")  # a constant of the user's own has no flag
    with pytest.raises(InputError, match="--epochs is nan, but must be a number"):
        settings_after("EPOCHS", "EPOCHS = 2", "--epochs", "nan")


def test_the_values_are_those_of_the_module_that_was_imported(settings_after):
    import train

    assert settings_after("FRESH", "FRESH = False") == train.default_settings()


def test_a_copy_with_edited_constants_trains_with_them(edited, tmp_path, tiny_model, pair_rows):
    """Without a flag, as most users run it."""
    write_json(tmp_path / "pairs of mine.json", pair_rows)
    lines = {
        "MODEL_ID": f"MODEL_ID = Path({str(tiny_model)!r})",
        "DATA_PATH": 'DATA_PATH = Path(__file__).with_name("pairs of mine.json")',
        "VALIDATION_FRACTION": "VALIDATION_FRACTION = 1 / 3  # two of six questions",
        "LORA_R": "LORA_R = 2 + 1",
        "LORA_ALPHA": "LORA_ALPHA = 2 * LORA_R",
        "LORA_TARGETS": 'LORA_TARGETS = ", ".join(f"{part}_proj" for part in "qv")',
        "LEARNING_RATE": "LEARNING_RATE = 1e-3 * 10",
        "MAX_STEPS": "MAX_STEPS = 3",
        "BATCH_SIZE": "BATCH_SIZE = 2",
        "LOGGING_STEPS": "LOGGING_STEPS = 1",
        "OUTPUT_DIR": 'OUTPUT_DIR = f"adapter-r{LORA_R}"',
    }
    run = run_script(edited(lines), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    output = tmp_path / "adapter-r3"
    config = json.loads((output / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], set(config["target_modules"])) == (3, 6, {"q_proj", "v_proj"})
    metrics = json.loads((output / "metrics.json").read_text())
    assert (metrics["steps"], metrics["train_pairs"], metrics["validation_pairs"]) == (3, 8, 4)
    rates = [entry["learning_rate"] for entry in metrics["history"] if "learning_rate" in entry]
    assert max(rates) == pytest.approx(1e-2)
    assert "learning_rate = 0.01\n" in run.stdout
