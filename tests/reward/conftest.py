"""The pairs that tests of the reward model train on, as a file and as they are read."""

import pytest

from common.files import write_json
from common.preference import read_pairs


@pytest.fixture
def pairs(tmp_path, pair_rows):
    """The pairs of tmp_path/pairs.json."""
    write_json(tmp_path / "pairs.json", pair_rows)
    return read_pairs(tmp_path / "pairs.json")
