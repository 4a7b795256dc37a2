"""What EventWriter writes, TensorBoard reads."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedapp.report.tensorboard import EventWriter


def read_back(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar under `path`, as (step, value) by tag."""
    events = EventAccumulator(str(path))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_by_round(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        writer.add_round({"round": 0, "test_accuracy": 0.25, "test_loss": None})
        writer.add_round({"round": 1, "test_accuracy": 0.5, "seconds": 2.0, "seconds_clients": 1.5, "cohort": 10})
        writer.add_round({"round": 2, "val_accuracy_mean": 0.75, "train_loss": 1.25, "bytes_up": 4096, "note": "text"})
    assert read_back(tmp_path) == {
        "test/accuracy": [(0, 0.25), (1, 0.5)],
        "seconds/total": [(1, 2.0)],
        "seconds/clients": [(1, 1.5)],
        "clients/cohort": [(1, 10.0)],
        "val/accuracy_mean": [(2, 0.75)],
        "train/loss": [(2, 1.25)],
        "bytes/up": [(2, 4096.0)],
    }


def test_a_round_is_on_disk_before_the_next(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path)
    writer.add_round({"round": 1, "train_loss": 0.5})
    assert read_back(tmp_path) == {"train/loss": [(1, 0.5)]}  # as a killed run leaves it
    writer.close()


def test_resuming_replaces_later_rounds(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as writer:
        for index in (1, 2, 3):
            writer.add_round({"round": index, "train_loss": float(index)})
    with EventWriter(tmp_path, resume_at=3) as writer:
        writer.add_round({"round": 3, "train_loss": 0.5})
    assert read_back(tmp_path) == {"train/loss": [(1, 1.0), (2, 2.0), (3, 0.5)]}
