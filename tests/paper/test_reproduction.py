"""The words of the command reproduce."""

import pytest

from octoscale.paper.settings import GPT_MODELS, LLAMA_MODELS, TITLES, Reproduction
from octoscale.system.errors import UserError


def test_all_means_each_and_several_come_in_the_papers_order():
    assert Reproduction(what="all").wanted == [*TITLES]
    assert Reproduction(what="fig6, table4").wanted == ["table4", "fig6"]


def test_models_are_those_that_were_named_or_what_runs_on_a_laptop():
    assert Reproduction(what="all").models_of("table2") == [*GPT_MODELS]
    assert Reproduction(what="all").models_of("table4") == [*LLAMA_MODELS]
    assert Reproduction(what="all", models=("gpt-111m",)).models_of("table4") == ["gpt-111m"]


def test_pretrained_means_the_real_checkpoints():
    words = Reproduction(what="table2", models=("gpt-111m", "llama2-7b"), pretrained=True)
    assert words.models_of("table2") == ["cerebras/Cerebras-GPT-111M", "meta-llama/Llama-2-7b-hf"]


def test_the_presets_precision_and_formats_are_the_papers():
    words = Reproduction(what="table5", preset="paper")
    assert (words.high, words.codes) == ("fp16", "fnuz")
    assert (Reproduction(what="table5").high, Reproduction(what="table5").codes) == ("bf16", "ocp")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"what": "table9"}, "cannot reproduce 'table9': there are table2, .*, fig10, and all; did you mean table"),
        ({"what": ""}, "cannot reproduce '': there are table2"),
        ({"seeds": "0;1"}, "cannot read the seeds '0;1': whole numbers"),
        ({"seeds": ""}, "cannot read the seeds ''"),
        ({"seeds": "1,1"}, "cannot read the seeds '1,1'.* each once"),
        ({"seeds": "-1"}, "cannot read the seeds '-1'"),
        ({"seeds": "4294967296"}, "cannot read the seeds"),
        ({"models": ("gpt-10m", "gpt-10m")}, "--model gpt-10m stands twice"),
        ({"pretrained": True}, "say which with --model"),
        ({"pretrained": True, "models": ("gpt-10m",)}, "--pretrained is for gpt-111m, .*, llama2-70b, not for gpt-10m"),
        ({"pretrained": True, "models": ("smollm2-135m",)}, "not for smollm2-135m: leave it out"),
        ({"tasks": "sst2,,mnli"}, "names with commas between them"),
        ({"bias": "3:1"}, "cannot read the biases '3:1'"),
        ({"train_bias": "x"}, "cannot read the biases 'x'"),
        ({"limit": 0}, "--limit 0: must be at least 1"),
        ({"batch_size": -1}, "--batch-size -1: must be at least 1"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"preset": "quick"}, "unknown preset 'quick': there is paper"),
    ],
)
def test_what_cannot_be_met_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        Reproduction(**{"what": "all", **words})


def test_a_folder_of_data_must_be_there(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Reproduction(what="table4", include=tmp_path / "nowhere")
