"""What counts in the loss and the metrics of text, what a vocabulary may be, and what DP-SGD does to an LSTM."""

from mutants.mutant import Mutant

__all__ = ["MUTANTS"]

TASK = "tests/learning/test_next_token.py"
WORDS = "tests/data/text/test_vocabulary.py"
TEXT = "tests/data/sources/test_text.py"
DP = "tests/privacy/test_private_language.py"
LOSS = "fedapp/learning/losses/next_token.py"
KIND = "fedapp/learning/tasks/next_token.py"
INVARIANT = f"{TASK}::test_padding_and_unknown_tokens_change_neither_loss_nor_metrics"

MUTANTS = [
    Mutant(
        LOSS,
        "losses = torch.where(counted, flat.view(targets.shape), 0.0)",
        "losses = flat.view(targets.shape)",
        INVARIANT,
    ),
    Mutant(
        LOSS,
        "losses.sum(1) / counted.sum(1).clamp(min=1)",
        "losses.mean(1)",
        f"{TASK}::test_more_padding_changes_nothing",
    ),
    Mutant(
        LOSS,
        "replace(self, uncounted=schema.text.uncounted)",
        "self",
        f"{TASK}::test_the_vocabularys_own_indices_are_what_does_not_count",
    ),
    Mutant(
        KIND,
        "rank = torch.where(outside(targets, self.text.special), above - 1, -1)",
        "rank = torch.where(outside(targets, self.text.uncounted), above - 1, -1)",
        f"{TASK}::test_metrics_count_words_alone",
    ),
    Mutant(
        KIND,
        "(outputs >= own)",
        "(outputs > own)",
        f"{TASK}::test_a_model_that_cannot_decide_has_not_foreseen_every_word",
    ),
    Mutant(
        KIND,
        "chances[list(self.text.special)] = -1.0",
        "pass",
        f"{TASK}::test_suggestions_are_behind_the_last_token_and_no_special_ones",
    ),
    Mutant(
        "fedapp/data/text/text_source.py",
        "if self.vocabulary.lower() in LEARNT:",
        "if False:",
        f"{WORDS}::test_a_vocabulary_learnt_from_clients_is_refused_with_the_reason",
    ),
    Mutant(
        "fedapp/data/text/text_source.py",
        "Pooled(examples.take((~held).nonzero().flatten()), test, named)",
        "Pooled(examples, test, {self.owner: list(found.owners)})",
        f"{TEXT}::test_held_out_clients_are_no_clients",
    ),
    Mutant(
        "fedapp/data/text/token_windows.py",
        "                self._lines.append(self._count)\n",
        "                self._lines.append(len(self._lines))\n",
        f"{TEXT}::test_no_split_separates_the_windows_of_a_line",
    ),
    Mutant(
        "fedapp/data/text/text_files.py",
        "is no JSON object, such as",
        "{line} is no JSON object, such as",
        f"{TEXT}::test_errors_name_file_and_line_and_no_text",
    ),
    Mutant(
        "fedapp/client/build.py",
        '(data, "tokenizer", "data.tokenizer")',
        '({}, "tokenizer", "data.tokenizer")',
        "tests/config/test_hostile_overrides.py::test_a_tokenizer_comes_from_the_operators_folder"
        "_and_a_server_learns_of_no_file",
    ),
    Mutant(
        "fedapp/models/transformer_lm.py",
        "is_causal=True",
        "is_causal=False",
        "tests/models/test_language_models.py::test_a_place_depends_on_what_comes_before_it_alone",
    ),
    Mutant(
        "fedapp/models/transformer_lm.py",
        ".expand(x.shape[0], -1)",
        "[None]",
        f"{DP}::test_the_gradient_of_each_example_is_its_own",
    ),
    Mutant(
        "fedapp/models/personal.py",
        'if aliases(model) & {f"{name}.weight", f"{name}.bias"}:',
        "if False:",
        "tests/models/test_language_models.py::test_a_tied_head_cannot_be_personal",
    ),
]
