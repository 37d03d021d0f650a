// Reads a file, prepares its field and runs the graph, beside the page so that this stays responsive.
import * as ort from "./ort.wasm.bundle.min.mjs";
import { centre } from "./cutout.mjs";
import { isFits, readFits } from "./fits.mjs";
import { inspection } from "./inspection.mjs";
import { C, Refused } from "./library.mjs";
import { isPicture, readPicture } from "./picture.mjs";

const ready = start();
ready.then(([galaxies]) => postMessage({ ready: true, galaxies, library: C }), (error) => postMessage({ broken: String(error) }));

/** The galaxies of the explorer and the session that runs the graph. */
async function start() {
  const [description, binary, graph] = await Promise.all([
    fetch("look.json").then((answer) => answer.json()),
    load("ort.wasm.gz"),
    load("galaxy.onnx.gz"),
  ]);
  Object.assign(C, description.library);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = binary;
  const options = { graphOptimizationLevel: "basic", logSeverityLevel: 3 }; // the graph was simplified when it was made
  return [description.galaxies, await ort.InferenceSession.create(graph, options)];
}

/** Content of a compressed file of the page; some servers unpack it on the way. */
async function load(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} is missing (${answer.status})`);
  return unpacked(new Uint8Array(await answer.arrayBuffer()));
}

const ROOM = 1 << 28; // bytes; an image of 2500 × 2500 pixels takes a fifth of it

async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const parts = [], reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  for (let size = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    if ((size += value.length) > ROOM) throw new Refused("it unpacks to more than 256 MiB");
  }
}

onmessage = async ({ data: { file, name, pixel } }) => {
  const [galaxies, session] = await ready, started = performance.now();
  try {
    const image = await read(new Uint8Array(await file.arrayBuffer()), name, pixel), cutout = centre(image, pixel ?? image.assumed);
    const feeds = { field: new ort.Tensor("float32", cutout.field, [1, C.FIELD, C.FIELD]), pixel: new ort.Tensor("float32", [cutout.pixel], []) };
    const tensors = await session.run(feeds), outputs = Object.fromEntries(Object.entries(tensors).map(([key, tensor]) => [key, tensor.data]));
    if (!outputs.code.every(Number.isFinite)) throw new Refused(`${name} has too large values: divide them by a constant, such as their peak`);
    postMessage({ name, cutout, outputs, found: inspection(cutout, outputs, galaxies), seconds: (performance.now() - started) / 1000 });
  } catch (error) {
    postMessage({ name, refused: error instanceof Refused ? error.message : `${name} cannot be read: ${error.message}` });
  }
};

async function read(bytes, name, pixel) {
  try {
    bytes = await unpacked(bytes);
  } catch (error) {
    throw new Refused(`${name} is ${error instanceof Refused ? `too large: ${error.message}` : "damaged: it cannot be unpacked"}`);
  }
  if (isFits(bytes)) return readFits(bytes, name);
  if (isPicture(bytes)) return readPicture(bytes, name, pixel);
  throw new Refused(`${name} is not a readable FITS, PNG or JPEG image: save it as one`);
}
