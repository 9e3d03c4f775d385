"""Candidates as they are read, before any is executed; what is done with them is tested where it is done."""

import pytest

from common.files import write_json
from eval.candidates import warn_of_redraws


@pytest.mark.parametrize(
    ("grown", "warns"),
    [({"redraws": 1, "no_gold": False}, True), ({"redraws": 0}, False), ({"redraws": 1, "no_gold": True}, False)],
)
def test_only_where_wrong_repeats_were_drawn_again_votes_are_called_too_good(tmp_path, capsys, grown, warns):
    write_json(tmp_path / "manifest.json", {"arguments": grown})
    warn_of_redraws(str(tmp_path / "all_trees.json"))
    assert ("drawn again" in capsys.readouterr().out) == warns
