"""Runs without a fault: recipes, formats, precisions, models and seeds as people use them.

The first twelve are those of the issue; then come fine-tunings on noisy examples, whose gradients go up and down, and
trainings with several scales a tensor.
"""

from collections.abc import Callable
from pathlib import Path

from models import tiny_gpt2, tiny_llama
from small_runs import infer, noisy_examples, train

from octoscale import Recipe, parse_scaling

NOISY = {"data": noisy_examples, "steps": 150, "every": 10}

CLEAN: dict[str, Callable[[Path], Path]] = {
    "Llama, amax": lambda folder: train(tiny_llama(0), Recipe.amax(), folder),
    "Llama, amax, bf16 autocast, another seed": lambda folder: train(
        tiny_llama(1), Recipe.amax(), folder, seed=1, autocast=True
    ),
    "Llama of four layers, amax, a large learning rate": lambda folder: train(
        tiny_llama(2, num_hidden_layers=4), Recipe.amax(), folder, rate=1e-2
    ),
    "GPT-2, the paper's training: fnuz, margin 3, loss scale 512": lambda folder: train(
        tiny_gpt2(0), Recipe.paper_training(), folder, loss_scale=lambda _: 512.0
    ),
    "GPT-2, amax, three micro-batches": lambda folder: train(
        tiny_gpt2(1), Recipe.amax(), folder, steps=15, micro_batches=3
    ),
    "Llama, constants in range": lambda folder: train(tiny_llama(3), Recipe.cscale_by_role(weight=4, input=2), folder),
    "GPT-2, one constant, fnuz": lambda folder: train(tiny_gpt2(3), Recipe.cscale(3, formats="fnuz"), folder),
    "Llama, delayed scaling, a large learning rate": lambda folder: train(
        tiny_llama(4), Recipe.delayed(), folder, rate=1e-2
    ),
    "GPT-2, delayed scaling, a short history": lambda folder: train(
        tiny_gpt2(4), Recipe.delayed(history=4, margin=1), folder
    ),
    "Llama, amax, validated": lambda folder: infer(tiny_llama(5), Recipe.amax(), folder),
    "GPT-2, amax with a margin, validated": lambda folder: infer(tiny_gpt2(5), Recipe.amax(margin=2), folder),
    "Llama, a constant, validated": lambda folder: infer(tiny_llama(6), Recipe.cscale(0), folder),
    "Llama, amax, fine-tuned": lambda folder: train(tiny_llama(0), Recipe.amax(), folder, **NOISY),
    "Llama, amax, fine-tuned, another seed, the loss outside": lambda folder: train(
        tiny_llama(1), Recipe.amax(), folder, seed=1, outside=True, **NOISY
    ),
    "GPT-2, amax, fine-tuned, the loss outside": lambda folder: train(
        tiny_gpt2(2), Recipe.amax(), folder, seed=2, outside=True, **NOISY
    ),
    "Llama of four layers, amax, fine-tuned": lambda folder: train(
        tiny_llama(5, num_hidden_layers=4), Recipe.amax(), folder, seed=5, **NOISY
    ),
    "Llama, a scale a row": lambda folder: train(tiny_llama(0), Recipe.amax(granularity="row"), folder),
    "GPT-2, a scale a block, three micro-batches": lambda folder: train(
        tiny_gpt2(1), Recipe.amax(granularity="block"), folder, steps=15, micro_batches=3
    ),
    "Llama, MX, rounded down": lambda folder: train(tiny_llama(1), Recipe.amax(granularity="mx"), folder, seed=1),
    "GPT-2, MX, rounded up, fnuz, a loss scale": lambda folder: train(
        tiny_gpt2(0), parse_scaling("amax:mx,round=up,formats=fnuz"), folder, loss_scale=lambda _: 512.0
    ),
    "Llama, rows with a margin, validated": lambda folder: infer(
        tiny_llama(5), parse_scaling("amax:row,margin=2"), folder
    ),
    "Llama, weights in blocks, a large learning rate": lambda folder: train(
        tiny_llama(2), parse_scaling("weight=amax:block,input=amax:row"), folder, rate=1e-2
    ),
}
