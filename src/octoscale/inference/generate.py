"""Text from a model in FP8: load it, let it decode fast, and hand out the text as it comes.

    writer = Writer("my-llama-fp8")
    writer.write(writer.encode("Once"), Sampling(max_new_tokens=64), emit=print)

The checkpoint's own scales are used where its weights are FP8 already. Other models are quantized while they are
loaded, by any scaling of `octoscale validate`, or run as they are (bf16). transformers' `generate` does the rest.
"""

import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from transformers.generation.logits_process import LogitsProcessor
from transformers.generation.streamers import BaseStreamer

from octoscale.checkpoints.config import OctoscaleConfig
from octoscale.conversion.head import put_head_in_fp8
from octoscale.inference.fuse import fuse
from octoscale.inference.huge_pages import gather_huge_pages
from octoscale.inference.settings import Sampling as Sampling
from octoscale.layers.state import NonFiniteError
from octoscale.models import loading
from octoscale.models.not_finite import where_not_finite
from octoscale.models.quiet import quietly
from octoscale.models.texts import embeddings_of, positions_of
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.system.errors import UserError

DEFAULT_SCALING, DEFAULT_ACTIVATIONS = "amax", "dynamic"

#: What a generation_config may ask for that is more than one text, token by token: here it is one.
ONE_SEQUENCE: dict[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "prompt_lookup_num_tokens": None,
    "assistant_early_exit": None,
    "return_dict_in_generate": False,
    "use_cache": True,
}


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What a model wrote: the new ids, the end token included, and their text."""

    ids: list[int]
    text: str


class Writer:
    """A model that writes. `describe` says what it is and how fast it can be.

    huge_pages: copy the weights into huge pages if they fit (huge_pages.py), out of their file's memory. ranks: those
    of which each has a part of the model; all of them write the same, by the first one's scores.
    """

    def __init__(
        self,
        spec: str,
        scaling: str | None = None,
        activations: str | None = None,
        *,
        fp8_head: bool = False,
        huge_pages: bool = True,
        ranks: ProcessGroup | None = None,
    ) -> None:
        self.scaling = choose_scaling(spec, scaling)
        activations = choose_activations(spec, self.scaling, activations)
        fp8 = None
        if self.scaling not in (STORED, *PRECISIONS):
            fp8 = OctoscaleConfig(self.scaling, activations=activations)
        dtype = getattr(torch, PRECISIONS.get(self.scaling, "bfloat16"))
        self._loaded, self._ranks = loading.load(spec, dtype, fp8=fp8, ranks=ranks), ranks
        self._model = self._loaded.model
        loading.check_causal(self._model, spec)
        if self._loaded.encode is None:
            raise UserError(f"{self._loaded.note}; without it, {spec} cannot read a prompt")
        self._head = f"{put_head_in_fp8(self._model)}; " if fp8_head else ""
        self.pages = gather_huge_pages(self._model) if huge_pages else "weights where they were loaded"
        self.fusion = fuse(self._model)

    @property
    def describe(self) -> str:
        """Model, scaling, how many of its layers decode in one call, and where its weights are."""
        note = f"; {self._loaded.note}" if self._loaded.note else ""
        note += self._overridden()
        return f"{self._loaded.name} in {self.scaling}: {self._head}{self.fusion}; {self.pages}{note}"

    def _overridden(self) -> str:
        """What the model's generation_config asks for, and one text, token by token, cannot be."""
        config = self._model.generation_config
        wishes = [n for n in ("num_beams", "num_return_sequences") if (getattr(config, n, None) or 1) > 1]
        wishes += [n for n in ("prompt_lookup_num_tokens", "assistant_early_exit") if getattr(config, n, None)]
        return f"; one text is written, whatever generation_config says of {', '.join(wishes)}" if wishes else ""

    @quietly()
    def encode(self, text: str) -> list[int]:
        """The ids of a prompt. ValueError if there is none, or one that the model has no embedding for."""
        tokenizer, encode = self._loaded.tokenizer, self._loaded.encode
        assert encode is not None
        ids = encode(text) if tokenizer is None else list(tokenizer(text).input_ids)
        if not ids:
            raise UserError("the prompt is empty")
        embeddings = embeddings_of(self._model)
        if max(ids) >= embeddings:
            raise UserError(
                f"the prompt holds token {max(ids)}, and {self._loaded.name} knows {embeddings} tokens only: "
                "the tokenizer is another model's"
            )
        return ids

    @quietly()
    def encode_chat(self, turns: list[dict[str, str]]) -> list[int]:
        """The ids of a conversation, [{"role": "user", "content": ...}, ...], as the model was taught to read one."""
        tokenizer = self._loaded.tokenizer
        if tokenizer is None or tokenizer.chat_template is None:
            raise UserError(
                f"{self._loaded.name} has no chat template: it was not taught to chat; use octoscale generate"
            )
        return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))

    def check_room(self, ids: list[int], sampling: Sampling) -> None:
        """ValueError if the prompt and what is asked for are longer than what the model can read."""
        room = positions_of(self._model)
        if room is not None and len(ids) + sampling.max_new_tokens > room:
            wanted = f"{len(ids)} tokens and {sampling.max_new_tokens} new ones"
            raise UserError(f"{wanted} are more than the {room} that {self._loaded.name} can read")

    def write(self, ids: list[int], sampling: Sampling, emit: Callable[[str], object]) -> Continuation:
        """What follows `ids`; `emit` gets their text, piece by piece, as soon as it stands."""
        self.check_room(ids, sampling)
        with torch.no_grad(), quietly(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(sampling.seed)
            out = self._model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                streamer=_Streamer(len(ids), self._decode, emit, byte_finder(self._loaded.tokenizer)),
                tokenizer=self._loaded.tokenizer,
                pad_token_id=self._padding(),
                logits_processor=[*([] if self._ranks is None else [_OfFirst(self._ranks)]), _Finite(self._model)],
                **{**ONE_SEQUENCE, **sampling.options()},
            )
        new = out[0, len(ids) :].tolist()
        return Continuation(ids=new, text=self._decode(new))

    def _padding(self) -> int:
        """The id that fills up: one sequence needs none, but generate asks. Else the first end token."""
        config = self._model.generation_config
        for value in (config.pad_token_id, config.eos_token_id):
            first = value[0] if isinstance(value, list) and value else value
            if isinstance(first, int) and first >= 0:
                return first
        return 0

    def _decode(self, ids: list[int]) -> str:
        if self._loaded.tokenizer is None:
            return bytes(i for i in ids if i < 256).decode(errors="replace")
        return self._loaded.tokenizer.decode(ids, skip_special_tokens=True)  # type: ignore[no-any-return]


class _OfFirst(LogitsProcessor):  # type: ignore[misc]
    """The first rank's scores, for all: on other CPUs than its own, last bits may differ, and with them a token."""

    def __init__(self, ranks: ProcessGroup) -> None:
        self._ranks = ranks

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002  transformers' signature
        scores = scores.contiguous()
        dist.broadcast(scores, src=0, group=self._ranks)
        return scores


class _Finite(LogitsProcessor):  # type: ignore[misc]
    """The scores as they are; NonFiniteError where none is the largest, for which argmax would write token 0."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not math.isfinite(float(scores.amax())):  # NaN goes before any number
            where = where_not_finite(self._model)
            raise NonFiniteError(f"token {input_ids.shape[1]}: the logits hold infinity or NaN{where}")
        return scores


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Emits the text of new tokens as soon as later ones cannot change it: word by word, and each ideograph at once.

    A later token may complete a character, and some tokenizers take spaces before punctuation away again: so the last
    word is held back until something follows it. A run of tokens that are bytes is text only as a whole.
    """

    def __init__(
        self,
        num_prompt: int,
        decode: Callable[[list[int]], str],
        emit: Callable[[str], object],
        is_byte: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._left, self._decode, self._emit, self._is_byte = num_prompt, decode, emit, is_byte
        self._ids: list[int] = []
        self._shown = ""

    def put(self, value: Tensor) -> None:
        """Take in the prompt, then a token at a time."""
        ids = value.flatten().tolist()
        self._ids += ids[self._left :]
        self._left = max(0, self._left - len(ids))
        length = len(self._ids)
        while length and self._is_byte(self._ids[length - 1]):
            length -= 1
        text = self._decode(self._ids[:length])
        self._show(text[: settled(text)])

    def end(self) -> None:
        """Emit what is left. Were something else shown than what stands in the end, no text is lost all the same."""
        text = self._decode(self._ids)
        if not text.startswith(self._shown):
            self._shown = ""
        self._show(text)

    def _show(self, text: str) -> None:
        if text.startswith(self._shown) and text != self._shown:
            self._emit(text[len(self._shown) :])
            self._shown = text


_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
#: A run of so many characters without a space is shown but for its end.
_LONG, _END = 64, 16


def settled(text: str) -> int:
    """How many of the characters of a growing text stay as they are, whatever follows.

    Not the last ones that are no characters yet, nor the last word and the space before it.
    """
    whole = text.rstrip("\N{REPLACEMENT CHARACTER}")
    length = len(whole)
    while length and not _ends_word(whole[length - 1]):
        length -= 1
    if length < len(whole) and len(whole) - length > _LONG:
        return len(whole) - _END
    return length if length == 0 or not whole[length - 1].isspace() else len(whole[:length].rstrip())


def byte_finder(tokenizer: Any) -> Callable[[int], bool]:
    """Tells which ids of a tokenizer stand for one byte, as `<0x0A>`: what sentencepiece falls back on."""
    if tokenizer is None:
        return lambda _: False
    return lambda i: _BYTE.fullmatch(str(tokenizer.convert_ids_to_tokens(i))) is not None


def _ends_word(character: str) -> bool:
    """Whether a word ends here: a space, or an ideograph, which is a word of its own."""
    return character.isspace() or unicodedata.east_asian_width(character) in ("W", "F")


def choose_scaling(spec: str, scaling: str | None) -> str:
    """The scaling to use: `stored` if the checkpoint is FP8, else the one asked for. ValueError if both is wanted."""
    if not loading.is_stored(spec):
        if scaling == STORED:
            raise UserError(f"{spec} holds no FP8 weights with scales: leave --scaling out, or octoscale quantize it")
        return DEFAULT_SCALING if scaling is None else scaling
    if scaling not in (None, STORED):
        raise UserError(f"{spec} holds FP8 weights with their scales already: leave --scaling out")
    return STORED


def choose_activations(spec: str, scaling: str, activations: str | None) -> str:
    """What becomes of activations under `scaling`. ValueError for a wish that cannot come true.

    A checkpoint of FP8 weights says it itself, and without FP8 there is nothing to choose.
    """
    if scaling != STORED and scaling not in PRECISIONS:
        return DEFAULT_ACTIVATIONS if activations is None else activations
    if activations is not None:
        why = "holds FP8 weights and says what becomes of activations" if scaling == STORED else f"runs in {scaling}"
        raise UserError(f"{spec} {why}: leave --activations out")
    return DEFAULT_ACTIVATIONS
