"""The options of the command `ostler`, made from the declarations of the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from ostler.errors import SettingsError
from ostler.records import record
from ostler.settings.declarations import GROUPS, Declaration, declarations, defaults, flag, names, variables
from ostler.settings.kinds import Switch

INTRODUCTION = (
    "Serve the ASGI application APP, given as module:attribute, such as main:app. With --workers, "
    "an arbiter supervises that many worker processes; without it, one plain server runs."
)
CLOSING = (
    "A setting is read from its flag, else from its variable (in brackets), else from the --config "
    "file, else from [tool.ostler] in ./pyproject.toml."
)
OTHERS = "Configuration"
"""The group of the options that are not settings."""


@record
class CommandLine:
    """The options that were given."""

    flags: Mapping[str, tuple[str, ...]]
    """Texts of the settings by field name, as in `ostler.settings.sources.Sources`."""
    config: str | None
    env_file: str | None
    show_settings: bool


def parse(arguments: Sequence[str]) -> CommandLine | None:
    """Parse the command line; None if it was --help or --version, which this function has printed.

    Raises:
        SettingsError: an option is unknown, or lacks its value.
    """
    command = build()
    try:
        context = command.make_context("ostler", _without_values(arguments))
    except click.exceptions.Exit:
        return None
    except click.ClickException as error:
        raise SettingsError(" ".join(error.format_message().split())) from None
    flags = {}
    for name in declarations():
        given = context.params[name]
        if isinstance(given, bool):
            flags[name] = ("true" if given else "false",)
        elif given not in (None, ()):
            flags[name] = (given,) if isinstance(given, str) else tuple(given)
    params = context.params
    return CommandLine(flags, params["config"], params["env_file"], params["show_settings"])


def _without_values(arguments: Sequence[str]) -> list[str]:
    """Replace the value that uvicorn requires after one of its switches by our form of the switch."""
    taken: list[str] = []
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name == "--":
            return [*taken, name, *rest]
        if name == _WITH_VALUE and not equals and rest and rest[0].lower() in Switch.words:
            equals, value = "=", rest.pop(0)
        if name == _WITH_VALUE and equals and value.lower() in Switch.words:
            taken.append(name if Switch.words[value.lower()] else f"--no-{name[2:]}")
        else:
            taken.append(f"{name}{equals}{value}")
    return taken


_WITH_VALUE = "--ws-per-message-deflate"


def build() -> click.Command:
    """Return the command, with an option for each setting. It only parses, and so has no callback."""
    parameters: list[click.Parameter] = [
        click.Argument(["app"], required=False, metavar="APP", type=click.UNPROCESSED)
    ]
    for name, declaration in declarations().items():
        if name != "app":
            parameters.append(_option(name, declaration))
    parameters += [
        _text_option("config", "FILE", "Read settings from this TOML file.  [OSTLER_CONFIG]"),
        _text_option(
            "env_file",
            "FILE",
            "Set the variables of this file for the application, except those already set.  "
            "[OSTLER_ENV_FILE]",
        ),
        click.Option(
            ["--show-settings"],
            is_flag=True,
            help="Print every effective value and its source, and exit.",
        ),
    ]
    version = click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_print_version,
        help="Print the version and exit.",
    )
    return _Command("ostler", params=[*parameters, version], help=INTRODUCTION, epilog=CLOSING)


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from ostler.version import __version__

        click.echo(f"ostler {__version__}")
        context.exit()


def _text_option(name: str, metavar: str, help: str) -> click.Option:
    return click.Option([flag(name), name], metavar=metavar, type=click.UNPROCESSED, help=help)


def _option(name: str, declaration: Declaration) -> click.Option:
    """Return the option of one setting. Its value stays text; `ostler.settings.sources` parses it."""
    long = flag(name)
    if isinstance(declaration.kind, Switch):
        switch = [f"{long}/--no-{long[2:]}", name]
        return click.Option(switch, is_flag=True, default=None, help=_help(name, declaration))
    return click.Option(
        [*map(flag, names(name)), name],
        metavar=declaration.kind.metavar,
        multiple=True,
        type=click.UNPROCESSED,
        help=_help(name, declaration),
    )


def _help(name: str, declaration: Declaration) -> str:
    shown = declaration.kind.show(defaults()[name])
    notes = [", ".join(variables(name))]
    if shown:
        notes.insert(0, f"default: {shown}")
    return f"{declaration.help}  [{'; '.join(notes)}]"


class _Command(click.Command):
    """A command whose `--help` has a section for each group of the declarations."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = declarations()
        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in (*GROUPS, OTHERS)}
        groups[known["app"].group].append(("APP", _help("app", known["app"])))
        for parameter in self.get_params(ctx):
            # In some versions of click an argument has a row too; APP already has one.
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                name = parameter.name or ""
                groups[known[name].group if name in known else OTHERS].append(row)
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)
