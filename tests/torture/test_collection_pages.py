"""Maps of many images in a real browser: at each zoom there are pictures and names, and none touch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Browser

from tests.web.browsing import in_browser, pages_at, serving
from tests.web.mapped import app_of, fill_index, store_groups, store_map
from tests.web.test_evaluation import measured

pytestmark = [pytest.mark.torture, *in_browser]

# Clusters of 40 labels, of very different sizes; some images without a label, some at the very same place.
LAYOUT = """async ([count, width, height]) => {
  const base = document.querySelector('script[src$="map.js"]').src.replace(/map\\.js$/, '');
  const [{ MapData, NONE }, { View }, { Layout }] = await Promise.all(
    ['map-data.js', 'map-view.js', 'map-layout.js'].map((name) => import(base + name)));
  let state = 7;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const middles = Array.from({ length: 40 }, () => [60 * normal(), 40 * normal(), 1 + 9 * random()]);
  const columns = { x: new Float32Array(count), y: new Float32Array(count), ratio: new Uint16Array(count),
    label: new Uint16Array(count), cluster: new Uint16Array(count).fill(NONE) };
  for (let i = 0; i < count; i += 1) {
    const kind = Math.floor(40 * random() ** 2);
    const [x, y, spread] = middles[kind];
    columns.x[i] = i % 50 ? x + spread * normal() : x;
    columns.y[i] = i % 50 ? y + spread * normal() : y;
    columns.label[i] = i % 11 ? kind : NONE;
    columns.ratio[i] = 300 + 2500 * random();
  }
  const labels = Array.from({ length: 40 }, (_, n) => 'label ' + 'x'.repeat(n % 30));
  const map = new MapData({ count, labels, clusters: 0, columns });
  const view = new View(map);
  view.resize(width, height);
  const layout = new Layout(map, view, (name) => 7 * name.length + 30);
  layout.nameBy({ column: map.label, names: labels });
  const touch = (boxes) => boxes.some((a, n) => boxes.some((b, m) => m > n &&
    Math.abs(a.x - b.x) < (a.width + b.width) / 2 - 0.5 && Math.abs(a.y - b.y) < (a.height + b.height) / 2 - 0.5));
  const seen = [];
  const look = () => {
    let shown;
    do shown = layout.inView(view, 1000); while (layout.behind);
    const boxes = shown.pictures.map((i) => {
      const [w, h] = map.shape(i);
      return { x: view.toX(map.x[i]), y: view.toY(map.y[i]), width: w * shown.side, height: h * shown.side };
    });
    const names = shown.names.map((i) => ({ x: view.toX(map.x[i]), height: 20, width: 7 * layout.nameOf(i).length + 30,
      y: view.toY(map.y[i]) + map.shape(i)[1] * shown.side / 2 }));
    seen.push({ zoomed: view.zoomed, side: shown.side, pictures: boxes.length, names: names.length,
      wrong: touch(boxes) || touch(names) });
  };
  for (let step = 0; step < 16; step += 1) {
    look();
    view.zoom(1.7, width * random(), height * random());
    view.pan(200 * normal(), 200 * normal());
  }
  for (let step = 0; step < 16; step += 1, view.zoom(1 / 1.7)) look();
  return seen;
}"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pages")
    index = fill_index(folder, 60, mislabelled=3)
    store_map(index, 60)
    store_groups(index, 60)
    measured(index)
    with serving(app_of(index, folder / "cache")) as address:
        yield address
    index.close()


@pytest.mark.parametrize("size", [(328, 500), (1000, 700)], ids=["phone", "window"])
@pytest.mark.parametrize("count", [1, 1000, 100_000])
def test_at_each_zoom_pictures_and_names_are_shown_and_none_touch(
    browser: Browser, base: str, count: int, size: tuple[int, int]
) -> None:
    with pages_at(browser, base) as open_:
        seen = open_("/map").evaluate(LAYOUT, [count, *size])
    assert not any(view["wrong"] for view in seen)
    assert all(view["pictures"] for view in seen)
    if count >= 1000:
        assert all(view["names"] for view in seen if view["pictures"] > 10)
        assert seen[0]["pictures"] > 10
        assert seen[0]["names"] > 3
    assert all(a["side"] <= b["side"] for a, b in pairwise(seen[:16]))  # they grow


@pytest.mark.parametrize(
    ("width", "scheme", "forced"),
    [(360, "dark", "none"), (360, "light", "active"), (800, "dark", "none"), (1440, "dark", "active")],
)
def test_pages_of_the_whole_collection(browser: Browser, base: str, width: int, scheme: str, forced: str) -> None:
    touch = width < 800
    with pages_at(browser, base) as open_:
        for address in ("/map", "/groups", "/groups?cluster=1", "/groups?duplicates=1", "/evaluation"):
            options = {"color_scheme": scheme, "forced_colors": forced, "has_touch": touch}
            page = open_(address, width=width, **options)
            if address == "/map":
                page.wait_for_selector("canvas[data-ready=true]")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
            assert page.evaluate("document.querySelectorAll('main h1').length") == 1, address
            colours = page.locator("main .interval").evaluate_all(
                "(bars) => bars.map((bar) => [...bar.querySelectorAll('.whole, .mean')]"
                ".map((part) => getComputedStyle(part).fill))"
            )
            assert all(whole != mean for whole, mean in colours), address  # how full a bar is can be seen
            page.close()
