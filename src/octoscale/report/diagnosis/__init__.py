"""What is wrong with a run, in words: rules over its records, and over nothing else.

    octoscale.diagnose("runs/mine")          [Finding(rule="nonfinite", module="...", role="weight", step=12, ...)]

    finding         what a rule finds: tensor, step, the numbers that it cites, the remedy
    remedies        what to do, as texts that octoscale takes
    limits          from which number on a rule speaks, and why
    tensors         the rows of a run as rules look at them, group by group
    scales          scales at the clamp, of another recipe, wasted, late
    clipping        values clamped, values flushed
    growth          an outlier that grows
    gradients       zero gradients
    loss_scale      a loss scale applied twice
    weights         stale casts, weights that stand still
    layers          layers that are not FP8, or never ran
    twice           tensors that are cast twice
    nonfinite       where infinity and NaN began
    ranks           ranks that disagree
    rules           the table of rules, and how they are asked
    abridged        many findings, told in few words
    words           findings on the terminal

A rule is a function from a group of records to findings. A new one is a line of RULES in rules.py.
"""
