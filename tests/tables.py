"""Good and bad data in a folder, for what checks files."""

from pathlib import Path

__all__ = ["CSV", "make_place"]

CSV = "data=csv data.label=outcome model=mlp data.path="
TABLE = "age,hospital,outcome\n" + "".join(f"{20 + i},h{i % 3},{'ill' if i % 2 else 'well'}\n" for i in range(60))


def make_place(tmp_path: Path) -> Path:
    (tmp_path / "good.csv").write_text(TABLE)
    (tmp_path / "nan.csv").write_text(TABLE.replace("\n25,", "\n,"))
    (tmp_path / "text.csv").write_text(TABLE.replace("\n25,", "\nyoung,"))
    images = tmp_path / "images" / "a"
    images.mkdir(parents=True)
    (tmp_path / "images" / "b").mkdir()
    for image in (images / "broken.png", tmp_path / "images" / "b" / "broken.png"):
        image.write_bytes(b"not an image")
    (tmp_path / "file").write_text("")
    return tmp_path
