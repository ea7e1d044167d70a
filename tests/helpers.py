"""Where things lie, a picture that any test can draw, and the ``likeness`` command within a test."""

import io
import signal
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from likeness import app

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def draw_striped(path: Path, period: int, seed: int, size: int = 32) -> None:
    """A picture whose class is the period of its stripes; phase, colours and noise are chance."""
    rng = np.random.default_rng([period, seed])
    wave = np.sin(2 * np.pi * (np.arange(size) / period + rng.random()))[None, :, None]
    pixels = 127 + 60 * wave * rng.uniform(0.5, 1, 3) + rng.normal(0, 15, (size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def called(*words: object) -> SimpleNamespace:
    """What the command does in this process: exit code, stdout and stderr."""
    code, out, err = 0, io.StringIO(), io.StringIO()
    terminated = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("HYDRA_FULL_ERROR", "1")
        try:
            app.main([str(word) for word in words])
        except SystemExit as left:
            code = left.code
        finally:
            signal.signal(signal.SIGTERM, terminated)
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())
