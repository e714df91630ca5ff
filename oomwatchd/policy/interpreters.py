"""How the interpreters that people run read their command lines, up to the script; tables only.

To add one, describe its options as a Family and put its name into FAMILIES.  What an interpreter
does with an option matters here only as far as it decides which argument the script is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

Effect = Literal[
    "value",  # takes a value: what is attached to it, else the next argument
    "rest",  # takes what is attached to it, never the next argument: perl -i.bak
    "script",  # takes a value, and this is the script
    "end",  # what runs is no script: -c CODE, -s
    "flag",  # takes nothing; listed only where it could be mistaken for something else
]


def options(
    *, value: str = "", rest: str = "", script: str = "", end: str = "", flag: str = ""
) -> Mapping[str, Effect]:
    """Options as they are typed, by their effect.

    ``-W`` also is a letter in a cluster such as ``-uW``; ``--name`` and ``-name`` are whole words,
    the value of which may be attached by "=".  One that is in no list takes nothing.
    """
    effects: dict[Effect, str] = {
        "value": value,
        "rest": rest,
        "script": script,
        "end": end,
        "flag": flag,
    }
    return {option: effect for effect, names in effects.items() for option in names.split()}


@dataclass(frozen=True, slots=True)
class Family:
    options: Mapping[str, Effect]
    marks: str = "-"  # an argument that begins with one of these is an option
    skipped: tuple[str, ...] = ()  # one that begins with any of these is neither that nor operand
    closers: frozenset[str] = frozenset({"--"})  # the argument after one of these is an operand
    clusters: Literal[
        "getopt",  # -uW is -u and -W; what follows a letter that takes a value is this value
        "shell",  # every letter is an option; their values are the next arguments
        "none",  # one dash begins a word, too
    ] = "getopt"
    operand: Literal[
        "script",  # the first argument that is no option is the script
        "file",  # it is if it has a dot or a slash; else it is a command such as `test`
        "ignored",  # only an option can name the script
    ] = "script"
    commands: Mapping[str, "Family"] = field(default_factory=dict)  # how to read on after these


PYTHON: Final = Family(
    options(value="-W -X -Q --check-hash-based-pycs --jit", script="-m", end="-c")
)

# Source: what node's own table (internal/options) says takes a text, a number or a list.
NODE_PLAIN: Final = Family(
    options(
        value="""
            -C --conditions -r --require --import --loader --experimental-loader --title
            --env-file --env-file-if-exists --input-type --experimental-default-type
            --inspect-port --debug-port --inspect-publish-uid --watch-path
            --cpu-prof-dir --cpu-prof-interval --cpu-prof-name
            --heap-prof-dir --heap-prof-interval --heap-prof-name
            --heapsnapshot-near-heap-limit --heapsnapshot-signal --diagnostic-dir
            --report-dir --report-directory --report-filename --report-signal
            --trace-event-categories --trace-event-file-pattern --trace-require-module
            --max-http-header-size --dns-result-order --disable-proto --disable-warning
            --network-family-autoselection-attempt-timeout --unhandled-rejections
            --redirect-warnings --icu-data-dir --openssl-config --tls-cipher-list --tls-keylog
            --secure-heap --secure-heap-min --use-largepages --v8-pool-size --snapshot-blob
            --experimental-policy --policy-integrity --security-revert
            --allow-fs-read --allow-fs-write --experimental-config-file --localstorage-file
            --test-concurrency --test-name-pattern --test-reporter --test-reporter-destination
            --test-global-setup --test-isolation --test-shard --test-skip-pattern --test-timeout
            --watch-kill-signal
        """,
        end="""
            -e --eval -p --print -pe --run --prof-process
            --build-snapshot-config --experimental-sea-config
        """,
    ),
    clusters="none",
)
NODE: Final = replace(NODE_PLAIN, commands={"inspect": NODE_PLAIN})

DENO_RUN: Final = Family(
    options(
        value="""
            -c --config -L --log-level --import-map --lock --cert --seed --location --ext
            --preload --import --require --conditions --host --port
        """,
        rest="-=",  # -R=./data
    )
)
DENO: Final = replace(DENO_RUN, operand="file", commands={"run": DENO_RUN, "serve": DENO_RUN})

BUN_RUN: Final = Family(
    options(
        value="""
            -r --preload --require --import --cwd --env-file -d --define --drop -l --loader
            -F --filter -u --origin --port --install --shell --elide-lines --conditions --title
            --main-fields --extension-order --tsconfig-override
            --jsx-factory --jsx-fragment --jsx-import-source --jsx-runtime
            --cpu-prof-name --cpu-prof-dir --unhandled-rejections --console-depth --user-agent
            --fetch-preconnect --max-http-header-size --dns-result-order
        """,
        rest="-c",
        end="-e --eval -p --print",
    )
)
BUN: Final = replace(BUN_RUN, operand="file", commands={"run": BUN_RUN})

PERL: Final = Family(
    options(value="-I", rest="-C -D -F -M -V -i -m -x -: -=", end="-e -E")  # -d:NYTProf
)

RUBY: Final = Family(
    options(
        value="""
            -C -E -I -X -r --enable --disable --parser --backtrace-limit
            --encoding --external-encoding --internal-encoding
        """,
        rest="-F -K -W -i -x",
        end="-e",
    )
)

PHP: Final = Family(
    options(
        value="""
            -B --process-begin -E --process-end -S --server -T --timing -b --bindpath
            -c --php-ini -d --define -t --docroot -z --zend-extension
        """,
        script="-f --file -F --process-file",
        end="-a --interactive -r --run -R --process-code --",  # after "--" come only arguments
    ),
    closers=frozenset(),
)

LUA: Final = Family(options(value="-e -j -l", rest="-O", end="-b"))  # luajit too

# "-" ends the options as "--" does; +o is the contrary of -o; bash knows its long options with one
# dash, too, and they come before any cluster is looked for: `bash -login` has no -o in it.
SH: Final = Family(
    options(
        value="-o -O --rcfile --init-file -rcfile -init-file",
        end="-c -s",
        flag="-login -norc -noprofile -noediting -posix -restricted -verbose",
    ),
    marks="-+",
    closers=frozenset({"-", "--"}),
    clusters="shell",
)
ZSH: Final = Family(  # and the Korn shells
    options(value="-o --emulate", end="-c -s"), marks="-+", closers=frozenset({"-", "--", "-b"})
)
CSH: Final = Family(options(end="-c -s -t"), closers=frozenset({"--", "-b"}))
FISH: Final = Family(
    options(
        value="""
            -C --init-command -D --debug-stack-frames -d --debug -f --features
            -o --debug-output -p --profile --profile-startup
        """,
        end="-c --command",
    )
)

RSCRIPT: Final = Family(options(end="-e"), clusters="none")
R: Final = Family(  # what Rscript becomes: R --no-echo --no-restore --file=train.R --args 1 2
    options(
        value="""
            -d --debugger --debugger-args --encoding -g --gui
            --max-connections --max-ppsize --min-nsize --min-vsize
        """,
        script="-f --file",
        end="-e --args",
    ),
    closers=frozenset(),
    clusters="none",
    operand="ignored",
)

JULIA: Final = Family(
    options(
        value="""
            -C --cpu-target -H --home -J --sysimage -L --load -O -g -p --procs -t --threads
            --banner --bind-to --check-bounds --color --compile --compiled-modules --depwarn
            --gcthreads --handle-signals --heap-size-hint --history-file --inline --machine-file
            --math-mode --min-optlevel --output-bc --output-ji --output-o --pkgimages
            --startup-file --sysimage-native-code --trace-compile --warn-overwrite
        """,
        script="-m --module",
        end="-e --eval -E --print",
    ),
    skipped=("+",),  # +1.10 says to juliaup which version to start
)

TCL: Final = Family(options(value="-encoding"), clusters="none")
EXPECT: Final = Family(options(value="-c -D", script="-f -b"))

GUILE: Final = Family(
    options(value="-C -L -e -l -x", script="-s", end="-c --"),
    skipped=("\\",),  # in a #! line: more options are in the second line of the script
    closers=frozenset(),
    clusters="none",
)

# Source: IsWhiteSpaceOption in the launcher's java.c.  -jar takes no value: what it says is that
# the first operand, which may come after more options, is an archive.
JAVA: Final = Family(
    options(
        value="""
            -cp -classpath --class-path -p --module-path --upgrade-module-path
            --add-modules --limit-modules --add-exports --add-opens --add-reads --patch-module
            --enable-native-access --source
        """,
        script="-m --module",
        end="-d --describe-module",
    ),
    skipped=("@",),  # a file with more arguments
    clusters="none",
)

DOTNET_EXEC: Final = Family(
    options(
        value="""
            --additional-deps --additionalprobingpath --depsfile --fx-version --roll-forward
            --roll-forward-on-no-candidate-fx --runtimeconfig
        """
    ),
    clusters="none",
)
DOTNET: Final = replace(DOTNET_EXEC, operand="file", commands={"exec": DOTNET_EXEC})
MONO: Final = Family(options(value="--config"), clusters="none")

# No interpreter, but it names what it becomes in the same manner.
ENV: Final = Family(
    options(value="-C --chdir -a --argv0 -u --unset", script="-S --split-string"),
    closers=frozenset({"-", "--"}),  # "-" is -i, and the last option
)

# By the program's name, less its version: python3.11 is python.
FAMILIES: Final[Mapping[str, Family]] = {
    name: family
    for names, family in (
        ("python pypy micropython", PYTHON),
        ("node nodejs", NODE),
        ("deno", DENO),
        ("bun", BUN),
        ("perl", PERL),
        ("ruby", RUBY),
        ("php php-cgi", PHP),
        ("lua luajit", LUA),
        ("sh bash rbash dash ash", SH),
        ("zsh ksh mksh", ZSH),
        ("csh tcsh bsd-csh", CSH),
        ("fish", FISH),
        ("Rscript", RSCRIPT),
        ("R", R),
        ("julia", JULIA),
        ("tclsh wish", TCL),
        ("expect", EXPECT),
        ("guile", GUILE),
        ("java", JAVA),
        ("dotnet", DOTNET),
        ("mono mono-sgen", MONO),
    )
    for name in names.split()
}
