"""What both scripts share: pictures, the bound of a net, `expected.json`."""
import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent
DRAWS = 4


def uniform(name, n):
    """`n` numbers in [-1, 1) of 24 bits: SplitMix64, its state the FNV-1a hash of the name, as in tests/drawn."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def picture(shape, levels=False):
    """Numbers in [-1.5, 1.5), or whole numbers from 0 to 255."""
    u = uniform("input", int(np.prod(shape)))
    return (np.floor((u + 1) * 128) if levels else 1.5 * u).astype(np.float32).reshape(shape)


def apart(found, wanted):
    """The largest difference over the largest number."""
    found, wanted = np.asarray(found).ravel(), np.asarray(wanted).ravel()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def record(net, entry, gradient):
    """Puts the net into `expected.json`, its gradient, rounded to single precision at last, into `NET.npy`."""
    np.save(FOLDER / f"{net}.npy", np.asarray(gradient, np.float32))
    path = FOLDER / "expected.json"
    nets = json.loads(path.read_text()) if path.exists() else {}
    nets[net] = entry
    path.write_text(json.dumps(dict(sorted(nets.items())), indent=1) + "\n")
