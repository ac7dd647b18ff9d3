"""Which modules other systems are to leave in high precision: the list that config.json calls `ignore`, or alike.

    ignored(report, {"model.layers.0.block_sparse_moe.gate.weight": (8, 4096), ...})

What is not listed, they take for FP8: each linear layer, and what they make one of (routers, stacked experts,
convolutions of state-space models). Each is listed by the name that the model has for it and by the name in the files,
which other systems follow; experts that are one parameter also as vLLM asks for them, by the projections of the first.
Embeddings are not listed, nor a name that has a converted layer below it: some read a name as all that is below.
"""

from collections.abc import Container, Iterable, Iterator, Mapping

from octoscale.conversion.convert import ConversionReport

#: The names that vLLM asks for, to see whether the experts of a layer are in high precision.
_OF_THE_FIRST_EXPERT = ("0.gate_proj", "0.up_proj", "0.down_proj")


def ignored(
    report: ConversionReport, tensors: Mapping[str, tuple[int, ...]], quantized: Iterable[str] = ()
) -> list[str]:
    """The names, those of the model first, without repetition.

    tensors: of the files, name -> shape. quantized: those of them that are in FP8, for files whose names are not the
    model's; without, the converted layers' weights.
    """
    converted = [row.module for row in report.converted]
    in_files = [name.rpartition(".")[0] for name in quantized]
    embeddings = {row.module.rpartition(".")[2] for row in report.skipped if row.reason == "embedding"}
    names = [row.module for row in report.skipped if row.reason != "embedding"]
    names += [stem for stem in _matrices(tensors) if stem.rpartition(".")[2] not in embeddings]
    around = {parent for name in (*converted, *in_files) for parent in (name, *_parents(name))}
    names = [name for each in names for name in (each, *_as_asked_for(each, around))]
    return [name for name in dict.fromkeys(names) if name and name not in around]


def _matrices(tensors: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The modules that tensors of two dimensions or more are in."""
    return (name.rpartition(".")[0] for name, shape in tensors.items() if len(shape) >= 2)


def _as_asked_for(name: str, around: Container[str]) -> Iterator[str]:
    """What else vLLM calls experts: this name may be theirs together, or that of a part of one."""
    for together in (name, *_parents(name)):
        if together.rpartition(".")[2] == "experts" and together not in around:
            yield together
            yield from (f"{together}.{part}" for part in _OF_THE_FIRST_EXPERT)


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
