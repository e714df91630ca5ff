import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.policy.interpreters import FAMILIES
from oomwatchd.policy.script import interpreter, script_of

RUNS = [
    # python
    ("python train.py", "train.py"),
    ("python3 ./train.py --epochs 3", "./train.py"),
    ("/usr/bin/python3.11 /opt/x/train.py", "/opt/x/train.py"),
    ("python3 'my train.py'", "my train.py"),
    ("python3.13t train.py", "train.py"),
    ("python3.11-dbg train.py", "train.py"),
    ("python2.7 -Qnew train.py", "train.py"),
    ("python3 -X dev -W ignore -m torch.distributed.run train.py", "torch.distributed.run"),
    ("python3 -X dev train.py", "train.py"),
    ("python3 -Xdev -Wignore train.py", "train.py"),
    ("python3 -uB train.py", "train.py"),
    ("python3 -uX dev train.py", "train.py"),
    ("python3 -uW ignore -OO train.py", "train.py"),
    ("python3 -um http.server 8000", "http.server"),
    ("python3 -mhttp.server", "http.server"),
    ("python3 --check-hash-based-pycs always train.py", "train.py"),
    ("python3 -- train.py", "train.py"),
    ("python3 -- -odd.py", "-odd.py"),
    ("python3 -I /usr/bin/gunicorn -c conf.py app:app", "/usr/bin/gunicorn"),
    ("/opt/venv/bin/python /venv/bin/torchrun --nproc_per_node=8 train.py", "/venv/bin/torchrun"),
    ("pypy3.10 --jit off train.py", "train.py"),
    ("pypy train.py", "train.py"),
    # node, deno, bun
    ("node app.js", "app.js"),
    ("/usr/bin/nodejs server --port 80", "server"),
    ("node --inspect app.js", "app.js"),
    ("node --inspect=0.0.0.0:9229 app.js", "app.js"),
    ("node --inspect-port 9230 app.js", "app.js"),
    ("node --max-old-space-size=4096 app.js", "app.js"),
    ("node -r dotenv/config app.js", "app.js"),
    ("node --require=dotenv/config --import ./otel.mjs app.js", "app.js"),
    ("node --loader ts-node/esm --env-file .env app.ts", "app.ts"),
    ("node -C development app.js", "app.js"),
    ("node inspect --port=9229 app.js", "app.js"),
    ("node -- -odd.js", "-odd.js"),
    ("deno run --allow-net --allow-read=/tmp -c deno.json main.ts", "main.ts"),
    ("deno run -R=c -A main.ts", "main.ts"),
    ("deno -q run npm:vite", "npm:vite"),
    ("deno serve --port 80 main.ts", "main.ts"),
    ("deno main.ts run", "main.ts"),
    ("bun run --watch index.ts", "index.ts"),
    ("bun --smol run dev", "dev"),
    ("bun -r ./trace.ts ./index.ts", "./index.ts"),
    # perl, ruby
    ("perl train.pl", "train.pl"),
    ("perl5.36.0 -w -T train.pl", "train.pl"),
    ("perl '-w -T' train.pl", "train.pl"),
    ("perl -I lib -Ilib2 -MPOSIX=floor train.pl", "train.pl"),
    ("perl -i.bak -0777 -CSDA train.pl", "train.pl"),
    ("perl -d:NYTProf train.pl", "train.pl"),
    ("perl -- train.pl", "train.pl"),
    ("ruby3.1 -w app.rb", "app.rb"),
    ("ruby -I lib -r json -rset app.rb", "app.rb"),
    ("ruby -W:no-deprecated -Ku --yjit --encoding utf-8 app.rb", "app.rb"),
    ("ruby -C /srv -S rackup config.ru", "rackup"),
    # shells
    ("bash train.sh", "train.sh"),
    ("-bash train.sh", "train.sh"),
    ("sh -e ./train.sh -c 3", "./train.sh"),
    ("dash -eu train.sh", "train.sh"),
    ("bash -euo pipefail train.sh", "train.sh"),
    ("bash -oe pipefail train.sh", "train.sh"),
    ("bash -oO pipefail extglob train.sh", "train.sh"),
    ("bash +o posix +x -O extglob train.sh", "train.sh"),
    ("bash --rcfile /etc/rc --norc -i train.sh", "train.sh"),
    ("bash -login -norc train.sh", "train.sh"),
    ("bash - train.sh", "train.sh"),
    ("bash -x -- train.sh", "train.sh"),
    ("busybox sh -e train.sh", "train.sh"),
    ("ash train.sh", "train.sh"),
    ("zsh -opipefail -o extendedglob train.zsh", "train.zsh"),
    ("zsh-5.9 -f train.zsh", "train.zsh"),
    ("ksh93 -e train.ksh", "train.ksh"),
    ("mksh -o pipefail train.sh", "train.sh"),
    ("tcsh -f train.csh", "train.csh"),
    ("fish -N -C 'set x 1' --debug=all train.fish", "train.fish"),
    # science
    ("/usr/lib/R/bin/exec/R --no-echo --no-restore --file=train.R --args -e 1", "train.R"),
    ("R --vanilla -g Tk -f train.R", "train.R"),
    ("R --no-save ignored -f train.R", "train.R"),
    ("Rscript --vanilla train.R 1 2", "train.R"),
    ("julia -t 8 -p4 --project=. train.jl", "train.jl"),
    ("julia --threads auto --project -O3 -L setup.jl train.jl", "train.jl"),
    ("julia -J sys.so --heap-size-hint 4G train.jl", "train.jl"),
    ("julia +release -q train.jl", "train.jl"),
    # php, lua, tcl, scheme
    ("php artisan queue:work", "artisan"),
    ("php8.2 -d memory_limit=1G -dx=y job.php", "job.php"),
    ("php -n -f job.php -- -r", "job.php"),
    ("php --file=job.php", "job.php"),
    ("php -S localhost:8000 -t public router.php", "router.php"),
    ("lua5.4 -e 'x = 1' -l socket -lmime job.lua", "job.lua"),
    ("luajit -O3 -j off job.lua", "job.lua"),
    ("tclsh8.6 -encoding utf-8 job.tcl", "job.tcl"),
    ("expect -d -f login.exp host", "login.exp"),
    ("expect -c 'set x 1' login.exp", "login.exp"),
    ("guile-3.0 -L . -e main -s job.scm", "job.scm"),
    (r"guile \\ job.scm", "job.scm"),
    # java, .NET
    ("java -cp x org.apache.kafka.Kafka server.properties", "org.apache.kafka.Kafka"),
    ("java -Xmx4g -XX:+UseG1GC -Da=b -cp a.jar:b.jar org.example.Main -m c", "org.example.Main"),
    ("java -cp x -jar y.jar", "y.jar"),
    ("/usr/lib/jvm/java-17/bin/java -jar -Xmx4g app.jar", "app.jar"),
    ("java -javaagent:agent.jar -splash:x.png --class-path=x Main", "Main"),
    ("java --add-opens java.base/java.lang=ALL-UNNAMED --enable-native-access a Main", "Main"),
    ("java --module-path mods -m org.app/org.app.Main x", "org.app/org.app.Main"),
    ("java -p mods --module=org.app/org.app.Main", "org.app/org.app.Main"),
    ("java @opts.txt -Xmx512m worker.GradleWorkerMain", "worker.GradleWorkerMain"),
    ("java --source 17 Train.java", "Train.java"),
    ("dotnet app.dll --urls x", "app.dll"),
    ("dotnet exec --runtimeconfig a.json --depsfile b.json app.dll", "app.dll"),
    ("dotnet --roll-forward Major ./app.dll", "./app.dll"),
    ("mono --debug --config m.cfg app.exe", "app.exe"),
    # env, before it becomes the program it was told of
    ("env python3 train.py", "train.py"),
    ("env -i -u X A=1 B=2 python3 train.py", "train.py"),
    ("env -uX -C /srv --chdir=/opt --unset Y node app.js", "app.js"),
    ("env - A=1 python3 -u train.py", "train.py"),
    ("env -- A=1 python3 train.py", "train.py"),
    ("env -S 'python3 -u' train.py", "train.py"),
    ("env '-S python3 -u' ./train.py --epochs 3", "./train.py"),
    ("env '-vS python3 -u' train.py", "train.py"),
    ("env '--split-string=python3 -X dev' train.py", "train.py"),
    ("env --split-string 'python3 -W ignore' train.py", "train.py"),
    ("env -S '-i A=1 python3' train.py", "train.py"),
    ("""env -S 'python3 -W "ignore this" train.py'""", "train.py"),
    ("env env env python3 train.py", "train.py"),
    ("env -i busybox env A=1 sh train.sh", "train.sh"),
]

NO_SCRIPT = [
    # code on the command line, or from standard input, or typed
    "python",
    "python3 -c 'import train' train.py",
    "python3 '-cimport train' train.py",
    "python3 -uc 'import train' train.py",
    "python3 - train.py",
    "python3 -i",
    "python3 -m",
    "python3 -W",
    "python3 ''",
    "node -e 'f()' app.js",
    "node --eval=f() app.js",
    "node -p 1 app.js",
    "node -",
    "node --inspect",
    "deno eval 'f()' main.ts",
    "deno test main.ts",
    "deno run -",
    "bun -e 'f()' index.ts",
    "bun install",
    "perl -e 'f()' train.pl",
    "perl -lane 'print' train.pl",
    "perl -MPOSIX -E 'f()' train.pl",
    "ruby -rjson -e 'f()' app.rb",
    "bash",
    "-bash",
    "bash -c 'python3 train.py'",
    "bash -lc ./train.sh",
    "bash -oc pipefail ./train.sh",
    "sh -ec ./train.sh x",
    "bash -s train.sh",
    "zsh -lc ./train.sh",
    "fish --command=x train.fish",
    "tcsh -c ./train.csh",
    "Rscript -e 'f()' train.R",
    "R --no-save train.R",
    "R --args --file=train.R",
    "R --file=-",
    "julia -e 'f()' train.jl",
    "julia --bind-to 127.0.0.1 --worker",
    "php -r 'f();' job.php",
    "php -- job.php",
    "php-cgi -b 127.0.0.1:9000",
    "php -S localhost:8000 -t public",
    "lua -e 'f()'",
    "guile -c '(f)' job.scm",
    "java -version",
    "java -cp x",
    "java @opts.txt",
    "dotnet run train.csproj",
    "dotnet build ./train.csproj",
    "env",
    "env A=1",
    "env -i",
    "env python3 -c 'f()' train.py",
    "env -S",
    "env -i A=1 -u X python3 train.py",  # after A=1, -u is the program's name
    # no interpreter
    "vim train.py",
    "grep train.py x",
    "tail -f train.py.log",
    "cat train.py",
    "less",
    "sudo python3 train.py",
    "timeout 60 python3 train.py",
    "pythonw train.py",
    "python3-config train.py",
    "ipython3x train.py",
    "mypython train.py",
    "java/ train.py",
    "bashful train.sh",
    "nodemon app.js",
    "busybox vi train.py",
    "busybox",
    "postgres: writer",
]


@pytest.mark.parametrize(("line", "script"), RUNS, ids=[line for line, _ in RUNS])
def test_finds_what_the_interpreter_runs(line: str, script: str) -> None:
    assert script_of(shlex.split(line)) == script


@pytest.mark.parametrize("line", NO_SCRIPT)
def test_finds_nothing_where_no_script_is_run(line: str) -> None:
    assert script_of(shlex.split(line)) is None


def test_no_arguments_are_no_script() -> None:
    assert script_of([], "python3") is None


@pytest.mark.parametrize(
    ("arguments", "comm", "script"),
    [
        (["trainer", "train.py"], "python3", "train.py"),  # exec -a trainer python3 train.py
        (["", "train.py"], "python3", "train.py"),
        (["python3", "train.py"], "train.py", "train.py"),  # started by its #! line
        (["perl", "-c", "x.pl"], "python3", "x.pl"),  # argv[0] is believed first
        (["trainer", "train.py"], "trainer", None),
        (["vim", "train.py"], "vim", None),
        (["my trainer: epoch 3", "", ""], "python3", None),  # a title written over the arguments
        (["trainer"], "python3", None),
        (["x", "vim", "train.py"], "env", None),
        (["trainer", "x", "train.py"], "busybox", None),  # comm does not name the second program
    ],
)
def test_comm_names_the_interpreter_where_argv0_does_not(
    arguments: list[str], comm: str, script: str | None
) -> None:
    assert script_of(arguments, comm) == script


def test_env_in_env_in_env_is_given_up_on() -> None:
    assert script_of(["env"] * 5 + ["python3", "train.py"]) == "train.py"
    assert script_of(["env"] * 50 + ["python3", "train.py"]) is None


# -- properties ------------------------------------------------------------------------------------

names = st.sampled_from([*FAMILIES, "env", "busybox", "vim", "python3.11", "-bash"])
options = sorted({option for family in FAMILIES.values() for option in family.options})
pieces = st.sampled_from(
    [*options, "-", "--", "-S", "-euo", "-uX", "--x=", "A=1", "run", "exec", "@x", "+o", "\\", ""]
)
words = st.one_of(names, pieces, st.text(max_size=6), st.builds("{}{}".format, pieces, st.text()))


@given(st.lists(words, max_size=12), words)
def test_the_script_is_always_part_of_an_argument(arguments: list[str], comm: str) -> None:
    script = script_of(arguments, comm)

    assert script is None or (script and any(script in argument for argument in arguments))


@given(st.sampled_from(sorted(FAMILIES.keys() - {"R"})), st.lists(words), words)
def test_nothing_after_the_script_matters(name: str, after: list[str], comm: str) -> None:
    assert script_of([name, "dir/train.x", *after], comm) == "dir/train.x"


@given(st.text(), st.lists(words))
def test_a_program_that_is_no_interpreter_runs_no_script(name: str, after: list[str]) -> None:
    if interpreter(name) is None:
        assert script_of([name, *after], name) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_every_interpreter_is_known_by_path_and_version(name: str) -> None:
    assert interpreter(name) == name
    assert interpreter(f"/usr/bin/{name}3.11") == name
    assert interpreter(f"{name}x") != name


@pytest.mark.parametrize(
    "arguments",
    [
        ["python3", *["-X"] * 200_000],
        ["python3", "-" + "q" * 1_000_000],
        ["bash", "-" + "o" * 200_000, *["x"] * 200_000],
        ["env", *["-S", "-i"] * 100_000],
        ["env", "-S", "-S '" * 100_000],
        ["env", "-S", "'" * 500_001],
        ["env", "-S", "\"' " * 200_000],
        ["env", *["A=1"] * 200_000],
        ["a" * 1_000_000 + "!"],
        ["a-" + "a" * 1_000_000 + "!"],
        ["python" + "3" * 1_000_000 + "!"],
        ["python" + "/" * 1_000_000],
    ],
    ids=lambda arguments: " ".join(arguments[:3])[:20],
)
def test_a_hostile_command_line_costs_no_more_than_its_length(arguments: list[str]) -> None:
    began = time.process_time()
    script_of(arguments, arguments[0])

    assert time.process_time() - began < 2.0  # any quadratic step would take minutes


# -- the interpreters themselves -------------------------------------------------------------------

PYTHON = sys.executable
PROGRAMS = {  # each says by which name it runs, then waits for its standard input to end
    "train.py": "import sys\nprint(sys.argv[0], flush=True)\nsys.stdin.read()\n",
    "module.py": "import sys\nprint(__spec__.name, flush=True)\nsys.stdin.read()\n",
    "train.sh": 'echo "$0"\nread line\n',
    "train.pl": '$| = 1;\nprint "$0\\n";\n<STDIN>;\n',
}
STARTED_WITHIN_SECONDS = 60.0


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name, source in PROGRAMS.items():
        (tmp_path / name).write_text(source)
    return tmp_path


@contextmanager
def started(arguments: Sequence[str], directory: Path) -> Iterator[tuple[int, str]]:
    """A process that has said its first line, and this line."""
    process = subprocess.Popen(
        arguments, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], STARTED_WITHIN_SECONDS)
            assert ready
            yield process.pid, process.stdout.readline().rstrip("\n")
            process.stdin.close()
            process.wait(STARTED_WITHIN_SECONDS)
        finally:
            process.kill()


def seen(pid: int) -> tuple[list[str], str]:
    """The arguments and comm of a process, as the kernel shows them."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().removesuffix(b"\0").split(b"\0")
    return list(map(os.fsdecode, arguments)), Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


@pytest.mark.parametrize(
    "line",
    [
        f"{PYTHON} train.py --epochs 3",
        f"{PYTHON} -X dev -W ignore -uB ./train.py",
        f"{PYTHON} -uX dev --check-hash-based-pycs always -- train.py",
        f"{PYTHON} -W ignore -m module train.py",
        f"{PYTHON} -ummodule",
        "sh -eu train.sh",
        "sh -oe nounset train.sh",
        "sh +e - train.sh",
        "bash -euo pipefail train.sh",
        "bash -oO pipefail extglob ./train.sh -c x",
        "bash --rcfile /dev/null --norc train.sh",
        "bash -login -norc train.sh",
        "perl -w -I lib -MPOSIX=floor train.pl",
        "perl -CSDA -0777 -l012 train.pl",
        "perl '-w -l' -- train.pl",
        f"env -i A=1 {PYTHON} train.py",
        f"env '-S {PYTHON} -u' train.py",
        f"env -uX -C . -S '{PYTHON} -X dev' train.py",
    ],
)
def test_agrees_with_the_interpreter_itself(line: str, programs: Path) -> None:
    arguments = shlex.split(line)
    with started(arguments, programs) as (pid, name):
        from_kernel = script_of(*seen(pid))

    assert script_of(arguments) == name
    assert from_kernel == name


@pytest.mark.parametrize(
    "line",
    [
        f"{PYTHON} -uc 'print(); input()' train.py",
        "sh -ec 'echo; read line' train.sh",
        "bash -oc pipefail 'echo; read line' train.sh",
        "perl -wle '$| = 1; print 1; <STDIN>' train.pl",
    ],
)
def test_agrees_that_code_on_the_command_line_is_no_script(line: str, programs: Path) -> None:
    with started(shlex.split(line), programs) as (pid, _):
        assert script_of(*seen(pid)) is None


@pytest.mark.parametrize(
    ("program", "interpreter_line"),
    [
        ("train.py", f"{PYTHON} -u"),
        ("train.py", f"/usr/bin/env -S {PYTHON} -X dev -u"),
        ("train.sh", "/bin/sh -e"),
        ("train.pl", f"{shutil.which('perl')} -w -l"),
    ],
)
def test_sees_through_the_first_line_of_a_script(
    program: str, interpreter_line: str, programs: Path
) -> None:
    path = programs / program
    path.write_text(f"#!{interpreter_line}\n{PROGRAMS[program]}")
    path.chmod(0o755)
    with started([f"./{program}"], programs) as (pid, name):
        arguments, _ = seen(pid)

    assert script_of(arguments) == name == f"./{program}"


def test_sees_through_a_changed_argv0(programs: Path) -> None:
    line = ["bash", "-c", 'exec -a trainer "$0" train.py', PYTHON]
    with started(line, programs) as (pid, name):
        arguments, comm = seen(pid)

    assert arguments == ["trainer", "train.py"]
    assert script_of(arguments, comm) == name == "train.py"
