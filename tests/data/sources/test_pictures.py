"""Pictures as people have them: transparent, of 16 bits, damaged, beside leavings, in other formats and other trees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fedapp.common.errors import ConfigError, DataError
from fedapp.config import compose
from fedapp.data.sources.image_folder import ImageFolder
from fedapp.data.sources.npz import Npz
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards


def save(path: Path, colour: Any = (9, 9, 9), mode: str = "RGB", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 4), colour).save(path, **options)
    return path


def local(root: Path, channels: int = 1, **fields: Any) -> torch.Tensor:
    return ImageFolder(size=4, channels=channels, classes=["a", "b"], **fields).local(root).inputs


@pytest.mark.parametrize(
    ("mode", "colour", "shown"),
    [
        ("RGBA", (200, 0, 0, 0), [255, 255, 255]),  # its hidden colour is red
        ("RGBA", (200, 0, 0, 255), [200, 0, 0]),
        ("LA", (7, 0), [255, 255, 255]),
        ("RGBA", (0, 0, 0, 128), [127, 127, 127]),
    ],
)
def test_what_is_transparent_is_white(tmp_path: Path, mode: str, colour: Any, shown: list[int]) -> None:
    save(tmp_path / "a" / "x.png", colour, mode)
    assert local(tmp_path, 3)[0, :, 0, 0].tolist() == shown


def test_a_transparent_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "x.png", transparency=1)
    image.save(tmp_path / "a" / "y.gif")
    assert local(tmp_path, 3)[:, :, 0, 0].tolist() == [[255, 255, 255], [200, 0, 0]]


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize(
    ("grey", "grey_range", "shown"),
    [
        (65535, None, 255),
        (32768, None, 128),
        (0, None, 0),
        (4095, [0, 4095], 255),
        (1000, [1000, 2000], 0),
        (9000, [0, 4000], 255),
    ],
)
def test_sixteen_bits_of_grey(tmp_path: Path, name: str, grey: int, grey_range: list[float] | None, shown: int) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), grey, dtype=np.uint16)).save(tmp_path / "a" / name)
    assert local(tmp_path, grey_range=grey_range)[0, 0, 0, 0] == shown


def test_dark_images_of_sixteen_bits_are_warned_of(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 4), 4000, dtype=np.uint16)).save(tmp_path / name / "x.png")
    told = ImageFolder(str(tmp_path), test_fraction=0.0).findings().warnings
    assert len(told) == 1
    assert told[0].endswith("set data.grey_range=[0,4000]")
    assert ImageFolder(str(tmp_path), test_fraction=0.0, grey_range=[0, 4000]).findings().warnings == ()


@pytest.mark.parametrize("ending", ["gif", "jp2", "j2k"])
def test_other_formats(tmp_path: Path, ending: str) -> None:
    save(tmp_path / "a" / f"x.{ending}", 77, "L")
    assert local(tmp_path)[0, 0, 0, 0] == 77


def broken(root: Path) -> Path:
    for name in "ab":
        for i in range(5):
            save(root / name / f"{i}.png")
    path = root / "a" / "2.png"
    path.write_bytes(path.read_bytes()[:30])
    return path


def test_a_damaged_file_is_named_or_left_out_and_counted(tmp_path: Path) -> None:
    path = broken(tmp_path)
    with pytest.raises(DataError, match=rf"^{path}: cannot be used as an image.*data\.unreadable=skip"):
        ImageFolder(str(tmp_path), test_fraction=0.0).pooled()
    source = ImageFolder(str(tmp_path), test_fraction=0.0, unreadable="skip")
    assert source.pooled().train.targets.tolist() == [0] * 4 + [1] * 5
    assert source.findings().warnings[0].startswith(f"1 of 10 images cannot be read and are left out: {path}")


def test_a_device_leaves_it_out_and_logs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = broken(tmp_path)
    assert len(local(tmp_path, unreadable="skip")) == 9
    assert f"1 of 10 images are left out: {path}" in caplog.text
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 10 images can be read"):
        local(tmp_path, unreadable="skip")


def test_leavings_are_passed_over_and_an_empty_folder_is_no_class(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / name / "x.png")
        for leaving in ("Thumbs.db", "desktop.ini", "._x.png", "x.png~", "~$x.png"):
            (tmp_path / name / leaving).write_bytes(b"\0")
    save(tmp_path / "__MACOSX" / "a" / "x.png")
    (tmp_path / "c").mkdir()
    source = ImageFolder(str(tmp_path), test_fraction=0.0)
    assert source.schema().classes == ("a", "b")
    assert len(source.pooled().train) == 2
    assert source.findings().warnings == (f"'{tmp_path / 'c'}': holds no image, and is no class by itself",)


TREES = {
    "{site}/{class}/*": "{site}/{label}/{i}.png",
    "{class}/{site}_*": "{label}/{site}_{i}.png",
    "{site}-{class}-*": "{site}-{label}-{i}.png",
    "{class}/{site}/*": "{label}/{site}/{i}.png",
}


@pytest.mark.parametrize("layout", TREES)
def test_sites_are_clients_wherever_their_name_stands(tmp_path: Path, layout: str) -> None:
    for number, site in enumerate(("north", "south", "west")):
        for label in "ab":
            for i in range(4):
                save(tmp_path / TREES[layout].format(site=site, label=label, i=i), (number * 20, 0, 0))
    overrides = [
        "data=image_folder",
        f"data.path={tmp_path}",
        f"data.layout={layout}",
        "model=mlp",
        "data.size=4",
        "data.test_fraction=0",
    ]
    config = compose(
        [*overrides, "data.group=site", "partition=natural", "federation.num_clients=3", "train.val_fraction=0.5"]
    )
    parts = build_parts(config)
    shards = build_shards(config, parts)
    for client in range(3):
        data = shards.of(client)
        assert {int(value) for value in data.train.inputs[:, 0, 0, 0]} == {client * 20}
        assert len(data.train) == len(data.validation) == 4
    assert "sites       3: 'north', 'south', 'west'" in "\n".join(parts.source.findings().facts)
    if layout.startswith("{site}/"):  # a device has its own folder of them
        assert (
            ImageFolder(size=4, classes=["a", "b"], layout=layout).local(tmp_path / "south").targets.tolist()
            == [0] * 4 + [1] * 4
        )


@pytest.mark.parametrize(
    ("layout", "name"), [("{class}/{group}/*", "{}/{}/{}.png"), ("{class}/{group}_*", "{}/{}_{}.png")]
)
def test_images_of_one_patient_stay_together(tmp_path: Path, layout: str, name: str) -> None:
    for patient in range(12):
        for i in range(5):
            save(tmp_path / name.format("ab"[patient % 2], f"p{patient}", i), (patient * 10, 0, 0))
    overrides = [
        "data=image_folder",
        f"data.path={tmp_path}",
        f"data.layout={layout}",
        "model=mlp",
        "model=mlp",
        "data.size=4",
        "partition=iid",
    ]
    config = compose([*overrides, "federation.num_clients=3", "train.val_fraction=0.34"])
    parts = build_parts(config)
    shards = build_shards(config, parts)
    sides = [parts.source.test().inputs]  # type: ignore[union-attr]
    for client in range(3):
        sides += [shards.of(client).train.inputs, shards.of(client).validation.inputs]
    patients = [{int(value) for value in side[:, 0, 0, 0]} for side in sides]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 12


@pytest.mark.parametrize(
    "layout", ["*/*", "{class}/{class}", "{class}/{patient}", "{class}//*", "/{class}/*", "{class}/*a*b*c*"]
)
def test_a_layout_must_say_what_it_means(layout: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.layout="):
        ImageFolder(layout=layout)


def test_a_file_that_does_not_fit_the_layout_is_named(tmp_path: Path) -> None:
    stray = save(tmp_path / "a" / "nobody.png")
    with pytest.raises(DataError, match=rf"^{stray}: its name does not fit '{{group}}_\*'"):
        local(tmp_path, layout="{class}/{group}_*")


def test_dicom(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")

    def write(path: Path, pixels: Any, **more: Any) -> None:
        path.parent.mkdir(exist_ok=True)
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
        found = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        found.Rows, found.Columns = pixels.shape
        found.SamplesPerPixel, found.BitsAllocated, found.BitsStored, found.HighBit = 1, 16, 12, 11
        found.PixelRepresentation, found.PhotometricInterpretation = 0, "MONOCHROME2"
        found.PixelData = pixels.astype("<u2").tobytes()
        for name, value in more.items():
            setattr(found, name, value)
        found.save_as(path, enforce_file_format=True)

    grey = np.full((4, 4), 2048)
    write(tmp_path / "a" / "1.dcm", grey)
    write(tmp_path / "a" / "2.dcm", grey, PhotometricInterpretation="MONOCHROME1")
    write(tmp_path / "a" / "3.dcm", grey, WindowCenter=1024, WindowWidth=2048)
    write(
        tmp_path / "a" / "4.dcm",
        grey,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=[1024, 1],
        WindowWidth=[2048, 2],
    )
    write(tmp_path / "a" / "5", grey)  # as many lie there: without an ending
    assert local(tmp_path)[:, 0, 0, 0].tolist() == [128, 127, 255, 128, 128]
    assert local(tmp_path, grey_range=[0, 2048])[0, 0, 0, 0] == 255


def arrays(folder: Path, **more: Any) -> Path:
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    labels = np.arange(12)[:, None] % 3
    content = {
        "train_images": images[:6],
        "train_labels": labels[:6],
        "val_images": images[6:9],
        "val_labels": labels[6:9],
    }
    content |= {"test_images": images[9:], "test_labels": labels[9:]}
    np.savez(folder / "x.npz", **{name: value for name, value in (content | more).items() if value is not None})
    return folder / "x.npz"


def test_medmnist(tmp_path: Path) -> None:
    source = Npz(str(arrays(tmp_path)), size=4)
    pooled = source.pooled()
    assert source.schema().classes == ("0", "1", "2")
    assert pooled.train.inputs[:, 0, 0, 0].tolist() == list(range(9))
    assert pooled.test is not None
    assert pooled.test.targets.tolist() == [0, 1, 2]
    device = Npz(classes=["u", "v", "w"], size=4).local(tmp_path / "x.npz")
    assert device.inputs.equal(pooled.train.inputs)
    assert device.targets.equal(pooled.train.targets)


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"train_labels": np.zeros((6, 2), dtype=int)}, ["train_labels", "one whole number"]),
        ({"train_labels": np.zeros((5, 1), dtype=int)}, ["6 train_images, but 5 train_labels"]),
        ({"train_images": np.zeros((6, 4, 4))}, ["train_images", "float64", "uint8"]),
        ({"train_images": None, "val_images": None}, ["no train_images"]),
        ({"train_images": np.array([{}] * 6)}, ["cannot be read as .npz"]),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, more: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(DataError) as raised:
        Npz(str(arrays(tmp_path, **more)), classes=["0", "1", "2"]).pooled()
    assert [part for part in ["x.npz", *parts] if part not in str(raised.value)] == [], str(raised.value)


def test_numbers_that_may_count_from_one_are_refused_here_too(tmp_path: Path) -> None:
    path = arrays(tmp_path, train_labels=np.array([1, 2, 1, 2, 1, 2]), val_images=None, test_images=None)
    with pytest.raises(DataError, match="never 0"):
        Npz(str(path), classes=["u", "v", "w"]).pooled()
    assert Npz(str(path), test_fraction=0.0).pooled().train.targets.tolist() == [0, 1, 0, 1, 0, 1]
