"""The options of `preview` and `bench` that configure the loader, generated from the fields of all trials."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from ..trial import Option


class TrialCommand(TyperCommand):
    """A command that also has the options of all trials. The values given for them are in the context's `obj`.

    The options are generated when they are first needed, so that other commands need not import torch and the loaders.
    """

    _params: list[Any]
    _of_trials: tuple[str, ...] | None = None

    @property
    def params(self) -> list[Any]:
        """The command's argument, the options of the trials, the command's own options."""
        if self._of_trials is None:
            made = typer.main.get_command(_probe()).params
            self._of_trials = tuple(str(param.name) for param in made)
            self._params[1:1] = made
        return self._params

    @params.setter
    def params(self, own: list[Any]) -> None:
        self._params = own

    def invoke(self, ctx: Any) -> Any:
        """Runs the command with its own options."""
        ctx.obj = {name: ctx.params.pop(name) for name in self._of_trials or ()}
        return super().invoke(ctx)


def _probe() -> typer.Typer:
    """A command whose only options are those of the trials."""
    from ..modalities import MODALITIES
    from ..trial import options_of

    found: dict[str, list[tuple[str, Any, Option, str | None]]] = {}
    for modality in MODALITIES.values():
        hints = get_type_hints(modality.trial)
        masks = {where.option: where.default for where in modality.trial.masks}
        for name, option in options_of(modality.trial).items():
            default = masks.get(name, option.default)
            found.setdefault(name, []).append((modality.name, hints[name], option, default))

    def chosen(**options: Any) -> None:
        """Takes the options."""

    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(several))
        for name, several in found.items()
    ]
    signed: Callable[..., None] = chosen
    signed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    probe = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    probe.command()(signed)
    return probe


def _annotation(several: list[tuple[str, Any, Option, str | None]]) -> Any:
    """The option for a field that several trials may have, with the default of each if they differ."""
    _, hint, option, default = several[0]
    if len({own for _, _, _, own in several}) > 1:
        default = ", ".join(f"{own} for {name}" for name, _, _, own in several)
    words = option.help if default is None else f"{option.help} [default: {default}]"
    return Annotated[hint, typer.Option(min=option.least, help=words, show_default=False, rich_help_panel=option.panel)]
