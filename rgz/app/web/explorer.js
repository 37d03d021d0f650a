// The explorer: the galaxy that is chosen on the map, the ten most similar ones, search, selection and filters.
// Everything comes with the page: data in a script element, pictures in one sheet. No request goes anywhere.
"use strict";

const codes = new Int8Array(Uint8Array.from(atob(data.codes), (c) => c.charCodeAt(0)).buffer);
const D = data.dimensions;
const norms = new Float64Array(count);
for (let i = 0; i < count; i++) norms[i] = Math.sqrt(dot(i, i));
const narrow = matchMedia("(max-width: 50rem)");

function dot(i, j) {
  let sum = 0;
  for (let d = 0, a = i * D, b = j * D; d < D; d++) sum += codes[a + d] * codes[b + d];
  return sum;
}

// ---- galaxies ----

/** Angle on the sky between two positions in degrees, arcsec. */
function onSky(ra1, dec1, ra2, dec2) {
  const radian = Math.PI / 180, up = Math.sin(((dec1 - dec2) * radian) / 2), aside = Math.sin(((ra1 - ra2) * radian) / 2);
  const half = up * up + Math.cos(dec1 * radian) * Math.cos(dec2 * radian) * aside * aside;
  return (2 * Math.asin(Math.min(1, Math.sqrt(half))) * 3600) / radian;
}

/** Whether two rows show the same galaxy. */
function same(i, j) {
  if (data.ra[i] === null || data.ra[j] === null || Math.abs(data.dec[i] - data.dec[j]) * 3600 > data.same) return false;
  return onSky(data.ra[i], data.dec[i], data.ra[j], data.dec[j]) <= data.same;
}

/** Further rows of the galaxy of row i. */
const others = (i) => [...data.name.keys()].filter((j) => j !== i && same(i, j));

/** The k galaxies most similar to galaxy i that the filters leave, each once, with 1 − cos of the codes. */
function neighbours(i, k) {
  const found = [], kept = [];
  for (let j = 0; j < count; j++) {
    if (j !== i && visible[j]) found.push({ row: j, far: 1 - dot(i, j) / (norms[i] * norms[j]) });
  }
  found.sort((a, b) => a.far - b.far || a.row - b.row);
  for (const one of found) {
    if (kept.length === k) break;
    if (!same(i, one.row) && !kept.some(({ row }) => same(row, one.row))) kept.push(one);
  }
  return kept;
}

const labelOf = (i) => data.labels[data.label[i]] || "no class";
const sampleOf = (i) => data.titles[data.sample[i]];
const positionOf = (i) => (data.ra[i] === null ? "" : `${data.ra[i].toFixed(5)} ${data.dec[i] < 0 ? "−" : "+"}${Math.abs(data.dec[i]).toFixed(5)}`);

/** A further row of galaxy i, in words; its class is told where it differs. */
const alsoIn = (i, j) => sampleOf(j) + (labelOf(j) === labelOf(i) ? "" : ` as ${labelOf(j)}`);

function numbersOf(i) {
  const known = data.numbers.filter(({ values }) => values[i] !== null);
  return known.map(({ title, unit, values }) => `${title} ${values[i] < 10 ? values[i] : Math.round(values[i])}${unit}`).join(", ");
}

// ---- elements ----

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function picture(i, span = element("span")) {
  span.className = "picture";
  span.style.backgroundPosition = `calc(var(--cell) * ${-(i % data.columns)}) calc(var(--cell) * ${-Math.floor(i / data.columns)})`;
  return span;
}

/** A button that chooses galaxy j. */
function button(j, ...children) {
  const made = element("button", { type: "button", title: `${data.name[j]}, ${sampleOf(j)}` }, ...children);
  made.dataset.row = j;
  made.addEventListener("click", () => choose(j));
  return made;
}

const soft = (text) => element("span", { className: "soft", textContent: text });

// ---- the chosen galaxy and its neighbours ----

function choose(i, follow = true) {
  chosen = i;
  nearest = neighbours(i, 10);
  $("card").hidden = true;
  $("chosen").replaceChildren(picture(i), description(i));
  $("neighbours").replaceChildren(...nearest.map(({ row, far }) => {
    const more = others(row).map((j) => alsoIn(row, j));
    const made = button(row, picture(row), data.name[row], soft(`${labelOf(row)}, ${far.toFixed(3)}`), ...more.map((one) => soft(`also in ${one}`)));
    return element("li", {}, made);
  }));
  if (!nearest.length) $("neighbours").append(element("li", { className: "soft", textContent: "The filters leave no other galaxy." }));
  history.replaceState(null, "", "#" + encodeURIComponent(data.name[i]));
  if (follow) bring(i);
  redraw();
}

/** Name, class, numbers, position and further rows of galaxy i. */
function description(i) {
  const lines = [element("strong", { textContent: data.name[i] }), `${labelOf(i)}, ${sampleOf(i)}`, numbersOf(i)];
  if (data.ra[i] === null) lines.push(soft("no position in its archive"));
  else {
    const target = positionOf(i).replace(" ", "").replace("+", "%2B").replace("−", "-");
    lines.push(element("a", { href: data.links.replace("{}", target), target: "_blank", rel: "noopener", textContent: positionOf(i) }));
  }
  const made = element("div", {}, ...lines.filter((line) => line).map((line) => element("p", {}, line)));
  for (const j of others(i)) {
    const far = 1 - dot(i, j) / (norms[i] * norms[j]), link = button(j, alsoIn(i, j));
    link.className = "link";
    made.append(element("p", {}, "also in ", link, soft(` (${far.toFixed(3)})`)));
  }
  return made;
}

/** On a narrow screen, the answer beside the place that was tapped. */
function showCard(i, y) {
  const close = element("button", { type: "button", textContent: "×", ariaLabel: "Close" });
  close.addEventListener("click", () => { $("card").hidden = true; });
  const strip = element("div", { className: "strip" }, ...nearest.map(({ row }) => button(row, picture(row), soft(labelOf(row)))));
  $("card").replaceChildren(element("div", { className: "head" }, picture(i), description(i), close), soft("the most similar ones"), strip);
  $("card").style.top = `${y + 20}px`;
  $("card").hidden = false;
  $("card").scrollIntoView({ block: "nearest" });
}

// ---- downloads ----

function download(name, rows) {
  const quote = (v) => (typeof v === "number" ? v : `"${String(v ?? "").replaceAll('"', '""')}"`);
  const text = rows.map((row) => row.map(quote).join(",")).join("\n") + "\n";
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const COLUMNS = ["name", "sample", "label", "ra", "dec", ...data.numbers.map(({ key }) => key)];
const record = (i) => [data.name[i], data.samples[data.sample[i]], data.labels[data.label[i]], data.ra[i], data.dec[i], ...data.numbers.map(({ values }) => values[i])];

$("csv").addEventListener("click", () => download(`like ${data.name[chosen]}.csv`, [["rank", "dissimilarity", ...COLUMNS],
  ...[{ row: chosen, far: 0 }, ...nearest].map(({ row, far }, rank) => [rank, Number(far.toFixed(6)), ...record(row)])]));
$("selection-csv").addEventListener("click", () => download("selection.csv", [COLUMNS, ...[...selected].map(record)]));

// ---- selection ----

function select(rows) {
  selected = new Set(rows);
  $("selection").hidden = !selected.size;
  $("selected").textContent = `${selected.size.toLocaleString("en")} selected`;
  $("members").replaceChildren(...rows.slice(0, 300).map((i) => element("li", {}, button(i, data.name[i], soft(` ${labelOf(i)}`)))));
  if (rows.length > 300) $("members").append(element("li", {}, soft("and others, which are in the download")));
  redraw();
}

const lassoing = () => $("lasso").getAttribute("aria-pressed") === "true";

function arm(on) {
  $("lasso").setAttribute("aria-pressed", on);
  canvas.classList.toggle("lasso", on);
}

$("lasso").addEventListener("click", () => arm(!lassoing()));
$("clear").addEventListener("click", () => select([]));

// ---- pointer and keyboard on the map ----

const touches = new Map();
let moved = 0, before = view;

const placeOf = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

function hover(event) {
  const [x, y] = placeOf(event), i = under(x, y, 14);
  $("tip").hidden = i < 0;
  if (i < 0) return;
  picture(i, $("tip").firstElementChild);
  $("tip-name").textContent = `${data.name[i]}, ${labelOf(i)}`;
  $("tip").style.left = `${Math.min(x + 14, canvas.clientWidth - 120)}px`;
  $("tip").style.top = `${Math.min(y + 14, canvas.clientHeight - 150)}px`;
}

canvas.addEventListener("pointerdown", (event) => {
  touches.set(event.pointerId, event);
  moved = 0;
  before = { ...view };
  canvas.setPointerCapture(event.pointerId);
  $("card").hidden = $("tip").hidden = true;
  if (lassoing() || event.shiftKey) loop = [placeOf(event)];
});
canvas.addEventListener("pointermove", (event) => {
  if (!touches.size) return hover(event);
  const last = touches.get(event.pointerId);
  if (!last) return;
  const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY];
  moved += Math.hypot(dx, dy);
  if (touches.size === 2) {
    const other = [...touches.values()].find((t) => t.pointerId !== event.pointerId);
    const gap = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
    if (gap(last) > 0) zoom(gap(event) / gap(last));
    loop = [];
  } else if (loop.length) loop.push(placeOf(event));
  else {
    view.x -= dx / side();
    view.y -= dy / side();
  }
  touches.set(event.pointerId, event);
  redraw();
});
canvas.addEventListener("pointerup", (event) => {
  touches.delete(event.pointerId);
  const [x, y] = placeOf(event), polygon = loop;
  loop = [];
  if (polygon.length > 2) {
    arm(false);
    return select(inside(polygon));
  }
  if (moved > 6) return;
  const i = under(x, y, 22);
  if (i < 0) return;
  choose(i, false);
  if (narrow.matches) showCard(i, y);
});
canvas.addEventListener("pointercancel", (event) => { // the browser scrolls the page
  touches.delete(event.pointerId);
  [loop, view] = [[], before];
  redraw();
});
canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), ...placeOf(event));
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") zoom(0);
  else if (step) {
    const i = beside(step);
    if (i >= 0) choose(i);
  } else return;
  event.preventDefault();
});

/** The visible galaxy next to the chosen one in a direction, or −1. */
function beside([right, below]) {
  const [x, y] = place(chosen);
  let best = -1, least = Infinity;
  for (let i = 0; i < count; i++) {
    if (i === chosen || !visible[i]) continue;
    const [px, py] = place(i), ahead = (px - x) * right + (py - y) * below, aside = Math.abs((px - x) * below + (py - y) * right);
    if (ahead > 0 && aside <= ahead && ahead + aside < least) [least, best] = [ahead + aside, i];
  }
  return best;
}

// ---- search ----

/** RA and Dec in degrees from "150.5 2.25" or "12 34 56 +12 34 56"; null if a text is no position. */
function position(text) {
  if (!/^[\d\s.,:+\-−hmsd°'"′″]+$/.test(text)) return null;
  const parts = text.replaceAll("−", "-").match(/[+-]?\d+(\.\d*)?/g) ?? [];
  if (parts.length !== 2 && parts.length !== 6) return null;
  const [h, m, s, d, arcmin, arcsec] = parts.map(Number), sign = parts[3]?.startsWith("-") ? -1 : 1;
  const [ra, dec] = parts.length === 2 ? [h, m] : [15 * (h + m / 60 + s / 3600), sign * (Math.abs(d) + arcmin / 60 + arcsec / 3600)];
  return ra >= 0 && ra < 360 && Math.abs(dec) <= 90 ? [ra, dec] : null;
}

const inWords = (arcsec) => (arcsec < 90 ? `${arcsec.toFixed(1)}″` : arcsec < 5400 ? `${(arcsec / 60).toFixed(1)}′` : `${(arcsec / 3600).toFixed(1)}°`);

/** The row that a name, a part of one or a position asks for, or undefined; the hint says how it was found. */
function search() {
  const asked = $("search").value.trim().toLowerCase(), found = [];
  for (let i = 0; asked && i < count; i++) if (data.name[i].toLowerCase().includes(asked)) found.push(i);
  const exact = found.find((i) => data.name[i].toLowerCase() === asked);
  $("names").replaceChildren(...found.slice(0, 30).map((i) => element("option", { value: data.name[i], label: `${labelOf(i)}, ${sampleOf(i)}` })));
  $("hint").textContent = exact === undefined && found.length > 1 ? `${found.length} names contain that; Enter shows the first` : "";
  if (!asked || found.length) return exact ?? found[0];
  const sky = position(asked);
  if (!sky) $("hint").textContent = "No galaxy has that in its name, and it is no position.";
  return sky ? nearestTo(sky) : undefined;
}

function nearestTo([ra, dec]) {
  let best, least = Infinity;
  for (let i = 0; i < count; i++) {
    if (data.ra[i] === null) continue;
    const far = onSky(ra, dec, data.ra[i], data.dec[i]);
    if (far < least) [least, best] = [far, i];
  }
  $("hint").textContent = best === undefined ? "No position is known." : `${data.name[best]} is nearest, ${inWords(least)} from there`;
  return best;
}

$("search").addEventListener("input", () => {
  const found = search();
  if (found !== undefined && data.name[found].toLowerCase() === $("search").value.trim().toLowerCase()) choose(found);
});
$("search").addEventListener("keydown", (event) => {
  const found = event.key === "Enter" ? search() : undefined;
  if (found !== undefined) choose(found);
});

// ---- controls ----

/** Check boxes that are the legend too. */
function legend(box, kind, entries) {
  $(box).append(...entries.map((text, number) => {
    const input = element("input", { type: "checkbox", checked: true, id: `${kind}-${number}` });
    input.addEventListener("change", () => {
      input.checked ? shown[kind].add(number) : shown[kind].delete(number);
      for (let i = 0; i < count; i++) visible[i] = shown.sample.has(data.sample[i]) && shown.label.has(data.label[i]);
      choose(chosen, false);
    });
    return element("label", {}, input, " ", element("span"), text || "no class");
  }));
}

/** Colours the map, and shows in the legend what colours and shapes mean. */
function colourBy(by) {
  const number = data.numbers.find(({ key }) => key === by);
  dress(by);
  for (const kind of ["label", "sample"]) {
    const used = by === kind || (number && kind === "label");
    data.colours[kind].forEach((colour, k) => {
      const symbol = used ? swatch(data.shapes[k], number ? styleOf("--ink") : colour) : element("span");
      $(`${kind}-${k}`).nextElementSibling.replaceWith(symbol);
    });
  }
  $("scale").hidden = !number;
  if (number) {
    const [, low, high] = scaleOf(number), stops = Array.from({ length: 9 }, (_, k) => ramp(k / 8));
    $("bar").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    [$("low").textContent, $("high").textContent] = [low, high].map((v) => `${v < 10 ? v : Math.round(v)}${number.unit}`);
    $("bar").title = number.log ? "logarithmic scale" : "linear scale";
  }
  redraw();
}

function fromAddress() {
  let name = "";
  try { name = decodeURIComponent(location.hash.slice(1)); } catch { /* a damaged address shows the first galaxy */ }
  return Math.max(0, data.name.indexOf(name));
}

$("in").addEventListener("click", () => zoom(1.5));
$("out").addEventListener("click", () => zoom(1 / 1.5));
$("all").addEventListener("click", () => zoom(0));
new ResizeObserver(redraw).observe(canvas);
dark.addEventListener("change", () => colourBy($("colour").value));
window.addEventListener("hashchange", () => choose(fromAddress()));

document.documentElement.style.setProperty("--columns", data.columns);
document.documentElement.style.setProperty("--rows", Math.ceil(count / data.columns));
$("count").textContent = count.toLocaleString("en");
$("sampled").hidden = !data.all;
$("all-count").textContent = data.all?.toLocaleString("en") ?? "";
$("pictures").textContent = data.pictures;
$("own").hidden = !data.own; // that page is not always built
$("book").hidden = !data.book; // a map of one's own galaxies is not in the book
legend("labels", "label", data.labels);
legend("samples", "sample", data.titles);
$("colour").append(...data.numbers.map(({ key, title }) => element("option", { value: key, textContent: title })));
$("colour").addEventListener("change", () => colourBy($("colour").value));
colourBy("label");
choose(fromAddress());
