"""Tasks of lm-eval. Oracles: plain lm-eval on the same model, transformers' own likelihoods, the rows of the files."""

import json
import math

import pytest
import torch
from checkpoints import save_tiny_llama
from torch.nn import functional

import octoscale
from octoscale.layers.state import NonFiniteError
from octoscale.system.errors import UserError
from octoscale.validation.harness import load_harness
from octoscale.validation.tasks import TaskScore, expand

lm_eval = pytest.importorskip("lm_eval")

QUESTIONS = [
    {"query": "The fox", "choices": ["jumps", "is a small animal", "?"], "gold": 0},
    {"query": "Two and two\n", "choices": ["are four", "five"], "gold": 1},
    {"query": "é", "choices": ["a", "b"], "gold": 1},
    {"query": "One", "choices": ["two", "one", "three"], "gold": 2},
]
YAML = """
task: mine
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list:
  - metric: acc
  - metric: acc_norm
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("harness") / "llama")


@pytest.fixture
def loaded(folder):
    return octoscale.load(str(folder))


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    return path


def ask(tasks, loaded):
    from dataclasses import replace

    return list(replace(tasks, tokenizer=loaded.tokenizer).ask(loaded.model))


def test_a_file_of_questions_is_what_plain_lm_eval_makes_of_it(loaded, questions, tmp_path, monkeypatch):
    """Oracle: a YAML task with the same rows, asked by lm-eval's own model class and evaluator."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "mine.yaml").write_text(YAML.format(path=questions))
    manager = TaskManager(include_path=str(tmp_path / "plain"), include_defaults=False)
    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=16, prefix_token_id=0)
    plain = simple_evaluate(model=model, tasks=["mine"], task_manager=manager, bootstrap_iters=0)
    (score,) = ask(load_harness([], files=[questions]), loaded)
    assert score.metric == "acc_norm"
    assert score.metrics == {key: plain["results"]["mine"][f"{key},none"] for key in ("acc", "acc_norm")}
    rows = plain["samples"]["mine"]
    assert [list(item["log_likelihoods"]) for item in score.items] == [
        [pair[0] for pair in row["filtered_resps"]] for row in rows
    ]
    assert score.values == tuple(row["acc_norm"] for row in rows)


def test_likelihoods_are_transformers_own(loaded, questions):
    """Oracle: the logits of each question alone, in float64."""
    loaded.model.float()
    (score,) = ask(load_harness([], files=[questions]), loaded)
    for row, item in zip(QUESTIONS, score.items, strict=True):
        for choice, found in zip(row["choices"], item["log_likelihoods"], strict=True):
            query, full = (
                loaded.tokenizer(text).input_ids for text in (row["query"].rstrip(), row["query"] + " " + choice)
            )
            with torch.no_grad():
                logits = loaded.model(torch.tensor([full])).logits[0, :-1].double()
            losses = functional.cross_entropy(logits, torch.tensor(full[1:]), reduction="none")
            assert found == pytest.approx(-float(losses[len(query) - 1 :].sum()), rel=1e-5)


MANY = [
    {"query": f"{'So ' * (n % 5)}{n} and", "choices": ["a", "b", "on and on " * (n % 3) + "c"], "gold": n % 3}
    for n in range(11)
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize("scaling", ["high", "amax"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_and_bits_are_lm_evals_own(scaling, batch_size, dtype, loaded, tmp_path):
    """Oracle: HFLM, which makes all logits. Short and long choices; some differ in their last token only."""
    from lm_eval.models.huggingface import HFLM

    from octoscale.validation.harness_model import Asked

    loaded.model.to(dtype)
    if scaling == "amax":
        octoscale.convert(loaded.model, octoscale.Recipe.amax())
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in MANY), encoding="utf-8")
    (_, requests), *_ = load_harness([], files=[path]).requests()
    words = {"tokenizer": loaded.tokenizer, "batch_size": batch_size, "prefix_token_id": 0}
    with torch.no_grad():
        oracle = HFLM(pretrained=loaded.model, **words).loglikelihood(requests, disable_tqdm=True)
    made = []
    hook = loaded.model.register_forward_hook(lambda _, args, out: made.append((args[0].shape[1], out.logits.shape[1])))
    assert Asked(loaded.model, loaded.tokenizer, batch_size).loglikelihood(requests) == oracle
    hook.remove()
    logits, rows = sum(kept for _, kept in made), sum(length for length, _ in made)
    assert logits < rows if dtype == torch.bfloat16 else logits == rows
    assert not loaded.model._forward_pre_hooks


def test_an_output_layer_in_fp8_is_scaled_by_all_of_its_rows(loaded, questions):
    head = torch.nn.Sequential(loaded.model.get_output_embeddings())
    octoscale.convert(head, octoscale.Recipe.amax())
    loaded.model.set_output_embeddings(head[0])
    shapes = []
    loaded.model.register_forward_hook(lambda _, args, out: shapes.append((args[0].shape[1], out.logits.shape[1])))
    ask(load_harness([], files=[questions]), loaded)
    assert all(kept == length for length, kept in shapes)


def test_scores_are_counted_from_the_likelihoods(loaded, questions):
    """Oracle: argmax by hand; acc_norm divides by the choice's characters."""
    (score,) = ask(load_harness([], files=[questions]), loaded)
    right, normed = [], []
    for row, item in zip(QUESTIONS, score.items, strict=True):
        likelihoods = item["log_likelihoods"]
        per_letter = [value / len(choice) for value, choice in zip(likelihoods, row["choices"], strict=True)]
        right.append(likelihoods.index(max(likelihoods)) == row["gold"])
        normed.append(per_letter.index(max(per_letter)) == row["gold"])
        assert item["prediction"] == per_letter.index(max(per_letter))
        assert item["gold"] == row["gold"]
    assert score.metrics == {"acc": sum(right) / 4, "acc_norm": sum(normed) / 4}
    assert score.values == tuple(map(float, normed))


def test_the_same_questions_under_each_scaling_and_twice_the_same_answers(loaded, questions):
    loaded.model.float()  # in bfloat16, lm-eval's likelihoods are too coarse to tell
    tasks = load_harness([], files=[questions], num_fewshot=1)
    first, second = ask(tasks, loaded), ask(tasks, loaded)
    assert first == second
    octoscale.convert(loaded.model, octoscale.Recipe.cscale(0))
    (fp8,) = ask(tasks, loaded)
    assert fp8.items != first[0].items
    without = ask(load_harness([], files=[questions]), loaded)
    assert without[0].items != fp8.items


def test_a_limit_takes_the_first_items(loaded, questions):
    everything, limited = (ask(load_harness([], files=[questions], limit=n), loaded)[0] for n in (None, 2))
    assert [item["item"] for item in limited.items] == [0, 1]
    assert len(everything.items) == 4


def test_the_count_of_requests_is_that_of_the_choices(questions, loaded):
    from dataclasses import replace

    tasks, heard = replace(load_harness([], files=[questions]), tokenizer=loaded.tokenizer), []

    def on_batch(done):
        heard.append((done, tasks.size))  # asked for while the questions are

    list(tasks.ask(loaded.model, on_batch))
    assert heard == sorted(heard)
    assert heard[-1] == (10, 10)


def test_included_folders_hold_yaml_tasks_and_files_of_questions(loaded, questions, tmp_path):
    include = tmp_path / "include"
    include.mkdir()
    (include / "other.yaml").write_text(YAML.replace("task: mine", "task: other").format(path=questions))
    (include / "piqa.jsonl").write_bytes(questions.read_bytes())
    scores = ask(load_harness(["piqa", "other"], include=include), loaded)
    assert [score.task for score in scores] == ["piqa", "other"]
    assert scores[0].items == scores[1].items


GROUP = """
group: both
task: [one, two]
"""
MEAN = """aggregate_metric_list:
  - metric: acc_norm
    weight_by_size: true
"""


@pytest.mark.slow
def test_a_group_has_a_score_if_it_adds_up_its_tasks_and_else_each_task_has(loaded, questions, tmp_path):
    """Oracle: the mean over the items of both; a tag never adds up."""
    include = tmp_path / "include"
    include.mkdir()
    for name in ("one", "two"):
        yaml = YAML.replace("task: mine", f"task: {name}\ntag: tagged").format(path=questions)
        (include / f"{name}.yaml").write_text(yaml)
    (include / "both.yaml").write_text(GROUP + MEAN)
    (include / "apart.yaml").write_text(GROUP.replace("both", "apart"))
    (score,) = ask(load_harness(["both"], include=include), loaded)
    assert (score.task, len(score.items), score.items[4]["task"]) == ("both", 8, "two")
    assert score.score == pytest.approx(sum(item["acc_norm"] for item in score.items) / 8)
    assert len(score.values) == 8
    for name in ("apart", "tagged"):
        scores = ask(load_harness([name], include=include), loaded)
        assert [score.task for score in scores] == ["one", "two"]


def test_examples_in_a_prompt_are_other_questions_of_the_file(questions):
    tasks = load_harness([], files=[questions], num_fewshot=3)
    for _, requests in tasks.requests():
        for request in requests:
            prompt, own = request.args[0], request.doc["query"]
            assert prompt.count(own) == 1
            assert sum(row["query"] in prompt for row in QUESTIONS) == 4
    with pytest.raises(UserError, match="4 questions: prompts with 4 examples need more"):
        load_harness([], files=[questions], num_fewshot=4)


def test_two_tasks_of_one_name_are_refused(questions, tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "mine.jsonl").write_bytes(questions.read_bytes())
    with pytest.raises(UserError, match="two tasks are called mine"):
        load_harness(["mine"], files=[questions], include=tmp_path / "include")


def test_a_task_that_a_folder_holds_twice_is_refused(questions, tmp_path):
    (tmp_path / "mine.yaml").write_text(YAML.format(path=questions))
    with pytest.raises(UserError, match=r"holds the task mine twice, as mine\.jsonl and as mine\.yaml: remove one"):
        load_harness(["mine"], include=tmp_path)


def test_other_questions_have_another_identity(questions, tmp_path):
    same = load_harness([], files=[questions]).identity
    assert load_harness([], files=[questions]).identity == same
    rows = [QUESTIONS[0] | {"gold": 1}, *QUESTIONS[1:]]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_harness([], files=[questions]).identity != same


def test_an_unknown_task_lists_near_names():
    with pytest.raises(
        UserError, match=r"unknown task 'piqq': near names: piqa.*; or --include a folder with piqq.yaml"
    ):
        load_harness(["piqq"])


def test_data_that_cannot_be_had_say_which_file_to_put_where(monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("no hub\nhere")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = r"the data of the task piqa cannot be had \(ConnectionError: no hub\); .* as piqa.jsonl, .* --include"
    with pytest.raises(UserError, match=message):
        load_harness(["piqa"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"query": "x" * 64, "choices": ["a", "b"], "gold": 0},
            "mine, item 0 has 66 tokens, and the model 64 positions",
        ),
        ({"query": "", "choices": ["a", "b"], "gold": 0}, "expected"),
    ],
)
def test_a_question_that_a_model_cannot_be_asked_is_named(row, message, loaded, tmp_path):
    from dataclasses import replace

    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=message):
        replace(load_harness([], files=[path]), tokenizer=loaded.tokenizer).check(loaded.model)


def test_a_question_as_long_as_the_model_is_asked(loaded, tmp_path):
    """Its last token is only predicted: 64 positions take 65 tokens."""
    from dataclasses import replace

    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"query": "x" * 63, "choices": ["a", "b"], "gold": 0}))
    tasks = replace(load_harness([], files=[path]), tokenizer=loaded.tokenizer)
    tasks.check(loaded.model)
    (score,) = tasks.ask(loaded.model)
    assert len(score.items) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_no_answer(value, loaded, questions):
    with torch.no_grad():
        loaded.model.lm_head.weight[ord("e")] = value
    with pytest.raises(NonFiniteError, match="mine, item 0: its logits hold infinity or NaN"):
        ask(load_harness([], files=[questions]), loaded)


def test_lm_evals_own_evaluation_of_our_model_meets_nan_as_an_error(folder, questions):
    """argmax would take the first NaN for the likeliest choice."""
    from octoscale.validation.harness_model import OctoscaleLM

    model = OctoscaleLM(str(folder), scaling="fp32")
    assert next(model.model.parameters()).dtype == torch.float32
    with torch.no_grad():
        model.model.lm_head.weight[ord("e")] = math.nan
    requests = [request for _, of_task in load_harness([], files=[questions]).requests() for request in of_task]
    with pytest.raises(NonFiniteError, match="mine, item 0: its logits hold infinity or NaN"):
        model.loglikelihood(requests)


def of_another_kind(folder, questions, kind, words=""):
    """A YAML task with the rows of `questions` whose model reads on, or writes."""
    head, _, _ = YAML.format(path=questions).partition("output_type")
    target = {"generate_until": "a", "loglikelihood_rolling": "{{query}}"}[kind]
    metric = {"generate_until": "exact_match", "loglikelihood_rolling": "word_perplexity"}[kind]
    text = f'output_type: {kind}\ndoc_to_text: "{{{{query}}}}"\ndoc_to_target: "{target}"\n'
    folder.mkdir()
    (folder / "mine.yaml").write_text(head + text + words + f"metric_list:\n  - metric: {metric}\n")
    return folder


WRITTEN = "generation_kwargs:\n  until: ['\\n']\n  do_sample: false\n  max_gen_toks: {}\n"


def asked_and_plain(loaded, tasks, include):
    """The score of our question, and lm-eval's own results of the same task."""
    from dataclasses import replace

    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = replace(tasks, tokenizer=loaded.tokenizer)
    tasks.check(loaded.model)
    (score,) = tasks.ask(loaded.model)
    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=16, prefix_token_id=0)
    manager = TaskManager(include_path=str(include), include_defaults=False)
    plain = simple_evaluate(model=model, tasks=["mine"], task_manager=manager, bootstrap_iters=0)
    return score, plain["results"]["mine"]


@pytest.mark.slow
def test_texts_that_are_read_on_have_lm_evals_perplexity(loaded, questions, tmp_path):
    """Oracle: lm-eval's evaluator with HFLM; one text is longer than the model, and read in parts."""
    loaded.model.float()
    questions.write_text("".join(json.dumps({"query": "Far and " * n}) + "\n" for n in (1, 3, 12)))
    include = of_another_kind(tmp_path / "include", questions, "loglikelihood_rolling")
    score, plain = asked_and_plain(loaded, load_harness(["mine"], include=include), include)
    assert score.metrics["word_perplexity"] == plain["word_perplexity,none"]
    with torch.no_grad():
        loaded.model.lm_head.weight[ord("a")] = math.nan
    with pytest.raises(NonFiniteError, match="mine, item 0: its logits hold infinity or NaN"):
        ask(load_harness(["mine"], include=include), loaded)


def test_what_a_model_writes_is_judged_as_by_lm_eval(loaded, questions, tmp_path):
    loaded.tokenizer.eos_token_id = 0
    include = of_another_kind(tmp_path / "include", questions, "generate_until", WRITTEN.format(4))
    score, plain = asked_and_plain(loaded, load_harness(["mine"], include=include), include)
    assert score.metrics["exact_match"] == plain["exact_match,none"]
    assert len(score.items) == len(QUESTIONS)


@pytest.mark.parametrize(("length", "fits"), [(44, True), (45, False)])
def test_a_prompt_has_to_fit_with_what_is_written(length, fits, loaded, questions, tmp_path):
    from dataclasses import replace

    loaded.tokenizer.eos_token_id = 0
    questions.write_text(json.dumps({"query": "x" * length}) + "\n")
    include = of_another_kind(tmp_path / "include", questions, "generate_until", WRITTEN.format(20))
    tasks = replace(load_harness(["mine"], include=include), tokenizer=loaded.tokenizer)
    if fits:
        tasks.check(loaded.model)
        return
    with pytest.raises(UserError, match="mine, item 0 has 65 tokens, 20 of them to be written, and the model 64 pos"):
        tasks.check(loaded.model)


def test_a_model_that_writes_has_a_token_to_stop_at(loaded, questions, tmp_path):
    from dataclasses import replace

    include = of_another_kind(tmp_path / "include", questions, "generate_until", WRITTEN.format(4))
    tasks = replace(load_harness(["mine"], include=include), tokenizer=loaded.tokenizer)
    with pytest.raises(UserError, match="mine, item 0 has the model write, and its tokenizer has no end-of-text token"):
        tasks.check(loaded.model)


def test_choices_that_are_weighed_without_the_prompt_too_keep_those_with_it(loaded, questions, tmp_path):
    """acc_mutual_info asks each choice twice. Oracle: the same questions without it."""
    include = tmp_path / "include"
    include.mkdir()
    (include / "mine.yaml").write_text((YAML + "  - metric: acc_mutual_info\n").format(path=questions))
    (score,) = ask(load_harness(["mine"], include=include), loaded)
    (plain,) = ask(load_harness([], files=[questions]), loaded)
    assert "acc_mutual_info" in score.metrics
    assert [len(item["log_likelihoods"]) for item in score.items] == [len(row["choices"]) for row in QUESTIONS]
    assert [item["prediction"] for item in score.items] == [item["prediction"] for item in plain.items]


def test_the_standard_error_is_that_of_a_mean():
    score = TaskScore(task="t", metric="acc", metrics={"acc": 0.75}, values=(1.0, 1.0, 0.0, 1.0), items=())
    assert score.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert TaskScore(task="t", metric="acc", metrics={"acc": 1.0}, values=(1.0,), items=()).standard_error is None


def test_groups_have_the_papers_tasks_and_prompts():
    asked = expand(["paper-llama", "piqa", "sst2"])
    assert asked == {
        "mmlu": 5,
        "hellaswag": 0,
        "arc_easy": 0,
        "arc_challenge": 0,
        "piqa": 0,
        "winogrande": 0,
        "sst2": None,
    }
    assert set(expand(["paper-llama"], 3).values()) == {3}


def test_lm_eval_knows_our_model_and_asks_it_in_fp8(folder, loaded, questions):
    """Oracle: our own question to the same model under the same scaling."""
    from lm_eval.api.registry import get_model

    import octoscale.validation.lm_eval_name

    model = get_model("octoscale").create_from_arg_string(
        f"pretrained={folder},scaling=cscale:0,dtype=fp32,batch_size=16"
    )
    octoscale.convert(loaded.model.float(), octoscale.Recipe.cscale(0))
    tasks = load_harness([], files=[questions])
    (expected,) = ask(tasks, loaded)
    requests = [request for _, of_task in tasks.requests() for request in of_task]
    found = [likelihood for likelihood, _ in model.loglikelihood(requests)]
    assert found == [value for item in expected.items for value in item["log_likelihoods"]]


@pytest.mark.parametrize(
    "text",
    ["amax:margin=1,accumulate=hopper,fast=none", "cscale:weight=3,input=-1", "delayed:history=4,margin=1", "amax"],
)
def test_a_scaling_reaches_our_model_whole(text, folder):
    """lm-eval splits what it is told at commas."""
    from lm_eval.api.registry import get_model

    import octoscale.validation.lm_eval_name

    model = get_model("octoscale").create_from_arg_string(f"pretrained={folder},scaling={text}").model
    recipes = {layer.fp8.recipe for layer in model.modules() if hasattr(layer, "fp8")}
    assert recipes == {octoscale.parse_scaling(text)}


def test_an_fp8_folder_stays_fp8_and_has_its_own_scales(folder, tmp_path):
    from octoscale.checkpoints.settings import Quantization
    from octoscale.models.export import run_quantization
    from octoscale.validation.harness_model import OctoscaleLM

    run_quantization(Quantization(model=str(folder)), tmp_path / "fp8")
    model = OctoscaleLM(str(tmp_path / "fp8")).model
    layers = [module for module in model.modules() if isinstance(module, octoscale.Fp8Linear)]
    assert len(layers) == 14
    assert all(layer.weight.dtype == torch.float8_e4m3fn for layer in layers)
    with pytest.raises(UserError, match="leave scaling, formats and skip out"):
        OctoscaleLM(str(tmp_path / "fp8"), scaling="amax")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"scaling": "fp9"}, "unknown scaling 'fp9'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"skip": "no_such_layer"}, "no_such_layer"),
        ({"scaling": "fp16", "dtype": "bf16"}, "scaling fp16 is no FP8: leave dtype, formats and skip out"),
        ({"scaling": "bf16", "skip": "down_proj"}, "scaling bf16 is no FP8"),
    ],
)
def test_what_lm_eval_says_wrongly_is_refused(words, message, folder):
    from octoscale.validation.harness_model import OctoscaleLM

    with pytest.raises(UserError, match=message):
        OctoscaleLM(str(folder), **words)
