"""The README.md of the pairs: the hub's metadata (https://huggingface.co/docs/hub/datasets-cards), and text.  Pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from common.preference import OWN_COLUMNS
from reward.hub.names import TEST, TRAIN, Names, Source, folder_name, front_matter

if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

COLUMNS = {
    "`prompt`": "the task as the generator was shown it, one turn of the user",
    "`chosen`, `rejected`": "a query each, one turn of the assistant; chosen is the better one",
    "`chosen_result`, `rejected_result`": "what executing each query said",
    "`question_id`, `db_id`, `difficulty`": "the question and its database, as they are called there",
    "`chosen_node`, `rejected_node`, `tree_id`": "the nodes of the revision tree",
    "`chosen_dist`, `rejected_dist`": "revisions to the nearest correct query (0: correct, null: none was reached)",
    "`relation`": "what the rejected node is to the chosen one: parent, child, sibling, baseline",
    "`rejected_outcome`": "what came of the rejected query: ok, empty, error, …",
}
PAIRS_CARD = """\
# {title}

Preference pairs of SQL queries. A code model writes SQL for a question and a database, the SQL is executed, and wrong
SQL is revised by the model from what executing it said, again and again, which gives a tree of revisions. Of two
queries of a tree, the one that is fewer revisions away from a correct query is `chosen`. No database or prompt is in
both splits. A reward model that was trained on them: [{names.adapter}](https://huggingface.co/{names.adapter}).

```python
from datasets import load_dataset

pairs = load_dataset("{names.pairs}")
```

TRL's `RewardTrainer` and `DPOTrainer` take both splits as they are.

## Columns

{columns}

## Source and licence

{source}

{contents}"""


def pairs_card(names: Names, source: Source, counts: Mapping[str, int], contents: str) -> str:
    """The card of the pairs: `counts` by split, `contents` is a further text (tables of what the splits hold)."""
    columns = "\n".join(f"- {name}: {meaning}" for name, meaning in COLUMNS.items())
    text = PAIRS_CARD.format(
        title=folder_name(names.pairs), names=names, columns=columns, source=source.text, contents=contents
    )
    return front_matter(_pairs_metadata(names, source, counts), text)


def _pairs_metadata(names: Names, source: Source, counts: Mapping[str, int]) -> "DatasetCardData":
    from huggingface_hub import DatasetCardData

    files = {"train": TRAIN, "test": TEST}
    own = [{"name": name, "dtype": "string" if kind is str else "int64"} for name, kind in OWN_COLUMNS.items()]
    return DatasetCardData(
        pretty_name=folder_name(names.pairs),
        language="en",
        license=source.license,
        task_categories=["text-generation"],
        tags=["preference", "reward-model", "dpo", "text-to-sql", "trl"],
        size_categories=size_category(sum(counts.values())),
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": path} for split, path in files.items()],
            }
        ],
        dataset_info={
            "features": [*({"name": name, "list": _turn()} for name in ("prompt", "chosen", "rejected")), *own],
            "splits": [{"name": split, "num_examples": counts[split]} for split in files],
        },
    )


def _turn() -> list[dict[str, str]]:
    """The features of a message; new ones for each column, as YAML would make references of the same."""
    return [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]


def size_category(rows: int) -> str:
    """The hub's name for so many rows."""
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in bounds.items() if rows < bound), "1M<n<10M")
