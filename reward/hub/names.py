"""What is shared is called so on the model hub, and comes from there: names, sources, and the form of every card."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import CardData

TRAIN, TEST = "train.jsonl", "test.jsonl"  # the splits of the pairs


@dataclass(frozen=True)
class Source:
    """Whose questions and databases the pairs are about: how it is called, what the card says, the hub's licence."""

    name: str
    text: str
    license: str | None


SOURCES = {
    "BIRD": Source(
        "BIRD",
        "Questions, evidence, schemas and values in the prompts are from [BIRD](https://bird-bench.github.io) (Li et "
        "al., NeurIPS 2023, [arXiv 2305.03111](https://arxiv.org/abs/2305.03111)), which is under CC BY-SA 4.0; so are "
        "the pairs, in which they were put into prompts, with queries that a model wrote and what executing them said.",
        "cc-by-sa-4.0",
    ),
    "demo": Source(
        "the demo of ReSQLver",
        "Questions, schemas and values in the prompts are from the small demo that ReSQLver brings along (Apache-2.0).",
        "apache-2.0",
    ),
    "own": Source("databases of our own", "The questions and databases are of our own.", None),
}


@dataclass(frozen=True)
class Names:
    """What things are called on the hub: the adapter's repository, those beside it, and the base model's."""

    adapter: str
    base: str

    @property
    def merged(self) -> str:
        return f"{self.adapter}-merged"

    @property
    def pairs(self) -> str:
        return f"{self.adapter}-pairs"

    @property
    def base_folder(self) -> str:
        return folder_name(self.base)


def folder_name(repository: str) -> str:
    return repository.rpartition("/")[2]


def front_matter(metadata: "CardData", text: str) -> str:
    """A card: its metadata as the hub reads it, and the text below."""
    return f"---\n{metadata.to_yaml()}\n---\n\n{text}"
