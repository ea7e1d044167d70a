"""What was found, as HTML: parsed again, and looked at as text and elements."""

from html.parser import HTMLParser

from likeness.errors import LikenessError
from likeness.finding import Found, HomeMatch, Match
from likeness.serving import results
from likeness.serving.results import Photo, Query, Side

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
KITCHEN = Match(7, 0.913, "kitchen", "home1", "a/1.jpg", b"jpeg")
BATHROOM = Match(9, -0.004, "bathroom", "home2", "a/2.jpg", None)
PHOTO = Query(photos=(Photo("mine.jpg", b"", b"small"),))


class Parsed(HTMLParser):
    """Elements with their attributes, and the text outside of them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def found(*matches, known=None, threshold=None, milliseconds=None) -> Found:
    return Found(list(matches), known, matches[0].similarity if matches else 0.0, threshold, milliseconds or {})


def answered(*sides: Found | LikenessError, query: Query = PHOTO, homes: bool = False, title: str = "t") -> Parsed:
    sides = [Side(title, 2000, side) for side in sides]
    return Parsed(results.answer(query, sides, homes, lambda jpeg: f"thumbnails/{jpeg.decode()}", arrived=True))


def test_a_match_is_a_button_with_similarity_label_and_home():
    page = answered(found(KITCHEN, BATHROOM, milliseconds={"decode": 12.3, "head": 0.126}))
    like, other = [button for button in page.all("button") if button["class"] == "match"]
    assert (like["data-side"], like["data-row"]) == ("0", "7")
    assert like["aria-label"] == "Search for pictures like kitchen of home1, similarity 0.91"
    assert other["aria-label"] == "Search for pictures like bathroom of home2, similarity −0.00"
    assert "0.91 kitchen home1" in page.text
    assert "no picture" in page.text
    assert "2 of 2,000 pictures · nearest 0.91" in page.text
    assert "decode 12 · head 0.13 ms" in page.text


def test_thumbnails_are_loaded_when_they_come_into_sight_and_uploads_lie_in_the_page():
    upload, thumbnail = answered(found(KITCHEN)).all("img")
    assert (thumbnail["src"], thumbnail["loading"]) == ("thumbnails/jpeg", "lazy")
    assert upload["src"] == "data:image/jpeg;base64,c21hbGw="


def test_no_match_is_said_with_both_numbers_and_hides_the_nearest():
    page = answered(found(BATHROOM, known=False, threshold=0.55))
    assert "No room like this in the index." in page.text
    assert "nearest −0.00 on average · a match from 0.55" in page.text
    assert page.all("details") == [{"class": "dimmed"}]
    assert answered(found(KITCHEN, known=True, threshold=0.55)).all("details") == []


def test_what_one_side_alone_shows_is_marked():
    page = answered(found(KITCHEN, BATHROOM), found(KITCHEN._replace(id=3)))
    assert [item.get("class") for item in page.all("li")] == [None, "only", None]
    assert page.text.count("only here") == 1


def test_a_side_that_refuses_marks_nothing_on_the_other():
    fault = LikenessError("IMG-BAD", "1 of 1 pictures cannot be used.", where="a: b", fix="Give others.")
    page = answered(found(KITCHEN), fault)
    assert "1 of 1 pictures cannot be used. a: b Give others." in page.text
    assert [item.get("class") for item in page.all("li")] == ["only", None]


def test_a_home_shows_its_pictures_under_its_name():
    home = HomeMatch("home1", 0.8, [KITCHEN])
    page = answered(found(home), homes=True)
    assert "Homes like this photo" in page.text
    assert "home1   0.80 0.91 kitchen" in page.text


def test_names_from_files_are_text_wherever_they_stand():
    match = Match(1, 0.5, HOSTILE, HOSTILE, HOSTILE, b"x")
    query = Query(photos=(Photo(HOSTILE, b"", b""),))
    pages = [
        answered(found(match), found(match), query=query, title=HOSTILE),
        answered(found(HomeMatch(HOSTILE, 0.5, [match])), query=Query(match=match), homes=True),
        answered(LikenessError("IMG-BAD", HOSTILE, where=HOSTILE, fix=HOSTILE)),
        Parsed(results.start([match], lambda jpeg: HOSTILE)),
        Parsed(results.header([HOSTILE], 1, 1)),
    ]
    for page in pages:
        assert page.all("script") == []
        assert [image for image in page.all("img") if "onerror" in image] == []
        assert HOSTILE in page.words or page is pages[0]


def test_an_empty_answer_says_so():
    assert "There is no picture of these kinds." in answered(found()).text
