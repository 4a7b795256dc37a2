import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.source import Scaling
from fedapp.data.sources.image_folder import ImageFolder


def save(path: Path, colour: Any, mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three red cats and two blue dogs, beside hidden files."""
    root = tmp_path / "images"
    for name in ("a.png", "b.bmp", "C.PNG"):
        save(root / "cat" / name, (200, 0, 0))
    for name in ("a.webp", "b.tiff"):
        save(root / "dog" / name, (0, 0, 100), **({"lossless": True} if name.endswith("webp") else {}))
    (root / ".DS_Store").write_text("hidden")
    (root / "cat" / ".thumbnails").mkdir()
    return root


def failure(source: ImageFolder, path: Path) -> str:
    with pytest.raises(DataError) as raised:
        source.local(path)
    return str(raised.value)


def test_simulation_infers_the_classes(root: Path) -> None:
    source = ImageFolder(str(root), size=5, test_fraction=0.0)
    schema, train = source.schema(), source.pooled().train
    assert schema.classes == ("cat", "dog")
    assert schema.input_shape == (3, 5, 5)
    assert schema.scaling == Scaling("fixed", 0.0, 255.0)
    train.check(schema, "images")
    assert train.inputs.dtype == torch.uint8
    assert train.targets.tolist() == [0, 0, 0, 1, 1]
    assert train.inputs[0].flatten(1).unique(dim=1).tolist() == [[200], [0], [0]]
    assert train.inputs[4].flatten(1).unique(dim=1).tolist() == [[0], [0], [100]]


def test_a_device_may_lack_a_class(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "own" / "dog" / "x.jpg", 77, "L")
    source = ImageFolder(size=4, channels=1, classes=["cat", "dog", "emu"])
    examples = source.local(tmp_path / "own")
    assert examples.targets.tolist() == [1]
    assert examples.inputs.shape == (1, 1, 4, 4)
    assert int(examples.inputs.float().mean().round()) == 77
    assert source.schema().classes == ("cat", "dog", "emu")
    assert source.test() is None


def test_rows_and_columns_are_not_swapped_and_photos_stand_upright(tmp_path: Path) -> None:
    pixels = np.array([[0, 10], [20, 30]], dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn the picture by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png", exif=exif)
    inputs = ImageFolder(size=2, channels=1, classes=["a", "b"]).local(tmp_path).inputs
    assert inputs[:, 0].tolist() == [[[0, 10], [20, 30]], [[20, 0], [30, 10]]]


def test_held_out_images(root: Path, tmp_path: Path) -> None:
    pooled = ImageFolder(str(root), test_fraction=0.4).pooled()
    assert pooled.test is not None
    assert (len(pooled.train), sorted(pooled.test.targets.tolist())) == (3, [0, 1])
    save(tmp_path / "test" / "dog" / "x.png", (0, 0, 1))
    source = ImageFolder(str(root), test_path=str(tmp_path / "test"))
    test = source.test()
    assert test is not None
    assert test.targets.tolist() == [1]
    assert len(source.pooled().train) == 5


def test_missing_folder_and_missing_images(tmp_path: Path) -> None:
    source = ImageFolder(classes=["cat", "dog"])
    assert failure(source, tmp_path / "none") == f"{tmp_path / 'none'}: no such folder"
    assert failure(source, tmp_path).startswith(f"{tmp_path}: no images. They belong in {tmp_path}/<class>/")
    (tmp_path / "cat").mkdir()
    assert failure(source, tmp_path).startswith(f"{tmp_path}: no images")
    save(tmp_path / "cat" / "a.png", 1)
    with pytest.raises(DataError, match=rf"^{tmp_path}: has images of the classes 'cat'; two or more are needed"):
        ImageFolder(str(tmp_path)).schema()


def test_unknown_class_folder(root: Path) -> None:
    told = failure(ImageFolder(classes=["cat", "cow"]), root)
    assert told.startswith(f"{root / 'dog'}: no known class; known: 'cat', 'cow'.")


@pytest.mark.parametrize("name", ["stray.png", "cat/notes.txt", "cat/more/x.png"])
def test_stray_files(root: Path, name: str) -> None:
    stray = root / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("x")
    told = failure(ImageFolder(classes=["cat", "dog"]), root)
    assert told.startswith(f"{stray.parent if 'more' in name else stray}: ")


def test_broken_and_clipped_images(root: Path) -> None:
    source, broken = ImageFolder(classes=["cat", "dog"]), root / "cat" / "broken.png"
    broken.write_bytes((root / "cat" / "a.png").read_bytes()[:40])
    assert failure(source, root).startswith(f"{broken}: cannot be used as an image: ")
    broken.write_text("no image at all")
    assert failure(source, root).startswith(f"{broken}: cannot be used as an image: ")
    Image.new("F", (4, 4), 0.5).save(broken, "TIFF")
    assert "Set data.grey_range=[LOW,HIGH]" in failure(source, root)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"size": 0}, "data.size=0: the side of the images in pixels, at least 1"),
        ({"channels": 4}, "data.channels=4: must be one of 1, 3"),
        ({"classes": ["cat"]}, "data.classes=['cat']: needs 2 or more"),
        ({"test_fraction": -1.0}, "data.test_fraction=-1.0: must be at least 0"),
    ],
)
def test_impossible_settings(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}"):
        ImageFolder(**fields)


def test_settings_for_a_simulation_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"^data\.classes: must be set where data\.path is not.* nobody sees all"):
        ImageFolder().schema()
    with pytest.raises(ConfigError, match=r"^data\.path=null: a simulation needs all images"):
        ImageFolder(classes=["cat", "dog"]).pooled()


def test_folders_that_are_sites_are_recognised(tmp_path: Path) -> None:
    for site in "ab":
        for name in ("cat", "dog"):
            (tmp_path / site / name).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / site / name / "1.png")
    with pytest.raises(DataError, match=r"no image\. .* are sites, set data.layout='\{site\}/\{class\}/\*'"):
        ImageFolder(path=str(tmp_path)).pooled()
    assert len(ImageFolder(path=str(tmp_path), layout="{site}/{class}/*", test_fraction=0).pooled().train) == 4
