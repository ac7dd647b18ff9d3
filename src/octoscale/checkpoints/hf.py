"""transformers: quantize while loading, load FP8 checkpoints and keep them FP8, save them.

    import octoscale.hf
    from octoscale.hf import OctoscaleConfig

    model = AutoModelForCausalLM.from_pretrained("my-llama", quantization_config=OctoscaleConfig("amax"))
    model.save_pretrained("my-llama-fp8")                           # in a layout that vLLM and transformers read
    model = AutoModelForCausalLM.from_pretrained("my-llama-fp8")    # as `octoscale quantize` and others write it
    octoscale.hf.give_back()                                        # transformers is what it was

Once this module is imported, checkpoints whose weights have one scale a tensor are loaded by it, with the weights in
FP8 and in the file's own memory: compressed-tensors' float-quantized, vLLM's fp8 and transformers' fp8. Others, with
rows or blocks of scales, stay transformers' matter. What is changed in transformers stands in takeover.py.
"""

from octoscale.checkpoints.casting import quantize_model
from octoscale.checkpoints.config import METHOD, OctoscaleConfig
from octoscale.checkpoints.quantizer import OctoscaleQuantizer
from octoscale.checkpoints.takeover import give_back, take_over

__all__ = ["METHOD", "OctoscaleConfig", "OctoscaleQuantizer", "give_back", "quantize_model", "take_over"]

take_over()
