# SPDX-License-Identifier: Apache-2.0
"""train.py understands every flagfile of the project; flagfiles and --unset."""

import pytest
from absl import flags

import config
import models
import pretrained
from system import errors, flagfiles
from tests.helpers import ROOT
from training import machine, runs

FLAGFILES = sorted([*ROOT.glob("*.flags"), *ROOT.glob("flags/*.flags")])


@pytest.fixture
def parse():
    """parse(*arguments) → values of train's flags by name."""
    if "epochs" not in flags.FLAGS:  # another test may have defined them
        config.define_flags()

    def parse(*arguments):
        flags.FLAGS.unparse_flags()
        rest = flags.FLAGS(["train.py", *map(str, arguments)])
        assert rest == ["train.py"]
        return flags.FLAGS.flag_values_dict()

    yield parse
    flags.FLAGS.unparse_flags()


def lines(path):
    text = path.read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and line[0] != "#"]


def test_there_are_flagfiles():
    assert ROOT / "lenet.flags" in FLAGFILES
    assert len(FLAGFILES) >= 2


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_flagfile_parses(path, parse):
    values = parse(f"--flagfile={path}")
    for line in lines(path):
        name, _, text = line.removeprefix("--").partition("=")
        if name == "flagfile":  # tested as a file of its own
            continue
        assert name.removeprefix("no") in values or name in values, line
        if text and isinstance(values[name], (int, float)) and values[name] is not True:
            assert values[name] == float(text), line
        elif text and isinstance(values[name], list):
            assert [str(value) for value in values[name]] == text.split(","), line
    own = {name: values[name] for name in vars(config.Config())}
    run_dir = machine._run_dir(config.Config(**{**own, "seed": 7}))
    assert "{" not in str(run_dir)
    assert str(run_dir).endswith("s7")


def test_the_pretrained_network_is_of_its_flagfile(parse):
    values = parse(f"--flagfile={ROOT / 'flags/robust.flags'}")
    own = config.Config(**{name: values[name] for name in vars(config.Config())})
    recorded = config.Config.recorded(runs.read_run(pretrained.ROBUST)["config"])
    default, wanted = config.Config().deciding(), own.deciding()
    set_there = [name for name in wanted if wanted[name] != default[name]]
    assert len(set_there) > 15
    for name, value in recorded.deciding().items():
        if name in set_there or name not in ("replicas", "seed"):
            assert value == wanted[name] or wanted[name] is None, name


def test_run_directories_differ(parse):
    run_dirs = [parse(f"--flagfile={path}")["run_dir"] for path in FLAGFILES]
    assert len(set(run_dirs)) == len(run_dirs)


def test_flags_after_a_flagfile_override_it(parse):
    values = parse(f"--flagfile={ROOT / 'lenet.flags'}", "--epochs=7", "--seed=3")
    assert (values["epochs"], values["seed"], values["batch_norm"]) == (7, 3, "all")


def test_a_flagfile_may_include_another(tmp_path, parse):
    mine = tmp_path / "mine.flags"
    mine.write_text(f"# mine\n--flagfile={ROOT / 'lenet.flags'}\n--dropout=0.25\n")
    values = parse(f"--flagfile={mine}")
    assert (values["dropout"], values["schedule"]) == (0.25, "one_cycle")


@pytest.mark.parametrize(
    "line, argument",
    [
        ("--run_dir='a b'  # first try", "--run_dir=a b"),
        ('--run_dir="/x/g"', "--run_dir=/x/g"),
        ("'--run_dir=a #1'", "--run_dir=a #1"),
        ("--run_dir=''", "--run_dir="),
        ("--run_dir=a  b", "--run_dir=a  b"),  # as in older runs
        ("--run_dir=it's#1//2", "--run_dir=it's#1//2"),
        ("--rotation=-1", "--rotation=-1"),
    ],
)
def test_a_value_may_be_quoted(tmp_path, line, argument):
    mine = tmp_path / "mine.flags"
    mine.write_text(f"\ufeff{line}\r\n", encoding="utf-8")  # as Windows saves it
    assert flagfiles.expand([f"--flagfile={mine}"]) == [argument]


@pytest.mark.parametrize(
    "line",
    [
        "--run_dir=/x/g  # first try",
        "--run_dir=/x/g // first try",
        "--keep_best # too",
        "--run_dir=a --seed=3",
        "--run_dir= a",
        "--run_dir=$HOME/a",
        "--run_dir=a \\",
        "--run_dir=“a”",
        "--run_dir='a",
        "--run_dir='a' b",
    ],
)
def test_shell_syntax_is_refused(tmp_path, line):
    (tmp_path / "mine.flags").write_text(f"# mine\n{line}\n", encoding="utf-8")
    with pytest.raises(flags.Error, match="line 2 has .*expected one --name=value"):
        flagfiles.expand([f"--flagfile={tmp_path / 'mine.flags'}"])


@pytest.mark.parametrize("value", ["a", "a b", "a #1", "'a'", " a ", "$a", "it's", ""])
def test_a_written_line_reads_back(tmp_path, value):
    line = flagfiles.line(f"--run_dir={value}")
    assert line == f"--run_dir={value}" or "'" in line
    (tmp_path / "flags.txt").write_text(f"{line}\n{flagfiles.line('')}\n")
    argument = f"--flagfile={tmp_path / 'flags.txt'}"
    assert flagfiles.expand([argument]) == [f"--run_dir={value}"]


@pytest.mark.parametrize(
    "arguments, left",
    [
        ("--batch_norm=all --seed=1 --unset=batch_norm", "--seed=1"),
        ("--batch_norm all --unset batch_norm --batch_norm=conv", "--batch_norm=conv"),
        ("--hidden_units= --nobatch_norm_first --unset=hidden_units", "--nobatch_norm"),
        ("--nokeep_best --keep_best -seed=3 a --unset=keep_best,seed", "a"),
        ("--seed -1 --unset=epochs -- --unset=seed", "--seed -1 -- --unset=seed"),
        ("--unset=seed --no --none b --seed=4", "--no --none b --seed=4"),
    ],
)
def test_a_flag_can_be_unset(parse, arguments, left):
    kept = flagfiles.unset(arguments.split(), flags.FLAGS)
    assert " ".join(kept).startswith(left)
    assert bool(kept) and len(kept) == len(left.split())


def test_unsetting_an_unknown_flag_is_refused(parse):
    with pytest.raises(flags.Error, match="--unset=no_such: no flag has this name"):
        flagfiles.unset(["--unset=no_such"], flags.FLAGS)


def test_the_suggestion_for_another_network_works(parse):
    """The error suggests --unset, and that works."""
    words = [f"--flagfile={ROOT / 'lenet.flags'}", "--network=mlp"]
    with pytest.raises(errors.UsageError, match="mlp has no --batch_norm") as caught:
        models.options("mlp", parse(*words))
    words.append(next(w for w in str(caught.value).split() if "--unset=" in w))
    words = flagfiles.unset(flagfiles.expand(words), flags.FLAGS)
    assert models.options("mlp", parse(*words))["hidden_units"]


def test_flagfiles_are_expanded_in_place(tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_text("\n# a comment\n  --b=2  \r\n// another\n-c\nvalue\n")
    outer.write_text(f"--a\n--flagfile={inner}\n--d")
    arguments = ["--x", "-flagfile", str(outer), "y", "--", f"--flagfile={outer}"]
    assert flagfiles.expand(arguments) == [
        *("--x", "--a", "--b=2", "-c", "value", "--d", "y", "--"),
        f"--flagfile={outer}",
    ]
    assert flagfiles.expand(["--flagfile="]) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("--flagfile={path}", "includes itself"),
        ("--flagfile={path}/../link", "includes itself"),
        ("--flagfile", "has no value"),
        ("--flagfile=a\0b", "a NUL"),
        ("--a=" + "9" * 5000, "more than 4096 characters"),
        ("--flagfile={path}.gone", "No such file"),
        ("#" * flagfiles.MAX_FILE_BYTES + "#", "longer than"),
        ("\udcff", "not UTF-8 text"),
        ("--" + "e" * 3000, "unknown flag --eee"),  # found: absl's RecursionError
    ],
)
def test_bad_flagfiles_are_refused(tmp_path, content, reason):
    path = tmp_path / "mine"
    (tmp_path / "link").symlink_to("mine")
    text = content.replace("{path}/..", str(tmp_path)).replace("{path}", str(path))
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(flags.Error, match=reason):
        flagfiles.expand([f"--flagfile={path}"])


def test_the_number_of_flagfiles_is_limited(tmp_path):
    """Thirty files that each include the next one twice would be a billion lines."""
    for number in range(30):
        line = f"--flagfile={tmp_path / str(number + 1)}\n"
        (tmp_path / str(number)).write_text(2 * line)
    (tmp_path / "30").write_text("--a\n")
    with pytest.raises(flags.Error, match="more than 100 flagfiles"):
        flagfiles.expand([f"--flagfile={tmp_path / '0'}"])
