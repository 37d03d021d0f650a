// The map: positions, symbols, zoom. Symbols are stamped into the pixels of the canvas, which draws 50,000 of them in a
// few milliseconds on any machine, with or without a graphics card.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const count = data.name.length;
const $ = (id) => document.getElementById(id);
const canvas = $("sky");
const paint = canvas.getContext("2d", { alpha: false });
const shown = { sample: new Set(data.samples.keys()), label: new Set(data.labels.keys()) };
const across = centred(data.x), down = centred(data.y);
const visible = new Uint8Array(count).fill(1), tint = new Uint32Array(count), shape = new Uint8Array(count);
const RAMP = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"]; // viridis
const UNKNOWN = "#777777", EDGE = 20, DIM = 40, OPAQUE = 205; // pixels; opacity of 256
const MANY = 20000, PATIENCE = 150; // galaxies that get smaller symbols; ms at rest before the map is drawn finely
const dark = matchMedia("(prefers-color-scheme: dark)");
let view = { x: 0.5, y: 0.5, scale: 1 };
let chosen = 0, nearest = [], selected = new Set(), loop = [];
let frame = null, waiting = false, rest = 0;

/** Positions from 0 to 9999 as numbers from 0 to 1, with the middle of their range at 0.5. */
function centred(values) {
  const beside = (9999 - values.reduce((a, b) => Math.max(a, b), 0)) / 2;
  return Float64Array.from(values, (v) => (v + beside) / 9999);
}

// ---- colours and shapes ----

/** Red, green and blue of "#rrggbb" as a pixel of an ImageData. */
const pixel = (colour) => {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
};

const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Colours of a scale from 0 to 1, without the end that vanishes on the background. */
function ramp(share) {
  const [from, to] = dark.matches ? [0.25, 1] : [0, 0.87], at = (from + share * (to - from)) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2), ends = [RAMP[low], RAMP[low + 1]];
  const parts = [1, 3, 5].map((i) => {
    const [a, b] = ends.map((one) => parseInt(one.slice(i, i + 2), 16));
    return Math.round(a + (at - low) * (b - a)).toString(16).padStart(2, "0");
  });
  return "#" + parts.join("");
}

/** From the values of a number to 0 … 1, between its 2nd and 98th percentile, and these two values. */
function scaleOf(number) {
  const known = number.values.filter((v) => v !== null && (!number.log || v > 0)).sort((a, b) => a - b);
  const [low, high] = number.key === "percentile" ? [0, 100] : [0.02, 0.98].map((q) => known[Math.floor(q * (known.length - 1))]);
  const on = number.log ? Math.log : Number, span = on(high) - on(low) || 1;
  return [(v) => Math.max(0, Math.min(1, (on(v) - on(low)) / span)), low, high];
}

/** Sets colour and shape of every symbol: "label", "sample", or the key of a number. */
function dress(by) {
  const number = data.numbers.find((one) => one.key === by), kind = by === "sample" ? "sample" : "label";
  const colours = number ? Array.from({ length: 256 }, (_, k) => pixel(ramp(k / 255))) : data.colours[kind].map(pixel);
  const scale = number && scaleOf(number)[0], unknown = pixel(UNKNOWN);
  for (let i = 0; i < count; i++) {
    shape[i] = data[kind][i];
    if (!number) tint[i] = colours[data[kind][i]];
    else tint[i] = number.values[i] === null ? unknown : colours[Math.round(255 * scale(number.values[i]))];
  }
}

const INSIDE = { // of a symbol of radius 1
  circle: (x, y) => x * x + y * y <= 1,
  square: (x, y) => Math.max(Math.abs(x), Math.abs(y)) <= 0.86,
  diamond: (x, y) => Math.abs(x) + Math.abs(y) <= 1.2,
  cross: (x, y) => Math.min(Math.abs(x), Math.abs(y)) <= 0.36 && Math.max(Math.abs(x), Math.abs(y)) <= 1.1,
  triangle: (x, y) => y <= 0.75 && y >= 2 * Math.abs(x) - 1.25,
  wedge: (x, y) => y >= -0.75 && y <= 1.25 - 2 * Math.abs(x),
};
const stamps = new Map();

/** A symbol: how far it reaches, and for each of its pixels x, y, opacity (0 … 256), and the place in a row-major image. */
function stamp(name, radius, width) {
  const key = `${name} ${radius.toFixed(1)} ${width}`;
  if (stamps.has(key)) return stamps.get(key);
  const made = [], reach = Math.ceil(1.3 * radius), steps = [-0.375, -0.125, 0.125, 0.375];
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      const hits = steps.reduce((sum, v) => sum + steps.filter((u) => INSIDE[name]((x + u) / radius, (y + v) / radius)).length, 0);
      if (hits) made.push([x, y, hits * 16]);
    }
  }
  const [x, y, share] = [0, 1, 2].map((part) => Int32Array.from(made, (one) => one[part]));
  stamps.set(key, { reach, x, y, share, offset: y.map((v, k) => v * width + x[k]) });
  return stamps.get(key);
}

/** Stamps a symbol of one colour into pixels (width × height). */
function mark(pixels, width, height, marks, x, y, colour, opacity) {
  const { reach, offset, share } = marks, redBlue = colour & 0xff00ff, green = colour & 0x00ff00, middle = y * width + x;
  const whole = x >= reach && y >= reach && x < width - reach && y < height - reach;
  for (let k = 0; k < offset.length; k++) {
    if (!whole && (x + marks.x[k] < 0 || y + marks.y[k] < 0 || x + marks.x[k] >= width || y + marks.y[k] >= height)) continue;
    const place = middle + offset[k], part = (share[k] * opacity) >> 8;
    if (part === 256) pixels[place] = colour;
    else {
      const old = pixels[place], rest = 256 - part, mixed = (((old & 0xff00ff) * rest + redBlue * part) >>> 8) & 0xff00ff;
      pixels[place] = mixed | ((((old & 0x00ff00) * rest + green * part) >>> 8) & 0x00ff00) | 0xff000000;
    }
  }
}

/** A canvas with the symbol of a class or sample, for the legend. */
function swatch(name, colour) {
  const made = Object.assign(document.createElement("canvas"), { className: "swatch", width: 28, height: 28 });
  const pen = made.getContext("2d"), image = pen.createImageData(28, 28), pixels = new Uint32Array(image.data.buffer);
  pixels.fill(pixel(styleOf("--paper")));
  mark(pixels, 28, 28, stamp(name, 9, 28), 14, 14, pixel(colour), 256);
  pen.putImageData(image, 0, 0);
  return made;
}

// ---- places ----

const side = () => Math.min(canvas.clientWidth, canvas.clientHeight) * 0.94 * view.scale;

function place(i) {
  const size = side();
  return [canvas.clientWidth / 2 + (across[i] - view.x) * size, canvas.clientHeight / 2 + (down[i] - view.y) * size];
}

/** Moves the map so that a galaxy is on it. */
function bring(i) {
  const [x, y] = place(i);
  if (x < EDGE || y < EDGE || x > canvas.clientWidth - EDGE || y > canvas.clientHeight - EDGE) [view.x, view.y] = [across[i], down[i]];
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = side(), scale = Math.max(1, Math.min(40, view.scale * factor)), after = (before / view.scale) * scale;
  view.x += (x - canvas.clientWidth / 2) * (1 / before - 1 / after);
  view.y += (y - canvas.clientHeight / 2) * (1 / before - 1 / after);
  view.scale = scale;
  if (scale === 1) view = { x: 0.5, y: 0.5, scale: 1 };
  redraw();
}

/** The visible galaxy nearest to a place on the canvas, or −1 if none is within reach. */
function under(x, y, reach) {
  const size = side(), u = view.x + (x - canvas.clientWidth / 2) / size, v = view.y + (y - canvas.clientHeight / 2) / size;
  let best = -1, least = (reach / size) ** 2;
  for (let i = 0; i < count; i++) {
    const far = (across[i] - u) ** 2 + (down[i] - v) ** 2;
    if (far < least && visible[i]) [least, best] = [far, i];
  }
  return best;
}

/** The visible galaxies inside a polygon of places on the canvas. */
function inside(polygon) {
  const found = [];
  for (let i = 0; i < count; i++) {
    if (!visible[i]) continue;
    const [x, y] = place(i);
    let odd = false;
    polygon.forEach(([x1, y1], k) => {
      const [x2, y2] = polygon[(k + 1) % polygon.length];
      if (y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) odd = !odd;
    });
    if (odd) found.push(i);
  }
  return found;
}

// ---- drawing ----

/** Draws before the next frame, once, however often it is asked for: many galaxies coarsely until the map is at rest. */
function redraw() {
  clearTimeout(rest);
  if (count > MANY) rest = setTimeout(draw, PATIENCE, true);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(count <= MANY); });
}

function draw(fine) {
  const ratio = fine ? window.devicePixelRatio || 1 : Math.min(window.devicePixelRatio || 1, 1);
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (!width || !height) return;
  if (canvas.width !== width || canvas.height !== height || !frame) {
    [canvas.width, canvas.height] = [width, height];
    frame = paint.createImageData(width, height);
  }
  const radius = Math.min(count > MANY ? 4 : 6, (count > MANY ? 1.6 : 2.6) * Math.sqrt(view.scale));
  symbols(new Uint32Array(frame.data.buffer), width, height, ratio, radius * ratio);
  paint.setTransform(1, 0, 0, 1, 0, 0);
  paint.putImageData(frame, 0, 0);
  paint.scale(ratio, ratio);
  lines(radius);
}

function symbols(pixels, width, height, ratio, radius) {
  pixels.fill(pixel(styleOf("--paper")));
  const size = side() * ratio, marks = data.shapes.map((name) => stamp(name, radius, width)), margin = 2 * radius;
  const left = width / 2 - view.x * size, top = height / 2 - view.y * size;
  for (let i = 0; i < count; i++) {
    if (!visible[i]) continue;
    const x = Math.round(left + across[i] * size), y = Math.round(top + down[i] * size);
    if (x < -margin || y < -margin || x > width + margin || y > height + margin) continue;
    mark(pixels, width, height, marks[shape[i]], x, y, tint[i], selected.size && !selected.has(i) ? DIM : OPAQUE);
  }
}

/** Lines to the most similar galaxies, a ring around the chosen one, labels of islands, and the lasso. */
function lines(radius) {
  paint.strokeStyle = paint.fillStyle = styleOf("--ink");
  const [x0, y0] = place(chosen);
  paint.lineWidth = 1;
  for (const { row } of nearest) trace([[x0, y0], place(row)]);
  paint.lineWidth = 3;
  paint.beginPath();
  paint.arc(x0, y0, radius + 4, 0, 7);
  paint.stroke();
  paint.font = "600 13px system-ui, sans-serif";
  paint.textAlign = "center";
  const taken = [];
  for (const [row, text] of data.islands) {
    const [x, v] = place(row), half = paint.measureText(text).width / 2 + 4;
    if (x < 0 || x > canvas.clientWidth) continue;
    const u = Math.max(half, Math.min(canvas.clientWidth - half, x));
    if (taken.some(([a, b, c]) => Math.abs(a - u) < c + half && Math.abs(b - v) < 18)) continue; // zooming in makes room
    taken.push([u, v, half]);
    paint.strokeStyle = styleOf("--paper");
    paint.lineWidth = 4;
    paint.strokeText(text, u, v);
    paint.fillText(text, u, v);
  }
  paint.strokeStyle = styleOf("--accent");
  paint.lineWidth = 2;
  if (loop.length) trace([...loop, loop[0]]);
}

function trace(places) {
  paint.beginPath();
  places.forEach(([x, y], k) => (k ? paint.lineTo(x, y) : paint.moveTo(x, y)));
  paint.stroke();
}
