"""`sdfn COMMAND`: every command under one name, at once when only its help is asked for."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdfn_jax import __version__, cli, pretrained
from sdfn_jax import main as main_command
from sdfn_jax.core import config_flag
from sdfn_jax.core.arguments import Parser
from sdfn_jax.core.errors import UserError

ROOT = Path(__file__).parent.parent
SLOW = {"jax", "flax", "orbax", "tensorflow_datasets", "matplotlib", "scipy"}


def sdfn(*arguments, cwd=ROOT, path=ROOT):
    """The command in a process of its own; `path` is the folder that holds the package."""
    words = [sys.executable, "-m", "sdfn_jax.cli", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=os.environ | {"PYTHONPATH": str(path)})


def helped(capsys, command):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_commands_help_is_one_readable_screen_of_its_own_flags(capsys, command):
    said = helped(capsys, command)
    assert said.startswith(f"usage: sdfn {command} ")
    assert len(said.splitlines()) <= 50 and all(len(line) <= 120 for line in said.splitlines())
    assert not {"--alsologtostderr", "--helpfull", "--run_with_pdb", "--verbosity"} & set(said.split())


def test_the_commands_are_listed(capsys):
    cli.main([])
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in cli.COMMANDS)
    cli.main(["--version"])
    assert capsys.readouterr().out == f"sdfn_jax {__version__}\n"


def test_help_imports_nothing_slow():
    """All commands in one process: no two of them get in each other's way."""
    code = f"""
import sys
from sdfn_jax import cli
for name in cli.COMMANDS:
    try:
        cli.main([name, "--help"])
    except SystemExit as end:
        assert end.code == 0
assert not {SLOW} & set(sys.modules), {SLOW} & set(sys.modules)
"""
    start = time.process_time()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "unknown command trian; did you mean train?"),
        (["xyz"], "unknown command xyz (sdfn --help lists the commands)"),
        (["predict", "film.png", "--chekpoint=x"], "unknown flag --chekpoint; did you mean --checkpoint?"),
        (["predict", "film.png", "--check=x"], "unknown flag --check; did you mean --checkpoint?"),
        (["train", "--confg=configs/lrg.py"], "unknown flag --confg; did you mean --config?"),
        (["evaluate", "--config=configs/lrg.py", "--mode=train"], "unknown flag --mode"),
        (["prepare", "jsrt", "--manual_dri=x"], "unknown flag --manual_dri; did you mean --manual_dir?"),
        (["prepare", "montgomrey", "--manual_dir=x"], "invalid choice: 'montgomrey'"),
        (["export", "--run=runs/x", "--output"], "--output: expected one argument"),
        (["convert", "weights.pth"], "nothing to write"),
        (["convert", "weights.pth", "--config.batch_size=3"], "--config.batch_size=3 needs --config=FILE"),
        (["convert", "weights.pth", "--output=a.pth"], "the name must end with .safetensors"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_what_was_probably_meant(capsys, arguments, said):
    with pytest.raises((SystemExit, UserError)) as end:
        cli.main(arguments)
    assert said in (str(end.value) if isinstance(end.value, UserError) else capsys.readouterr().err)
    assert getattr(end.value, "code", 2) == 2


@pytest.mark.parametrize("module", [main_command, pretrained])
def test_absls_own_flags_are_unknown(module, capsys):
    with pytest.raises(SystemExit):
        module.main(["--helpfull"])
    assert "unknown flag --helpfull" in capsys.readouterr().err


def read_config(*arguments):
    parser = Parser("command")
    parser.add_argument("--flag")
    config_flag.add(parser, "a config", required=True)
    return config_flag.parse(parser, arguments)


class TestConfig:
    def test_values_are_set_in_either_spelling_and_other_flags_are_left_alone(self):
        options, config = read_config(
            *("--config", "configs/fusion.py:demo", "--config.batch_size=3", "--flag", "x", "--config.seed", "5"),
            "--config.lrg.seed=7",
        )
        assert (config.stage, config.batch_size, config.seed, config.lrg.seed) == ("fusion", 3, 5, 7)
        assert options.flag == "x" and config.workdir == "runs/demo/fusion"

    def test_a_printed_config_is_the_flags_that_make_it(self):
        settings = ("--config.seed=5", "--config.runs=/my runs", "--config.model.block_sizes=(2, 2)")
        _, config = read_config("--config=configs/fusion.py:demo", *settings)
        printed = shlex.split(config_flag.shown(config))
        assert "--config.lrg.workdir=/my runs/lrg" in printed and "--config.data.boxes" in printed
        flags = [each for each in printed if "=" in each]
        assert len(flags) > 80
        assert config_flag.shown(read_config("--config=configs/fusion.py:demo", *flags)[1]) == config_flag.shown(config)

    def test_the_main_job_prints_its_config_and_does_nothing_else(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        cli.main(["train", "--config=configs/lrg.py:montgomery", "--config.runs=x", "--print_config"])
        assert "--config.workdir=x/lrg\n" in capsys.readouterr().out
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [
            ("lr", "learning_rate"),  # not lrg, which is no setting
            ("bs", "batch_size"),
            ("epochs", "num_epochs"),
            ("lr_decay", "learning_rate_decay"),
            ("size", "data.size"),
            ("manual_dir", "data.manual_dir"),
            ("entire.lr", "entire.learning_rate"),
            ("lgr.seed", "lrg.seed"),
            ("lrg.plateau.patiense", "lrg.plateau.patience"),
        ],
    )
    def test_a_wrong_setting_names_the_one_that_was_meant(self, wrong, meant):
        with pytest.raises(UserError, match=f"no such setting: --config.{wrong}; did you mean --config.{meant}[?]"):
            read_config("--config=configs/fusion.py", f"--config.{wrong}=1")

    def test_a_group_of_settings_is_not_one(self):
        with pytest.raises(UserError, match="--config.lrg is a group of settings: set one of them, such as --config"):
            read_config("--config=configs/fusion.py", "--config.lrg=runs/lrg")

    def test_two_configs_are_read_in_one_process(self):
        assert [read_config(f"--config=configs/{name}.py")[1].stage for name in ("lrg", "fusion")] == ["lrg", "fusion"]

    def test_without_an_own_copy_the_shipped_one_is_read(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        options, config = read_config("--config=configs/fusion.py:demo")
        assert options.config == ROOT / "configs" / "fusion.py" and config.stage == "fusion"

    def test_an_own_copy_wins_and_finds_the_shipped_neighbours(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        own = tmp_path / "configs" / "fusion.py"
        own.parent.mkdir()
        own.write_text((ROOT / "configs" / "fusion.py").read_text().replace("config.seed = 0", "config.seed = 99"))
        options, config = read_config("--config=configs/fusion.py")
        assert options.config == own and config.seed == 99 and config.lrg.stage == "lrg"
        assert read_config(f"--config={ROOT / 'configs' / 'fusion.py'}")[1].seed == 0  # of an absolute path

    def test_an_own_neighbour_comes_before_the_shipped_one(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "configs").mkdir()
        shipped = (ROOT / "configs" / "lrg.py").read_text()
        (tmp_path / "configs" / "lrg.py").write_text(shipped.replace("config.seed = 0", "config.seed = 99"))
        (tmp_path / "configs" / "fusion.py").write_bytes((ROOT / "configs" / "fusion.py").read_bytes())
        assert read_config("--config=configs/fusion.py")[1].lrg.seed == 99

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--config=configs/fusoin.py"], "no such file .*configs/classifier.py, configs/fusion.py, configs/lrg.py"),
            (["--config=fusion.py"], "no such file"),
            (
                ["--config=configs/fusion.py:dmeo"],
                "takes words .*: demo or small or size448 .*montgomery or .* or own; modern; .*not 'dmeo'",
            ),
            (
                ["--config=configs/fusion.py", "--config.batchsize=4"],
                "no such setting: --config.batchsize; did you mean --config.batch_size?",
            ),
            (["--config=configs/fusion.py", "--config.batch_size=four"], "--config.batch_size=four"),
        ],
    )
    def test_what_is_wrong_is_said(self, arguments, said):
        with pytest.raises(UserError, match=said):
            read_config(*arguments)


def test_the_job_says_which_config_it_reads(tmp_path):
    done = sdfn("train", "--config=configs/fusion.py:demo", "--config.batch_size=0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == f"config: {ROOT / 'configs' / 'fusion.py'}\n"
    assert "--config.batch_size=0: expected 1 to" in done.stderr
