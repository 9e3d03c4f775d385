"""Pairs, a long prompt and random models that several tests of the reward model use."""

import pytest

from common.files import write_json
from common.preference import read_pairs
from tests.conftest import make_tiny_model

LONG = "Database: " + "CREATE TABLE product (id INTEGER, name TEXT); " * 6


@pytest.fixture
def pairs(tmp_path, pair_rows):
    """The pairs of tmp_path/pairs.json."""
    write_json(tmp_path / "pairs.json", pair_rows)
    return read_pairs(tmp_path / "pairs.json")


@pytest.fixture(scope="session")
def bases(tiny_model, tmp_path_factory):
    llama = make_tiny_model(tmp_path_factory.mktemp("models") / "llama", seed=1, architecture="llama")
    return {"qwen2": tiny_model, "llama": llama}


@pytest.fixture(scope="module")
def small_blocks():
    """So that short rows have several."""
    from reward import packing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK", 16)
        yield
