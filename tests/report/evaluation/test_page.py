"""Evaluation page: complete, self-contained, safe for any file names."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.data.sources import Sample
from anomem.errors import InputError
from anomem.evaluation.evaluate import evaluate
from anomem.evaluation.figures import Evaluation
from anomem.report.evaluation import text as words
from anomem.report.evaluation.page import evaluation_page, write_evaluation_page
from anomem.runtime.images import decode, read_mask
from anomem.runtime.shift import Shift
from tests.benchmark.spots import SpotDetector, save, spotted_set, texture

HOSTILE = "<script>alert(1)<&>\"'.png"


class Page(HTMLParser):
    """Tags with their attributes, and the visible text."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\xa0", " ").split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def in_percent(fraction: float) -> str:
    return words.percent(fraction).replace("\xa0", " ")


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Evaluation, SpotDetector]:
    made_from, samples = spotted_set(tmp_path)
    detector = SpotDetector(made_from)
    evil = tmp_path / "test" / "clear" / HOSTILE.replace("/", "")
    shutil.copy(samples[12].path, evil)
    broken = tmp_path / "test" / "<img src=x onerror=alert(2)>.png"
    broken.write_bytes(b"no image")
    twin = Sample(made_from[0], 0)
    more = [Sample(evil, 1, samples[12].mask, "<b>bold</b>"), Sample(broken, 0), twin]
    return evaluate(detector, [*samples, *more], skip_bad=True), detector


def test_every_figure_is_on_the_page(judged: tuple[Evaluation, SpotDetector]) -> None:
    found, detector = judged
    text = Page(evaluation_page(found, detector, title="Part 7", facts={"Model": "m.anomem"})).text
    decided, made = found.at_alpha, found.promise
    assert "Part 7" in text
    assert "12 normal and 11 anomalous images. 1 image left out" in text
    assert f"Image AUROC {in_percent(found.image.auroc)}" in text
    image = found.image
    for low, high in (image.auroc_ci, image.ap_ci, image.f1_max_ci, image.fpr95_ci):
        assert f"{in_percent(low)} to {in_percent(high)}" in text
    assert "oracle: threshold" in text
    assert f"Pixel AUROC {in_percent(found.pixel.auroc)}" in text
    assert f"AUPRO {in_percent(found.pixel.aupro)}" in text
    assert f"{found.pixel.n_images} images" in text
    assert "Decisions at α = 10 %" in text
    assert f"{decided.n_false} of 12 normal images rejected" in text
    assert f"{11 - decided.n_missed} of 11 anomalous images found, {decided.n_missed} missed" in text
    assert f"The threshold, {made.threshold:.4g}, comes from 19 normals" in text
    assert f"is below {in_percent(made.rate_limit_95)}" in text
    assert "faint 5" in text
    assert f"Mean grey level alone {in_percent(found.trivial.mean_grey)}" in text
    for heading in ("Highest-scoring normal", "Lowest-scoring anomalous", "Typical detections"):
        assert heading in text
    assert "m.anomem" in text
    assert "Groups 2 of 3 normal images in 1 group (near), the largest of 2, such as a.png and <b>.png" in text
    assert "size 224 preset" in text
    assert "roi array of 3 × 4" in text
    assert "letterbox off" in text
    assert "not an image by its content" in text
    for worst in sorted((r for r in found.results if r.label == 0), key=lambda r: -r.score)[:6]:
        assert f"score {worst.score:.4g} · p = {worst.p_value:.3g}" in text
    missed = [r for r in found.results if r.label == 1 and not r.anomalous]
    assert text.count("· missed") == min(len(missed), 6) > 0


def test_hostile_names_stay_text(judged: tuple[Evaluation, SpotDetector]) -> None:
    found, detector = judged
    hostile = '<script>alert("title")</script>'
    html = evaluation_page(
        found,
        detector,
        title=hostile,
        facts={"<i>": hostile},
        prototypes=[("<u>caption</u>", np.zeros((8, 8, 3), np.uint8))],
        n_pictures=30,
    )
    page = Page(html)  # asserts that every tag closes
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "i", "b", "u", "link", "iframe", "object", "base"})
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    for shown in (HOSTILE, "<b>bold</b>", "<img src=x onerror=alert(2)>", hostile, "<u>caption</u>"):
        assert shown in page.text
    assert "after <nobody> & co" in page.text


def test_nothing_is_fetched(judged: tuple[Evaluation, SpotDetector]) -> None:
    html = evaluation_page(*judged)
    page = Page(html)
    sources = [attributes["src"] for attributes in page.all("img")]
    assert sources
    for source in sources:
        kind, payload = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", source).groups()
        with Image.open(io.BytesIO(base64.b64decode(payload, validate=True))) as image:
            assert image.format.lower() == kind
    links = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("href", "xlink:href", "src", "srcset", "action") and not value.startswith("data:")
    ]
    assert all(link.startswith("#") for link in links)
    assert "@import" not in html
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_identifiers_are_unique_and_references_resolve(
    judged: tuple[Evaluation, SpotDetector],
) -> None:
    html = evaluation_page(*judged)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_the_same_evaluation_gives_the_same_page(judged: tuple[Evaluation, SpotDetector]) -> None:
    assert evaluation_page(*judged) == evaluation_page(*judged)


def test_pictures_are_as_many_as_wanted_and_come_from_the_scoring_path(
    judged: tuple[Evaluation, SpotDetector],
) -> None:
    found, detector = judged
    detector.asked_for_maps.clear()
    page = Page(evaluation_page(found, detector, n_pictures=2))
    shots = [a for a in page.all("figure") if a.get("class") == "shot"]
    assert len(shots) == 6
    assert len(page.all("img")) == 2 * 6 + 1  # image and overlay each, and the colour bar
    assert detector.asked_for_maps == [True, True, True]


def test_a_method_without_maps_shows_images_alone(tmp_path: Path) -> None:
    made_from, samples = spotted_set(tmp_path)
    detector = SpotDetector(made_from, localizes=False)
    page = Page(evaluation_page(evaluate(detector, samples), detector, n_pictures=2))
    assert "has no maps" in page.text
    assert "AUPRO" not in page.text
    assert len(page.all("img")) == 6


def test_images_in_memory_have_pictures_and_outlines_too(tmp_path: Path) -> None:
    made_from, samples = spotted_set(tmp_path)
    detector = SpotDetector(made_from)
    labels, masks = [s.label for s in samples], [None if s.mask is None else read_mask(s.mask) for s in samples]
    found = evaluate(detector, [decode(s.path) for s in samples], labels, masks=masks, types=[s.type for s in samples])
    in_memory, on_disk = (
        Page(evaluation_page(found, detector)),
        Page(evaluation_page(evaluate(detector, samples), detector)),
    )
    assert [a["src"] for a in in_memory.all("img")] == [a["src"] for a in on_disk.all("img")]
    assert "File size alone" in on_disk.text
    assert "File size alone" not in in_memory.text


def test_pictures_that_have_gone_are_left_out(judged: tuple[Evaluation, SpotDetector]) -> None:
    found, detector = judged
    highest = max((r for r in found.results if r.label == 0), key=lambda r: r.score)
    before = Page(evaluation_page(found, detector)).all("figure")
    Path(highest.path).unlink()
    assert len(Page(evaluation_page(found, detector)).all("figure")) == len(before) - 1


def test_prototypes_come_from_the_detector_unless_given(tmp_path: Path) -> None:
    class WithMemory(SpotDetector):
        def prototypes(self):
            return [("item 3, 12 % of use", np.full((300, 200, 3), 80, np.uint8))]

    made_from, samples = spotted_set(tmp_path)
    detector = WithMemory(made_from)
    found = evaluate(detector, samples)
    assert "item 3, 12 % of use" in Page(evaluation_page(found, detector)).text
    given = [("mine", np.zeros((9, 9, 3), np.uint8))]
    text = Page(evaluation_page(found, detector, prototypes=given)).text
    assert "mine" in text
    assert "item 3" not in text
    assert "Memory prototypes" not in Page(evaluation_page(found, detector, prototypes=[])).text


def test_it_is_written_to_a_file_or_into_a_folder(judged: tuple[Evaluation, SpotDetector], tmp_path: Path) -> None:
    found, detector = judged
    written = write_evaluation_page(found, detector, tmp_path / "new" / "folder")
    assert written == tmp_path / "new" / "folder" / "report.html"
    named = write_evaluation_page(found, detector, tmp_path / "other" / "page.htm")
    assert named.read_text(encoding="utf-8") == written.read_text(encoding="utf-8")
    assert [p.name for p in named.parent.iterdir()] == ["page.htm"]
    occupied = tmp_path / "notes.txt"
    occupied.write_text("keep me")
    with pytest.raises(InputError, match=r"notes\.txt: is a file"):
        write_evaluation_page(found, detector, occupied)
    with pytest.raises(InputError, match="name a writable folder"):
        write_evaluation_page(found, detector, occupied / "below")
    with pytest.raises(InputError, match="name a writable folder"):
        write_evaluation_page(found, detector, occupied / "below" / "page.html")
    assert occupied.read_text() == "keep me"


def test_a_file_name_that_is_no_text_does_not_stop_the_report(tmp_path: Path) -> None:
    made_from, samples = spotted_set(tmp_path)
    odd = os.fsencode(tmp_path) + b"/test/clear/caf\xe9.png"
    try:
        shutil.copy(samples[12].path, odd)
    except OSError:
        pytest.skip("this file system takes names of valid UTF-8 only")
    detector = SpotDetector(made_from)
    found = evaluate(detector, [*samples, Sample(Path(os.fsdecode(odd)), 1)])
    written = write_evaluation_page(found, detector, tmp_path / "page.html", n_pictures=30)
    assert "caf\\udce9.png" in written.read_text(encoding="utf-8")


def test_small_images_stay_sharp_and_large_ones_are_shrunk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made_from = [save(tmp_path / f"{i}.png", texture(rng)) for i in range(12)]
    large = texture(rng, (900, 700))
    large[40:60, 40:60] = 0
    samples = [
        Sample(save(tmp_path / "small.png", texture(rng)), 0),
        Sample(save(tmp_path / "large.png", large), 1),
    ]
    detector = SpotDetector(made_from)
    page = Page(evaluation_page(evaluate(detector, samples), detector))
    sizes = {}
    for image in page.all("img"):
        with Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) as picture:
            sizes[image["alt"]] = (picture.size, image.get("class"))
    assert sizes["small.png"] == ((40, 48), "pixelated")
    assert sizes["large.png"] == ((280, 360), None)


def test_an_unusual_set_of_figures_renders(judged: tuple[Evaluation, SpotDetector]) -> None:
    found, detector = judged
    bare = replace(found, types={}, pixel=None, skipped=(), n_left_out=0, n_unlabelled=3)
    text = Page(evaluation_page(bare, detector)).text
    assert "By defect type" not in text
    assert "Skipped files" not in text
    assert "The model was made without these images. 3 images without a label" in text


def test_a_shift_and_verdicts_about_all_images_are_on_the_page(tmp_path: Path) -> None:
    made_from, samples = spotted_set(tmp_path)
    detector = SpotDetector(made_from)
    found = evaluate(detector, samples, fdr=0.2)
    rejected = [row.label for row in found.results if row.anomalous_fdr]
    assert (found.at_fdr.n_rejected, found.at_fdr.n_false) == (len(rejected), rejected.count(0))
    text = Page(evaluation_page(replace(found, shift=Shift(0.001, True, True, 30, 40)), detector)).text
    assert "Shifted: Accepted normals score higher than those of the calibration" in text
    assert f"At fdr 20 %: {len(rejected)} images rejected" in text
    plain = Page(evaluation_page(replace(found, shift=None, at_fdr=None), detector)).text
    assert "fdr" not in plain
    assert "hifted" not in plain
