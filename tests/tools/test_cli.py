# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: help that stays light, one line per error, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tersor.__main__ import main
from tersor.backends.base import BackendError
from tersor.tools.cli import COMMANDS
from tersor.tools.failures import Guard, describe
from tests.support.command import tersor

SOURCES = Path(__file__).resolve().parents[2] / "src"
HEAVY = ["numpy", "onnx", "onnx_ir", "onnxruntime", "networkx", "rich", "jinja2", "tersor.graph_ir"]


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from tersor.tools.cli import run; code = run(sys.argv[1:]); "
        f"print([m for m in {HEAVY} if m in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "For example:" in done.stdout
    assert "--debug" in done.stdout.partition("Options:")[2] + done.stdout.partition("Other options:")[2]


def test_the_table_of_commands_says_what_the_commands_say() -> None:
    for name, (module, line) in COMMANDS.items():
        doc = import_module(f"tersor.tools.{module}").command.__doc__
        assert not line or doc.splitlines()[0] == line, name


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    done = tersor(capsys, "--help")
    assert done.code == 0
    for name, (_, line) in COMMANDS.items():
        assert (f"  {name} " in done.out) == bool(line)


def test_options_of_prune_stand_under_headings(capsys: pytest.CaptureFixture[str]) -> None:
    lines = tersor(capsys, "prune", "--help").out.splitlines()
    lines = lines[lines.index("Arguments:") :]
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    options = [line.split()[0] for line in lines if line.startswith("  -")]
    assert headings[0] == "Arguments:"
    assert headings[-1] == "Other options:"
    assert len(headings) > 6
    assert len(options) == len(set(options)) > 30
    first, last = lines.index("How much goes (give one budget):"), lines.index(headings[3])
    told = "\n".join(lines[first:last])
    assert all(f"--{kind} F" in told for kind in ("ratio", "params", "macs", "size", "latency"))
    assert "Options:" in tersor(capsys, "bench", "--help").out.splitlines()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    done = tersor(capsys, "--version")
    assert done.out.startswith("tersor 0.")
    assert done.code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nope"], "error: no such command 'nope'; see `tersor --help`"),
        (["buidl"], "error: no such command 'buidl' (did you mean build?); see `tersor --help`"),
        (["opt"], "error: missing argument 'IN'; see `tersor opt --help`"),
        (["opt", "a", "b", "--nope"], "error: no such option: --nope; see `tersor opt --help`"),
        (["passes", "csee"], "error: no pass is called 'csee'; did you mean cse?"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    done = tersor(capsys, *arguments)
    assert (done.code, done.out, done.err) == (2, "", line + "\n")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["opt", "", "o.onnx"], "IN"),
        (["opt", "m.onnx", ""], "OUT"),
        (["opt", "m.onnx", "o.onnx", "--dump", " "], "--dump"),
        (["build", "m.onnx", "-o", ""], "--out"),
        (["build", "m.onnx", "-o", "o", "--trials", ""], "--trials"),
        (["prune", "m.onnx", "-o", "o", "--plan", ""], "--plan"),
        (["bench", "m.onnx", ""], "MODEL"),
        (["explain", "m.onnx", "--original", ""], "--original"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    capsys: pytest.CaptureFixture[str], arguments: list[str], option: str
) -> None:
    done = tersor(capsys, *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert option in done.err
    assert "it is empty; give a path; see" in done.err


@pytest.mark.parametrize("command", ["bench", "explain", "prune --ratio .5 --dry-run"])
@pytest.mark.parametrize("threads", ["-1", "100000"])
def test_threads_are_within_reason(capsys: pytest.CaptureFixture[str], command: str, threads: str) -> None:
    done = tersor(capsys, *command.split(), "m.onnx", "--threads", threads)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "invalid value for '--threads'" in done.err


def test_passes_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    listed = tersor(capsys, "passes").out
    assert "fold-constants" in listed
    assert "rounding" in listed
    told = tersor(capsys, "passes", "fold-constants").out
    assert told.startswith("fold-constants (rounding)\n\nCompute what depends on constants alone")
    assert "budget-kib" in told
    assert "--passes 'fold-constants{budget-kib=1024}'" in told
    assert "no options" in tersor(capsys, "passes", "cse").out


def test_passes_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(tersor(capsys, "passes", "--json").out)
    one = json.loads(tersor(capsys, "passes", "fold-constants", "--json").out)
    assert one in listed
    (budget,) = one["options"]
    assert budget == {
        "name": "budget-kib",
        "type": "int",
        "bounds": "at least 0",
        "required": False,
        "default": "1024",
    }


def test_a_fault_of_ours_is_one_line_with_the_place() -> None:
    with Guard() as guard:
        {}["key"]
    failure = guard.failure
    assert failure is not None
    assert (failure.exit_code, failure.kind) == (3, "KeyError")
    assert failure.line.startswith("a fault of tersor itself, at ")
    assert "test_cli.py:" in failure.where
    assert "\n" not in failure.line


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    done = tersor(capsys, "passes", "csee", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.endswith("error: no pass is called 'csee'; did you mean cse?\n")


def test_an_interruption_is_one_also_where_an_extension_was_being_loaded() -> None:
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    assert describe(error).exit_code == 130
    wrapped = BackendError("onnxruntime does not load")
    wrapped.__context__ = error
    assert describe(wrapped).exit_code == 130
    assert describe(BackendError("onnxruntime does not load")).exit_code == 2


def piped(command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `tersor` is the command line."""
    line = f'tersor() {{ {sys.executable} -m tersor "$@"; }}; {command}'
    env = {**os.environ, "PYTHONPATH": str(SOURCES), **settings}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, check=False)


def test_a_reader_that_goes_away_is_no_check_that_did_not_hold() -> None:
    done = piped("tersor passes --json | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_closed_and_narrow_streams_do_no_harm() -> None:
    assert piped("tersor passes >&- 2>&- <&-").returncode == 0
    done = piped("tersor passes >&-")
    assert (done.returncode, done.stderr) == (0, "")
    done = piped("tersor passes nope 2>&-")
    assert (done.returncode, done.stdout) == (2, "")
    done = piped("tersor passes", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout.splitlines()[1][:3]) == (0, "???")


def test_a_file_that_is_not_there_is_told_before_what_reads_models_is_loaded() -> None:
    code = (
        "import sys\n"
        "from tersor.tools.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "print(code, {'numpy', 'onnx', 'onnxruntime'} & set(sys.modules))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    here = str(Path(__file__))
    for line in (
        "build gone.onnx -o out",
        "prune gone.onnx -o out.onnx --macs 50%",
        "opt gone.onnx out.onnx",
        "inspect gone.onnx",
        f"bench {here} gone.onnx",
        f"compare {here} gone.onnx --data random",
        f"explain {here} --original gone.onnx",
        "sensitivity gone.onnx --data random",
    ):
        command = [sys.executable, "-c", code, *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert (done.stdout, done.stderr) == ("2 set()\n", "error: no such file: 'gone.onnx'\n")


def test_errors_of_the_system_name_the_file() -> None:
    failure = describe(FileNotFoundError(2, "No such file or directory", "gone"))
    assert (failure.line, failure.exit_code) == ("No such file or directory: 'gone'", 2)
    assert describe(KeyboardInterrupt()).exit_code == 130


def test_a_request_to_terminate_cleans_up_as_an_interruption_does() -> None:
    code = (
        "import os, signal, sys, tempfile\n"
        "from tersor.tools import cli\n"
        "def run(arguments):\n"
        "    with tempfile.TemporaryDirectory() as folder:\n"
        "        print(folder, flush=True)\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        except KeyboardInterrupt:\n"
        "            return 130\n"
        "cli.run = run\n"
        "cli.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 143, done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_pruning_adds_up_on_one_thread_so_that_the_same_bytes_come_out_everywhere() -> None:
    code = (
        "import os, sys\n"
        "from tersor.tools import cli\n"
        "cli.run = lambda _: print(os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules) or 0\n"
        "cli.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "OPENBLAS_NUM_THREADS": "2"}
    for command, threads in (("prune", "1"), ("build", "2")):
        done = subprocess.run(
            [sys.executable, "-c", code, command], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout.split() == [threads, "False"], "numpy reads it once, when it is loaded"


@pytest.mark.parametrize("becomes", [None, RuntimeError("Error calling __set_name__")])
def test_an_interruption_while_the_command_line_is_loaded_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, becomes: Exception | None
) -> None:
    class Interrupts:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "tersor.tools.cli":
                interrupted = KeyboardInterrupt()
                raise becomes or interrupted from interrupted

    monkeypatch.delitem(sys.modules, "tersor.tools.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "error: interrupted; nothing half-written is left\n"


def test_options_show_their_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        line.split()[0]: line.split()[1:]
        for line in tersor(capsys, "passes", "gptq").out.splitlines()
        if line
    }
    assert rows["bits"] == ["int,", "from", "2", "to", "8", "8"]
    assert rows["group"] == ["int,", "at", "least", "0", "0"]
    assert rows["symmetric"] == ["flag", "true"]
    options = json.loads(tersor(capsys, "passes", "gptq", "--json").out)["options"]
    assert {each["name"]: each["bounds"] for each in options}["bits"] == "from 2 to 8"
    assert {each["name"]: each["bounds"] for each in options}["symmetric"] is None
