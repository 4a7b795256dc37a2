"""What of a language model travels, and what of its files is read."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

NETWORK = "fedapp/models/transformer_network.py"
TOKENIZER = "fedapp/data/text/tokenizer_file.py"
MODELS = "tests/models/test_transformer_models.py"
DATA = "tests/data/sources/test_labelled_text.py"

MUTANTS = [
    Mutant(
        NETWORK,
        "form = _form(architecture)",
        "form = dict(architecture)",
        f"{MODELS}::test_an_architecture_says_the_form_alone",
    ),
    Mutant(
        NETWORK,
        "{key: _form(one) for",
        "{key: one for",
        f"{MODELS}::test_the_parts_of_an_architecture_say_the_form_alone_too",
    ),
    Mutant(
        "fedapp/models/causal_lm.py",
        "    if pretrained is not False:\n",
        "    if False:\n",
        f"{MODELS}::test_weights_want_the_tokens_that_they_were_made_with",
    ),
    Mutant(
        TOKENIZER,
        "(*super().uncounted, self.end) if self.end >= self.own else super().uncounted",
        "super().uncounted",
        f"{MODELS}::test_an_end_that_the_network_cannot_say_is_not_learnt",
    ),
    Mutant(
        TOKENIZER,
        "    tokenizer.encode_special_tokens = True",
        "    tokenizer.encode_special_tokens = False",
        "tests/data/text/test_vocabulary.py::test_what_looks_like_a_special_token_is_read_as_text",
    ),
    Mutant(
        TOKENIZER,
        "[self.unknown if index in not_text else index for index in indices]",
        "indices",
        "tests/data/text/test_vocabulary.py::test_no_text_is_a_special_token",
    ),
    Mutant(
        "fedapp/data/sources/verse.py",
        ".splitlines()).lower(), form_of",
        ".splitlines()), form_of",
        f"{DATA}::test_capitals_do_not_tell_the_layout",
    ),
    Mutant(
        "fedapp/audit/canaries.py",
        "max(asked.values())",
        "min(asked.values())",
        "tests/privacy/test_canaries.py::test_a_client_is_once_in_a_round_and_each_participation_is_accounted",
    ),
    Mutant(
        "fedapp/audit/canaries.py",
        "if client not in cohort]",
        "]",
        "tests/privacy/test_canaries.py::test_a_client_is_once_in_a_round_and_each_participation_is_accounted",
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
