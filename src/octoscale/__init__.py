"""octoscale: FP8 for language models, with scales that you can see.

    import octoscale
    from octoscale import Recipe

    report = octoscale.convert(model, Recipe.amax())         # linear layers to FP8, in place
    with octoscale.record(model, "runs/mine"):               # every scale and every overflow, to parquet
        model(**batch)
    octoscale.revert(model)

These are the public names; everything else is private, or imported from its module. They are loaded at first use, so
that importing the package costs nothing and `octoscale --help` does not wait for torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octoscale.conversion.convert import ConversionReport as ConversionReport
    from octoscale.conversion.convert import convert as convert
    from octoscale.conversion.convert import forget_casts as forget_casts
    from octoscale.conversion.convert import revert as revert
    from octoscale.conversion.state import fp8_state as fp8_state
    from octoscale.conversion.state import load_fp8_state as load_fp8_state
    from octoscale.kernels.ops import Quantized as Quantized
    from octoscale.kernels.ops import matmul as matmul
    from octoscale.kernels.ops import quantize as quantize
    from octoscale.layers.linear import Fp8Linear as Fp8Linear
    from octoscale.layers.linear import NonFiniteError as NonFiniteError
    from octoscale.models.loading import load as load
    from octoscale.models.tasks import read_text as read_text
    from octoscale.models.tasks import token_windows as token_windows
    from octoscale.numerics.formats import FORMATS as FORMATS
    from octoscale.numerics.formats import Format as Format
    from octoscale.numerics.recipe import Operand as Operand
    from octoscale.numerics.recipe import Recipe as Recipe
    from octoscale.numerics.scaling import Amax as Amax
    from octoscale.numerics.scaling import Constant as Constant
    from octoscale.numerics.scaling import Delayed as Delayed
    from octoscale.runs.scales import Recorder as Recorder
    from octoscale.runs.scales import read_scales as read_scales
    from octoscale.runs.scales import record as record
    from octoscale.training.callback import TrainerCallback as TrainerCallback
    from octoscale.validation.evaluate import perplexity as perplexity
    from octoscale.validation.evaluate import validate as validate

__version__ = "0.1.0"

_MODULE_OF = {
    "TrainerCallback": "training.callback",
    "ConversionReport": "conversion.convert",
    "convert": "conversion.convert",
    "forget_casts": "conversion.convert",
    "revert": "conversion.convert",
    "perplexity": "validation.evaluate",
    "validate": "validation.evaluate",
    "FORMATS": "numerics.formats",
    "Format": "numerics.formats",
    "Fp8Linear": "layers.linear",
    "NonFiniteError": "layers.linear",
    "load": "models.loading",
    "Quantized": "kernels.ops",
    "matmul": "kernels.ops",
    "quantize": "kernels.ops",
    "Operand": "numerics.recipe",
    "Recipe": "numerics.recipe",
    "Amax": "numerics.scaling",
    "Constant": "numerics.scaling",
    "Delayed": "numerics.scaling",
    "fp8_state": "conversion.state",
    "load_fp8_state": "conversion.state",
    "read_text": "models.tasks",
    "token_windows": "models.tasks",
    "Recorder": "runs.scales",
    "read_scales": "runs.scales",
    "record": "runs.scales",
}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'octoscale' has no attribute {name!r}")
    module = importlib.import_module(f"octoscale.{_MODULE_OF[name]}")
    globals()[name] = value = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """The package, where `octoscale.convert` is the function and not the submodule of that name.

    Importing a submodule sets it as an attribute of its package; a public name of the same spelling wins over it.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
