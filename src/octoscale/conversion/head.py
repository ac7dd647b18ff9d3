"""The head in FP8, its weight only, for inference: what `octoscale generate --fp8-head` does.

    print(put_head_in_fp8(model))       # lm_head in FP8 (e4m3fn amax), and model.embed_tokens, which shares its weight

Checkpoints keep the head in high precision, as the paper does, and so do others that read them. In memory it can be FP8
as well: half the bytes, which a token reads all of. That counts where the vocabulary is large beside the model, and
costs perplexity: `octoscale validate OUT --fp8-head` says how much. The input of the head stays bfloat16. An embedding
that shares the head's weight (tied) looks rows up in the same codes.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from octoscale.conversion.convert import replace_module
from octoscale.layers.layouts import get_layout
from octoscale.layers.linear import Fp8Linear
from octoscale.layers.stored import StoredLinear, to_stored
from octoscale.numerics.recipe import Recipe
from octoscale.runs.scales import LayerName
from octoscale.system import heap
from octoscale.system.errors import UserError

_LAYOUT = get_layout("compressed-tensors")


class StoredEmbedding(nn.Module):
    """An embedding whose rows are codes: weight [num_embeddings, embedding_dim] in e4m3fn, times weight_scale."""

    def __init__(self, original: nn.Embedding, head: StoredLinear) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = original.num_embeddings, original.embedding_dim
        self._dtype = original.weight.dtype
        for name in ("weight", _LAYOUT.weight_scale):
            self.register_parameter(name, head.get_parameter(name))

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of these ids, in the dtype that the embedding had."""
        scale = self.get_parameter(_LAYOUT.weight_scale)
        return (functional.embedding(ids, self.weight).float() * scale).to(self._dtype)  # type: ignore[arg-type]


def put_head_in_fp8(model: PreTrainedModel) -> str:
    """Replace the head, and an embedding tied to it, in place; says what became FP8. Before `fuse`.

    Such a model cannot be saved any more: state_dict raises ValueError. ValueError here, and nothing is changed, if
    there is no plain head, or none that is not FP8 or fused yet.
    """
    name, head = _find(model, model.get_output_embeddings())
    reason = _why_not(head)
    if reason is not None:
        raise UserError(f"{name or type(model).__name__} cannot be in FP8: {reason}")
    assert isinstance(head, nn.Linear)
    shared_name, shared = _find(model, model.get_input_embeddings())
    is_tied = isinstance(shared, nn.Module) and shared.weight is head.weight
    if is_tied and type(shared) is not nn.Embedding:
        raise UserError(f"{name} cannot be in FP8: its weight is shared with a {type(shared).__name__}")
    recipe = Recipe.amax()
    layer_name = LayerName(module=name, layer=None, kind="other")
    stored = to_stored(head, layer_name, recipe, _LAYOUT, "none", _LAYOUT.scale_shape)
    stored.set_weight(head.weight.detach(), recipe.weight)
    _replace(model, name, stored)
    said = f"{name} in FP8 ({recipe.weight})"
    if is_tied:
        assert isinstance(shared, nn.Embedding)
        _replace(model, shared_name, StoredEmbedding(shared, stored))
        said += f", and {shared_name}, which shares its weight"
    heap.page_out(head.weight.data_ptr(), head.weight.numel() * head.weight.element_size())
    return said


def _why_not(head: object) -> str | None:
    if isinstance(head, Fp8Linear):
        return "it is FP8 already"
    if type(head) is not nn.Linear:
        return "it has no head that is a linear layer"
    if "forward" in head.__dict__:
        return "it is fused: octoscale.inference.fuse.unfuse(model) first"
    return None if head.weight.is_floating_point() else f"its weight is {head.weight.dtype}"


def _find(model: nn.Module, wanted: object) -> tuple[str, Any]:
    names = [name for name, module in model.named_modules() if module is wanted]
    return (names[0], wanted) if names else ("", None)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    replace_module(model, name, module)
    module.register_state_dict_pre_hook(_refuse)  # type: ignore[no-untyped-call]


def _refuse(*_: Any) -> None:
    raise UserError("a model whose head was put into FP8 is for inference only: load it again to save it")
