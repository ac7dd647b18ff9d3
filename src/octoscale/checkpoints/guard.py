"""Plain from_pretrained of transformers refuses codes of FP8 that nothing announces, once `octoscale.hf` is imported.

Without it, transformers takes the codes for values: weights that are wrong by the scale of each tensor, and no word.
There is no hook for that, so the one function that has both the model and its files is wrapped. In the same place the
values of codes that have no layer of their own are put before transformers (decoded.py).
"""

from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from octoscale.checkpoints.decoded import decoding
from octoscale.checkpoints.headers import is_packed, read_entries
from octoscale.checkpoints.names import parameters_of
from octoscale.system.errors import UserError

#: The function of transformers that has both a model and its files.
LOAD = "_load_pretrained_model"


def refuse_codes(model: Any, files: Sequence[Path], *, quantizes: bool) -> None:
    """ValueError naming a tensor of FP8 codes that would become values: to be cast, or of a parameter of another dtype.

    quantizes: whether weights are to be quantized while they are loaded.
    """
    for path in files:
        packed = {name: entry for name, entry in read_entries(path).items() if is_packed(entry)}
        if not packed:
            continue
        own = model.state_dict(keep_vars=True)
        for name, target in parameters_of(model, packed).items():
            if quantizes or not str(own[target.parameter].dtype).startswith("torch.float8"):
                raise UserError(
                    f"{name} in {path} is {packed[name].dtype}, and config.json does not say how it is scaled: it "
                    "lacks the quantization_config of these files (octoscale.load reads ModelOpt's own file too)"
                )


def install() -> None:
    """Put the check before transformers' own function, once."""
    theirs = getattr(PreTrainedModel, LOAD, None)
    if theirs is None or hasattr(theirs, "__wrapped__"):
        return

    @wraps(theirs)  # which leaves theirs at __wrapped__
    def checked(model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *rest: Any, **more: Any) -> Any:
        quantizer = load_config.hf_quantizer
        if state_dict is None and checkpoint_files and (quantizer is None or not quantizer.pre_quantized):
            files = [path for each in checkpoint_files if (path := Path(each)).suffix == ".safetensors"]
            refuse_codes(model, files, quantizes=quantizer is not None)
        with decoding(state_dict, checkpoint_files or (), getattr(quantizer, "decoded", {})) as tensors:
            return theirs(model, tensors, checkpoint_files, load_config, *rest, **more)

    setattr(PreTrainedModel, LOAD, staticmethod(checked))


def uninstall() -> None:
    """Put transformers' own function back."""
    theirs = getattr(getattr(PreTrainedModel, LOAD, None), "__wrapped__", None)
    if theirs is not None:
        setattr(PreTrainedModel, LOAD, staticmethod(theirs))
