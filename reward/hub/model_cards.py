"""The README.md of adapter and merged model: metadata (https://huggingface.co/docs/hub/model-cards) and text.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.preference import PreferencePair
from common.tables import markdown
from reward.hub.figures import Figures, eval_results, results_text
from reward.hub.names import Names, Source, folder_name, front_matter
from reward.hub.snippets import PACKED, PLAIN, snippet

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

MODEL_CARD = """\
# {title}

A reward model for text-to-SQL: given a task prompt (schema, evidence, question) and an SQL query{with_result}, one
number, higher for queries that are right or nearer to a right one. {form}

Trained with the pairwise loss of Bradley and Terry on [pairs of queries](https://huggingface.co/datasets/{names.pairs})
from revision trees: a code model writes SQL, the SQL is executed, and wrong SQL is revised from what executing it said.
Of two queries of a tree the one that is fewer revisions away from a correct query is preferred.

## Results

On databases that the model was not trained on; intervals are over questions.

{results}

## How inputs are made

- user: the task prompt as it stands in the pairs ({made_with}). The example below shows one whole
- assistant: the query{then_result}
- both through the tokenizer's chat template; the reward is the only logit, in float32 (bfloat16 reorders close queries)

Rewards order queries of one prompt; across prompts they are not comparable.

## Use

{use}

````python
{code}
````

## Training

{facts}

## Source of questions and databases

{source}
"""
ADAPTER_FORM = (
    "LoRA adapter and score head (in float32) of [{names.base}](https://huggingface.co/{names.base}); merged into one "
    "model: [{names.merged}](https://huggingface.co/{names.merged})."
)
MERGED_FORM = (
    "LoRA adapter [{names.adapter}](https://huggingface.co/{names.adapter}) merged into "
    "[{names.base}](https://huggingface.co/{names.base}), in float32: a plain sequence classification model."
)
ADAPTER_USE = (
    "In the folder of ReSQLver, whose score head and packing it needs, after `hf download {names.adapter} --local-dir "
    "{folder}` and `hf download {names.base} --local-dir {names.base_folder}`:"
)
MERGED_USE = (
    "With transformers alone; the model is read from the hub, or from a folder of that name. vLLM serves it too: "
    "`vllm serve {names.merged} --runner pooling --dtype float32`."
)


@dataclass(frozen=True)
class ModelFacts:
    """What the cards of adapter and merged model say alike."""

    names: Names
    figures: Figures
    example: PreferencePair
    result_length: int
    prompt_settings: Mapping | None
    training: Mapping[str, object]
    source: Source
    license: Mapping[str, str]


def adapter_card(facts: ModelFacts) -> str:
    own = {"library_name": "peft", "base_model_relation": "adapter"}
    return _model_card(facts, facts.names.adapter, PACKED, ADAPTER_FORM, ADAPTER_USE, own)


def merged_card(facts: ModelFacts) -> str:
    own = {"library_name": "transformers", "base_model_relation": "finetune"}
    return _model_card(facts, facts.names.merged, PLAIN, MERGED_FORM, MERGED_USE, own)


def _model_card(
    facts: ModelFacts, repository: str, template: str, form: str, use: str, own: Mapping[str, object]
) -> str:
    names, length = facts.names, facts.result_length
    made_with = ", ".join(f"{name} {value}" for name, value in (facts.prompt_settings or {}).items())
    result = f"the first {length} characters of what executing it said"
    text = MODEL_CARD.format(
        title=folder_name(repository),
        names=names,
        with_result=f" with {result}" if length else "",
        form=form.format(names=names),
        results=results_text(facts.figures),
        made_with=made_with or "what they were made with is not recorded",
        then_result=f", an empty line, {result}" if length else " alone",
        use=use.format(names=names, folder=folder_name(names.adapter)),
        code=snippet(template, names, facts.example, length),
        facts="\n".join(markdown([("", ""), *facts.training.items()])),
        source=facts.source.text,
    )
    return front_matter(_model_metadata(facts, repository, own), text)


def _model_metadata(facts: ModelFacts, repository: str, own: Mapping[str, object]) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    return ModelCardData(
        base_model=facts.names.base,
        datasets=[facts.names.pairs],
        metrics=["accuracy"],
        language="en",
        pipeline_tag="text-classification",
        tags=["reward-model", "text-to-sql", "trl"],
        model_name=folder_name(repository),
        eval_results=eval_results(facts.figures, facts.names, facts.source),
        **facts.license,
        **own,
    )
