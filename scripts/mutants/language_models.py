"""What of a language model travels, and what of its files is read."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

NETWORK = "fedapp/models/transformer_network.py"
MODELS = "tests/models/test_transformer_models.py"
DATA = "tests/data/sources/test_labelled_text.py"

MUTANTS = [
    Mutant(
        NETWORK,
        'if key not in NOT_FORM and str(key)[:1] != "_"}\n    kind',
        "}\n    kind",
        f"{MODELS}::test_an_architecture_says_the_form_alone",
    ),
    Mutant(NETWORK, "use_safetensors=True, output", "output", f"{MODELS}::test_a_pickle_is_not_read"),
    Mutant(
        "fedapp/models/adapters.py",
        "    net.requires_grad_(False)\n",
        "",
        f"{MODELS}::test_what_is_trainable_changes_and_travels_and_nothing_else",
    ),
    Mutant(
        "fedapp/client/build.py",
        '(model, "pretrained", "model.pretrained"), ',
        "",
        f"{MODELS}::test_on_a_device_the_folder_is_one_of_its_operators",
    ),
    Mutant(
        "fedapp/privacy/trainable.py",
        'if getattr(module, "gradient_checkpointing", False):',
        "if False:",
        "tests/privacy/test_private_adapters.py::test_gradient_checkpointing_is_refused_by_name",
    ),
    Mutant(
        "fedapp/data/text/labelled_text.py",
        'return f"{before}{text}{after}"',
        "return template.format(text=text)",
        f"{DATA}::test_of_a_template_nothing_else_is_read",
    ),
    Mutant(
        "fedapp/inference/export_adapters.py",
        "if difference <= ADAPTER_TOLERANCE:",
        "if True:",
        "tests/server/test_adapter_run.py::test_an_export_that_says_something_else_is_not_kept",
    ),
]
