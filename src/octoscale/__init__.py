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
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from octoscale.checkpoints.hf import OctoscaleConfig as OctoscaleConfig
    from octoscale.conversion.convert import ConversionReport as ConversionReport
    from octoscale.conversion.convert import convert as convert
    from octoscale.conversion.convert import forget_casts as forget_casts
    from octoscale.conversion.convert import revert as revert
    from octoscale.conversion.head import put_head_in_fp8 as put_head_in_fp8
    from octoscale.conversion.record import record as record
    from octoscale.conversion.state import fp8_state as fp8_state
    from octoscale.conversion.state import load_fp8_state as load_fp8_state
    from octoscale.inference.fuse import fuse as fuse
    from octoscale.inference.huge_pages import gather_huge_pages as gather_huge_pages
    from octoscale.kernels.ops import Quantized as Quantized
    from octoscale.kernels.ops import matmul as matmul
    from octoscale.kernels.ops import quantize as quantize
    from octoscale.layers.linear import Fp8Linear as Fp8Linear
    from octoscale.layers.state import NonFiniteError as NonFiniteError
    from octoscale.models.loading import load as load
    from octoscale.models.texts import read_text as read_text
    from octoscale.models.texts import token_windows as token_windows
    from octoscale.numerics.formats import FORMATS as FORMATS
    from octoscale.numerics.formats import Format as Format
    from octoscale.numerics.recipe import Operand as Operand
    from octoscale.numerics.recipe import Recipe as Recipe
    from octoscale.numerics.recipe import parse_scaling as parse_scaling
    from octoscale.numerics.recipe_file import read_recipe as read_recipe
    from octoscale.numerics.scaling import Amax as Amax
    from octoscale.numerics.scaling import Constant as Constant
    from octoscale.numerics.scaling import Delayed as Delayed
    from octoscale.report.diagnosis.finding import Finding as Finding
    from octoscale.report.diagnosis.rules import diagnose as diagnose
    from octoscale.report.run import load_run as load_run
    from octoscale.runs.scales import Recorder as Recorder
    from octoscale.runs.scales import read_scales as read_scales
    from octoscale.system.errors import UserError as UserError
    from octoscale.training.callback import TrainerCallback as TrainerCallback
    from octoscale.validation.perplexity import perplexity as perplexity
    from octoscale.validation.scalings import validate as validate

__version__ = "0.1.0"

_MODULE_OF = {
    "TrainerCallback": "training.callback",
    "ConversionReport": "conversion.convert",
    "convert": "conversion.convert",
    "forget_casts": "conversion.convert",
    "revert": "conversion.convert",
    "perplexity": "validation.perplexity",
    "validate": "validation.scalings",
    "FORMATS": "numerics.formats",
    "Format": "numerics.formats",
    "Fp8Linear": "layers.linear",
    "NonFiniteError": "layers.state",
    "load": "models.loading",
    "Quantized": "kernels.ops",
    "UserError": "system.errors",
    "matmul": "kernels.ops",
    "quantize": "kernels.ops",
    "Operand": "numerics.recipe",
    "Recipe": "numerics.recipe",
    "Amax": "numerics.scaling",
    "Constant": "numerics.scaling",
    "Delayed": "numerics.scaling",
    "fp8_state": "conversion.state",
    "load_fp8_state": "conversion.state",
    "read_text": "models.texts",
    "token_windows": "models.texts",
    "load_run": "report.run",
    "Recorder": "runs.scales",
    "read_scales": "runs.scales",
    "record": "conversion.record",
    "Finding": "report.diagnosis.finding",
    "diagnose": "report.diagnosis.rules",
    "fuse": "inference.fuse",
    "gather_huge_pages": "inference.huge_pages",
    "OctoscaleConfig": "checkpoints.hf",
    "put_head_in_fp8": "conversion.head",
    "parse_scaling": "numerics.recipe",
    "read_recipe": "numerics.recipe_file",
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


class _OldNames:
    """Finds a module by a name that it had before there were rooms, and that people wrote: `import octoscale.hf`."""

    places: ClassVar = {
        "octoscale.hf": "octoscale.checkpoints.hf",
        "octoscale.quantization": "octoscale.checkpoints.settings",
        "octoscale.export": "octoscale.models.export",
        "octoscale.tasks": "octoscale.models.tasks",
        "octoscale.decoding": "octoscale.inference.fuse",
        "octoscale.generate": "octoscale.inference.generate",
        "octoscale.evaluate": "octoscale.validation.evaluate",
        "octoscale.layerwise": "octoscale.validation.by_layer",
        "octoscale.validation.layerwise": "octoscale.validation.by_layer",
        "octoscale.validation.sweep": "octoscale.validation.bias_range",
        "octoscale.materialize": "octoscale.models.materialize",
        "octoscale.convert": "octoscale.conversion.convert",
        "octoscale.fused_backbone": "octoscale.inference.backbone",
        "octoscale.backends": "octoscale.kernels",
        "octoscale.backends.token": "octoscale.kernels.decoder",
    }
    #: Files that were split since: their names are found together.
    parts: ClassVar = {
        "octoscale.models.tasks": ("octoscale.models.texts", "octoscale.models.questions"),
        "octoscale.validation.evaluate": (
            "octoscale.validation.perplexity",
            "octoscale.validation.scalings",
            "octoscale.validation.scores",
        ),
    }

    @classmethod
    def find_spec(cls, name: str, *_: object) -> ModuleSpec | None:
        """What importlib asks every finder."""
        return ModuleSpec(name, cls) if name in cls.places or name in cls.parts else None  # type: ignore[arg-type]

    @classmethod
    def create_module(cls, spec: ModuleSpec) -> ModuleType:
        """The module itself, under whichever name it was imported first; a new one for a file that was split."""
        if spec.name in cls.parts:
            return ModuleType(spec.name, f"It is in {' and '.join(cls.parts[spec.name])} now.")
        module = importlib.import_module(cls.places[spec.name])
        spec.loader_state = module.__spec__
        return module

    @classmethod
    def exec_module(cls, module: ModuleType) -> None:
        """It has been run; it gets its own spec back. A new one gets all names of its parts."""
        assert module.__spec__ is not None
        for part in cls.parts.get(module.__spec__.name, ()):
            names = vars(importlib.import_module(part))
            vars(module).update({name: names[name] for name in names if not name.startswith("__")})
        module.__spec__ = module.__spec__.loader_state or module.__spec__


class _ForExportedPrograms:
    """Registers our operators when torch is about to read an exported program, which may call them."""

    reader: ClassVar = "torch.export.pt2_archive"

    @classmethod
    def find_spec(cls, name: str, *_: object) -> None:
        """What importlib asks every finder; it finds nothing."""
        if name == cls.reader:
            cls.register()

    @staticmethod
    def register() -> None:
        """They are registered where they are defined."""
        importlib.import_module("octoscale.layers.compiled_stored")


def _old_name_in_models(name: str) -> object:
    """People wrote octoscale.models.load, when that room was a file."""
    if name != "load":
        raise AttributeError(f"module 'octoscale.models' has no attribute {name!r}")
    return __getattr__(name)


class _Package(ModuleType):
    """The package, where `octoscale.convert` is the function, whoever imports the module that was called so."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "models":
            vars(value)["__getattr__"] = _old_name_in_models
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.meta_path.insert(0, _OldNames)  # before the finder that would load kernels/decoder.py a second time
sys.meta_path.insert(0, _ForExportedPrograms)
sys.modules[__name__].__class__ = _Package
if _ForExportedPrograms.reader in sys.modules:
    _ForExportedPrograms.register()
