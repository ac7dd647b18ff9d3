"""What the server of commands.py has done before it forks: a process of its own would spend a second on it."""

from models import TINY

from octoscale import Recipe
from octoscale.conversion.convert import preview
from octoscale.models.materialize import byte_tokenizer

for _make in TINY.values():
    preview(_make().to("meta"), Recipe.amax(), stored=True)
byte_tokenizer()
