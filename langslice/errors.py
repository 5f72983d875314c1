"""Every error that langslice raises on a user's path.

    LangsliceError              exit code 2; carries a hint
    ├── CheckpointError         a checkpoint that is missing, damaged, or not understood
    │   ├── UnknownFamilyError  a model type without an entry in model/families.py
    │   ├── UnknownTensorError  a tensor whose axes nobody has declared
    │   └── UnknownFieldError   a config field that may hold token ids and is not understood
    ├── TokenizerError          tokenizer files that are missing, inconsistent, or not understood
    │   └── NoTokenizerError    a folder without any tokenizer file
    ├── LanguageError           an unknown language, or one without any criterion
    ├── CorpusError             text that cannot be read
    ├── ScoreError              scores of another model, or a method that does not exist or does not suit the model
    ├── OptionError             an option that does not exist, or a value that it does not take
    ├── PlanError               a plan that does not fit its source, or contradicts itself
    │   └── FewerRowsError      a vocabulary that cannot be sliced to so few tokens
    ├── OutputError             an output that exists, lies inside the source, or does not fit the disk
    ├── TaskError               an evaluation task that is unknown, has no data, or does not fit the model
    │   └── NoDataError         a language for which a task has no data
    ├── RecipeError             a recipe that is not understood, or a sweep of which some runs failed
    ├── HealError               a model that cannot be healed as asked, or a teacher that is not its source
    ├── ReportError             measurements that cannot be read, or that are of another model than the slice
    ├── PublishError            a slice that must not be uploaded as it is, or a hub that does not take it
    ├── ExportError             a model that another format cannot hold, or a library for it that is missing
    ├── ClusterError            a Ray cluster that is not there, or that lost a task for good
    ├── VerificationError       exit code 1; the slice differs from its source
    └── Interruption            exit code 128 + signal; a signal came, and finished work was kept for the same command

The library raises; only the command line prints and exits. Messages name an option as a command line does, `--max-vocab`;
whoever called reads it in his own words: as a parameter of Python, an entry of a recipe, or an option (langslice.wording).
"""

from __future__ import annotations

from langslice.wording import worded

PROJECT = "https://github.com/langslice/langslice"
# The hint where a model is not understood and only a change of langslice helps.
OPEN_AN_ISSUE = f"open an issue with the model's name at {PROJECT}/issues"


class LangsliceError(Exception):
    """Something a user can act on: what happened, where, and (as `hint`) what to try next."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = worded(message)
        self.hint = None if hint is None else worded(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class CheckpointError(LangsliceError):
    """A checkpoint that is missing, damaged, or not understood."""


class UnknownFamilyError(CheckpointError):
    """A model type that model/families.py does not know."""


class UnknownTensorError(CheckpointError):
    """A tensor whose axes model/families.py does not declare."""


class UnknownFieldError(CheckpointError):
    """A configuration field that may hold token ids and that is not understood."""


class TokenizerError(LangsliceError):
    """Tokenizer files that are missing, inconsistent with the model, or not understood."""


class NoTokenizerError(TokenizerError):
    """A folder without any tokenizer file: layers, heads, neurons and weights can be sliced all the same."""


class LanguageError(LangsliceError):
    """An unknown language code, or a language for which there is no criterion."""


class CorpusError(LangsliceError):
    """Text that cannot be found, read or decoded."""


class ScoreError(LangsliceError):
    """Scores of another model, or a method that does not exist or does not suit the model."""


class OptionError(LangsliceError):
    """An option that does not exist, is missing, or has a value that it does not take."""


class PlanError(LangsliceError):
    """A plan that does not fit its source, or contradicts itself."""


class FewerRowsError(PlanError):
    """A vocabulary that cannot be sliced to so few tokens; `least` is how many always stay."""

    def __init__(self, message: str, hint: str, least: int) -> None:
        self.least = least
        super().__init__(message, hint)


class OutputError(LangsliceError):
    """An output that exists already, lies inside the source, or does not fit on the disk."""


class TaskError(LangsliceError):
    """An evaluation task that is unknown, whose data is missing or contradicts it, or that does not fit the model."""


class NoDataError(TaskError):
    """A language for which a task has no data."""


class ClusterError(LangsliceError):
    """A Ray cluster that cannot be reached, or that lost a task as often as it was tried."""


class RecipeError(LangsliceError):
    """A recipe that is not understood, or a sweep of which some runs failed."""


class HealError(LangsliceError):
    """A model that cannot be healed as asked, settings that contradict each other, or a teacher that is not its source."""


class ReportError(LangsliceError):
    """Measurements that cannot be read, or that are of another model than the slice they are given for."""


class PublishError(LangsliceError):
    """A slice that must not be uploaded as it is, or a hub that cannot be reached or does not take it."""


class ExportError(LangsliceError):
    """A model that another format cannot hold, or not as asked, or a library for it that is missing."""


class VerificationError(LangsliceError):
    """The slice differs from its source where it must not."""

    exit_code = 1


class Interruption(LangsliceError):
    """A signal stopped the work; what was finished is kept, and the same command goes on from there."""

    def __init__(self, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code
