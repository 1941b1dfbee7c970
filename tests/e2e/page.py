"""What the report page shows, in a headless Chromium: page.py FOLDER RUN RECORDED.

FOLDER holds the pages that the unit test test_report.c writes (CORTADO_FIGURES_OUT), RUN and RECORDED are folders of
runs with report.html and run.sqlite; RECORDED has recordings of its prompts of 700 tokens, one
of them damaged. Prints what is not as it should be; exit 1 if anything is not.
"""

import array
import json
import math
import os
import sqlite3
import sys
from decimal import ROUND_HALF_UP, Decimal

from browser import Browser, find

# The page is to open in under a second for 10,000 cells. Here the machine may be busy with other tests.
LARGE_MS = 3000
failures = 0


def check(good, what):
    global failures
    if not good:
        failures += 1
        print("FAILED:", what)


def same(got, expected, what):
    check(got == expected, f"{what}: expected {expected!r}, got {got!r}")


def text(b, selector):
    return b.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")


def count(b, selector):
    return b.run(f"document.querySelectorAll({json.dumps(selector)}).length")


def choose(b, control, index):
    b.run(f"(() => {{ const s = document.getElementById({json.dumps('choose-' + control)}); s.selectedIndex = {index};"
          " s.dispatchEvent(new Event('change')); })()")


def opened(b, path, what):
    ms = b.open(path)
    same(b.run("document.documentElement.dataset.ready"), "yes", what + ": the script ran to its end")
    same(b.troubles(), [], what + ": exceptions, errors and requests")
    return ms


def large(b, folder):
    """10,000 cells: time, map, keyboard, choice of k, print and dark."""
    ms = opened(b, folder + "/large.html", "large")
    print(f"large.html: {ms:.0f} ms to the load event")
    check(ms < LARGE_MS, f"large: expected at most {LARGE_MS} ms to open, got {ms:.0f}")
    same(count(b, "#map [role=gridcell]"), 100, "large: places of the map")
    same(count(b, "#map [role=gridcell][tabindex='0']"), 1, "large: places in the tab order")
    same(b.run("[...document.querySelectorAll('select')].every((s) => s.labels.length === 1)"), True,
         "large: every control has a label")
    same(count(b, "#map [role=columnheader]"), 11, "large: headings of lengths and of depth")
    # Keys: down and right of the first place, then Enter.
    b.run("document.querySelector('#map td[tabindex=\"0\"]').focus()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        b.key(key)
    same(b.run("[document.activeElement.dataset.row, document.activeElement.dataset.column]"), ["1", "1"],
         "large: place after the arrow keys")
    same(text(b, "#cell-title"), "No cell is chosen", "large: before Enter")
    b.key("Enter")
    check(text(b, "#cell-title").startswith("length 677, depth 11 %"), f"large: after Enter: {text(b, '#cell-title')}")
    same(b.run("document.activeElement.getAttribute('aria-selected')"), "true", "large: the open place is marked")
    same(text(b, "#cell-prompt mark"), "The needle is to eat a sandwich in the park.", "large: the needle is marked")
    for key, place in (("End", ["1", "9"]), ("Home", ["1", "0"]), ("ArrowLeft", ["1", "0"])):
        b.key(key)
        same(b.run("[document.activeElement.dataset.row, document.activeElement.dataset.column]"), place, "large: " + key)
    # With all heads nearly all are found: the whole sentence is marked, and every keyword ticked.
    ks = b.run("[...document.getElementById('choose-k').options].map((o) => o.text)")
    same(ks, [str(k) for k in range(50)], "large: choices of k")
    choose(b, "k", 49)
    check(", k = 49: " in text(b, "#summary"), "large: summary after a choice: " + text(b, "#summary"))
    b.run("[...document.querySelectorAll('#map td')].find((td) => td.textContent === '5').click()")
    check("5 of 5" in text(b, "#cell-title"), "large: a found needle: " + text(b, "#cell-title"))
    same(text(b, "#cell-output mark"),
         "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day",
         "large: scored part of the output")
    same(b.run("[...document.querySelectorAll('#cell-keywords li')].map((l) => l.textContent[0]).join('')"), "✓✓✓✓–✓",
         "large: keywords found")
    # The map of differences from the unchanged model: all at k = 0 that were found are lost.
    choose(b, "k", 0)
    choose(b, "shown", 1)
    check("Difference from the unchanged model" in text(b, "#map"), "large: map of differences")
    check(b.run("[...document.querySelectorAll('#map td')].some((td) => td.textContent === '−5')"),
          "large: a place of the differences is -5")
    # Any two versions: the script's own test gives what the program has computed for those that it lists.
    listed = b.run("""(() => {
        const D = JSON.parse(document.getElementById('data').textContent), seen = [], k = document.getElementById('choose-k');
        const shown = document.getElementById('choose-shown');
        for (let i = 0; i < 50; i += 3) {
            k.selectedIndex = i;
            k.dispatchEvent(new Event('change'));
            const group = D.groups[i];
            for (const t of group.against) {
                const before = document.getElementById('summary').textContent;
                shown.value = 'any ' + t.group;
                shown.dispatchEvent(new Event('change'));
                const added = document.getElementById('summary').textContent.slice(before.length);
                seen.push([t.p, t.better, t.worse, t.difference, added]);
                shown.selectedIndex = 0;
                shown.dispatchEvent(new Event('change'));
            }
        }
        return seen;
    })()""")
    check(len(listed) >= 16, f"large: {len(listed)} comparisons were tried")
    for p, better, worse, difference, said in listed:
        wanted = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        points = "" if abs(difference) < 1e-9 else "+" if difference > 0 else "−"
        points += f"{abs(100 * difference):.1f} points from "
        check(said.startswith("; " + points) and f"({wanted}, {better} better, {worse} worse)" in said,
              f"large: expected {points!r} {wanted}, {better} better, {worse} worse, got {said!r}")
    check(any(0.001 < p < 1 for p, *_ in listed), "large: some p is neither 0 nor 1")
    choose(b, "k", 0)
    stages = b.run("document.getElementById('choose-stages').options.length")
    same(stages, 2, "large: both stages can be chosen")
    choose(b, "stages", 1)
    check("prefill + generation" in text(b, "#summary"), "large: the other stages: " + text(b, "#summary"))
    # Print: what needs a hand is left out, figures stay, everything is light.
    b.prefer("dark", media="print")
    same(b.run("getComputedStyle(document.querySelector('.screen')).display"), "none", "large: the explorer in print")
    same(b.run("getComputedStyle(document.querySelector('nav')).display"), "none", "large: the contents in print")
    check(b.run("document.querySelector('figure').getBoundingClientRect().height") > 100, "large: figures in print")
    same(b.run("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)", "large: paper")
    b.prefer("dark")
    dark = b.run("getComputedStyle(document.body).backgroundColor")
    same(dark, "rgb(22, 22, 22)", "large: dark by the system's preference")
    b.prefer("light")
    # A narrow screen does not scroll sideways; wide things scroll in their own regions.
    b.call("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    wide = b.run("document.documentElement.scrollWidth")
    check(wide <= 360, f"large: on a screen of 360 px the page is {wide} px wide")
    b.call("Emulation.clearDeviceMetricsOverride")


def hostile(b, folder):
    """Outputs, prompts and names that try to leave their place."""
    opened(b, folder + "/hostile.html", "hostile")
    same(count(b, "img"), 0, "hostile: pictures")
    same(count(b, "script"), 2, "hostile: scripts")
    same(count(b, "h1"), 1, "hostile: headings")
    check("broken" not in b.run("document.title"), "hostile: the title was changed")
    outputs = b.run("(() => { const seen = new Set(); for (const td of document.querySelectorAll('#map td')) { td.click();"
                    " seen.add(document.getElementById('cell-output')?.textContent); } return [...seen]; })()")
    check(any(o and o.startswith("</script><script>document.title") for o in outputs), f"hostile: outputs shown: {outputs}")
    check(any(o and "\ufffd\ufffd \x01\x7f end" in o for o in outputs), f"hostile: bytes that are not UTF-8: {outputs}")
    check(b.run("document.getElementById('cell-prompt').textContent").startswith("CONTEXT: </script> \ufffd \U0001F309 "),
          "hostile: the prompt is shown as it is")
    same(text(b, "#cell-prompt mark"), "The needle is to eat a sandwich in the park.",
         "hostile: the needle behind characters of other widths")
    # Capitals, and words beyond ASCII before them.
    b.run("[...document.querySelectorAll('#map td')].find((td) => (td.click(),"
          " document.getElementById('cell-output')?.textContent.includes('EAT A')))")
    same(b.run("[...document.querySelectorAll('#cell-output mark')].map((m) => m.textContent)"),
         ["EAT A SANDWICH", "sit in Dolores\nPark"], "hostile: keywords in capitals and over a line's end")
    # A link in the list of failed cells opens that cell, with its error.
    b.run("document.querySelector('#failed').parentElement.querySelector('a[href^=\"#cell-\"]').click()")
    b.run("new Promise((r) => setTimeout(r, 50))")
    check("failed" in text(b, "#cell-title"), "hostile: link to a failed cell: " + text(b, "#cell-title"))
    check('<b>"eat a sandwich"</b>' in (text(b, "#cell-error") or ""), "hostile: its error")
    same(b.run("document.activeElement.id"), "cell", "hostile: the opened cell has the focus")
    same(b.troubles(), [], "hostile: exceptions, errors and requests at the end")


def table(b, folder):
    """Table 6.1: the measured value and the published one beside it."""
    opened(b, folder + "/table.html", "table")
    rows = b.run("[...document.querySelectorAll('.sixone tbody tr')].map((tr) => [...tr.cells].map((c) =>"
                 " [c.querySelector('.measured')?.textContent ?? c.textContent, c.querySelector('.published')?.textContent]))")
    same([r[0][0] for r in rows], ["keep", "omit", "only", "binary", "null"], "table: prefill modes")
    same(b.run("[...document.querySelectorAll('.sixone thead tr:last-child th')].map((h) => h.textContent)"),
         ["prefill", "keep", "omit", "only", "binary"], "table: generation modes")
    same(rows[0][1], ["50.0", "thesis 50.3"], "table: keep - keep")
    same(rows[0][3], ["90.0", "thesis 85.7"], "table: only - keep")
    same(rows[4][1], ["100.0", "thesis 68.8"], "table: keep - null")
    same(text(b, ".sixone .rank1"), "100.0", "table: the best")
    for control in ("generation", "prefill", "shown"):
        check(count(b, "#choose-" + control) == 1, "table: a choice of " + control)


def empty(b, folder):
    """Pages without a done cell, and without any."""
    opened(b, folder + "/failed.html", "failed")
    check("All cells failed" in text(b, ".warn"), "failed: what is wrong is said first")
    b.run("document.querySelector('#map td').click()")
    check("failed" in text(b, "#cell-title"), "failed: a cell can be opened")
    b.open(folder + "/empty.html")
    same(b.troubles(), [], "empty: exceptions, errors and requests")
    check("No cell is finished yet" in text(b, ".warn"), "empty: it says so")
    same(count(b, "script"), 0, "empty: scripts")


def real(b, run):
    """A page made from a store: every cell's text on the page is the store's."""
    opened(b, run + "/report.html", "run")
    db = sqlite3.connect(f"file:{run}/run.sqlite?mode=ro", uri=True)
    db.text_factory = lambda data: data.decode("utf-8", "replace")
    stored = db.execute("SELECT cell.text, prompt.text, length, depth, score, keep_heads, stages, metric, weights_generation,"
                        " weights_prefill FROM cell JOIN prompt ON prompt.hash = cell.prompt WHERE current").fetchall()
    check(len(stored) > 50, f"run: {len(stored)} cells")
    shown = b.run("""(async () => {
        const D = JSON.parse(document.getElementById('data').textContent), seen = [];
        const all = D.groups.reduce((n, g) => n + g.cells.length, 0), step = Math.ceil(all / 60);
        let index = 0;
        for (const group of D.groups)
            for (const row of group.cells) {
                if (index % step) { index++; continue; } /* browsers refuse hundreds of changes of address at once */
                const changed = new Promise((r) => window.addEventListener('hashchange', r, {once: true}));
                location.hash = '#cell-' + index++;
                await changed; /* the page's own listener was there before */
                const v = D.versions[group.v];
                seen.push([document.getElementById('cell-output').textContent,
                    document.getElementById('cell-prompt').textContent, row[0], row[1], row[5], group.k, v.stages, v.metric,
                    v.generation, v.prefill, document.getElementById('cell-title').textContent]);
            }
        return seen;
    })()""")
    check(len(shown) >= 30, f"run: looked at {len(shown)} cells")
    for got in shown:
        if tuple(got[:10]) not in stored:
            check(False, f"run: a cell on the page is not in the store: {got[0][:60]!r} {got[2:]}")
            break
    for s in shown:
        if not s[10].startswith(f"length {s[2]}, depth {s[3]} %"):
            check(False, f"run: the title {s[10]!r} of the cell at {s[2]}, {s[3]}")
            break
    check(count(b, ".sixone") == 1, "run: the table of weight edits")
    check(b.run("document.querySelector('#differences') !== null"), "run: differences")


def tensors(path):
    """A safetensors file: name -> (shape, numbers)."""
    kinds = {"F32": "f", "I32": "i", "U8": "B"}
    with open(path, "rb") as f:
        data = f.read()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, t in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            found[name] = t["shape"], array.array(kinds[t["dtype"]], data[start + begin:start + end])
    return found


def same_word(x):
    """As the page writes a share: in per cent with one decimal, of hundredths, halves up as toFixed has them."""
    return str(Decimal(math.floor(x * 10000 + 0.5) / 100).quantize(Decimal("0.1"), ROUND_HALF_UP)) + " %"


def steps(path):
    """The heights of a chart's steps, from its line's points."""
    points = [p.split() for p in path.replace("M", "L").replace("Z", "").split("L") if p]
    return [float(y) for _, y in points[1:-1:2]], float(points[0][0]), float(points[-1][0])


def chart(b, path, stage, l, h, heads, what):
    """The chart of a head holds the recording's weights, each step the largest of its positions."""
    t = tensors(path)
    keys, i = t[stage + ".weights_before"][0][3], l * heads + h
    bins = min(keys, 160)
    drawn = b.run("""(() => { const s = document.querySelector('#cell-attention svg.weights'), n = s.querySelector('.needle');
        return [s.querySelector('.before').getAttribute('d'), s.querySelector('.after').getAttribute('d'),
            Number(n.getAttribute('x')), Number(n.getAttribute('width')), [...s.querySelectorAll('text')].map((x) => x.textContent)]; })()""")
    rows = []
    for name in ("before", "after"):
        w = t[f"{stage}.weights_{name}"][1][-(len(t["layers"][1]) * heads - i) * keys:][:keys]
        rows.append([max(w[n * keys // bins:(n + 1) * keys // bins]) for n in range(bins)])
    most = max(map(max, rows))
    for row, d, name in zip(rows, drawn, ("before", "after")):
        heights, left, right = steps(d)
        same(len(heights), bins, f"{what}: steps {name}")
        off = max(abs((150 - y) / 140 * most - w) for y, w in zip(heights, row))
        check(off < 2e-3 * most + 1e-4, f"{what}: weights {name} the edit are off by {off:.2g} of {most:.2g}")
    begin, end = t["needle"][1][:2]
    for got, position in ((drawn[2], begin), (drawn[2] + drawn[3], end)):
        check(abs(got - (left + (right - left) * position / keys)) < 0.1, f"{what}: the needle's mark is at {got}, not {position}")
    check(same_word(most) in drawn[4] and str(keys - 1) in drawn[4], f"{what}: words of the axes: {drawn[4]}")


def recorded(b, run):
    """Recorded attention: the heads of a cell, their numbers, the weights of one head, by mouse and keyboard."""
    opened(b, run + "/report.html", "recorded")
    db = sqlite3.connect(f"file:{run}/run.sqlite?mode=ro", uri=True)
    stored = {(g, d): (key, begin, end) for key, g, d, begin, end in db.execute(
        "SELECT key, weights_generation, depth, needle_token_begin, needle_token_end FROM cell WHERE length = 700")}
    edits = b.run("[...document.getElementById('choose-generation').options].map((o) => o.text)")
    same(edits, ["keep", "omit", "binary"], "recorded: edits")
    # A cell that was not recorded has no view.
    b.run("document.querySelector('#map td').click()")
    check(text(b, "#cell-title").startswith("length 400, depth 0 %"), "recorded: the first place: " + text(b, "#cell-title"))
    same(count(b, "#cell-attention"), 0, "recorded: attention of a cell without a recording")
    for edit in ("keep", "omit", "binary"):
        what = "recorded, " + edit
        choose(b, "generation", edits.index(edit))
        b.run("[...document.querySelectorAll('#map td')].find((td) => td.cells?.[0].length === 700 && td.cells[0].depth === 50).click()")
        key, begin, end = stored[edit, 50]
        path = f"{run}/recordings/{key}.safetensors"
        t = tensors(path)
        layers, heads = t["layers"][1], t["generation.entropy_bits"][0][2]
        same(list(t["needle"][1]), [begin, end], what + ": the needle of file and store")
        same(count(b, "#cell-attention [role=grid]"), 1, what + ": one grid, for generation")
        check(f"position {t['generation.positions'][1][-1]}" in text(b, "#cell-attention h4"), what + ": " + text(b, "#cell-attention h4"))
        grid = b.run("""[...document.querySelectorAll('#cell-attention tbody tr')].map((tr) => [tr.cells[0].textContent,
            ...[...tr.cells].slice(1).map((td) => [td.textContent, td.className, td.getAttribute('aria-label')])])""")
        same([r[0] for r in grid], [f"layer {l}" for l in layers], what + ": layers")
        last = lambda name: t["generation." + name][1][-len(layers) * heads:]
        kept = last("heads_kept")
        same(sum(kept), 3 * len(layers), what + ": heads kept by the recording")
        for l, (_, *row) in enumerate(grid):
            same(len(row), heads, what + ": heads of a layer")
            for h, (shown, style, said) in enumerate(row):
                i = l * heads + h
                before, after = last("needle_before")[i], last("needle_after")[i]
                same(style, "" if kept[i] else "dropped", f"{what}: layer {layers[l]}, head {h} struck through or not")
                check(abs(int(shown) - 100 * before) <= 0.51, f"{what}: {shown} % on the needle, not {before}")
                wanted = (f"layer {layers[l]}, head {h}; {'kept' if kept[i] else 'dropped'}; entropy {math.floor(last('entropy_bits')[i] * 100 + 0.5) / 100:.2f} bits; "
                          f"on the needle {same_word(before)} before the edit, {same_word(after)} after it; largest weight "
                          f"{same_word(last('peak_weight')[i])} at position {last('peak')[i]}")
                same(said, wanted, f"{what}: words of a head")
        # The head that looks at the needle most is shown first; omit takes its weight away, keep leaves it.
        first = max(range(len(layers) * heads), key=lambda i: (math.floor(last("needle_before")[i] * 10000 + 0.5), -i))
        same(b.run("(() => { const td = document.querySelector('#cell-attention td[aria-selected=true]');"
                   " return [Number(td.dataset.row), Number(td.dataset.column), td.tabIndex]; })()"),
             [first // heads, first % heads, 0], what + ": the head shown first")
        check(last("needle_before")[first] > 0.1, what + ": no head looks at the needle")
        check((last("needle_after")[first] < 1e-6) == (edit == "omit"), what + ": weight on the needle after the edit")
        chart(b, path, "generation", first // heads, first % heads, heads, what)
    # Keys: Tab comes to the grid's one stop, arrows go through it, Enter and the space bar choose.
    b.run("document.querySelector('#cell-output').focus()")
    for _ in range(10):
        b.key("Tab")
        if b.run("document.activeElement.closest('#cell-attention') !== null"):
            break
    at = "(() => { const td = document.activeElement; return [td.dataset.row, td.dataset.column].map(Number); })()"
    same(b.run(at), [first // heads, first % heads], "recorded: Tab comes to the chosen head")
    for key, place in (("Home", [first // heads, 0]), ("ArrowLeft", [first // heads, 0]), ("PageUp", [0, 0]), ("ArrowUp", [0, 0]),
                       ("ArrowDown", [1, 0]), ("End", [1, heads - 1]), ("ArrowRight", [1, heads - 1]), ("ArrowLeft", [1, heads - 2])):
        b.key(key)
        same(b.run(at), place, "recorded: the place after " + key)
    check(f"layer {layers[first // heads]}, head {first % heads};" in text(b, "#cell-attention [aria-live]"), "recorded: before Enter")
    b.key("Enter")
    check(text(b, "#cell-attention [aria-live]").startswith(f"layer {layers[1]}, head {heads - 2};"),
          "recorded: after Enter: " + text(b, "#cell-attention [aria-live]"))
    same(b.run("document.activeElement.getAttribute('aria-selected')"), "true", "recorded: the chosen head is marked")
    same(count(b, "#cell-attention td[aria-selected=true]"), 1, "recorded: heads chosen")
    same(count(b, "#cell-attention td[tabindex='0']"), 1, "recorded: heads in the tab order")
    chart(b, path, "generation", 1, heads - 2, heads, "recorded, after Enter")
    b.key("ArrowLeft")
    b.key(" ")
    check(text(b, "#cell-attention [aria-live]").startswith(f"layer {layers[1]}, head {heads - 3};"), "recorded: after the space bar")
    b.key("Tab")
    check(b.run("document.activeElement.closest('[role=grid]') === null"), "recorded: Tab leaves the grid")
    b.run("document.querySelector('#cell-attention tbody tr td').click()")
    check(text(b, "#cell-attention [aria-live]").startswith(f"layer {layers[0]}, head 0;"), "recorded: after a click")
    # A file that is no recording says so; without weights there is no chart; both leave the rest of the cell.
    choose(b, "generation", edits.index("keep"))
    b.run("[...document.querySelectorAll('#map td')].find((td) => td.cells?.[0].length === 700 && td.cells[0].depth === 0).click()")
    check("safetensors" in (text(b, "#cell-body h4 + pre:not([id])") or ""), "recorded: a damaged file is not told")
    check(text(b, "#cell-prompt") is not None, "recorded: the prompt beside a damaged file")
    # Narrow: the page does not scroll sideways. Print: what needs a hand is left out.
    b.call("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    choose(b, "generation", edits.index("omit"))
    b.run("[...document.querySelectorAll('#map td')].find((td) => td.cells?.[0].length === 700 && td.cells[0].depth === 50).click()")
    wide = b.run("document.documentElement.scrollWidth")
    check(wide <= 360, f"recorded: on a screen of 360 px the page is {wide} px wide")
    b.call("Emulation.clearDeviceMetricsOverride")
    b.prefer("light", media="print")
    same(b.run("document.querySelector('#cell-attention').getBoundingClientRect().height"), 0, "recorded: in print")
    b.prefer("light")
    same(b.troubles(), [], "recorded: exceptions, errors and requests at the end")


def main():
    folder, run, recordings = sys.argv[1:4]
    with Browser(find()) as b:
        for part in (large, hostile, table, empty):
            part(b, folder)
        real(b, run)
        recorded(b, recordings)
    pictures = os.environ.get("CORTADO_FIGURES_OUT")
    if pictures:
        for scheme in ("light", "dark"):
            with Browser(find()) as b:
                b.prefer(scheme)
                b.open(folder + "/large.html")
                b.run("document.querySelector('#map td').click()")
                b.screenshot(f"{pictures}/large_{scheme}.png")
                b.open(recordings + "/report.html")
                choose(b, "generation", 2)
                b.run("[...document.querySelectorAll('#map td')].find((td) => td.cells?.[0].length === 700 && td.cells[0].depth === 50).click()")
                b.screenshot(f"{pictures}/recorded_{scheme}.png", "#cell")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
