"""generation_config.json: which kinds of values transformers' `generate` can work with, checked before it is asked to.

Transformers takes any value there, and fails at the first token, in words that name neither file nor key.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from octoscale.checkpoints.folder import GENERATION_CONFIG, read_object
from octoscale.system.errors import UserError

_LARGEST = 2**31


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) < float("inf")


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(of(each) for each in value)


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_int, "an integer"),
    "number": (_is_number, "a finite number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "text": (lambda value: isinstance(value, str), "a text"),
    "texts": (lambda value: isinstance(value, str) or _is_list(value, lambda each: isinstance(each, str)), "texts"),
    "ids": (lambda value: _is_int(value) or _is_list(value, _is_int), "a token id, or a list of them"),
    "list of ids": (lambda value: _is_list(value, _is_int), "a list of token ids"),
    "lists of ids": (lambda value: _is_list(value, lambda each: _is_list(each, _is_int)), "lists of token ids"),
}

#: Kind -> the settings of that kind.
_SETTINGS = {
    "int": "max_length max_new_tokens min_length min_new_tokens num_beams num_beam_groups num_return_sequences top_k "
    "no_repeat_ngram_size encoder_no_repeat_ngram_size prompt_lookup_num_tokens max_matching_ngram_size "
    "num_assistant_tokens prefill_chunk_size pad_token_id forced_bos_token_id max_cache_len",
    "number": "temperature top_p min_p top_h typical_p epsilon_cutoff eta_cutoff repetition_penalty "
    "encoder_repetition_penalty length_penalty diversity_penalty guidance_scale max_time",
    "bool": "do_sample use_cache output_attentions output_hidden_states output_scores output_logits "
    "return_dict_in_generate renormalize_logits remove_invalid_values token_healing low_memory",
    "text": "cache_implementation",
    "texts": "stop_strings",
    "ids": "bos_token_id eos_token_id decoder_start_token_id forced_eos_token_id",
    "list of ids": "suppress_tokens begin_suppress_tokens",
    "lists of ids": "bad_words_ids force_words_ids",
}
_KIND_OF = {setting: kind for kind, settings in _SETTINGS.items() for setting in settings.split()}


def check_generation_settings(folder: Path) -> None:
    """ValueError, naming file and key, for a setting of a kind that `generate` cannot use; null is always one."""
    path = folder / GENERATION_CONFIG
    if not path.exists():
        return
    for key, value in read_object(path).items():
        if value is not None and key in _KIND_OF:
            is_kind, kind = _KINDS[_KIND_OF[key]]
            if not is_kind(value):
                raise UserError(f"{path}: {key} is {value!r:.60}: it should be {kind}")
