// The explorer: a map of all galaxies, and the ten nearest of the one chosen, by the angle between their codes.
// Everything comes with the page: data in a script element, pictures in one sheet. No request goes anywhere.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const count = data.name.length;
const bytes = Uint8Array.from(atob(data.codes), (c) => c.charCodeAt(0));
const codes = new Int8Array(bytes.buffer);
const D = data.dimensions;
const norms = new Float64Array(count);
for (let i = 0; i < count; i++) norms[i] = Math.sqrt(dot(i, i));

const $ = (id) => document.getElementById(id);
const canvas = $("sky");
const paint = canvas.getContext("2d");
const shown = { sample: new Set(data.samples.keys()), label: new Set(data.labels.keys()) };
let view = { x: 0.5, y: 0.5, scale: 1 };
let chosen = 0;
let nearest = [];

function dot(i, j) {
  let sum = 0;
  for (let d = 0, a = i * D, b = j * D; d < D; d++) sum += codes[a + d] * codes[b + d];
  return sum;
}

const visible = (i) => shown.sample.has(data.sample[i]) && shown.label.has(data.label[i]);

/** The k galaxies nearest to galaxy i among those that the filters leave, with 1 − cos of the angle between their codes. */
function neighbours(i, k) {
  const found = [];
  for (let j = 0; j < count; j++) {
    if (j !== i && visible(j)) found.push([1 - dot(i, j) / (norms[i] * norms[j]), j]);
  }
  return found.sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, k);
}

const labelOf = (i) => data.labels[data.label[i]] || "no class";
const sampleOf = (i) => data.titles[data.sample[i]];
const positionOf = (i) => (data.ra[i] === null ? "" : `${data.ra[i].toFixed(5)} ${data.dec[i] < 0 ? "−" : "+"}${Math.abs(data.dec[i]).toFixed(5)}`);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function picture(span, i) {
  const column = i % data.columns, row = Math.floor(i / data.columns);
  span.className = "picture";
  span.style.backgroundPosition = `calc(var(--cell) * ${-column}) calc(var(--cell) * ${-row})`;
  return span;
}

// ---- the chosen galaxy and its neighbours ----

function choose(i, follow = true) {
  chosen = i;
  nearest = neighbours(i, 10);
  const text = element("div", {},
    element("p", {}, element("strong", { textContent: data.name[i] })),
    element("p", { textContent: `${labelOf(i)}, ${sampleOf(i)}` }));
  if (data.ra[i] !== null) {
    text.append(element("p", {}, element("a", { href: data.links.replace("{}", positionOf(i).replace(" ", "").replace("+", "%2B").replace("−", "-")),
      target: "_blank", rel: "noopener", textContent: positionOf(i) })));
  } else text.append(element("p", { className: "soft", textContent: "no position in its archive" }));
  $("chosen").replaceChildren(picture(element("span"), i), text);
  $("neighbours").replaceChildren(...nearest.map(([far, j]) => {
    const button = element("button", { type: "button", title: `${data.name[j]}, ${sampleOf(j)}` },
      picture(element("span"), j), element("span", { textContent: data.name[j] }),
      element("span", { className: "soft", textContent: `${labelOf(j)}, ${far.toFixed(3)}` }));
    button.dataset.name = data.name[j];
    button.dataset.row = j;
    button.addEventListener("click", () => { choose(j); canvas.focus(); });
    return element("li", {}, button);
  }));
  if (!nearest.length) $("neighbours").append(element("li", { className: "soft", textContent: "The filters leave no other galaxy." }));
  history.replaceState(null, "", "#" + encodeURIComponent(data.name[i]));
  if (follow) bring(i);
  draw();
}

function download() {
  const quote = (v) => `"${String(v).replaceAll('"', '""')}"`;
  const lines = [["rank", "name", "sample", "label", "ra", "dec", "separation"].join(",")];
  [[0, chosen], ...nearest].forEach(([far, j], rank) => lines.push([rank, quote(data.name[j]), data.samples[data.sample[j]],
    data.labels[data.label[j]], data.ra[j] ?? "", data.dec[j] ?? "", far.toFixed(6)].join(",")));
  const link = element("a", { href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" })),
    download: `like ${data.name[chosen]}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---- the map ----

function place(i) {
  const size = Math.min(canvas.clientWidth, canvas.clientHeight) * 0.94 * view.scale;
  return [canvas.clientWidth / 2 + (data.x[i] / 9999 - view.x) * size, canvas.clientHeight / 2 + (data.y[i] / 9999 - view.y) * size];
}

function bring(i) {
  const [x, y] = place(i), edge = 20;
  if (x < edge || y < edge || x > canvas.clientWidth - edge || y > canvas.clientHeight - edge) {
    view.x = data.x[i] / 9999;
    view.y = data.y[i] / 9999;
  }
}

function draw() {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  paint.scale(ratio, ratio);
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  const radius = Math.min(6, 2.2 * Math.sqrt(view.scale));
  paint.globalAlpha = 0.75;
  for (let i = 0; i < count; i++) {
    if (!visible(i)) continue;
    const [x, y] = place(i);
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
    paint.fillStyle = data.colours[data.label[i]];
    paint.beginPath();
    paint.arc(x, y, radius, 0, 7);
    paint.fill();
  }
  paint.globalAlpha = 1;
  paint.strokeStyle = ink;
  const [x0, y0] = place(chosen);
  paint.lineWidth = 1;
  for (const [, j] of nearest) {
    const [x, y] = place(j);
    paint.beginPath();
    paint.moveTo(x0, y0);
    paint.lineTo(x, y);
    paint.stroke();
  }
  paint.lineWidth = 3;
  paint.beginPath();
  paint.arc(x0, y0, radius + 4, 0, 7);
  paint.stroke();
}

function under(x, y, reach) {
  let best = -1, least = reach * reach;
  for (let i = 0; i < count; i++) {
    if (!visible(i)) continue;
    const [px, py] = place(i), far = (px - x) ** 2 + (py - y) ** 2;
    if (far < least) [least, best] = [far, i];
  }
  return best;
}

function hover(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top, i = under(x, y, 14);
  $("tip").hidden = i < 0;
  if (i < 0) return;
  picture($("tip").firstElementChild, i);
  $("tip-name").textContent = `${data.name[i]}, ${labelOf(i)}`;
  $("tip").style.left = `${Math.min(x + 14, canvas.clientWidth - 120)}px`;
  $("tip").style.top = `${Math.min(y + 14, canvas.clientHeight - 150)}px`;
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const size = Math.min(canvas.clientWidth, canvas.clientHeight) * 0.94, before = size * view.scale;
  const scale = Math.max(1, Math.min(40, view.scale * factor)), after = size * scale;
  view.x += (x - canvas.clientWidth / 2) * (1 / before - 1 / after);
  view.y += (y - canvas.clientHeight / 2) * (1 / before - 1 / after);
  view.scale = scale;
  if (scale === 1) view = { x: 0.5, y: 0.5, scale: 1 };
  draw();
}

const touches = new Map();
let moved = 0;
canvas.addEventListener("pointerdown", (event) => {
  touches.set(event.pointerId, event);
  moved = 0;
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!touches.size) return hover(event);
  const last = touches.get(event.pointerId);
  if (!last) return;
  const size = Math.min(canvas.clientWidth, canvas.clientHeight) * 0.94 * view.scale;
  const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY];
  if (touches.size === 2) {
    const other = [...touches.values()].find((t) => t.pointerId !== event.pointerId);
    const gap = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
    if (gap(last) > 0) zoom(gap(event) / gap(last));
    moved = 99;
  } else {
    moved += Math.hypot(dx, dy);
    view.x -= dx / size;
    view.y -= dy / size;
    draw();
  }
  touches.set(event.pointerId, event);
});
canvas.addEventListener("pointerup", (event) => {
  touches.delete(event.pointerId);
  if (moved > 6) return;
  const box = canvas.getBoundingClientRect(), i = under(event.clientX - box.left, event.clientY - box.top, 22);
  if (i >= 0) choose(i, false);
});
canvas.addEventListener("pointercancel", (event) => touches.delete(event.pointerId));
canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") zoom(0);
  else if (step) {
    const [x, y] = place(chosen);
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      if (i === chosen || !visible(i)) continue;
      const [px, py] = place(i), ahead = (px - x) * step[0] + (py - y) * step[1], aside = Math.abs((px - x) * step[1] + (py - y) * step[0]);
      if (ahead > 0 && aside <= ahead && ahead + aside < least) [least, best] = [ahead + aside, i];
    }
    if (best >= 0) choose(best);
  } else return;
  event.preventDefault();
});

// ---- controls ----

function tick(box, kind, entries) {
  entries.forEach((text, number) => {
    const input = element("input", { type: "checkbox", checked: true, id: `${kind}-${number}` });
    input.addEventListener("change", () => {
      input.checked ? shown[kind].add(number) : shown[kind].delete(number);
      choose(chosen, false);
    });
    const label = element("label", {}, input, " ");
    if (kind === "label") {
      const swatch = element("span", { className: "swatch" });
      swatch.style.background = data.colours[number];
      label.append(swatch);
    }
    label.append(text || "no class");
    $(box).append(label);
  });
}

function search() {
  const asked = $("search").value.trim().toLowerCase();
  const found = [];
  for (let i = 0; asked && i < count && found.length < 30; i++) if (data.name[i].toLowerCase().includes(asked)) found.push(i);
  const exact = found.find((i) => data.name[i].toLowerCase() === asked);
  $("names").replaceChildren(...found.map((i) => element("option", { value: data.name[i], label: `${labelOf(i)}, ${sampleOf(i)}` })));
  $("hint").textContent = asked && !found.length ? "no galaxy has that in its name" : "";
  return exact ?? found[0];
}

$("search").addEventListener("input", () => {
  const found = search();
  if (found !== undefined && data.name[found].toLowerCase() === $("search").value.trim().toLowerCase()) choose(found);
});
$("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  const found = search();
  if (found !== undefined) choose(found);
});
$("in").addEventListener("click", () => zoom(1.5));
$("out").addEventListener("click", () => zoom(1 / 1.5));
$("all").addEventListener("click", () => zoom(0));
$("csv").addEventListener("click", download);
new ResizeObserver(draw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

document.documentElement.style.setProperty("--columns", data.columns);
document.documentElement.style.setProperty("--rows", Math.ceil(count / data.columns));
$("count").textContent = count.toLocaleString("en");
$("pictures").textContent = data.pictures;
$("own").hidden = !data.own; // that page is not always built
tick("samples", "sample", data.titles);
tick("labels", "label", data.labels);
function fromAddress() {
  let name = "";
  try { name = decodeURIComponent(location.hash.slice(1)); } catch { /* a damaged address shows the first galaxy */ }
  return Math.max(0, data.name.indexOf(name));
}
window.addEventListener("hashchange", () => choose(fromAddress()));
choose(fromAddress());
