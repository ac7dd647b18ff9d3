"""`lm_eval --model octoscale` finds our model by its name: lm-eval's registry learns it as the interpreter starts.

lm-eval has no entry points for models of other packages. So the file octoscale_lm_eval.pth, beside the package, imports
this one where a command line names lm_eval, and nowhere else. From Python, `import octoscale.validation.lm_eval_name`
does the same. Nothing heavy is imported: the registry loads a model's class when it is asked for.
"""

from contextlib import suppress

#: The name, and where its class is.
NAME, PLACE = "octoscale", "octoscale.validation.harness_model:OctoscaleLM"


def register() -> None:
    """Tell lm-eval, if it is there."""
    with suppress(ImportError):
        import lm_eval.models  # noqa: F401  (its own names come first)
        from lm_eval.api.registry import model_registry

        if NAME not in model_registry:  # the module with the class registers it, too
            model_registry.register(NAME, target=PLACE)


register()
