# SPDX-License-Identifier: Apache-2.0
"""Tests of training/events.py."""

import pytest
from tensorboard import context

from tests.test_summaries import read
from training import events, runs, summaries


def log_steps(run_dir, steps, lengths=None):
    """Writes a point per step; returns the length after each."""
    after = []
    with summaries.Summaries(run_dir, ["train"], lengths) as log:
        for step in steps:
            log.steps(step, {"loss": step / 4})
            after.append(log.flush())
    return after


def losses(run_dir):
    return read(run_dir / "train")[0].get("loss/by_step", {})


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_events_after_the_checkpoint_are_removed(tmp_path):
    first = log_steps(tmp_path, [1, 2, 3, 4])  # killed, so 3 and 4 will come again
    second = log_steps(tmp_path, [3, 5], first[1])
    assert losses(tmp_path) == {1: 0.25, 2: 0.5, 3: 0.75, 5: 1.25}
    assert second[0]["train"] > first[1]["train"]
    log_steps(tmp_path, [4], second[0])
    assert losses(tmp_path) == {1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}
    kept, own = files_in(tmp_path / "train")
    assert kept == events.KEPT
    log_steps(tmp_path, [7])  # from the start
    assert losses(tmp_path) == {7: 1.75}
    assert len(files_in(tmp_path / "train")) == 1


def test_tensorboards_data_server_sees_each_point_once(tmp_path):
    """TensorBoard's data server has its own rules for reading files."""
    server = pytest.importorskip("tensorboard_data_server")
    if not server.server_binary():
        pytest.skip("not available on this platform")
    from tensorboard.data import server_ingester
    from tensorboard.util import grpc_util

    first = log_steps(tmp_path, [1, 2, 3])
    log_steps(tmp_path, [3, 4], first[1])
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(tmp_path),
        reload_interval=0,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
    )
    ingester.start()
    points = ingester.data_provider.read_scalars(
        context.RequestContext(),
        experiment_id="",
        plugin_name="scalars",
        downsample=1000,
    )["train"]["loss/by_step"]
    assert [point.step for point in points] == [1, 2, 3, 4]


def test_a_killed_rewind_can_be_repeated(tmp_path):
    first = log_steps(tmp_path, [1, 2, 3])
    (own,) = files_in(tmp_path / "train")
    content = (tmp_path / "train" / own).read_bytes()
    events.rewind(tmp_path, "train", first[0]["train"])
    (tmp_path / "train" / own).write_bytes(
        content
    )  # as if killed before it was removed
    events.rewind(tmp_path, "train", first[0]["train"])
    assert losses(tmp_path) == {1: 0.25}
    assert files_in(tmp_path / "train") == [events.KEPT]


def test_an_incomplete_record_is_removed(tmp_path):
    log_steps(tmp_path, [1, 2])
    (own,) = files_in(tmp_path / "train")
    content = (tmp_path / "train" / own).read_bytes()
    (tmp_path / "train" / own).write_bytes(content[:-5])
    log_steps(tmp_path, [3], {"train": len(content)})
    assert losses(tmp_path) == {1: 0.25, 3: 0.75}


def test_the_clock_does_not_matter(tmp_path):
    first = log_steps(tmp_path, [1, 2])
    (own,) = (tmp_path / "train").iterdir()
    own.rename(own.with_name("events.out.tfevents.4102444800.later.training.v2"))
    log_steps(tmp_path, [3], first[1])
    assert list(losses(tmp_path)) == [1, 2, 3]


def test_unwritable_events_give_one_line(tmp_path):
    """TensorFlow's writer would say nothing."""
    with summaries.Summaries(tmp_path, ["train"]) as log:
        (tmp_path / "train").rename(tmp_path / "elsewhere")
        log.steps(1, {"loss": 0.5})
        with pytest.raises(runs.RunError, match="cannot write TensorBoard") as caught:
            log.flush()
        assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "train").write_text("in the way")
    with pytest.raises(runs.RunError, match="cannot write TensorBoard"):
        summaries.Summaries(tmp_path, ["train"])


def test_a_deleted_run_directory_is_not_recreated(tmp_path):
    with pytest.raises(runs.RunError, match="No such file or directory"):
        summaries.Summaries(tmp_path / "gone", ["train"])
    assert not (tmp_path / "gone").exists()


def test_lengths_without_names_are_refused(tmp_path):
    with pytest.raises(TypeError, match="no names"):
        events.lost(tmp_path, [])
