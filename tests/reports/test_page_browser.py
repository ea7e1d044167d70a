"""The sweep page in a real browser: what a reader does with it, that it asks for nothing and has no error."""

import re
from pathlib import Path

import pytest
from contrast import TEXTS, contrast
from helpers import draw_striped
from scipy.stats import binomtest
from sweeps import picture, write_job

from likeness.reports import words
from likeness.reports.page import write_page

HOSTILE = "<script>document.title='broken'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Three heads over two seeds, a fourth with a hostile name, a failed job and a running one."""
    place = tmp_path_factory.mktemp("page")
    for number in range(8):
        draw_striped(place / "photos" / picture(number)[0], 4, number, size=120)
    number = 0
    for head, val in (("dense", 0.60), ("conv", 0.64), ("pca", 0.55)):
        for seed in (0, 1):
            ranks = [1 + (query * (number + 1) % 3 == 1) for query in range(9)]
            options = [f"architecture={head}", f"noise={'none' if head == 'pca' else 'gaussian'}", f"seed={seed}"]
            width = {"dense": 128, "conv": 64, "pca": 32}[head]
            facts = {"ranks": ranks, "pictures": place / "photos", "width": width, "fit": 1.0 + number}
            write_job(place / "sweep", number, options, val=val + 0.01 * seed, test=0.5, **facts)
            number += 1
    write_job(place / "sweep", 6, [f"architecture={HOSTILE}", "noise=none", "seed=0"], val=0.5, ranks=[2] * 9, width=8)
    failed = ["architecture=dense", "noise=masking", "seed=0"]
    write_job(place / "sweep", 7, failed, state="failed", error=HOSTILE, traceback=f"Traceback\n{HOSTILE}")
    write_job(place / "sweep", 8, ["architecture=dense", "noise=masking", "seed=1"], state="running")
    return write_page([place / "sweep"], place / "page.html")


def names(page) -> list[str]:
    """The first cells of the table, from top to bottom, without states."""
    return [text.split("\n")[0].split(" ")[0].rstrip(",") for text in page.locator("#table tbody th").all_inner_texts()]


def test_the_head_says_who_won_and_whether_it_counts(opened):
    page = opened()
    text = page.locator("#overview").inner_text()
    assert "architecture=conv noise=gaussian" in text
    assert "neither the frozen features nor PCA beyond the noise" in text
    assert re.search(r"9\s*\n\s*heads?|jobs\s*\n\s*9", text)
    assert page.title() == "sweep · likeness"
    assert page.locator("#overview .figures dd").count() == 3


def test_a_click_on_a_header_sorts_and_another_turns_round(opened):
    page = opened()
    assert names(page) == ["3", "1", "5", "6", "7", "8"]
    code = page.locator("th", has=page.get_by_role("button", name="code", exact=True))
    code.get_by_role("button").click()
    assert (names(page), code.get_attribute("aria-sort")) == (["6", "5", "3", "1", "7", "8"], "ascending")
    page.keyboard.press("Enter")
    assert (names(page), code.get_attribute("aria-sort")) == (["1", "3", "5", "6", "7", "8"], "descending")
    assert page.locator("[aria-sort]").count() == 1


def test_the_filter_takes_all_words_and_the_chips_a_state(opened):
    page = opened()
    page.get_by_label("Filter").fill("dense gauss")
    assert (names(page), page.locator("#shown").inner_text()) == (["1"], "2 of 9 jobs")
    page.get_by_label("Filter").fill("")
    page.get_by_role("button", name="failed", exact=True).click()
    assert (names(page), page.locator("#shown").inner_text()) == (["7"], "1 of 9 jobs")


def test_a_head_opens_onto_its_seeds(opened):
    page = opened()
    fold = page.locator("#table .fold").first
    assert fold.get_attribute("aria-expanded") == "false"
    fold.focus()
    page.keyboard.press("Enter")
    assert names(page)[:3] == ["3", "3", "2"]
    assert page.locator(":focus").get_attribute("aria-expanded") == "true"
    page.keyboard.press("Enter")
    assert names(page)[:2] == ["3", "1"]


def test_a_failed_job_opens_onto_its_traceback_as_text(opened):
    page = opened()
    summary = page.locator("details.error summary")
    assert summary.inner_text() == HOSTILE
    summary.click()
    assert page.locator("details.error pre").inner_text() == f"Traceback\n{HOSTILE}"
    assert page.locator("img[src=x]").count() == 0


def test_two_heads_are_compared_query_by_query(opened):
    page = opened()
    choices = page.locator("#one option").all_inner_texts()
    page.locator("#one").select_option(index=next(i for i, text in enumerate(choices) if text.startswith("job 0 ")))
    page.locator("#other").select_option(index=next(i for i, text in enumerate(choices) if text.startswith("job 1 ")))
    found = [{query for query in range(9) if query * (job + 1) % 3 != 1} for job in (0, 1)]
    only = [found[0] - found[1], found[1] - found[0]]
    p = words.p_value(binomtest(len(only[0]), len(only[0] | only[1])).pvalue)
    told = page.locator("#difference .card").inner_text()
    assert f"Only A finds {len(only[0])}, only B finds {len(only[1])} of 9 queries on test; McNemar's {p}" in told
    first = page.locator("#difference .queries").first
    assert first.locator(".query").count() == len(only[0])
    asked = first.locator(".query > figure .picture").evaluate_all("all => all.map(each => each.title)")
    assert set(asked) == {picture(query)[0] for query in only[0]}
    assert first.locator(".query").first.locator(".near").count() == 2
    assert first.locator(".query").first.locator(".near .picture").count() == 10
    assert page.locator("#difference .box").count() > 0  # the ninth picture is gone
    assert page.locator("#difference img").first.evaluate("image => image.naturalWidth") == 96
    page.get_by_role("button", name="Swap").click()
    assert f"Only A finds {len(only[1])}" in page.locator("#difference .card").inner_text()


def test_values_at_an_axis_highlight_jobs_everywhere(opened):
    page = opened()
    page.get_by_role("button", name="architecture conv").press("Enter")
    assert names(page) == ["3"]
    assert page.locator("#parallel .line:not(.out)").count() == 2
    assert page.locator("#by-width .point:not(.out)").count() == 2
    page.get_by_role("button", name="Clear the highlight").click()
    assert page.locator("svg .out").count() == 0


def test_arrow_keys_go_from_job_to_job(opened):
    page = opened()
    page.locator("#by-width svg").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text().startswith("job 6 ")
    assert page.locator("#parallel .over").count() == 1
    page.keyboard.press("ArrowLeft")
    assert "architecture=dense" in page.locator("#tip").inner_text()


def test_the_theme_follows_the_system_and_the_button(opened):
    def paper(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page = opened(scheme="dark")
    assert paper(page) == "rgb(18, 22, 27)"
    page.get_by_role("button", name="Dark").click()
    assert paper(page) == "rgb(245, 246, 248)"
    assert paper(opened()) == "rgb(245, 246, 248)"


def test_a_phone_scrolls_down_only(opened):
    page = opened(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_aa(opened, scheme):
    page = opened(scheme=scheme)
    for pair in TEXTS:
        assert contrast(page, *pair) >= 4.5, pair


def test_numbers_read_as_everywhere_else(opened):
    page = opened()
    values = [0.0, 0.0625, 0.0675, 0.5825, 0.5835, 0.0015, 1.0, 0.3333, -0.0625, -0.004, -0.032]
    assert page.evaluate("all => all.map(points)", values) == [words.points(value) for value in values]
    shares = [value for value in values if value >= 0]
    assert page.evaluate("all => all.map(percent)", shares) == [words.percent(value) for value in shares]
    ps = [0.0, 0.00099, 0.001, 0.0123, 0.06, 0.5, 1.0]
    assert page.evaluate("all => all.map(pValue)", ps) == [words.p_value(p) for p in ps]
    counts = [(0, 0), (1, 5), (3, 7), (250, 300), (900, 800)]
    found = page.evaluate("all => all.map(([won, lost]) => mcnemar(won, lost))", counts)
    assert found == pytest.approx([binomtest(a, a + b).pvalue if a + b else 1 for a, b in counts], rel=1e-9)
