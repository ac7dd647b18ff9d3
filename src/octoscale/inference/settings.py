"""What to write with a model, and how: one place for the words, and the defaults, of the commands generate and chat."""

import math
from dataclasses import dataclass
from typing import Any

from octoscale.conversion.settings import Head, Shared, Subject
from octoscale.system.errors import UserError
from octoscale.system.settings import check_seed, setting


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: the likeliest at temperature 0, else at random among the likeliest."""

    max_new_tokens: int = setting(128, "Stop after so many tokens.")
    temperature: float = setting(0.0, "0: always the likeliest token. 1: as likely as the model says.")
    top_p: float = setting(1.0, "Choose among the likeliest tokens that make up this much probability.")
    seed: int = setting(0, "Of the random choices.")

    def __post_init__(self) -> None:
        if not 1 <= self.max_new_tokens < 2**31:
            raise UserError(f"{self.max_new_tokens} new tokens: at least 1, and fewer than 2**31")
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise UserError(f"temperature {self.temperature}, top_p {self.top_p}: at least 0, and within 0..1")
        check_seed(self.seed)

    def options(self) -> dict[str, Any]:
        """In the words of transformers' generate."""
        words: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": self.temperature > 0}
        if self.temperature > 0:
            words |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return words


@dataclass(frozen=True, kw_only=True)
class Writing(Head, Sampling, Subject):
    """A model that writes; see `octoscale generate --help`. It is a Sampling, too."""

    scaling: str | None = setting(
        None, "amax (unless given), cscale:-1, bf16, ... For a checkpoint of FP8 weights: leave it out."
    )
    activations: str | None = setting(
        None, "dynamic, static (with cscale), or none (weights only). [default: dynamic, or the checkpoint's]"
    )
    huge_pages: bool = setting(
        True, "Copy the weights into pages of 2 MB if they fit: faster, but not shared with other processes."
    )


@dataclass(frozen=True, kw_only=True)
class Generation(Shared, Writing):
    """One text that goes on."""

    prompt: str = setting(help="What the model is to go on with.")


@dataclass(frozen=True, kw_only=True)
class Chat(Writing):
    """Turns, one after the other."""

    max_new_tokens: int = setting(512, "Stop each reply after so many tokens.")
