/* The map explorer. All of it comes from the page's own data; what is shown is always set as text, never as
 * HTML. One cell's view is a list of panels (PANELS): what a store records about a cell beyond its outcome, such
 * as attention weights, becomes one more of them. */
(() => {
'use strict';
const D = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);

/* ---- data -------------------------------------------------------------------------------------------------- */

const CELL = ['length', 'depth', 'seed', 'prompt', 'output', 'score', 'audit', 'prefill_ms', 'decode_ms', 'tokens',
  'token_begin', 'token_end', 'ids'];
const cells = []; /* by index, as the page's links count */
for (const [g, group] of D.groups.entries()) {
  group.version = D.versions[group.v];
  group.cells = group.cells.map((row) => {
    const cell = {group: g, index: cells.length};
    CELL.forEach((name, i) => { cell[name] = row[i]; });
    cells.push(cell);
    return cell;
  });
}

const promptText = (i) => {
  let text = '';
  const p = D.prompts[i];
  for (let at = 2; at < p.length; at += 2) text += D.pool.substr(p[at], p[at + 1]);
  return text;
};

const signed = (x, digits) => (x > 0 ? '+' : x < 0 ? '−' : '') + Math.abs(x).toFixed(digits);
const percent = (x) => (100 * x).toFixed(1);
const scoreText = (x) => Number.isInteger(x) ? String(x) : x.toFixed(1);
const pText = (p) => p < 0.001 ? 'p < 0.001' : 'p = ' + p.toFixed(3);
const kText = (k) => k < 0 ? 'all' : String(k);

function element(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === 'on') for (const [event, fn] of Object.entries(value)) e.addEventListener(event, fn);
    else if (key === 'style') e.style.cssText = value;
    else e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

/* ---- two versions on the same prompts ---------------------------------------------------------------------- */

/* The two-sided p of ct_sign_flip (src/report/compare.c), for any two versions: the share of all choices of signs
 * whose sum is at least as far from 0, from the exact distribution of the sum; null if the differences have no
 * common step. */
function signFlip(differences) {
  const d = differences.filter((x) => Math.abs(x) > 1e-9);
  if (!d.length) return 1;
  let units = null;
  for (let q = 1; q <= 60 && !units; q++)
    if (d.every((x) => Math.round(Math.abs(x) * q) >= 1 && Math.abs(Math.abs(x) * q - Math.round(Math.abs(x) * q)) <= 1e-9 * q))
      units = d.map((x) => Math.round(Math.abs(x) * q));
  const total = units ? units.reduce((a, b) => a + b) : Infinity;
  if (total * d.length > 5e7) return null;
  const chance = new Float64Array(total + 1);
  chance[0] = 1;
  let reach = 0, plus = 0;
  units.forEach((u, i) => {
    for (let t = reach + u; t >= 0; t--) chance[t] = ((t <= reach ? chance[t] : 0) + (t >= u ? chance[t - u] : 0)) / 2;
    reach += u;
    if (d[i] > 0) plus += u;
  });
  const far = Math.max(plus, total - plus), near = total - far;
  if (near >= far) return 1;
  let p = 0;
  for (let t = 0; t <= near; t++) p += chance[t] + chance[total - t];
  return Math.min(p, 1);
}

/* Group g against group o, as the page's own comparisons are; no interval. */
function compare(g, o) {
  const max = D.groups[g].version.max, others = places(D.groups[o]), d = [];
  for (const [place, list] of places(D.groups[g])) {
    const mine = mean(list), theirs = mean(others.get(place));
    if (mine !== null && theirs !== null) d.push(mine - theirs * max / D.groups[o].version.max);
  }
  return {name: nameOf(o), group: o, pairs: d.length, difference: d.length ? d.reduce((a, b) => a + b, 0) / d.length / max : 0,
    better: d.filter((x) => x > 1e-9).length, worse: d.filter((x) => x < -1e-9).length, p: signFlip(d)};
}

const nameOf = (g) => D.groups[g].label + (D.groups[g].k < 0 ? '' : ', k = ' + D.groups[g].k);
const compared = (t) => t.pairs === 0 ? `no common prompts with ${t.name}`
  : `${signed(100 * t.difference, 1)} points from ${t.name} (${t.p === null ? 'no exact p' : pText(t.p)}, ${t.better} better, ${t.worse} worse`
    + (t.low === undefined || t.pairs < 2 ? '' : `, interval ${signed(100 * t.low, 1)} to ${signed(100 * t.high, 1)}`) + ')';

/* ---- which version ----------------------------------------------------------------------------------------- */

const FIELDS = [['model', 'Model'], ['study', 'Study'], ['template', 'Prompts'], ['reading', 'Context'],
  ['semantics', 'Semantics'], ['scoring', 'Scoring'], ['stages', 'Heads selected in'], ['metric', 'Heads kept by'],
  ['generation', 'Weights in generation'], ['prefill', 'Weights in prefill'], ['k', 'k, heads kept']];
const value = (group, field) => field === 'k' ? group.k : group.version[field];
const words = (field, v) => field === 'k' ? kText(v)
  : v !== '' ? v : field === 'stages' ? 'no selection' : field === 'metric' ? 'none' : 'none';

let current = 0;     /* index of the group shown */
let against = null;  /* the comparison that the map shows; null: scores */
let chosen = null;   /* the cell shown */
const selects = {};

/* The group with this value that agrees with the present one in the most, earlier fields first. */
function nearest(field, wanted) {
  let best = -1, bestRank = -1;
  for (const [g, group] of D.groups.entries()) {
    if (value(group, field) !== wanted) continue;
    let rank = 0;
    FIELDS.forEach(([name], i) => {
      if (value(group, name) === value(D.groups[current], name)) rank += 2 ** (FIELDS.length - i);
    });
    if (rank > bestRank) { best = g; bestRank = rank; }
  }
  return best;
}

function buildControls() {
  for (const [field, title] of FIELDS) {
    const seen = new Set(D.groups.map((g) => value(g, field)));
    if (seen.size < 2) continue;
    const values = [...seen];
    if (field === 'k') values.sort((a, b) => a - b);
    const select = element('select', {id: 'choose-' + field,
      on: {change: () => show(nearest(field, values[select.selectedIndex]))}});
    for (const v of values) select.append(element('option', {}, words(field, v)));
    selects[field] = {select, values};
    $('controls').append(element('label', {}, title, select));
  }
  const shown = element('select', {id: 'choose-shown', on: {change: () => {
    const [kind, at] = shown.value.split(' ');
    against = kind === 'listed' ? D.groups[current].against[at] : kind === 'any' ? compare(current, Number(at)) : null;
    summarize();
    drawMap();
  }}});
  selects.shown = {select: shown};
  $('controls').append(element('label', {}, 'Map shows', shown));
}

/* Scores, the page's comparisons, and any other version. */
function fillShown() {
  const select = selects.shown.select, list = D.groups[current].against;
  select.replaceChildren(element('option', {value: 'scores'}, 'scores'),
    ...list.map((t, i) => element('option', {value: 'listed ' + i}, 'difference from ' + t.name)));
  const others = element('optgroup', {label: 'difference from any version'});
  D.groups.forEach((_, g) => { if (g !== current) others.append(element('option', {value: 'any ' + g}, nameOf(g))); });
  if (others.children.length) select.append(others);
  if (!against) select.value = 'scores';
  else select.value = list.includes(against) ? 'listed ' + list.indexOf(against) : 'any ' + against.group;
}

function summarize() {
  const group = D.groups[current];
  let text = nameOf(current) + ': ';
  text += group.prompts ? `${percent(group.accuracy)} %` + (group.prompts > 1 ? ` [${percent(group.low)}, ${percent(group.high)}]` : '')
    + ` over ${group.prompts} prompt${group.prompts > 1 ? 's' : ''}` : 'all failed';
  for (const t of group.against) text += '; ' + compared(t);
  if (against && !group.against.includes(against)) text += '; ' + compared(against);
  $('summary').textContent = text;
}

/* ---- the map ----------------------------------------------------------------------------------------------- */

const mix = (a, b, f) => 'rgb(' + a.map((x, i) => Math.round(x + (b[i] - x) * f)).join(',') + ')';
/* Those of maps.c. */
const LOW = [0xE6, 0x48, 0x6A], MIDDLE = [0xF2, 0xB2, 0x4A], HIGH = [0x98, 0xEC, 0xE2];
const LESS = [0xE8, 0x7A, 0x1C], NONE = [0xEE, 0xEE, 0xEE], MORE = [0x4A, 0xA8, 0xE0];
const scoreInk = (x) => x < 0.5 ? mix(LOW, MIDDLE, 2 * x) : mix(MIDDLE, HIGH, 2 * x - 1);
const differenceInk = (x) => x < 0 ? mix(NONE, LESS, -x) : mix(NONE, MORE, x);

/* Cells of a group by place; several of one place are seeds. */
function places(group) {
  const map = new Map();
  for (const cell of group.cells) {
    const key = cell.length + '/' + cell.depth;
    if (!map.has(key)) map.set(key, []);
    map.get(key).push(cell);
  }
  return map;
}
function mean(list) {
  const done = (list || []).filter((c) => c.output >= 0);
  return done.length ? done.reduce((sum, c) => sum + c.score, 0) / done.length : null;
}

const ascending = (list) => [...new Set(list)].sort((a, b) => a - b);

function drawMap() {
  const group = D.groups[current], v = group.version, here = places(group);
  const lengths = ascending(group.cells.map((c) => c.length)), depths = ascending(group.cells.map((c) => c.depth));
  const test = against;
  const base = test ? places(D.groups[test.group]) : null;
  const longest = new Map(lengths.map((l) => [l, 0])); /* prompt of a length: read twice, it is about twice as long */
  for (const c of group.cells) longest.set(c.length, Math.max(longest.get(c.length), c.tokens));
  const inside = lengths.filter((l) => longest.get(l) <= v.window).length;
  const edge = v.window > 0 && inside > 0 && inside < lengths.length ? inside : -1;

  const head = element('tr', {role: 'row'}, element('th', {scope: 'col', role: 'columnheader'}, 'depth, %'));
  for (const l of lengths) head.append(element('th', {scope: 'col', role: 'columnheader'}, String(l)));
  const body = element('tbody', {role: 'rowgroup'});
  for (const [row, d] of depths.entries()) {
    const tr = element('tr', {role: 'row'}, element('th', {scope: 'row', role: 'rowheader'}, String(d)));
    for (const [column, l] of lengths.entries()) {
      const list = here.get(l + '/' + d), score = mean(list);
      const other = base ? mean(base.get(l + '/' + d)) : null;
      const td = element('td', {role: 'gridcell', tabindex: '-1', 'aria-selected': 'false',
        'data-row': row, 'data-column': column});
      let said = `length ${l}, depth ${d} %: `;
      if (!list) { td.className = 'none'; said += 'not run'; }
      else if (score === null) { td.className = 'failed'; td.textContent = '!'; said += 'failed'; }
      else if (test && other === null) { td.className = 'none'; said += 'not run on the other side'; }
      else if (test) {
        td.textContent = score === other ? '0' : signed(score - other, Number.isInteger(score - other) ? 0 : 1);
        td.style.background = differenceInk(Math.max(-1, Math.min(1, (score - other) / v.max)));
        said += `score ${scoreText(score)} against ${scoreText(other)}`;
      } else {
        td.textContent = scoreText(score);
        td.style.background = scoreInk(score / v.max);
        said += `score ${scoreText(score)} of ${scoreText(v.max)}`;
      }
      if (column === edge) td.classList.add('out');
      td.setAttribute('aria-label', said);
      if (list) {
        td.cells = list;
        if (chosen && list.includes(chosen)) td.setAttribute('aria-selected', 'true');
      }
      tr.append(td);
    }
    body.append(tr);
  }
  const title = test ? 'Difference from ' + test.name : 'Mean score';
  const table = element('table', {role: 'grid', class: 'map', style: `min-width:${4.5 + 2.5 * lengths.length}rem`, 'aria-label':
    title + ' by depth of the needle (rows) and prompt length (columns)',
    'aria-describedby': 'summary'}, element('thead', {role: 'rowgroup'}, head), body);
  table.addEventListener('keydown', (e) => mapKey(e));
  table.addEventListener('click', (e) => {
    const td = e.target.closest('td');
    if (td) { focusPlace(td); open(td); }
  });
  $('map').replaceChildren(table, element('p', {class: 'facts'}, title + ' by prompt length in tokens (across) and depth '
    + 'of the needle (down).' + (edge >= 0 ? ` Dashed: prompts right of it are longer than the attention window of ${v.window} tokens.` : '')));
  const first = table.querySelector('td[aria-selected=true]') || table.querySelector('td');
  if (first) first.tabIndex = 0;
}

/* One place of the map is in the tab order; the arrows move it. */
function focusPlace(td) {
  for (const other of td.closest('table').querySelectorAll('td[tabindex="0"]')) other.tabIndex = -1;
  td.tabIndex = 0;
  td.focus();
}

function mapKey(e, choose = open) {
  const td = e.target.closest('td');
  if (!td || e.altKey || e.ctrlKey || e.metaKey) return;
  const rows = td.closest('tbody').rows;
  const row = Number(td.dataset.row), column = Number(td.dataset.column);
  const last = rows[0].cells.length - 2;
  const moves = {ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1], Home: [row, 0], End: [row, last], PageUp: [0, column], PageDown: [rows.length - 1, column]};
  if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); choose(td); return; }
  if (!(e.key in moves)) return;
  e.preventDefault();
  const [r, c] = moves[e.key];
  if (rows[r] && c >= 0 && c <= last) focusPlace(rows[r].cells[c + 1]);
}

/* ---- one cell ---------------------------------------------------------------------------------------------- */

function open(td) {
  if (!td.cells) return;
  showCell(td.cells[0]);
}

/* As answers are scored: lower case, nothing but words and single blanks; at[i] is where clean[i] came from. */
function clean(text) {
  let out = '', blank = false, i = 0;
  const at = [];
  for (const ch of text) {
    if (/[\p{L}\p{N}_]/u.test(ch)) {
      if (blank && out) { out += ' '; at.push(i); }
      blank = false;
      const lower = ch.toLowerCase();
      for (let u = 0; u < lower.length; u++) at.push(i);
      out += lower;
    } else if (/\s/u.test(ch)) blank = true;
    i += ch.length;
  }
  return {out, at};
}

/* Ranges of the text that say the keyword. */
function findKeyword(text, cleaned, keyword) {
  const wanted = clean(keyword).out, ranges = [];
  if (!wanted) return ranges;
  for (let i = cleaned.out.indexOf(wanted); i >= 0; i = cleaned.out.indexOf(wanted, i + 1)) {
    const end = cleaned.at[i + wanted.length - 1];
    ranges.push([cleaned.at[i], end + String.fromCodePoint(text.codePointAt(end)).length]);
  }
  return ranges;
}

function marked(text, ranges) {
  const parts = [];
  let at = 0;
  for (const [begin, end] of ranges.sort((a, b) => a[0] - b[0] || b[1] - a[1])) {
    if (end <= at) continue;
    const from = Math.max(begin, at);
    parts.push(text.slice(at, from), element('mark', {}, text.slice(from, end)));
    at = end;
  }
  parts.push(text.slice(at));
  return parts;
}

function outputPanel(cell) {
  const v = D.groups[cell.group].version;
  if (cell.output < 0)
    return [element('h4', {}, 'Error'), element('pre', {id: 'cell-error'}, D.errors[-cell.output - 1])];
  const text = D.outputs[cell.output], cleaned = clean(text), ranges = [];
  const list = element('ul', {id: 'cell-keywords'});
  for (const k of D.keywords[v.keywords]) {
    const found = findKeyword(text, cleaned, k.text);
    ranges.push(...found);
    list.append(element('li', found.length ? {} : {class: 'no'},
      `${found.length ? '✓' : '–'} ${k.set ? 'sets ' : '+ '}${scoreText(k.points)}: ${k.text.trim()}`));
  }
  return [element('h4', {}, 'Output'), element('pre', {id: 'cell-output', tabindex: '0'}, ...marked(text, ranges)),
    list.children.length ? element('h4', {}, `Scored (${v.scoring})`) : null, list];
}

function factsPanel(cell) {
  const group = D.groups[cell.group], v = group.version, a = D.audits[cell.audit];
  const facts = element('dl', {});
  const fact = (name, text) => facts.append(element('dt', {}, name), element('dd', {}, text));
  if (cell.output >= 0) fact('score', `${scoreText(cell.score)} of ${scoreText(v.max)}`);
  fact('version', group.label);
  fact('heads kept', group.k < 0 ? 'no selection' : `${group.k} of ${v.heads}`);
  fact('prompt', `${cell.tokens} tokens; needle at ${cell.token_begin} to ${cell.token_end - 1}`);
  if (cell.output >= 0) fact('generated', `${cell.ids} tokens`);
  fact('time', `prefill ${cell.prefill_ms.toFixed(1)} ms, generation ${cell.decode_ms.toFixed(1)} ms (its share of shared work)`);
  const table = element('table', {id: 'cell-audit'}, element('caption', {}, 'Audit, in (token, attention layer) rows'),
    element('thead', {}, element('tr', {}, ...['stage', 'rows', 'examined', 'heads zeroed', 'edited', 'changed']
      .map((t, i) => element('th', {scope: 'col', class: i ? '' : 't'}, t)))),
    element('tbody', {}, ...['prefill', 'generation'].map((stage, s) => element('tr', {},
      element('th', {scope: 'row', class: 't'}, stage), ...[0, 1, 2, 3, 4].map((i) => element('td', {}, String(a[2 * i + s])))))));
  return [facts, element('div', {class: 'scroll'}, table)];
}

function promptPanel(cell) {
  const text = promptText(cell.prompt), [begin, end] = D.prompts[cell.prompt], ranges = [];
  const needle = text.slice(begin, end);
  for (let i = needle ? text.indexOf(needle) : -1; i >= 0; i = text.indexOf(needle, i + needle.length))
    ranges.push([i, i + needle.length]);
  const pre = element('pre', {id: 'cell-prompt', tabindex: '0', 'aria-label': 'Prompt, needle marked'}, ...marked(text, ranges));
  return [element('h4', {}, 'Prompt'), pre];
}

/* ---- recorded attention ------------------------------------------------------------------------------------ */

const share = (x) => (x / 100).toFixed(1) + ' %'; /* the page's unit is 1/10000 */

function svg(name, attributes, ...children) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

/* What is known of head i (layer by layer) of a recorded row, in words. */
function headWords(row, i) {
  const words = [`layer ${row.layers[Math.floor(i / row.heads)]}, head ${i % row.heads}`];
  if (row.kept) words.push(row.kept[i] ? 'kept' : 'dropped');
  if (row.entropy) words.push(`entropy ${(row.entropy[i] / 100).toFixed(2)} bits`);
  if (row.needle_before) words.push(`on the needle ${share(row.needle_before[i])} before the edit, ${share(row.needle_after[i])} after it`);
  if (row.peak) words.push(`largest weight ${share(row.peak_weight[i])} at position ${row.peak[i]}`);
  return words.join('; ');
}

/* Weights over positions: dashed before the edit, filled after it, the needle behind them, as in Figure 6.1. */
function weightsChart(cell, row, i) {
  const L = 52, W = 720, H = 170, before = row.before[i], after = row.after[i], most = Math.max(1, ...before, ...after);
  const x = (bin) => L + (W - L) * bin / before.length, y = (w) => H - 20 - (H - 30) * w / most;
  const steps = (list) => list.map((w, b) => `L${x(b).toFixed(1)} ${y(w).toFixed(1)}L${x(b + 1).toFixed(1)} ${y(w).toFixed(1)}`).join('');
  const at = (position) => L + (W - L) * position / row.keys;
  return svg('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img', class: 'weights', 'aria-label': 'Weights of ' + headWords(row, i)},
    svg('rect', {class: 'needle', x: at(cell.token_begin), y: 0, height: H - 20,
      width: Math.max(2, at(cell.token_end) - at(cell.token_begin))}),
    svg('path', {class: 'after', d: `M${L} ${H - 20}` + steps(after) + `L${W} ${H - 20}Z`}),
    svg('path', {class: 'before', d: `M${L} ${H - 20}` + steps(before) + `L${W} ${H - 20}`}),
    svg('text', {x: L, y: H - 5}, '0'), svg('text', {x: (L + W) / 2, y: H - 5, 'text-anchor': 'middle'}, 'position'),
    svg('text', {x: W - 4, y: H - 5, 'text-anchor': 'end'}, String(row.keys - 1)),
    svg('text', {x: L - 6, y: 14, 'text-anchor': 'end'}, share(most)), svg('text', {x: L - 6, y: H - 20, 'text-anchor': 'end'}, '0'));
}

function attentionRow(cell, row) {
  const n = row.layers.length * row.heads, chart = element('div', {class: 'chart'});
  const said = element('p', {class: 'facts', 'aria-live': 'polite'});
  const body = element('tbody', {role: 'rowgroup'});
  const choose = (td) => {
    const i = Number(td.dataset.row) * row.heads + Number(td.dataset.column);
    for (const other of body.querySelectorAll('td')) other.setAttribute('aria-selected', String(other === td));
    said.textContent = headWords(row, i);
    chart.replaceChildren(...(row.before ? [weightsChart(cell, row, i)] : []));
  };
  const mass = (i) => row.needle_before ? row.needle_before[i] : row.peak_weight ? row.peak_weight[i] : 0;
  row.layers.forEach((layer, l) => {
    const tr = element('tr', {role: 'row'}, element('th', {scope: 'row', role: 'rowheader'}, 'layer ' + layer));
    for (let h = 0; h < row.heads; h++) {
      const i = l * row.heads + h, dropped = row.kept && !row.kept[i];
      const td = element('td', {role: 'gridcell', tabindex: '-1', 'aria-selected': 'false', 'data-row': l, 'data-column': h,
        'aria-label': headWords(row, i), style: 'background:' + mix(NONE, MORE, Math.min(1, mass(i) / 10000))},
      row.needle_before ? String(Math.round(mass(i) / 100)) : row.kept ? (dropped ? '–' : '✓') : '·');
      if (dropped) td.className = 'dropped';
      tr.append(td);
    }
    body.append(tr);
  });
  const head = element('tr', {role: 'row'}, element('th', {scope: 'col', role: 'columnheader'}, 'head'));
  for (let h = 0; h < row.heads; h++) head.append(element('th', {scope: 'col', role: 'columnheader'}, String(h)));
  const table = element('table', {role: 'grid', class: 'map heads', 'aria-label': 'Heads in ' + row.stage + ': layers (rows) and heads'},
    element('thead', {role: 'rowgroup'}, head), body);
  table.addEventListener('keydown', (e) => mapKey(e, choose));
  table.addEventListener('click', (e) => { const td = e.target.closest('td'); if (td) { focusPlace(td); choose(td); } });
  let first = 0;
  for (let i = 1; i < n; i++) if (mass(i) > mass(first)) first = i;
  const td = body.querySelectorAll('td')[first];
  td.tabIndex = 0;
  choose(td);
  return [element('h4', {}, `Attention in ${row.stage}, of the token at position ${row.position}`),
    element('p', {class: 'facts'}, (row.needle_before ? 'Per cent of each head’s weight on the needle, before the edit' : 'Heads')
      + (row.kept ? '; struck through: dropped' : '') + '. Choose a head by mouse, or by arrow keys and Enter.'),
    element('div', {class: 'scroll'}, table), said, element('div', {class: 'scroll'}, chart),
    row.before ? element('p', {class: 'facts'}, 'Weights by position: dashed before the edit, filled after it; the needle is marked.'
      + (row.before[0].length < row.keys ? ` Each step is the largest of ${Math.ceil(row.keys / row.before[0].length)} positions at most.` : '')) : null];
}

function attentionPanel(cell) {
  const rows = D.recordings[cell.index];
  if (rows === undefined) return [];
  if (typeof rows === 'string') return [element('h4', {}, 'Attention'), element('pre', {}, rows)];
  const note = D.recorded[0] > D.recorded[1]
    ? [element('p', {class: 'facts'}, `${D.recorded[0]} cells are recorded; the first ${D.recorded[1]} are on this page.`)] : [];
  return [element('section', {id: 'cell-attention', 'aria-label': 'Recorded attention'},
    ...rows.flatMap((row) => attentionRow(cell, row)).filter((e) => e), ...note)];
}

const PANELS = [outputPanel, factsPanel, attentionPanel, promptPanel];

function showCell(cell, focus) {
  chosen = cell;
  const group = D.groups[cell.group];
  const same = group.cells.filter((c) => c.length === cell.length && c.depth === cell.depth);
  $('cell-title').textContent = `length ${cell.length}, depth ${cell.depth} %` +
    (cell.output < 0 ? ' – failed' : ` – ${scoreText(cell.score)} of ${scoreText(group.version.max)}`);
  const body = $('cell-body');
  body.replaceChildren();
  if (same.length > 1) {
    const seeds = element('div', {class: 'seeds', role: 'group', 'aria-label': 'Seed'});
    for (const c of same)
      seeds.append(element('button', {type: 'button', 'aria-pressed': String(c === cell), on: {click: () => showCell(c)}},
        `seed ${c.seed}: ${c.output < 0 ? 'failed' : scoreText(c.score)}`));
    body.append(seeds);
  }
  for (const panel of PANELS) body.append(...panel(cell).filter((e) => e));
  const needle = body.querySelector('#cell-prompt mark');
  if (needle) {
    const pre = $('cell-prompt');
    pre.scrollTop = needle.offsetTop - pre.offsetTop - pre.clientHeight / 2;
  }
  for (const td of $('map').querySelectorAll('td'))
    td.setAttribute('aria-selected', String(Boolean(td.cells && td.cells.includes(cell))));
  if (focus) $('cell').focus();
}

/* ---- what is shown ----------------------------------------------------------------------------------------- */

function show(g, cell) {
  const before = against;
  current = g;
  const group = D.groups[g];
  /* The same comparison, where the new version has it; any other version stays the other side. */
  against = !before ? null : group.against.find((t) => t.name === before.name)
    || (before.group !== g && before.name === nameOf(before.group) ? compare(g, before.group) : null);
  for (const [field, {select, values}] of Object.entries(selects))
    if (values) select.selectedIndex = values.indexOf(value(group, field));
  fillShown();
  summarize();
  if (chosen && chosen.group !== g) {
    const {length, depth} = chosen;
    chosen = cell || group.cells.find((c) => c.length === length && c.depth === depth) || null;
  } else if (cell) chosen = cell;
  drawMap();
  if (chosen) showCell(chosen, Boolean(cell));
}

function fromAddress() {
  const match = /^#cell-(\d+)$/.exec(location.hash);
  const cell = match ? cells[Number(match[1])] : null;
  if (!cell) return;
  show(cell.group, cell);
  $('explorer').scrollIntoView();
}

buildControls();
show(D.first);
window.addEventListener('hashchange', fromAddress);
fromAddress();
document.documentElement.dataset.ready = 'yes';
})();
