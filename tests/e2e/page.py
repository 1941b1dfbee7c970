"""What the report page shows, in a headless Chromium: page.py FOLDER RUN.

FOLDER holds the pages that the unit test test_report.c writes (CORTADO_FIGURES_OUT), RUN is a run's folder with
report.html and run.sqlite. Prints what is not as it should be; exit 1 if anything is not.
"""

import json
import os
import sqlite3
import sys

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


def main():
    folder, run = sys.argv[1:3]
    with Browser(find()) as b:
        for part in (large, hostile, table, empty):
            part(b, folder)
        real(b, run)
    pictures = os.environ.get("CORTADO_FIGURES_OUT")
    if pictures:
        for scheme in ("light", "dark"):
            with Browser(find()) as b:
                b.prefer(scheme)
                b.open(folder + "/large.html")
                b.run("document.querySelector('#map td').click()")
                b.screenshot(f"{pictures}/large_{scheme}.png")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
