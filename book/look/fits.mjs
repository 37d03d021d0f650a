// Reads the first image of two axes in a FITS file: brightness, blank pixels, and the width of pixels on the sky.
import { C, Refused } from "./library.mjs";
import { withoutSentinels } from "./pixels.mjs";

const BLOCK = 2880, CARD = 80;
const KINDS = { 8: "getUint8", 16: "getInt16", 32: "getInt32", 64: "getBigInt64", "-32": "getFloat32", "-64": "getFloat64" };

/** Whether bytes begin as a FITS file does. */
export const isFits = (bytes) => text(bytes, 0, 9) === "SIMPLE  =";

const text = (bytes, start, length) => String.fromCharCode(...bytes.subarray(start, start + length));

/** The keywords of a header that begins at `start`, and the position of the data after it. */
function readHeader(bytes, start, name) {
  const keys = {};
  for (let at = start; at + CARD <= bytes.length; at += CARD) {
    const keyword = text(bytes, at, 8).trimEnd();
    if (keyword === "END") return [keys, start + Math.ceil((at + CARD - start) / BLOCK) * BLOCK];
    if (text(bytes, at + 8, 2) === "= " && !(keyword in keys)) keys[keyword] = value(text(bytes, at + 10, CARD - 10));
  }
  throw new Refused(`${name} is not a readable FITS image: its header has no end; fetch or export it again`);
}

/** A string, logical or number of a card. */
function value(card) {
  const quoted = card.match(/^\s*'((?:[^']|'')*)'/);
  if (quoted) return quoted[1].replaceAll("''", "'").trimEnd();
  const bare = card.split("/")[0].trim();
  if (bare === "T" || bare === "F") return bare === "T";
  return bare === "" ? undefined : Number(bare.replace(/[dD]/, "e"));
}

/** Lengths of the axes, and the number of bytes of the data. */
function extent(keys) {
  const axes = Array.from({ length: Math.min(keys.NAXIS || 0, 999) }, (_, i) => keys[`NAXIS${i + 1}`]);
  const count = axes.length ? axes.reduce((a, b) => a * b, 1) : 0;
  return [axes, (Math.abs(keys.BITPIX) / 8) * (keys.GCOUNT ?? 1) * ((keys.PCOUNT ?? 0) + count)];
}

/** Whether the check sums of an HDU, of its data or of all of it, are there and wrong. */
function isDamaged({ CHECKSUM, DATASUM }, bytes, start, data, end) {
  if (/^\d+$/.test(DATASUM ?? "") && Number(DATASUM) !== sum(bytes, data, end)) return true;
  return /^\w{16}$/.test(CHECKSUM ?? "") && ![0, 0xffffffff].includes(sum(bytes, start, end));
}

/** The 32-bit sum in ones' complement of whole blocks, as the FITS standard defines it. */
function sum(bytes, start, end) {
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, end - start);
  let total = 0;
  for (let at = 0; at < end - start; at += 4) {
    total += view.getUint32(at);
    if (total > 0xffffffff) total -= 0xffffffff; // adds the carry
  }
  return total;
}

/** The header and position of the first celestial image, or else of the first image; notes say which was taken. */
function firstImage(bytes, name) {
  const found = [];
  let compressed = false, primary = null;
  for (let at = 0, number = 0; at < bytes.length; number++) {
    if (number && text(bytes, at, 8) !== "XTENSION") break; // what follows the last HDU means nothing
    const [keys, data] = readHeader(bytes, at, name);
    const [axes, length] = extent(keys);
    if (!(length >= 0)) throw new Refused(`${name} is not a readable FITS image: fetch or export it again`);
    const end = data + Math.ceil(length / BLOCK) * BLOCK;
    if (end <= bytes.length && isDamaged(keys, bytes, at, data, end)) {
      throw new Refused(`${name} is not a readable FITS image: the check sum of HDU ${number} is wrong; fetch or export it again`);
    }
    primary ??= keys;
    compressed ||= keys.ZIMAGE === true;
    const isImage = number === 0 || keys.XTENSION === "IMAGE";
    if (isImage && axes.length >= 2 && axes[0] > 1 && axes[1] > 1) {
      const whole = number && !sky(keys) && !primary.NAXIS ? { ...primary, ...keys } : keys;
      found.push({ number, keys: whole, axes, data, label: `${number} ${keys.EXTNAME ?? (number ? "" : "PRIMARY")}`.trim() });
    }
    at = end;
  }
  if (!found.length && compressed) throw new Refused(`${name} is compressed inside (tiles), which this page does not read: rgz look does`);
  if (!found.length) throw new Refused(`${name} has no image in any of its HDUs: give a file with an image of two axes`);
  const rank = (image) => 2 * !sky(image.keys) + (image.axes.slice(2).some((n) => n > 1) ? 1 : 0);
  return [[...found].sort((a, b) => rank(a) - rank(b) || a.number - b.number)[0], found.map((image) => image.label)];
}

/**
 * The linear part of the celestial coordinates: `matrix` (arcsec east and north for a pixel along x and y), `centre`
 * (pixel from 0), `place` (degrees) and projection; null if there are none.
 */
function sky(keys) {
  const kinds = [1, 2].map((i) => String(keys[`CTYPE${i}`] ?? ""));
  const lng = kinds.findIndex((kind) => /^(RA|GLON)/.test(kind)) + 1, lat = kinds.findIndex((kind) => /^(DEC|GLAT)/.test(kind)) + 1;
  const given = [1, 2].flatMap((i) => [keys[`CRVAL${i}`], keys[`CRPIX${i}`]]);
  if (!lng || !lat || !given.every(Number.isFinite)) return null;
  const hasCd = [11, 12, 21, 22].some((ij) => `CD${String(ij)[0]}_${String(ij)[1]}` in keys);
  const turn = ((keys[`CROTA${lat}`] ?? 0) * Math.PI) / 180, step = (i) => keys[`CDELT${i}`] ?? 1;
  const rotated = (i, j) => (i === j ? Math.cos(turn) : ((i === lng ? -1 : 1) * Math.sin(turn) * step(j)) / step(i));
  const part = (i, j) => 3600 * (hasCd ? keys[`CD${i}_${j}`] ?? 0 : step(i) * (keys[`PC${i}_${j}`] ?? rotated(i, j)));
  const unscaled = !hasCd && !("CDELT1" in keys) && !("CDELT2" in keys);
  return {
    matrix: [[part(lng, 1), part(lng, 2)], [part(lat, 1), part(lat, 2)]],
    centre: [keys.CRPIX1 - 1, keys.CRPIX2 - 1],
    place: [keys[`CRVAL${lng}`], keys[`CRVAL${lat}`]],
    projection: /^RA/.test(kinds[lng - 1]) && !/FK4/.test(keys.RADESYS ?? "") && keys.EQUINOX !== 1950 ? kinds[lng - 1].slice(-3) : "",
    unscaled,
  };
}

/**
 * An image: `pixels` (Float32Array, NaN where blank), `width`, `height`, `sky` (or null), `beam` (arcsec, NaN if
 * unknown) and `notes`.
 */
export function readFits(bytes, name) {
  const [image, known] = firstImage(bytes, name), { keys, axes } = image, notes = [];
  const [width, height] = axes, method = KINDS[keys.BITPIX], size = Math.abs(keys.BITPIX) / 8;
  if (known.length > 1) notes.push(`HDU ${image.number} was read, of ${known.join(", ")}; rgz look can read another one`);
  if (axes.slice(2).some((n) => n > 1)) throw new Refused(`${name} holds a cube: this page reads single images, rgz look --plane reads a plane`);
  if (Math.max(width, height) > C.LARGEST) throw new Refused(`${name} is ${width}×${height} pixels: cut the galaxy out of it first, or use rgz look --at RA DEC`);
  if (!method || image.data + width * height * size > bytes.length) {
    throw new Refused(`${name} is not a readable FITS image: it ends before its pixels do; fetch or export it again`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + image.data, width * height * size);
  const pixels = new Float32Array(width * height), scale = keys.BSCALE ?? 1, zero = keys.BZERO ?? 0;
  for (let i = 0; i < pixels.length; i++) {
    const raw = Number(view[method](i * size));
    pixels[i] = keys.BITPIX > 0 && raw === keys.BLANK ? NaN : raw * scale + zero;
  }
  const axesOfBeam = [keys.BMAJ, keys.BMIN].map((v) => 3600 * v);
  const beam = axesOfBeam[1] > 0 && axesOfBeam[1] <= axesOfBeam[0] && axesOfBeam[0] < 3600 ? Math.sqrt(axesOfBeam[0] * axesOfBeam[1]) : NaN;
  const clean = withoutSentinels(pixels, width, height, notes);
  if (Number.isNaN(beam) && keys.BMAJ !== undefined) notes.push("the beam in the header (BMAJ, BMIN) cannot be right, and was not used");
  return { name, pixels: clean, width, height, sky: sky(keys), beam, notes };
}

/** The matrix (arcsec east and north for a pixel along x and y) as it is at a pixel, or that of the header. */
export function localMatrix(coordinates, x, y) {
  const places = [[0, 0], [0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]].map(([u, v]) => position(coordinates, x + u, y + v));
  if (!places.every(Boolean)) return coordinates.matrix;
  const radian = Math.PI / 180, [ra, dec] = places[0].map((v) => v * radian);
  const ends = places.slice(1).map(([a, d]) => [Math.cos(d * radian) * Math.cos(a * radian), Math.cos(d * radian) * Math.sin(a * radian), Math.sin(d * radian)]);
  const east = [-Math.sin(ra), Math.cos(ra), 0], north = [-Math.sin(dec) * Math.cos(ra), -Math.sin(dec) * Math.sin(ra), Math.cos(dec)];
  const along = (axis, one, other) => (3600 / radian) * axis.reduce((sum, v, i) => sum + v * (one[i] - other[i]), 0);
  return [east, north].map((axis) => [along(axis, ends[0], ends[1]), along(axis, ends[2], ends[3])]);
}

/** RA and Dec in degrees of a pixel (from 0), for the projections TAN and SIN; else null. */
export function position(coordinates, x, y) {
  if (!coordinates || !["TAN", "SIN"].includes(coordinates.projection)) return null;
  const radian = Math.PI / 180, [dx, dy] = [x - coordinates.centre[0], y - coordinates.centre[1]];
  const [east, north] = coordinates.matrix.map((row) => ((row[0] * dx + row[1] * dy) / 3600) * radian);
  const [ra0, dec0] = coordinates.place.map((v) => v * radian), square = east * east + north * north;
  if (coordinates.projection === "SIN" && square > 1) return null;
  const up = coordinates.projection === "SIN" ? Math.sqrt(1 - square) : 1;
  const ra = ra0 + Math.atan2(east, up * Math.cos(dec0) - north * Math.sin(dec0));
  const dec = Math.asin((up * Math.sin(dec0) + north * Math.cos(dec0)) / Math.hypot(up, east, north));
  return [(((ra / radian) % 360) + 360) % 360, dec / radian];
}
