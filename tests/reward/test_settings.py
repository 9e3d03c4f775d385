"""train.py's constants as a user edits them: the values are Python's, and flags take their places."""

import re
import runpy
from dataclasses import fields

import pytest

from common.files import InputError
from reward.settings import TrainingSettings, read_settings
from tests.conftest import ROOT, assert_one_line_error, run_script


@pytest.fixture
def edited(tmp_path):
    """Puts a line in the place of that of a constant in a copy of train.py."""

    def edit(name: str, line: str):
        copy = tmp_path / "train.py"
        source, count = re.subn(rf"^{name} = .*$", lambda _: line, (ROOT / "train.py").read_text(), flags=re.MULTILINE)
        assert count == 1
        copy.write_text(source)
        return copy

    return edit


@pytest.fixture
def settings_after(edited, monkeypatch):
    """The settings of a copy that was edited, with flags."""

    def settings(name: str, line: str, *flags: str) -> TrainingSettings:
        copy = edited(name, line)
        monkeypatch.setattr("sys.argv", [str(copy), *flags])
        return read_settings(runpy.run_path(str(copy)))

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
    run = run_script(edited(name, line), "--help")
    assert run.returncode == 0, run.stderr
    [shown] = re.findall(rf"^  --{name.lower()} {name}\n?((?:(?!\n  --).)*)", run.stdout, re.MULTILINE | re.DOTALL)
    comment = ["", *re.findall(r" # (.+)", line)][-1]
    shown = " ".join(shown.split())
    assert shown.startswith(f"{comment} (default ".strip()) and shown.endswith(")")


def test_every_constant_of_the_block_is_a_setting():
    """So that what a user edits has an effect, in the order of --help."""
    block = (ROOT / "train.py").read_text().split("# " + "-" * 98)[1]
    names = re.findall(r"^([A-Z_]+) = .+  # .+$", block, re.MULTILINE)
    assert names == [field.name.upper() for field in fields(TrainingSettings)]
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
    copy = edited("BATCH_SIZE", 'BATCH_SIZE = "4"')
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
