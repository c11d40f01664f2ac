"""Small TIFF files of every kind, and what Pillow makes of them: `NAME.rgb` is `convert("RGB")`, row by row.

Needs pillow 13, numpy and tifffile with imagecodecs.
"""

import struct
import warnings

import numpy as np
import tifffile
from PIL import Image

warnings.simplefilter("ignore")
H, W = 9, 13
rng = np.random.default_rng(5)
y, x = np.mgrid[0:H, 0:W]
rgb = np.stack([x * 19, y * 27, x * 7 + y * 11], -1).astype(np.uint8)
grey = rgb[..., 0]
real = grey.astype(np.float32) * 2.37 - 100.5
real[0, :4] = [np.nan, np.inf, -np.inf, 1e30]
colours = rng.integers(0, 65536, (3, 256)).astype(np.uint16)
four = np.concatenate([rgb, grey[..., None]], -1)


def write(name, numbers, photometric="minisblack", **more):
    tifffile.imwrite(name + ".tif", numbers, photometric=photometric, metadata=None, software=False, **more)


def patched(name, tag, value):
    """The file with a tag's short in place of its own."""
    data = open(name + ".tif", "rb").read()
    at = data.index(struct.pack("<HHI", tag, 3, 1))
    open(name + ".tif", "wb").write(data[: at + 8] + struct.pack("<H", value) + data[at + 10 :])


write("float32", real)
write("float32-white", real, "miniswhite")
write("float32-big-endian", real, byteorder=">")
write("float32-predicted", real, compression="deflate", predictor=3)
write("bits1-white", grey > 100, "miniswhite")
write("bits2-white", grey >> 6, "miniswhite", bitspersample=2)
write("bits4", grey >> 4, bitspersample=4)
write("palette8", grey, "palette", colormap=colours)
write("palette8-lzw", grey, "palette", colormap=colours, compression="lzw")
write("palette8-tiles", grey, "palette", colormap=colours, tile=(16, 16))
for bits in (1, 2, 4):
    name = f"palette{bits}"
    table = colours[:, : 2**bits].ravel()
    extra = [(320, "H", len(table), tuple(int(v) for v in table), True)]
    write(name, (grey >> (8 - bits)).astype(bool if bits == 1 else np.uint8), bitspersample=bits, extratags=extra)
    patched(name, 262, 3)
write("ycbcr", rgb, "ycbcr")
write("ycbcr-lzw", rgb, "ycbcr", compression="lzw")
write("ycbcr-jpeg", rgb, "ycbcr", compression="jpeg", subsampling=(2, 2))
Image.fromarray(rgb).convert("YCbCr").save("ycbcr-by-pillow.tif")
write("cmyk", four, "separated")
write("cmyk16", four.astype(np.uint16) * 257, "separated")
write("rgb16-planes", np.moveaxis(rgb.astype(np.uint16) * 257, -1, 0), "rgb", planarconfig="separate")
write("rgb-planes-lzw", np.moveaxis(rgb, -1, 0), "rgb", planarconfig="separate", compression="lzw", predictor=2)
write("rgb-associated-alpha", four, "rgb", extrasamples=["assocalpha"])
write("rgb-alpha", four, "rgb", extrasamples=["unassalpha"])
write("big", rgb, "rgb", bigtiff=True)
write("palette-big", grey, "palette", colormap=colours, bigtiff=True)
Image.fromarray(rgb).quantize(9).convert("PA").save("palette-alpha.tif")
write("grey-alpha", four[..., :2], extrasamples=["unassalpha"], planarconfig="contig")
Image.fromarray(rgb).save("oriented.tif", tiffinfo={274: 6})
# Refused, by Pillow too or because they would need more than a cut.
write("int32", grey.astype(np.int32) * 3 - 100)
write("int16", grey.astype(np.int16) * 3 - 100)
write("float64", real.astype(np.float64))
write("float32-rgb", rgb.astype(np.float32) / 255, "rgb")
write("int8", (grey.astype(np.int16) - 100).astype(np.int8))
write("lab", rgb, "cielab")

import glob

for file in sorted(glob.glob("*.tif")):
    name = file[:-4]
    if name in ("int32", "int16", "float64", "float32-rgb", "int8", "lab"):
        continue
    if name == "rgb16-planes":
        # Pillow mixes the bytes of such planes up.
        open(name + ".rgb", "wb").write(rgb.tobytes())
        continue
    picture = Image.open(file)
    picture.load()
    open(name + ".rgb", "wb").write(np.asarray(picture.convert("RGB")).tobytes())
