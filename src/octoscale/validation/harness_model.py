"""The models that lm-eval asks: one that is there already, and `octoscale`, by its own name in lm-eval's registry.

    lm_eval --model octoscale --model_args pretrained=FOLDER,scaling=amax --tasks piqa

A folder with FP8 weights stays in FP8, with its own scales.
"""

import copy
import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import nn

from octoscale.conversion.convert import convert
from octoscale.layers.state import NonFiniteError
from octoscale.models import loading
from octoscale.models.texts import embeddings_of, positions_of
from octoscale.models.tokenizer import raw_byte_tokenizer
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.numerics.recipe import PARAMETERS, Recipe, parse_scaling, with_word
from octoscale.system.errors import UserError
from octoscale.validation.tasks import OnBatch

#: What lm-eval makes of a request: its texts, the tokens of the prompt, and of what follows.
Tokens = tuple[tuple[str, str], list[int], list[int]]


class Checked(HFLM):  # type: ignore[misc]
    """lm-eval's model for those of transformers; a likelihood that is NaN is an error, where argmax would take it."""

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """As HFLM. NonFiniteError, with the task and the item."""
        answers = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        _check_finite(requests, [likelihood for likelihood, _ in answers])
        return answers

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """As HFLM. NonFiniteError, with the task and the item."""
        answers = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        _check_finite(requests, answers)
        return answers


def _check_finite(requests: Sequence[Any], likelihoods: Sequence[float]) -> None:
    for request, likelihood in zip(requests, likelihoods, strict=True):
        if math.isnan(likelihood):
            raise NonFiniteError(f"{request.task_name}, item {request.doc_id}: its logits hold infinity or NaN")


class Asked(Checked):
    """A model as it stands, with its tokenizer (None: bytes). on_batch hears of the requests that are done.

    Batches and answers are HFLM's, to the bit. The logits of prompts, which nobody reads, are left out where the
    product rounds a row alike whatever rows there are beside it: in bfloat16 on a CPU, not in float32.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, batch_size: int, on_batch: OnBatch | None = None) -> None:
        own = copy.deepcopy(tokenizer or raw_byte_tokenizer())  # lm-eval may give it a token that fills up
        super().__init__(pretrained=model, tokenizer=own, batch_size=batch_size, prefix_token_id=_first_of(own))
        self._on_batch, self._done, self._all = on_batch, 0, 0

    def check(self, task: str, requests: Sequence[Any]) -> None:
        """UserError, with the item's number, for a request that the model cannot be asked as a whole."""
        size = embeddings_of(self.model)
        for request in requests:
            what = f"{task}, item {request.doc_id}"
            ids = self._checked(what, request)
            if max(ids, default=0) >= size:
                raise UserError(
                    f"{what} holds token {max(ids)}, and the model has {size}: the tokenizer is another model's"
                )

    def _checked(self, what: str, request: Any) -> list[int]:
        """The ids of a request, all of which lm-eval reads: what is too long it would cut off in silence."""
        if request.request_type == "loglikelihood":
            context, choice = self._ids_of(request)
            if not choice:
                raise UserError(f"{what}: the tokenizer has no token for the choice {request.args[1]!r:.40}")
            self._check_length(what, len(context) + len(choice), last=1)
            return context + choice
        ids: list[int] = self.tok_encode(request.args[0])
        if request.request_type == "generate_until":
            if self.tokenizer.eos_token_id is None:
                raise UserError(f"{what} has the model write, and its tokenizer has no end-of-text token to stop at")
            room = request.args[1].get("max_gen_toks", self.max_gen_toks)
            self._check_length(what, len(ids) + room, f", {room} of them to be written")
        return ids  # a text that is only read is read in parts

    def _check_length(self, what: str, length: int, of_them: str = "", *, last: int = 0) -> None:
        """`last` tokens are only predicted, and take no position."""
        limit = min(self.max_length, positions_of(self.model) or self.max_length)
        if length - last > limit:
            raise UserError(
                f"{what} has {length} tokens{of_them}, and the model {limit} positions: ask another task, or fewer "
                "examples with --num-fewshot"
            )

    def _ids_of(self, request: Any) -> tuple[list[int], list[int]]:
        """The ids of a prompt and of what follows it."""
        if request.args[0]:
            context, choice = self._encode_pair(*request.args)
            return context, choice
        return [self.prefix_token_id], self.tok_encode(request.args[1], add_special_tokens=False)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:  # noqa: ARG002
        """As HFLM, without its bars."""
        self._all += len(requests)
        answers = super().loglikelihood(requests, disable_tqdm=True)
        self._tell(self._all - self._done)  # requests that share their logits
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Tokens], *_: Any, **options: Any) -> Any:
        """As HFLM, batch by batch."""
        answers: dict[int, Any] = {}
        for batch in _batches(requests, self.batch_size, share=self.logits_cache):
            part = [requests[i] for i in batch]
            with self._last_logits(max(len(a) + len(b) for _, a, b in part) - min(len(a) for _, a, _ in part)):
                found = super()._loglikelihood_tokens(part, **options | {"disable_tqdm": True})
            answers.update(zip(batch, found, strict=True))
        return [answers[i] for i in range(len(requests))]

    @contextmanager
    def _last_logits(self, count: int) -> Iterator[None]:
        """While the block runs, the model makes logits of so many positions at the end, if it knows how to."""
        if not self._can_leave_out:
            yield
            return
        keep = {"logits_to_keep": count}
        hook = self.model.register_forward_pre_hook(lambda _, args, words: (args, words | keep), with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    @cached_property
    def _can_leave_out(self) -> bool:
        """Whether the model makes logits of some rows alone, with their bits; an FP8 head is scaled by all rows."""
        if "logits_to_keep" not in inspect.signature(self.model.forward).parameters:
            return False
        head = self.model.get_output_embeddings()
        return type(head) is nn.Linear and head.weight.dtype is torch.bfloat16 and head.weight.device.type == "cpu"

    def _model_call(self, inps: torch.Tensor, **options: Any) -> torch.Tensor:
        logits: torch.Tensor = super()._model_call(inps, **options)
        self._tell(len(inps))
        return logits

    def _tell(self, more: int) -> None:
        self._done = min(self._done + more, self._all)
        if self._on_batch is not None:
            self._on_batch(self._done)


def _batches(requests: Sequence[Tokens], size: int, *, share: bool) -> Iterator[list[int]]:
    """lm-eval's batches: longest first; requests that differ in their last token only `share` their logits."""
    rows: dict[Any, list[int]] = {}
    for i, (_, context, choice) in enumerate(requests):
        rows.setdefault(tuple(context + choice[:-1]) if share else i, []).append(i)

    def order(row: list[int]) -> tuple[int, list[int]]:
        _, context, choice = requests[max(row, key=lambda i: len(requests[i][2]))]
        return -len(context + choice), context + choice

    longest_first = sorted(rows.values(), key=order)
    for start in range(0, len(longest_first), size):
        yield [i for row in longest_first[start : start + size] for i in row]


@register_model("octoscale")
class OctoscaleLM(Checked):
    """A model under a scaling, or with the FP8 weights of its folder.

    pretrained: as MODEL on octoscale's command line. scaling: as there, `amax` by default; an FP8 folder has its own.
    formats and skip (patterns with + between them) likewise. dtype: bf16, fp16 or fp32; unless given, the scaling if
    that is one of them, else bf16. All else is HFLM's.
    """

    def __init__(
        self,
        pretrained: str,
        scaling: str = "",
        formats: str = "",
        skip: str = "",
        dtype: str = "",
        batch_size: int | str = 16,
        device: str | None = None,
        **options: Any,
    ) -> None:
        scaling = _with_parameters(scaling, options)
        dtype = dtype or (scaling if scaling in PRECISIONS else "bf16")
        if dtype not in PRECISIONS:
            raise UserError(f"unknown dtype {dtype!r}: one of {', '.join(PRECISIONS)}")
        if scaling in PRECISIONS and (scaling != dtype or formats or skip):
            raise UserError(f"scaling {scaling} is no FP8: leave dtype, formats and skip out")
        recipe = _recipe(pretrained, scaling, formats, skip)
        loaded = loading.load(pretrained, getattr(torch, PRECISIONS[dtype]))
        loading.check_causal(loaded.model, pretrained)
        if loaded.encode is None:
            raise UserError(f"{loaded.note}; without it, {pretrained} cannot be asked")
        if device is not None and (torch.cuda.is_available() or not device.startswith("cuda")):  # lm-eval's default
            loaded.model.to(device)
        if isinstance(recipe, Recipe):
            convert(loaded.model, recipe)
        tokenizer = loaded.tokenizer or raw_byte_tokenizer()
        options = {"prefix_token_id": _first_of(tokenizer), **options}
        super().__init__(pretrained=loaded.model, tokenizer=tokenizer, batch_size=batch_size, **options)


def _first_of(tokenizer: Any) -> int | None:
    """What stands before a text that has nothing before it: lm-eval's choice, or id 0 for a tokenizer without one."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return 0 if all(number is None for number in known) else None


def _with_parameters(scaling: str, options: dict[str, Any]) -> str:
    """The whole text of a scaling: lm-eval takes its commas for those between options, and none for None."""
    values = {key: options.pop(key) for key in PARAMETERS if key in options}
    words = [f"{key}={'none' if value is None else value}" for key, value in values.items()]
    if not words:
        return scaling
    return with_word(scaling or "amax", ",".join(words))


def _recipe(pretrained: str, scaling: str, formats: str, skip: str) -> Recipe | str:
    """The recipe, or what is no FP8 of ours: a precision, or `stored`."""
    if loading.is_stored(pretrained):
        if scaling not in ("", STORED) or formats or skip:
            raise UserError(
                f"{pretrained} holds FP8 weights with their scales already: leave scaling, formats and skip out"
            )
        return STORED
    patterns = [pattern for pattern in skip.split("+") if pattern]
    return parse_scaling(scaling or "amax", formats or "ocp", patterns)
