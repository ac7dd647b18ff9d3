"""A laboratory whose measurements are written down beforehand: what tables make of them can be worked out by hand."""

from octoscale.paper.lab import Lab
from octoscale.paper.settings import Reproduction

#: Right and wrong answers to ten items, in high precision: 8 of 10.
HIGH = "1111111100"


def answers(values, scaling="amax", metric="acc"):
    """What a cell keeps of right and wrong answers, 1 and 0."""
    numbers = [float(value) for value in values]
    mean = sum(numbers) / len(numbers)
    spread = sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1)
    return {
        "scaling": scaling,
        "metric": metric,
        "score": mean,
        "standard_error": (spread / len(numbers)) ** 0.5,
        "items": len(numbers),
        "values": values,
    }


class PlantedLab(Lab):
    """Answers by scaling, or by the label of a cell; trainings end well unless they are in `failures`."""

    def __init__(self, settings: Reproduction, folder, planted, failures=()):
        super().__init__(settings, folder)
        self.planted, self.failures, self.made = planted, failures, []

    def _make(self, cell):
        self.made.append(cell.label)
        scaling = cell.label.rpartition(" ")[2]
        if cell.label.startswith("train"):
            failed = any(part in cell.label for part in self.failures)
            return {"cell": cell.label, "seconds": 1.0} | ({"failure": "the loss is NaN"} if failed else {})
        found = self.planted.get(cell.label, self.planted.get(scaling))
        if found is None:
            return {"cell": cell.label, "scaling": scaling, "failure": "its logits hold infinity or NaN"}
        return {"cell": cell.label, **answers(found, scaling), "seconds": 2.0}
