// Reads the grey levels of a PNG or JPEG picture, as the browser decodes it.
import { C, Refused } from "./library.mjs";
import { greatest, least, median, withoutSentinels } from "./pixels.mjs";

const PNG = [0x89, 0x50, 0x4e, 0x47], JPEG = [0xff, 0xd8, 0xff];

const begins = (bytes, with_) => with_.every((byte, i) => bytes[i] === byte);

/** Whether bytes begin as a PNG or JPEG picture does. */
export const isPicture = (bytes) => begins(bytes, PNG) || begins(bytes, JPEG);

/**
 * An image as of readFits, without coordinates, and the width of its pixels that is `assumed` if none is given; `pixels`
 * (Float64Array) are NaN where the picture is transparent.
 */
export async function readPicture(bytes, name, pixel) {
  const notes = ["the brightness in a picture may have been stretched (to its square root, say): a FITS image is safer"];
  if (!pixel) notes.push(`pixels of ${C.FIRST_PIXEL}″ were assumed, because a picture does not say; the field “Pixel width” changes it`);
  const jpeg = begins(bytes, JPEG), { data, width, height } = await decoded(bytes, name);
  let pixels = new Float64Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    const red = data[4 * i], green = data[4 * i + 1], blue = data[4 * i + 2], alpha = data[4 * i + 3];
    if (alpha && Math.max(red, green, blue) - Math.min(red, green, blue) > (jpeg ? 16 : 2)) {
      throw new Refused(`${name} is in colour, which gives no brightness: save it in shades of grey, or as FITS`);
    }
    pixels[i] = alpha ? red : NaN;
  }
  pixels = withoutSentinels(pixels, width, height, notes);
  const finite = pixels.filter(Number.isFinite), sky = median(finite);
  let lowest = least(finite);
  if (finite.reduce((sum, v) => sum + (v - sky) ** 3, 0) < 0) { // sources stand out of the sky
    const highest = greatest(finite);
    pixels = pixels.map((v) => highest - v);
    lowest = 0;
    notes.push("the picture is black on white: it was inverted");
  }
  if (jpeg && median(pixels.filter(Number.isFinite)) - lowest < C.ARTEFACTS / 3) { // the sky is black
    pixels = pixels.map((v) => (v - lowest < C.ARTEFACTS ? lowest : v));
    notes.push(`what is fainter than ${C.ARTEFACTS} of 255 grey levels was taken for traces of the compression as JPEG`);
  }
  return { name, pixels, width, height, sky: null, beam: NaN, assumed: C.FIRST_PIXEL, notes };
}

/** Width and height that a picture claims, before memory is taken for them; zeros if it does not say. */
function claimed(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), has = (at) => at + 9 <= bytes.length;
  if (begins(bytes, PNG)) return bytes.length < 24 ? [0, 0] : [view.getUint32(16), view.getUint32(20)];
  for (let at = 2; has(at) && bytes[at] === 0xff; at += 2 + view.getUint16(at + 2)) { // segments of a JPEG
    const isFrame = bytes[at + 1] >= 0xc0 && bytes[at + 1] <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(bytes[at + 1]);
    if (isFrame) return [view.getUint16(at + 7), view.getUint16(at + 5)];
  }
  return [0, 0];
}

function checkSize(width, height, name) {
  if (Math.max(width, height) > C.LARGEST) throw new Refused(`${name} is ${width}×${height} pixels: cut the galaxy out of it first`);
}

/** Red, green, blue and alpha of each pixel, unchanged by colour profiles. */
async function decoded(bytes, name) {
  let bitmap;
  checkSize(...claimed(bytes), name);
  try {
    const options = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "none" };
    bitmap = await createImageBitmap(new Blob([bytes]), options);
  } catch {
    throw new Refused(`${name} is not a complete PNG or JPEG picture: save or fetch it again`);
  }
  const { width, height } = bitmap;
  checkSize(width, height, name);
  const paint = new OffscreenCanvas(width, height).getContext("2d");
  paint.drawImage(bitmap, 0, 0);
  return paint.getImageData(0, 0, width, height);
}
