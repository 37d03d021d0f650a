// The page: takes a file or an example, hands it to the worker, and shows what comes back. Nothing is sent anywhere.
import { C } from "./library.mjs";

const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.mjs", { type: "module" });
let galaxies = null, shown = null;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const say = (text) => { $("status").textContent = text; };

worker.onerror = () => say("The network cannot be loaded: use a browser with WebAssembly and module workers.");
worker.onmessage = ({ data }) => {
  if (data.broken) return say(`The network cannot be loaded (${data.broken}): load the page again.`);
  if (data.ready) return begin(data);
  if (data.refused) {
    $("result").hidden = true;
    return say(data.refused);
  }
  say(`${data.name}: done in ${data.seconds.toFixed(1)} s`);
  shown = data;
  show(data);
};

function begin({ galaxies: known, library }) {
  galaxies = known;
  Object.assign(C, library);
  document.documentElement.style.setProperty("--columns", known.columns);
  document.documentElement.style.setProperty("--rows", Math.ceil(known.name.length / known.columns));
  if (!waiting) say("Ready.");
}

// ---- input ----

let waiting = false;

function take(file, name) {
  waiting = true;
  const pixel = $("pixel").value === "" ? undefined : Number($("pixel").value);
  if (pixel !== undefined && !(pixel > 0 && pixel <= 20)) return say("The pixel width must be between 0 and 20 arcsec.");
  say(`${name}: ${galaxies ? "looking" : "waiting for the network"} …`);
  worker.postMessage({ file, name, pixel });
}

$("file").addEventListener("change", () => { if ($("file").files.length) take($("file").files[0], $("file").files[0].name); });
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (file) take(file, file.name);
  });
}

for (let number = 1; number <= 10; number++) {
  const picture = element("canvas", { width: 75, height: 75 }), name = `example-${number}.fits`;
  const button = element("button", { type: "button" }, picture, `${number <= 5 ? "simulated" : "generated"} ${number}`);
  $("examples").append(element("li", {}, button));
  const content = fetch(name).then((answer) => answer.blob());
  content.then(async (blob) => paintExample(picture, await blob.arrayBuffer()));
  button.addEventListener("click", async () => {
    $("pixel").value = "";
    take(await content, name);
  });
}

/** The middle of an example: 150 × 150 integers of two bytes after a header of one block. */
function paintExample(canvas, buffer) {
  const view = new DataView(buffer, 2880), middle = [];
  for (let y = 37; y < 112; y++) for (let x = 37; x < 112; x++) middle.push(Math.max(0, view.getInt16(2 * (150 * y + x))));
  paint(canvas, middle, 75, Math.sqrt);
}

// ---- output ----

function show({ name, cutout, outputs, found }) {
  $("result").hidden = false;
  $("name").textContent = name;
  $("verdict").textContent = found.label ? `${found.label}, ${found.basis}` : `No class: ${found.status}`;
  $("shares").hidden = $("set").hidden = !found.label;
  $("shares").replaceChildren(...found.probabilities.flatMap(([kind, share]) => {
    const text = Math.min(Math.max(share, 0.01), 0.99).toFixed(2);
    return [element("dt", { textContent: kind }), element("dd", {}, element("meter", { value: share, textContent: text, ariaLabel: kind })), element("dd", { textContent: text })];
  }));
  $("set").textContent = `Not excluded at 90 %: ${found.set.join(", ")}`;
  $("anomaly").textContent = anomaly(found);
  $("notes").replaceChildren(...found.notes.map((note) => element("li", { textContent: note })));
  const fieldSize = Math.sqrt(cutout.field.length), squareSize = Math.sqrt(outputs.prepared.length);
  paint($("field"), cutout.field, fieldSize, Math.sqrt);
  paint($("prepared"), outputs.prepared, squareSize, Number);
  paint($("reconstruction"), outputs.reconstruction, squareSize, Number);
  $("neighbours").replaceChildren(...found.neighbours.map(neighbour));
  drawMap(found.neighbours);
  $("result").focus({ preventScroll: false });
}

function anomaly({ nats, error, percentile }) {
  const value = `log-likelihood ${nats.toFixed(0)} ± ${error.toFixed(0)} nats`;
  const rank = ["1st", "2nd", "3rd", "4th", "5th"][Math.floor(percentile)];
  if (percentile < C.ANOMALOUS) return `Anomalous: ${value}, below the ${rank} percentile of held-out galaxies`;
  return `Not anomalous: ${value}, percentile ${percentile.toFixed(0)} of held-out galaxies (anomalous: below ${C.ANOMALOUS})`;
}

function neighbour({ row, separation, same }) {
  const picture = element("span", { className: "picture" }), column = row % galaxies.columns;
  picture.style.backgroundPosition = `calc(var(--cell) * ${-column}) calc(var(--cell) * ${-Math.floor(row / galaxies.columns)})`;
  const label = galaxies.labels[galaxies.label[row]] || "no class", name = galaxies.name[row];
  const link = element("a", { href: `index.html#${encodeURIComponent(name)}`, title: galaxies.titles[galaxies.sample[row]] },
    picture, name, element("span", { className: "soft", textContent: `${label}, ${separation.toFixed(3)}${same ? ", the same galaxy" : ""}` }));
  link.dataset.row = row;
  return element("li", {}, link);
}

/** An image on a canvas, north up as in a FITS viewer, in the colours of the galleries. */
function paint(canvas, values, size, stretch) {
  const peak = stretch(values.reduce((a, b) => Math.max(a, b), 0)) || 1, image = new ImageData(size, size);
  for (let i = 0; i < values.length; i++) {
    const place = (size - 1 - Math.floor(i / size)) * size + (i % size);
    image.data.set([...inferno(stretch(Math.max(0, values[i])) / peak), 255], 4 * place);
  }
  [canvas.width, canvas.height] = [size, size];
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const STOPS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

/** Red, green and blue of a brightness 0 … 1. */
function inferno(share) {
  const at = Math.min(share, 1) * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((colour, i) => colour + (at - low) * (STOPS[low + 1][i] - colour));
}

function drawMap(nearest) {
  const canvas = $("map"), size = 2 * canvas.clientWidth, pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [size, size];
  const place = (row) => [galaxies.x[row], galaxies.y[row]].map((v) => (0.03 + (0.94 * v) / 9999) * size);
  galaxies.x.forEach((_, row) => {
    pen.fillStyle = galaxies.colours.label[galaxies.label[row]];
    pen.globalAlpha = 0.5;
    pen.fillRect(...place(row).map((v) => v - 1.5), 3, 3);
  });
  const [x, y] = [0, 1].map((axis) => nearest.slice(0, 3).reduce((sum, { row }) => sum + place(row)[axis] / 3, 0));
  pen.globalAlpha = 1;
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  for (const { row } of nearest) {
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(...place(row));
    pen.stroke();
  }
  pen.lineWidth = 4;
  pen.beginPath();
  pen.arc(x, y, 12, 0, 7);
  pen.stroke();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (shown) drawMap(shown.found.neighbours); });
