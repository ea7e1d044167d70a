"""``python small_page.py PLACE``: likeness serve over an index in memory, and beside it a page over two.

Six homes of three rooms; from home to home the rooms are greener. The code is the mean colour about grey.
"""

import sys
import threading
from pathlib import Path

from PIL import Image
from serving.fake_finder import FakeFinder, jpeg

from likeness import app
from likeness.finding import Finder
from likeness.serving.server import listening, server

HOSTILE = "<img src=x onerror=alert(1)>${alert(2)}{{value}}\"'"
COLOURS = {"kitchen": (220, 60, 60), "bathroom": (60, 60, 220), HOSTILE: (220, 220, 60)}
THRESHOLD = 0.8


def draw(path: Path, colour: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (320, 240), colour).save(path)
    return path


def finder(place: Path, title: str, threshold: float | None = None, dark: int = 0) -> FakeFinder:
    """An index of 18 pictures, which it draws.

    Args:
        dark: Taken from the red of every code, home by home, so that another order comes of it.
    """
    rows, codes = [], []
    for home in range(6):
        for number, (label, (red, green, blue)) in enumerate(COLOURS.items()):
            colour = (red, green + 12 * home, blue)
            path = draw(place / "photos" / f"{number}-home{home}.png", colour)
            rows.append((label, f"home{home}", str(path), jpeg(Image.open(path))))
            codes.append([value - 127.5 for value in (colour[0] - dark * home, *colour[1:])])
    return FakeFinder(title, rows, codes, threshold=threshold)


def main(place: Path) -> None:
    one, two = finder(place, "head <b>", THRESHOLD), finder(place, "frozen", dark=15)
    ear = listening("127.0.0.1", 0)
    (place / "two").write_text(f"http://127.0.0.1:{ear.getsockname()[1]}")
    beside = server([one, two], place / "tmp", "127.0.0.1")
    thread = threading.Thread(target=beside.run, kwargs={"sockets": [ear]})
    thread.start()
    Finder.open = lambda folder: one
    app.main(["serve", "--index", "one", "--port", "0", "--no-browser"])
    beside.should_exit = True
    thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
