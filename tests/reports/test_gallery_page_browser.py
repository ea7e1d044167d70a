"""The gallery page in a real browser: what a reader does with it, that it asks for nothing and has no error."""

from pathlib import Path

import pytest
from answers import query, write_run
from contrast import TEXTS, contrast
from helpers import draw_striped

from likeness.reports.gallery_page import write_gallery

HOSTILE = "<script>document.title='broken'</script><img src=x onerror=alert(1)>"
CLASSES = ("bath", "bed", "kitchen")
SHIFTS = """() => new Promise(done => {
  new PerformanceObserver(list => done(list.getEntries().length)).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(0), 300);
})"""


def rows_of(number: int) -> list[dict]:
    """Queries ``i`` of the classes in turn; every third is taken for the next class, with ranks 2, 3, 4, …

    The three queries from each third one on are of one home, and a wrong neighbour is the query's successor.
    """
    rows = []
    for i in range(number):
        label, other = CLASSES[i % 3], CLASSES[(i + 1) % 3]
        wrong = i % 9 >= 6
        near = [(f"{other}/{i + 1}.png", other, 0.9 - i / 1000) if wrong else (f"{label}/{i + 3}.png", label, 0.8)]
        near += [(f"{label}/again{i}.png", label, 0.3)]
        rank = 2 + i // 9 if wrong else 1
        rows.append(query(f"{label}/{i}.png", label, near, rank, frozen=1 + i % 2, home=f"h{i // 3}"))
    return rows


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Sixty queries, a query without a code, and one with hostile names; most pictures are gone."""
    place = tmp_path_factory.mktemp("gallery")
    for row in rows_of(60)[48:]:
        draw_striped(place / "photos" / row["path"], 4, 0, size=120)
    rows = [*rows_of(60), query("bath/black.png", "bath", [], 0), query(f"{HOSTILE}/x.png", HOSTILE, [], 0)]
    run = write_run(place / "run", rows, place / "photos", data={"home_pattern": r"(\d+)"})
    return write_gallery(run, place / "page.html")


def cards(page) -> list[str]:
    return page.locator("#grid .path").all_inner_texts()


def shown(page) -> str:
    return page.locator("#shown").inner_text()


def test_the_head_says_what_was_found_and_whether_it_counts(opened):
    page = opened()
    text = page.locator("#overview").inner_text()
    assert "On hit@1 it beats the frozen features beyond the noise" in text
    assert "▲\u00a0+10.0" in text  # the gain over the frozen features
    facts = page.locator("#summary > div").all_inner_texts()
    assert [fact.split("\n") for fact in facts] == [
        ["head", "shufflenet_rooms → dense"],
        ["split", "test"],
        ["queries", "62"],
        ["skipped", "0"],
    ]
    assert page.title() == "run · gallery · likeness"


def test_the_worst_come_first_and_other_orders_are_a_choice(opened):
    page = opened()
    assert cards(page)[:3] == ["bath/black.png", f"{HOSTILE}/x.png", "bath/51.png"]
    page.locator("#order").select_option(label="best first")
    assert cards(page)[:2] == ["bath/0.png", "bed/1.png"]
    page.locator("#order").select_option(label="surest mistakes first")
    assert cards(page)[:2] == ["bath/6.png", "bed/7.png"]
    page.locator("#order").select_option(label="by path")
    assert cards(page)[:3] == [f"{HOSTILE}/x.png", "bath/0.png", "bath/3.png"]


def test_a_card_says_right_and_wrong_by_sign_and_in_words(opened):
    page = opened()
    page.locator("#words").fill("bed/52")
    card = page.locator("#grid .query")
    assert card.locator(".told").inner_text().split("\n")[0] == "✗ first right one at rank 7"
    wrong, right = card.locator(".near li").all()
    assert wrong.inner_text().split() == ["✗", "⌂", "0.85", "kitchen"]
    assert right.inner_text().split() == ["again52.png", "✓", "0.30", "bed"]  # the picture is gone
    told = "kitchen/53.png, kitchen, wrong, similarity 0.85, of the same home"
    assert wrong.locator("img").get_attribute("alt") == told
    assert right.locator(".picture").get_attribute("aria-label") == "bed/again52.png, bed, right, similarity 0.30"
    assert wrong.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    colours = [each.evaluate("node => getComputedStyle(node).borderColor") for each in card.locator(".picture").all()]
    assert len(set(colours)) == 3


def test_a_neighbour_of_the_same_home_is_marked(opened):
    page = opened()
    page.locator("#words").fill("bed/52")
    assert page.locator(".asked figcaption").inner_text().split() == ["bed", "h17"]
    assert page.locator(".near .home").count() == 1
    assert page.locator(".near .home").get_attribute("title") == "the same home, h17"


def test_what_finds_nothing_says_so(opened):
    page = opened()
    assert "Its code is zero" in page.locator("#grid .query").first.inner_text()


def test_filters_go_together_and_are_cleared(opened):
    page = opened()
    page.locator("#actual").select_option(label="bed")
    assert shown(page) == "20 of 62 queries"
    page.locator("#taken").select_option(label="kitchen")
    assert (shown(page), cards(page)[0]) == ("6 of 62 queries", "bed/52.png")
    page.locator("#outcome").select_option(label="head misses at 5")
    assert cards(page) == ["bed/52.png", "bed/43.png"]
    page.locator("#words").fill("BED 43")
    assert cards(page) == ["bed/43.png"]
    page.locator("#words").fill("nowhere")
    assert (cards(page), shown(page)) == ([], "No query is like that.")
    page.get_by_role("button", name="Clear the filters").click()
    assert (shown(page), len(cards(page))) == ("62 of 62 queries", 48)
    assert page.locator("#actual").input_value() == ""
    assert page.get_by_role("button", name="Clear the filters").is_hidden()


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ("head misses at 1", lambda row: row["rank"] != 1),
        ("frozen misses at 1", lambda row: row["frozen_rank"] != 1),
        ("head finds, frozen misses", lambda row: row["rank"] == 1 != row["frozen_rank"]),
        ("frozen finds, head misses", lambda row: row["frozen_rank"] == 1 != row["rank"]),
    ],
)
def test_head_and_frozen_are_compared_query_by_query(opened, choice, kept):
    page = opened()
    page.locator("#outcome").select_option(label=choice)
    page.locator("#words").fill("/")
    without_code = 0 if choice == "head finds, frozen misses" or choice == "frozen misses at 1" else 2
    assert shown(page) == f"{sum(map(kept, rows_of(60))) + without_code} of 62 queries"


def test_a_cell_of_the_confusion_shows_just_its_queries(opened):
    page = opened()
    cell = page.get_by_role("button", name="6 queries of bed have a nearest neighbour of kitchen")
    cell.focus()
    page.keyboard.press("Enter")
    assert cards(page) == [f"bed/{i}.png" for i in (52, 43, 34, 25, 16, 7)]
    assert cell.get_attribute("aria-pressed") == "true"
    assert page.locator("[data-cell][aria-pressed=true]").count() == 1
    assert page.locator(":focus").get_attribute("id") == "queries"
    assert page.locator("#taken option:checked").inner_text() == "kitchen"


def test_the_most_frequent_pair_is_told_in_words_and_shows_its_queries(opened):
    page = opened()
    pair = page.locator(".pairs button").first
    assert " ".join(pair.inner_text().split()) == "bath taken for bed 6 of 21"
    pair.click()
    assert cards(page) == [f"bath/{i}.png" for i in (51, 42, 33, 24, 15, 6)]


def test_classes_have_their_hits_with_intervals(opened):
    row = opened().locator("#matrix tbody tr", has_text="kitchen").first
    cells = row.locator("th, td").all_inner_texts()
    # Wilson of 14 in 20, from a table: 48.1 to 85.5
    assert cells[:3] == ["kitchen", "20", "70.0 [48.1–85.5]"]


def test_more_cards_come_on_demand_and_take_the_focus(opened):
    page = opened()
    assert len(cards(page)) == 48
    page.get_by_role("button", name="Show 14 more of 14").press("Enter")
    assert len(cards(page)) == 62
    assert page.locator("#more").is_hidden()
    assert page.locator(":focus .path").inner_text() == cards(page)[48]


def test_everything_is_reached_by_the_keyboard(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the queries"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.locator(":focus").get_attribute("id") == "actual"


def test_names_from_files_stay_text(opened):
    page = opened()
    assert page.locator("#grid .query").nth(1).locator("figcaption b").inner_text() == HOSTILE
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("script").count() == 2


def test_the_theme_follows_the_system(opened):
    def paper(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert (paper(opened(scheme="dark")), paper(opened())) == ("rgb(18, 22, 27)", "rgb(245, 246, 248)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_aa(opened, scheme):
    page = opened(scheme=scheme)
    for pair in [*TEXTS, ("--ink", "--confused"), ("--accent", "--card")]:
        assert contrast(page, *pair) >= 4.5, pair


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_scrolls_down_only_and_nothing_jumps(opened, width):
    page = opened(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(SHIFTS) == 0


def test_five_thousand_queries_are_shown_few_at_a_time(opened, tmp_path):
    run = write_run(tmp_path / "run", rows_of(5_000))
    page = opened(page_file=write_gallery(run, tmp_path / "page.html"))
    assert (shown(page), len(cards(page))) == ("5,000 of 5,000 queries", 48)
    page.locator("#words").fill("kitchen/4997")
    assert cards(page) == ["kitchen/4997.png"]
