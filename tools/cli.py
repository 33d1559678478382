# SPDX-License-Identifier: Apache-2.0
"""The command line. Commands are named here and loaded when used, so that `tersor --help` is quick."""

from __future__ import annotations

import gc
import inspect
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from .failures import BROKEN_PIPE, INTERRUPTED, Guard, describe
from .plain_values import PlainCommand, PlainGroup
from .sections import DEBUG

# name -> (module, what it does; equal to the first line of its docstring, or empty for a hidden command)
COMMANDS: dict[str, tuple[str, str]] = {
    "build": ("build_cmd", "Turn a model into a verified, smaller and faster one."),
    "prune": ("prune_cmd", "Remove whole channels, so that the model runs faster everywhere."),
    "opt": ("opt_cmd", "Run passes over a model; by default those that lose nothing on any runtime."),
    "inspect": ("inspect_cmd", "Show what a model holds: inputs, operators, weights, work, memory."),
    "passes": ("passes_cmd", "List the passes, or explain one."),
    "bench": ("bench_cmd", "Time models against each other, turn by turn."),
    "compare": ("compare_cmd", "Compare the outputs of two models on data."),
    "explain": (
        "explain_cmd",
        "Show what became of each node in onnxruntime: kernel, precision, time, error, why not int8.",
    ),
    "sensitivity": ("sensitivity_cmd", "Rank the parts of a model by what int8 would cost each alone."),
    "serve-opt": ("serve", ""),
}

HELP = """ONNX graph-level compiler passes that make deployed models smaller and faster.

For example:

\b
  tersor build model.onnx --data calib.npz -o out     int8 where it pays, checked
  tersor opt model.onnx smaller.onnx                  only what loses nothing
  tersor inspect model.onnx                           what is inside
  tersor bench model.onnx out/model.onnx              is it faster?
  tersor compare model.onnx out/model.onnx --data calib.npz

Every command has --help with examples, and --json for machines. Exit codes: 0 done, 1 a check did not hold,
2 wrong input, 3 a fault of tersor itself (--debug or TERSOR_DEBUG=1 shows the trace), 130 interrupted,
143 terminated.
"""


class LazyGroup(PlainGroup):
    """A group whose commands are imported when they are called; help reads the table only."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load a command, None for an unknown one."""
        if cmd_name not in COMMANDS:
            near = get_close_matches(cmd_name, [name for name, (_, line) in COMMANDS.items() if line], 1)
            if near:
                ctx.fail(f"no such command {cmd_name!r} (did you mean {near[0]}?)")
            return None
        module = import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        words = inspect.cleandoc(module.command.__doc__).replace("\\b\n", "\b\n")
        app.command(cmd_name, cls=PlainCommand, help=words)(module.command)
        return typer.main.get_command(app)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, and that which `run` takes before the parser, then the commands."""
        records = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        with formatter.section("Options"):
            formatter.write_dl([*filter(None, records[:-1]), DEBUG, *filter(None, records[-1:])])
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table's lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items() if line])


app = typer.Typer(
    cls=LazyGroup,
    help=HELP,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"tersor {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Options of the group itself."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and give its exit code."""
    given = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    debug = "--debug" in arguments or os.environ.get("TERSOR_DEBUG", "") not in ("", "0")
    result: object = 0
    with Guard(debug=debug) as guard:
        try:
            result = typer.main.get_command(app).main(args=given, prog_name="tersor", standalone_mode=False)
        except SystemExit as error:
            # The parser's answer to a reader that went away is 1, which means that a check did not hold.
            if isinstance(error.__context__, BrokenPipeError):
                return BROKEN_PIPE
            raise
    failure = guard.failure
    if failure is None and result == INTERRUPTED:  # the parser has turned KeyboardInterrupt into an exit code
        failure = describe(KeyboardInterrupt())
    if failure is None:
        return result if isinstance(result, int) else 0
    if failure.line:
        print(f"error: {failure.line}", file=sys.stderr)
        if "--json" in given and given[0] != "serve-opt":  # that answers each line by itself
            with suppress(OSError):  # it may be standard output that failed
                print(json.dumps({"error": failure.line}), flush=True)
    return failure.exit_code


def _open_streams() -> None:
    """Put something in place of standard streams that are closed, before a file takes their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the end
        elif name == "stdout" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # lines of tables and names that a terminal cannot show


def main() -> NoReturn:
    """Run `sys.argv` and exit; a request to terminate and a closed terminal clean up as Ctrl-C does."""
    ended_by: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        ended_by.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, interrupt)
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows; ignored under nohup
    if hangup is not None and signal.getsignal(hangup) == signal.SIG_DFL:
        signal.signal(hangup, interrupt)
    _open_streams()
    if sys.argv[1:2] == ["opt"]:
        gc.disable()  # it holds one model to the end: a collection would only walk it
        if not any(argument.startswith("--validate") for argument in sys.argv):
            # Passes work element by element: the threads numpy starts for matrix products would only spin.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    else:
        # Imports make many objects that live to the end: collecting every 700 takes a fifth of the start.
        gc.set_threshold(50_000, 20, 100)
    if sys.argv[1:2] == ["prune"]:
        # Sums of products come out otherwise on several threads: other weights, and no time gained.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
    code = run(sys.argv[1:])
    if code == INTERRUPTED and ended_by:
        code = 128 + ended_by[0]  # as of a program that the signal ends
    gc.freeze()  # the process ends here: the collector's last walk over a large model would be for nothing
    sys.exit(code)
