# SPDX-License-Identifier: Apache-2.0
"""A run that a script describes by a Config and trains by `train.run`.

docs/api.md's script, in test_api_page, has the same bits as the command line.
"""

import dataclasses
import json
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import data
import train
from config import Config
from system import device, errors
from training import interruption, machine

SMALL = {"dataset": "digits", "network": "mlp", "hidden_units": [4], "epochs": 1}
SMALL |= {"epoch_images": 128, "shift_directions": (), "flip_codes": []}


def test_values_become_those_of_the_command_line():
    given = Config(
        seed=np.int64(3),
        epochs="2",
        learning_rate=np.float32(0.5),
        run_dir=Path("~/runs"),
        flip_codes="0,1",
        hidden_units=(30, 20),
        network="mlp",
    )
    config = given.checked()
    assert (config.seed, config.epochs, config.learning_rate) == (3, 2, 0.5)
    assert config.run_dir == str(Path.home() / "runs")
    assert (config.flip_codes, config.hidden_units) == (["0", "1"], [30, 20])
    assert config.checked() == config
    assert Config().checked() == Config(**vars(Config())).checked()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "--epochs=0: "),
        ({"epochs": 1.5}, "--epochs=1.5: "),
        ({"epochs": True}, "--epochs=True: "),
        ({"network": "lenett"}, "one of <.*lenet"),
        ({"learning_rate": float("nan")}, "expected a number above 0"),
        ({"deterministic": "maybe"}, "--deterministic=maybe"),
        ({"flip_codes": 5}, "flip_codes"),
        ({"run_dir": "a\nb"}, "control characters"),
        ({"keep_best": True}, "set --validation_size"),
        ({"batch_size": 2, "replicas": 3}, "more --replicas than"),
        ({"network": "mlp", "dropout": 0.5}, "--network=mlp has no --dropout"),
        ({"run_dir": "{nonsense}"}, "braces may hold the name of a flag"),
        ({"dataset": "kaggle"}, "data_dir"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_refused_in_one_line(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UserError, match=message) as caught:
        train.run(Config(**settings))
    assert str(caught.value).isprintable()
    assert not list(tmp_path.rglob("run.json"))


def test_a_run_in_any_thread(tmp_path, capsys, monkeypatch):
    """Only the main thread hears signals; TF_CONFIG is obeyed only when asked to."""
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}}')
    config = Config(**SMALL, seed=2, run_dir=str(tmp_path / "{network}-s{seed}"))
    handler, trained = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: trained.append(train.run(config)))
    thread.start()
    thread.join()
    assert trained == [tmp_path / "mlp-s2"] and (trained[0] / "report.html").exists()
    assert capsys.readouterr().err.count("threads") <= 1
    assert train.run(config) == trained[0]
    assert "is trained to its last step" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_stopped_run_is_saved_and_handlers_are_put_back(tmp_path, monkeypatch):
    stop = interruption.Interruption.__enter__

    def stopped(self):
        stop(self)
        signal.raise_signal(signal.SIGINT)
        return self

    monkeypatch.setattr(interruption.Interruption, "__enter__", stopped)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(errors.UserError, match="stopped .*to resume") as caught:
        train.run(Config(**SMALL, run_dir=str(tmp_path / "run")))
    assert caught.value.exit_code == errors.INTERRUPTED
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_of_tensorflow_are_reported(monkeypatch, capsys):
    monkeypatch.setattr(device, "set_threads", lambda *_: False)
    resolved = machine.Resolved(Config(replicas=2), {}, "", 2)
    machine.set_threads(resolved, machine.cluster.Place())
    assert "bits of the weights may differ" in capsys.readouterr().err


def test_a_run_is_scored_over_shifts_too(tmp_path):
    config = Config(**SMALL, shifts=1, run_dir=str(tmp_path / "run"))
    stored = json.loads((train.run(config) / "result.json").read_text())
    plain, shifted = stored["test"], stored["test_shifts1"]
    assert shifted["shifts"] == 1 and shifted["images"] == plain["images"]
    assert shifted["nll"] != plain["nll"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"network": "conv6", "residual": True, "maps": [8, 16, 8, 8, 8, 8]},
            "--residual",
        ),
        ({"continental": 0.1}, "--continental draws strokes into ones and sevens"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_run_is_made(
    tmp_path, monkeypatch, settings, message
):
    letters = dataclasses.replace(data.load("digits"), classes=tuple("abcdefghij"))
    monkeypatch.setattr(data, "load_for", lambda *_: letters)
    some = {"dataset": "digits", "epochs": 1, "shift_directions": (), "flip_codes": []}
    config = Config(**some | settings, run_dir=tmp_path / "run")
    with pytest.raises(errors.UserError, match=message):
        train.run(config)
    assert not (tmp_path / "run").exists()
