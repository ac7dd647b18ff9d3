"""Which tasks a validation asks, of which kind of model, from its words: found before weights are read."""

from collections.abc import Callable
from dataclasses import replace

from octoscale.models import loading
from octoscale.models.architectures import class_of
from octoscale.models.loading import LoadedModel
from octoscale.models.sizes import SIZES
from octoscale.system.errors import UserError
from octoscale.validation.classes import is_classifier_class, read_classes
from octoscale.validation.harness import load_harness
from octoscale.validation.settings import Measurement
from octoscale.validation.tasks import GROUPS, Tasks, expand

#: Makes the tasks ready for the model that was loaded.
Ready = Callable[[LoadedModel], Tasks]


def find_tasks(settings: Measurement) -> Ready:
    """The tasks with their data, and what makes them ready once the model is there.

    UserError for what a model of this kind cannot be asked, for unknown names, and for data that cannot be had.
    """
    if settings.model not in SIZES and is_classifier_class(class_of(loading.config_of(settings.model))):
        return _of_a_classifier(settings)
    if "paper-gpt" in settings.task_names:
        raise UserError(
            f"paper-gpt asks classifiers, and {settings.model} is none: octoscale train {settings.model} --task sst2, "
            "then validate the model that this leaves"
        )
    tasks = load_harness(
        settings.task_names,
        files=[] if settings.task is None else [settings.task],
        include=settings.include,
        num_fewshot=settings.num_fewshot,
        limit=settings.limit,
        batch_size=settings.batch_size,
    )

    def ready(loaded: LoadedModel) -> Tasks:
        asked = replace(tasks, tokenizer=loaded.tokenizer)
        asked.check(loaded.model)
        return asked

    return ready


def _of_a_classifier(settings: Measurement) -> Ready:
    if settings.num_fewshot is not None:
        raise UserError(f"--num-fewshot is for prompts, and {settings.model} is a classifier: leave it out")
    if any(name in GROUPS and name != "paper-gpt" for name in settings.task_names):
        raise UserError(
            f"{settings.tasks} asks for texts, and {settings.model} is a classifier: ask it sst2, mnli or qqp"
        )
    names = [*expand(settings.task_names), *([] if settings.task is None else [str(settings.task)])]

    def ready(loaded: LoadedModel) -> Tasks:
        return read_classes(
            names, loaded, include=settings.include, limit=settings.limit, batch_size=settings.batch_size
        )

    return ready
