"""Which class of transformers a checkpoint is, whether all of it was loaded, and whether it predicts the next token.

A config names the class that was saved. Loaded as another (BART as a language model, BERT as a decoder), parts of it
would be left out or drawn at random, and what it then says would mean nothing.
"""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto as auto

from octoscale.checkpoints.shards import missing_text
from octoscale.system.errors import UserError

#: Tables of transformers whose models read a text and predict its next token. Pictures beside it are no must.
_CAUSAL = (
    auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

#: Models of those tables that see later tokens all the same: a prompt as a whole, or permutations of a text.
_BOTH_WAYS = ("cpmant", "xlnet")


def class_of(config: Any) -> Any:
    """The class that a config names, if it is one of transformers'; else what its model type is mapped to."""
    named = _named(config)
    if named is not None:
        return named
    both = getattr(config, "is_encoder_decoder", False)
    first = transformers.AutoModelForSeq2SeqLM if both else transformers.AutoModelForCausalLM
    for cls in (first, transformers.AutoModelForImageTextToText):
        if type(config) in cls._model_mapping:
            return cls
    return transformers.AutoModel


def is_auto(config: Any) -> bool:
    """Whether `class_of` is one of transformers' Auto classes."""
    return _named(config) is None


def without_weights(config: Any) -> Any:
    """The model of a config on device meta, to look at."""
    with torch.device("meta"):
        return (
            class_of(config).from_config(config, trust_remote_code=False)
            if is_auto(config)
            else class_of(config)(config)
        )


def predicts_tokens(model: Any) -> bool:
    """Whether a loaded model gives logits of the next token from the tokens before it, and from nothing else."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        return False
    name = type(model).__name__
    if not any(name in _flat(table) for table in _CAUSAL):
        return False
    if config.model_type in _BOTH_WAYS:
        return False
    reads_both_ways = config.model_type in (*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "bert-generation")
    flag = "causal" if hasattr(config, "causal") else "is_decoder"  # XLM's word, and BERT's
    return not reads_both_ways or bool(getattr(config, flag, False))


def has_classifier(config: Any) -> bool:
    """Whether transformers has a class of this model type that tells texts apart."""
    return config.model_type in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES


def check_loaded(model: Any, info: Mapping[str, Any], config: Any, *, is_new_head: bool) -> str:
    """A note on tensors of the files that the model has no use for; ValueError for tensors that the files lack.

    is_new_head: what the saved class does not have either (a classifier's head) begins at random, and is not missing.
    """
    missing = set(info["missing_keys"])
    if missing and is_new_head:
        missing &= _names_of_saved(model, config)
    if missing:
        raise UserError(missing_text(sorted(missing)))
    surplus = sorted(info["unexpected_keys"])
    if not surplus or is_new_head:
        return ""
    more = f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""
    return f"the files also hold what this model has no use for: {', '.join(surplus[:3])}{more}"


def _named(config: Any) -> Any:
    for name in getattr(config, "architectures", None) or ():
        cls = getattr(transformers, str(name), None)
        if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel) and _is_of(config, cls):
            return cls
    return None


def _is_of(config: Any, cls: Any) -> bool:
    return cls.config_class is type(config)


def _names_of_saved(model: Any, config: Any) -> set[str]:
    """The parameters that the saved class has, by their names in this model of the same base."""
    saved = without_weights(config)
    base = f"{saved.base_model_prefix}."
    names = {name.removeprefix(base) for name in saved.state_dict()}
    own = f"{model.base_model_prefix}."
    return {name for key in names for name in (key, f"{own}{key}")}


def _flat(table: Mapping[str, Any]) -> set[str]:
    return {name for entry in table.values() for name in ([entry] if isinstance(entry, str) else entry)}
