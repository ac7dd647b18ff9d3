"""The command plan."""

from octoscale.cli.app import TRAIN, app, ending
from octoscale.cli.options import Json, Pretrained, Words, takes
from octoscale.cli.output import show
from octoscale.training.planning import Planning


@app.command(rich_help_panel=TRAIN, epilog=ending("octoscale plan llama2-70b --gpus 512", "PLAN"))
@takes(Planning)
def plan(words: Words[Planning], pretrained: Pretrained = False, as_json: Json = False) -> None:
    """Say what a rank of a large run would hold and send, and which mesh fits, for training and inference.

    A step runs without weights or values, on all ranks at once. Beside the scaling stands the same without FP8.
    """
    from octoscale.report.plan import plan_lines, plan_table
    from octoscale.training.plan import plan as find

    found = find(words.of(pretrained).settings())
    if as_json:
        show(found)
        return
    show(plan_table(found))
    show(plan_lines(found))
