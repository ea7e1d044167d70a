"""The page in a real browser: what a reader does with it, and that nothing leaves the machine."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faults.pictures import corpus
from serving.small_page import HOSTILE, draw

RED, GREEN = (220, 60, 60), (60, 250, 60)


@pytest.fixture
def opened(browser, pages) -> Iterator:
    """Opens a page; at the end no other machine was asked for anything, and there was no word in the console."""
    heard, contexts = [], []

    def forbid(route):
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            heard.append(route.request.url)
            route.abort()

    def open_page(name: str = "one", width: int = 1280):
        context = browser.new_context(viewport={"width": width, "height": 844}, has_touch=width < 600)
        contexts.append(context)
        context.route("**/*", forbid)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("requestfailed", lambda request: heard.append(request.url) if "thumbnails" in request.url else None)
        page.goto(getattr(pages, name))
        page.locator("#found .start .match").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


def upload(page, *files: Path) -> None:
    page.locator(".drop input").set_input_files([str(file) for file in files])


def asked(page, told: str) -> None:
    page.locator("#found h2", has_text=told).wait_for()


def homes(page, side: int = 0) -> list[str]:
    """``label home`` of every match on show, in order."""
    return [
        re.sub(r"^[−\d.]+\s+", "", " ".join(text.split()))
        for text in page.locator(f"#found .side:nth-child({side + 1}) .words").all_inner_texts()
    ]


@pytest.fixture
def red(tmp_path) -> Path:
    return draw(tmp_path / "red.png", RED)


def test_a_photo_finds_what_is_like_it(opened, red, pages):
    page = opened()
    upload(page, red)
    asked(page, "Pictures like this photo")
    assert homes(page)[:3] == ["kitchen home0", "kitchen home1", "kitchen home2"]
    assert len(homes(page)) == 12
    assert (
        page.locator("#found .verdict").inner_text()
        == "12 of 18 pictures · nearest 1.00 on average · a match from 0.80"
    )
    assert page.locator("#found .timings").inner_text() == "decode 3 · forward 41 · head 0.31 · search 0.62 ms"
    assert page.locator("#found .query p").inner_text() == "red.png"
    assert page.locator("#found .grid img").first.evaluate("image => image.naturalWidth") == 256
    assert [path for path in pages.tmp.rglob("*") if path.is_file()] == []


def test_a_result_is_searched_on_from_and_back_goes_back(opened, red):
    page = opened()
    upload(page, red)
    asked(page, "Pictures like this photo")
    page.locator("#found .match").nth(1).click()
    asked(page, "Pictures like this picture")
    assert page.locator("#found .query p").inner_text() == "kitchen of home1"
    assert sorted(homes(page)[:2]) == ["kitchen home0", "kitchen home2"]
    page.get_by_role("button", name="Back").click()
    asked(page, "Pictures like this photo")
    page.get_by_role("button", name="Back").click()
    page.locator("#found .start").wait_for()
    assert page.locator("#found .match").count() == 18


def test_kinds_are_filtered_and_the_slider_says_how_many(opened, red):
    page = opened()
    upload(page, red)
    asked(page, "Pictures like this photo")
    page.get_by_role("checkbox", name="kitchen").check()
    page.locator("#found .match").nth(6).wait_for(state="detached")
    assert homes(page) == [f"kitchen home{home}" for home in range(6)]
    page.get_by_role("checkbox", name="kitchen").uncheck()
    page.locator("#found .match").nth(11).wait_for()
    slider = page.locator("#controls input[type=range]")
    slider.focus()
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    page.locator("#found .match").nth(3).wait_for(state="detached")
    assert homes(page) == ["kitchen home0", "kitchen home1", "kitchen home2"]


def test_no_match_is_said_and_the_nearest_are_shown_only_when_asked_for(opened, tmp_path):
    page = opened()
    upload(page, draw(tmp_path / "green.png", GREEN))
    asked(page, "Pictures like this photo")
    told = page.locator("#found .verdict").inner_text()
    assert told.startswith("No room like this in the index.")
    assert re.search(r"nearest −?0\.\d\d on average · a match from 0\.80", told)
    assert not page.locator("#found .match").first.is_visible()
    page.get_by_text("Show the nearest anyway").press("Enter")
    assert page.locator("#found .match").first.is_visible()
    assert float(page.locator("#found .dimmed ol").evaluate("list => getComputedStyle(list).opacity")) < 1


def test_photos_of_a_home_find_homes(opened, red, tmp_path):
    page = opened()
    upload(page, red)
    asked(page, "Pictures like this photo")
    page.locator(".more input").set_input_files(str(draw(tmp_path / "orange.png", (220, 90, 60))))
    asked(page, "Pictures like this home")
    assert page.locator("#found .asked img").count() == 2
    page.get_by_role("radio", name="homes").check()
    asked(page, "Homes like this home")
    assert page.locator("#found h4 b").all_inner_texts() == [f"home{home}" for home in range(6)]
    assert page.locator("#found .homes > li").first.locator(".match").count() == 3


def test_two_indexes_answer_side_by_side_and_what_one_alone_shows_is_marked(opened, red):
    page = opened("two")
    upload(page, red)
    asked(page, "Pictures like this photo")
    assert page.locator("#found h3").all_inner_texts() == ["head <b>", "frozen"]
    page.locator("#controls input[type=number]").fill("4")
    page.keyboard.press("Enter")
    page.locator("#found .side").first.locator(".match").nth(4).wait_for(state="detached")
    one, two = (set(homes(page, side)) for side in (0, 1))
    marked = [page.locator("#found .side").nth(side).locator("li.only .words").all_inner_texts() for side in (0, 1)]
    assert [len(texts) for texts in marked] == [len(one - two), len(two - one)]
    page.locator("#found .side").nth(1).locator(".match").first.click()
    asked(page, "Pictures like this picture")
    assert len(homes(page, 0)) == len(homes(page, 1)) == 4


def test_files_that_are_no_pictures_are_named_and_the_page_goes_on(opened, red, tmp_path, pages):
    page = opened()
    by_name = {picture.name: picture for picture in corpus()}
    for name, code in (("404.jpg", "IMG-NOT-IMAGE"), ("50000x50000.png", "IMG-TOO-LARGE"), ("eps.jpg", "IMG-FORMAT")):
        bad = tmp_path / name
        bad.write_bytes(by_name[name].data)
        upload(page, bad)
        page.locator("#told li", has_text=f"{name}: [{code}]").wait_for()
    assert page.locator("#told b").inner_text() == "This photo cannot be used."
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(20_000_001))
    upload(page, large)
    page.locator("#told li", has_text="large.jpg: [IMG-TOO-LARGE] 20,000,001 bytes, limit 20,000,000").wait_for()
    upload(page, bad, red)
    asked(page, "Pictures like this photo")
    assert page.locator("#told b").inner_text() == "1 of 2 photos cannot be used."
    upload(page, red)
    page.locator("#told .refusal").wait_for(state="detached")
    assert [path for path in pages.tmp.rglob("*") if path.is_file()] == []


def test_a_phone_scrolls_down_only_and_reaches_everything(opened, red):
    page = opened(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    upload(page, red)
    asked(page, "Pictures like this photo")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.wait_for_function("document.querySelector('#found h2').getBoundingClientRect().top < innerHeight / 2")
    page.locator("#found .match").nth(2).tap()
    asked(page, "Pictures like this picture")
    page.get_by_role("checkbox", name="kitchen").tap()
    page.locator("#found .words", has_text="bathroom").first.wait_for(state="detached")


def test_the_keyboard_is_enough(opened, red):
    page = opened()
    with page.expect_file_chooser() as chooser:
        page.locator(".drop input").press("Enter")
    chooser.value.set_files(str(red))
    asked(page, "Pictures like this photo")
    page.wait_for_function("document.activeElement.matches('#found h2')")
    page.keyboard.press("Tab")
    assert page.locator(":focus").get_attribute("name") == "more"
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "← Back"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    told = page.locator(":focus").get_attribute("aria-label")
    assert told == "Search for pictures like kitchen of home1, similarity 1.00"
    page.keyboard.press("Enter")
    asked(page, "Pictures like this picture")
    assert page.locator("#found .query p").inner_text() == "kitchen of home1"


def test_names_from_files_are_text(opened, pages):
    page = opened()
    page.locator("#found .match", has_text="onerror").first.click()
    asked(page, "Pictures like this picture")
    assert page.locator("#found .query p").inner_text().startswith(f"{HOSTILE} of home")
    assert page.locator("#head b").inner_text() == "head <b>"
    assert page.locator("img[src=x]").count() == 0
