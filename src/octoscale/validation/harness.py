"""Tasks of EleutherAI's lm-eval, asked of a model as it stands: prompts, metrics and data are that library's.

    tasks = load_harness(["piqa"], limit=100)                    lm-eval's own definition, its data from the hub
    tasks = load_harness(["piqa"], include="my_tasks")           or from a folder: a YAML task, or piqa.jsonl
    tasks = load_harness([], files=["questions.jsonl"])          or a file of questions

A file of questions has one a line: {"query": "...", "choices": ["...", "..."], "gold": 0}. Each task is asked by
itself, and draws the same examples for its prompts under every scaling.
"""

import difflib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

from torch import nn

from octoscale.layers.state import NonFiniteError
from octoscale.models.questions import FORM, read_questions
from octoscale.system.errors import UserError
from octoscale.validation.tasks import OnBatch, TaskScore, crc32_of, expand

#: Of the examples in prompts; lm-eval's own.
SEED = 1234

#: The metrics that count, the first that a task has; lm-eval divides acc_norm's likelihoods by characters.
METRICS = ("acc_norm", "acc", "exact_match", "em", "f1")


@dataclass(frozen=True, kw_only=True)
class HarnessTasks:
    """Tasks of lm-eval with their data: by the name that was asked for, the task or group as lm-eval loads it.

    tokenizer: of the model that is asked. limit: the first so many items of each. batch_size: requests in a pass.
    """

    loaded: Mapping[str, Any]
    limit: int | None
    batch_size: int
    tokenizer: Any = None

    @cached_property
    def size(self) -> int:
        """How many requests they are in all."""
        return sum(len(requests) for _, requests in self.requests())

    @cached_property
    def num_items(self) -> int:
        """How many items they have in all."""
        return sum(len({request.doc_id for request in requests}) for _, requests in self.requests())

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The tasks, each with a checksum of its requests, right answers included."""
        asked = {
            name: f"{crc32_of([[request.args, str(request.doc)] for request in requests]):08x}"
            for name, requests in self.requests()
        }
        return {"batch_size": self.batch_size, **asked}

    def requests(self) -> Iterator[tuple[str, Sequence[Any]]]:
        """Each task's name, and lm-eval's requests for it."""
        for name, task in (pair for found in self.loaded.values() for pair in found["tasks"].items()):
            task.set_fewshot_seed(SEED)
            with _quietly():
                task.build_all_requests(limit=self.limit)
            yield name, task.instances

    def check(self, model: nn.Module) -> None:
        """UserError, with the task and the item, for one that the model cannot be asked."""
        from octoscale.validation.harness_model import Asked

        with _quietly():
            asked = Asked(model, self.tokenizer, self.batch_size)
        for name, requests in self.requests():
            asked.check(name, requests)

    def ask(self, model: nn.Module, on_batch: OnBatch | None = None) -> Iterator[TaskScore]:
        """The model's scores, task by task. NonFiniteError, naming task and item, where no choice has a likelihood."""
        from lm_eval.evaluator import evaluate

        from octoscale.validation.harness_model import Asked

        self.size  # noqa: B018  (counted now: it makes the requests anew, which lm-eval must not meet half way)
        with _quietly():
            asked = Asked(model, self.tokenizer, self.batch_size, on_batch)
        for name, found in self.loaded.items():
            for task in found["tasks"].values():
                task.set_fewshot_seed(SEED)
            with _quietly():
                results = evaluate(asked, found, limit=self.limit, bootstrap_iters=0)
            yield _score(name, found, results)


def load_harness(
    names: Sequence[str],
    *,
    files: Sequence[Path] = (),
    include: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 16,
) -> HarnessTasks:
    """The tasks that lm-eval knows by these names, or finds in the folder `include`, and those of files of questions.

    UserError for an unknown name, with near ones; for data that cannot be had, with the file to put where.
    """
    check_installed()
    loaded: dict[str, Any] = {}
    with _quietly():
        asked = expand(names, num_fewshot)
        local = {name: path for name in asked if include is not None and (path := include / f"{name}.jsonl").is_file()}
        for name, path in local.items():
            if path.with_suffix(".yaml").is_file():
                raise UserError(
                    f"{path.parent} holds the task {name} twice, as {path.name} and as {name}.yaml: remove one, or "
                    "rename the questions, and let the YAML name them"
                )
        for path in files:
            if path.stem in asked:
                raise UserError(f"two tasks are called {path.stem}: rename {path}")
            local[path.stem] = path
        named = [name for name in asked if name not in local]
        manager = _manager(include, with_lm_evals_own=bool(named))
        _check_names(named, manager.all_tasks)
        for name in dict.fromkeys([*asked, *local]):
            shots = asked.get(name, num_fewshot)
            spec = _questions(name, local[name], shots or 0) if name in local else name
            for part, found in _parts(name, _load(manager, name, spec)):
                loaded[part] = found
                for task in found["tasks"].values():
                    _prepare(task, shots)
    return HarnessTasks(loaded=loaded, limit=limit, batch_size=batch_size)


def check_installed() -> None:
    """UserError without lm-eval."""
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UserError("tasks are asked through lm-eval: pip install 'octoscale[eval]'") from error


def _manager(include: Path | None, *, with_lm_evals_own: bool) -> Any:
    """What finds and loads tasks."""
    from lm_eval.tasks import TaskManager

    if include is None and with_lm_evals_own:
        return _all_of_lm_eval()
    return TaskManager(include_path=None if include is None else str(include), include_defaults=with_lm_evals_own)


@lru_cache
def _all_of_lm_eval() -> Any:
    """To know all its own takes lm-eval some seconds; they stay as they are."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
            hint = f"near names: {', '.join(near)}" if near else "lm-eval ls tasks lists them"
            raise UserError(f"unknown task {name!r}: {hint}; or --include a folder with {name}.yaml or {name}.jsonl")


def _load(manager: Any, name: str, spec: Any) -> Any:
    """A task of lm-eval, by its name or what says all of it, with its data."""
    try:
        return manager.load(spec)
    except UserError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"the data of the task {name} cannot be had ({type(error).__name__}: {first}); without the hub, put them "
            f"into a folder as {name}.jsonl, a line {FORM}, and name it with --include"
        ) from error


def _parts(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    """What has a score of its own: a task, or a group that adds up its tasks; else each task of the group or tag."""
    group = found.get("groups", {}).get(name)
    if len(found["tasks"]) == 1 or (group is not None and group.aggregate_metric_list):
        yield name if group is not None else next(iter(found["tasks"])), found
        return
    for part, task in found["tasks"].items():
        yield part, {"tasks": {part: task}}


def _questions(name: str, path: Path, shots: int) -> dict[str, Any]:
    """A file of questions as a task of lm-eval; the examples in a prompt are other questions of the file."""
    rows = [
        {"query": question.query, "choices": list(question.choices), "gold": question.gold}
        for question in read_questions(path)
    ]

    if shots >= len(rows):
        raise UserError(f"{path} has {len(rows)} questions: prompts with {shots} examples need more")

    def dataset(**_: Any) -> Any:
        from datasets import Dataset

        return {"test": Dataset.from_list(rows)}

    metrics = [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")]
    return {
        "task": name,
        "custom_dataset": dataset,
        "test_split": "test",
        "fewshot_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": lambda row: row["query"],
        "doc_to_choice": lambda row: row["choices"],
        "doc_to_target": lambda row: row["gold"],
        "metric_list": metrics,
    }


def _prepare(task: Any, wanted: int | None) -> None:
    """Set the number of examples in a prompt: as wanted, else the task's own, else none."""
    if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
        raise UserError(
            f"the task {task.config.task} runs code that a model writes, or shows pictures: ask it by lm_eval"
        )
    shots = wanted if wanted is not None else task.get_config("num_fewshot") or 0
    task.set_config(key="num_fewshot", value=shots)


def _score(name: str, found: Mapping[str, Any], results: Mapping[str, Any]) -> TaskScore:
    """What lm-eval found, in our words."""
    reported = {
        key.partition(",")[0]: float(value)
        for key, value in results["results"][name].items()
        if "," in key and "_stderr" not in key and isinstance(value, int | float)
    }
    metric = next((key for key in (*METRICS, *reported) if key in reported), None)
    if metric is None:
        raise UserError(f"the task {name} has no score that is a number")
    samples = [(task, row) for task in found["tasks"] for row in _first_filter(results["samples"][task])]
    items = tuple(_item(task, row, found["tasks"][task], is_part=task != name) for task, row in samples)
    values = tuple(float(row[metric]) for _, row in samples if isinstance(row.get(metric), int | float | bool))
    is_mean = len(values) == len(samples) and math.isclose(
        math.fsum(values) / len(values), reported[metric], abs_tol=1e-9
    )
    return TaskScore(task=name, metric=metric, metrics=reported, values=values if is_mean else (), items=items)


def _first_filter(samples: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows of a task as its first filter leaves them, in the order of its items."""
    yield from sorted((row for row in samples if row["filter"] == samples[0]["filter"]), key=lambda row: row["doc_id"])


def _item(name: str, row: Mapping[str, Any], task: Any, *, is_part: bool) -> dict[str, Any]:
    """An item as the run keeps it: no text of the task's, which has a licence of its own."""
    item: dict[str, Any] = {"task": name} if is_part else {}
    item |= {"item": row["doc_id"], "gold": None}
    if task.OUTPUT_TYPE == "multiple_choice":
        item["gold"] = row["target"] if isinstance(row["target"], int | str) else None
        choices = task.doc_to_choice(row["doc"])
        likelihoods = [float(pair[0]) for pair in row["filtered_resps"][: len(choices)]]  # then those without a prompt
        if math.isinf(max(likelihoods)):
            raise NonFiniteError(f"{name}, item {row['doc_id']}: its logits hold infinity or NaN")
        item |= {"log_likelihoods": [value if math.isfinite(value) else None for value in likelihoods]}
        item |= {"prediction": _prediction(likelihoods, choices, by_letter="acc_norm" in row)}
    return item | {key: row[key] for key in row["metrics"] if isinstance(row[key], int | float | bool)}


def _prediction(likelihoods: Sequence[float], choices: Sequence[str], *, by_letter: bool) -> int:
    """The choice that the metric that counts takes for the answer: the likeliest, by its characters under acc_norm."""
    worth = [value / max(len(choice), 1) for value, choice in zip(likelihoods, choices, strict=True)]
    worth = worth if by_letter else list(likelihoods)
    return worth.index(max(worth))


@contextmanager
def _quietly() -> Iterator[None]:
    """While the block runs, lm-eval logs errors only and draws no bars: what it says is said here, as errors."""
    import datasets
    import lm_eval.api.task

    logger = logging.getLogger("lm_eval")
    level, had_bars = logger.level, datasets.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with mock.patch.object(lm_eval.api.task, "tqdm", lambda rows, **_: rows):
            yield
    finally:
        logger.setLevel(level)
        if had_bars:
            datasets.enable_progress_bars()
