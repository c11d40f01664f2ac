"""Makes the reference files of this folder with Pillow.

    python make.py        # needs numpy and pillow below 13, which filters rows before columns whatever the sizes

`source.png` is resized to `<filter>-<width>x<height>.png`. Every other picture has its `Image.convert("RGB")`, turned
upright, beside it as `<name>.rgb.png`; `ycck.jpg` is a CMYK file whose planes are YCCK and whose Adobe marker says so.
"""

import pathlib

import numpy as np
from PIL import Image, ImageOps

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(7)


def scene(height, width, channels):
    """Smooth colours with an edge: JPEG keeps them, and every orientation and channel is told apart."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [0.5 + 0.45 * np.sin(3.1 * x * (c + 1) + 2.3 * y * (3 - c) + c) for c in range(channels)]
    picture = np.stack(planes, -1)
    picture[: height // 3, : width // 4] *= 0.3
    return (picture * 255).round().astype(np.uint8)


def keep(name, reference=None, **options):
    path = here / name
    if reference is None:
        with Image.open(path) as opened:
            reference = ImageOps.exif_transpose(opened).convert("RGB")
    reference.save(here / (name.rsplit(".", 1)[0] + ".rgb.png"), optimize=True)


source = rng.integers(0, 256, (19, 23, 3), dtype=np.uint8)
source[5:12, 4:9] = 255
source[8:15, 12:20] = 0
source = Image.fromarray(source)
source.save(here / "source.png", optimize=True)
filters = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
for name, method in filters.items():
    for size in [(7, 5), (11, 19), (41, 37), (23, 8), (50, 11)]:
        source.resize(size, method).save(here / f"{name}-{size[0]}x{size[1]}.png", optimize=True)

colours = Image.fromarray(scene(29, 37, 3))
colours.save(here / "baseline.jpg", quality=92, subsampling="4:4:4")
colours.save(here / "subsampled.jpg", quality=92, subsampling="4:2:0")
colours.save(here / "progressive.jpg", quality=92, progressive=True)
colours.convert("L").save(here / "grey.jpg", quality=92)
exif = Image.Exif()
exif[0x0112] = 6
colours.save(here / "turned.jpg", quality=92, subsampling="4:4:4", exif=exif)
cmyk = Image.fromarray(scene(29, 37, 4), mode="CMYK")
cmyk.save(here / "cmyk.jpg", quality=95, subsampling="4:4:4")
for name in ["baseline", "subsampled", "progressive", "grey", "turned", "cmyk"]:
    keep(name + ".jpg")

c, m, yellow, k = [np.asarray(p).astype(int) for p in cmyk.split()]
# Pillow inverts what it writes as CMYK, so that these planes reach the file as the YCC of the inks, and 255 - K.
inks = Image.fromarray(np.stack([c, m, yellow], -1).astype(np.uint8)).convert("YCbCr")
planes = [255 - np.asarray(p) for p in inks.split()] + [k.astype(np.uint8)]
Image.merge("CMYK", [Image.fromarray(p) for p in planes]).save(here / "ycck.jpg", quality=95, subsampling="4:4:4")
data = (here / "ycck.jpg").read_bytes()
marker = data.index(b"Adobe")
data = data[: marker + 11] + b"\x02" + data[marker + 12 :]
(here / "ycck.jpg").write_bytes(data)
keep("ycck.jpg")

colours.quantize(13).save(here / "palette.png")
keep("palette.png")
colours.convert("1").save(here / "one-bit.png")
keep("one-bit.png")
alpha = scene(29, 37, 4)
Image.fromarray(alpha, mode="RGBA").save(here / "alpha.png")
keep("alpha.png", Image.fromarray(alpha[..., :3]))
Image.fromarray(alpha[..., :2].copy(), mode="LA").save(here / "grey-alpha.png")
keep("grey-alpha.png")
wide = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
Image.fromarray(wide).save(here / "sixteen-bit.png")
keep("sixteen-bit.png", Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB"))
