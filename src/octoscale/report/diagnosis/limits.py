"""The numbers from which a rule speaks, each once, and why it is this one.

"Clean" are the runs that they were set on: tiny Llamas and GPT-2s, trained for 30 to 60 steps with learning rates of
0.002 to 0.03, and validated, under amax with and without margin, constants, delayed scaling and fnuz formats; the same
fine-tuned for 150 steps on noisy examples; and SmolLM2-135M, validated. Binades are powers of two.
"""

#: Steps that something must last to be a state, no accident; all steps of a shorter run.
LASTING = 3

#: Binades by which a constant may clip the largest value: SmolLM2-135M bears 1.3 (cscale:-1) and suffers at 2.3.
CLIPPED_BINADES = 2.0

#: Part of a tensor's values, other than zero, that may be clamped. Clean: none, for a constant in range clips nothing.
CLIPPED_SHARE = 0.01

#: Part of the values, other than zero, that a tensor's own scale may flush. Clean: 0.08; 0.12 in SmolLM2-135M.
FLUSHED_BY_OWN_SCALE = 0.25

#: The same for a constant, under which small tensors lie low by nature. Clean: 0.43, of gradients under cscale:2, and
#: 0.5, of inputs of down_proj under cscale:-1.
FLUSHED_BY_CONSTANT = 0.6

#: A tensor that flushes this part of its values, and this many times what its siblings flush, has a constant too low.
FLUSHED_ALONE, FLUSHED_ALONE_TIMES = 0.25, 8.0

#: Free binades above every tensor of a role that are wasted, where each has its own scale. The paper's margin is 3.
WASTED_BINADES = 6

#: The same for a constant, as a part of the format's binades: cscale:0 leaves 0.33 above the largest clean input.
WASTED_SHARE = 0.6

#: Binades by which amax outgrew all that a history holds, and by which values were clamped for it. Clean, with learning
#: rates up to 0.03 and margin 0: inputs and weights 2.1 and 1.9, gradients 4.2 and 2.9.
LAG = {"weight": (2.5, 1.5), "input": (2.5, 1.5), "grad_output": (4.0, 3.0)}
LAG_ALONE = {"weight": 2.5, "input": 2.5, "grad_output": 4.0}

#: Binades by which a tensor outgrew its siblings over a run. Clean: 1.9.
GROWTH = 3.0

#: Siblings whose median says what is usual; one sibling may be the one that is not.
GROWTH_SIBLINGS = 3

#: The same among all inputs, or weights, where there are not so many siblings. Clean: 5.8, of the inputs of down_proj
#: in fine-tunings of two layers.
GROWTH_AMONG_ALL = 7.0

#: So many places at which growth may have begun are compared; longer runs are looked at through medians.
GROWTH_PLACES = 500

#: Steps from which growth can be told from the noise of batches.
GROWTH_STEPS = 6

#: Steps at the beginning, and at the end, whose medians are compared; no more than a part of the run.
GROWTH_ENDS, GROWTH_PART = 3, 8

#: Binades by which the loss scale, or all gradients, may grow from a step to the next: a GradScaler's step is 1.
SCALE_JUMP = 3.0

#: Steps before and since a jump of all gradients: all of these lie above all of those. Of noisy examples, a quarter of
#: all, two a step, so many come on end after so many others at one step of 70,000.
GRADIENT_STEPS = 8

#: All gradients count as grown alike if this part of them lies this near, in binades, to their median.
ALIKE_SHARE, ALIKE_BINADES = 0.9, 1.5

#: The largest loss scale to begin with, as a binary logarithm: torch's GradScaler begins with 16; the paper's go to 15.
FIRST_SCALE = 17.5

#: That all of so many different amax have FP8's few significant bits is no accident if its probability is below this:
#: one in 16 has them by chance in bfloat16, one in a million in float32.
ACCIDENT = 1e-6

#: Different values of amax that it takes at least: sigmoid, tanh and clamps have one or two of their own.
GRID_VALUES = 3

#: Casts of a weight from which one that never moved is told from one that rarely does, and the part of its siblings'
#: that must have moved: an optimizer's step moves the largest value, unless its gradient is exactly zero.
IDLE_CASTS, MOVING_SHARE = 8, 0.75
