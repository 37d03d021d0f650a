// From an image to a clipped field with its source in the middle, step by step as rgz.data.cutout does it.
import { localMatrix, position } from "./fits.mjs";
import { C, Refused } from "./library.mjs";
import { beside, clippedStatistics, greatest, islands, kept, least, linked, median, resampled, rounded } from "./pixels.mjs";

/** The image with square pixels not finer than those of FIRST, and their width; `given` is for files that have none. */
function squarePixels(image, given, notes) {
  const { name, width, height, sky } = image;
  if (!sky && !given) throw new Refused(`${name} has no usable celestial WCS: give the width of its pixels (1.8 for FIRST)`);
  if (sky?.unscaled && !given) throw new Refused(`${name} gives no width of its pixels (CDELT): give it in arcsec (1.8 for FIRST)`);
  let matrix = [[-given, 0], [0, given]];
  if (sky && !sky.unscaled) {
    matrix = localMatrix(sky, (width - 1) / 2, (height - 1) / 2);
    const own = Math.sqrt(Math.hypot(matrix[0][0], matrix[1][0]) * Math.hypot(matrix[0][1], matrix[1][1]));
    if (given && Math.abs(given / own - 1) > 0.05) {
      throw new Refused(`${name} has pixels of ${own.toPrecision(3)}″ by its header, not of ${given}″: leave the pixel width empty`);
    }
  }
  const [[a, b], [c, d]] = matrix, widths = [Math.hypot(a, c), Math.hypot(b, d)];
  if (!(Math.max(...widths) <= C.COARSEST)) {
    throw new Refused(`${name} has pixels of ${Math.max(...widths).toPrecision(3)}″: at most ${C.COARSEST}″ show the shape of a galaxy`);
  }
  const across = Math.min(widths[0] * width, widths[1] * height);
  if (Math.min(width, height) < C.NARROWEST || across < C.NARROWEST * C.FIRST_PIXEL) {
    throw new Refused(`${name} is ${width}×${height} pixels, ${Number(across.toPrecision(2))}″ by its pixel width: too small, use a larger image`);
  }
  const pixel = Math.max(Math.sqrt(widths[0] * widths[1]), C.FIRST_PIXEL);
  const orthogonal = Math.abs(a * b + c * d) < 0.01 * widths[0] * widths[1];
  const square = widths.every((w) => Math.abs(w - pixel) <= 1e-8 + 0.01 * pixel);
  const middle = position(sky?.unscaled ? null : sky, (width - 1) / 2, (height - 1) / 2);
  if (square && orthogonal) return { ...image, pixel };
  notes.push(`pixels of ${widths[0].toFixed(2)}″ × ${widths[1].toFixed(2)}″ were resampled to ${pixel.toFixed(2)}″`);
  const made = resampled(image, matrix, widths, pixel);
  const centre = [(made.width - 1) / 2, (made.height - 1) / 2];
  return { ...made, pixel, sky: middle && { matrix: [[-pixel, 0], [0, pixel]], centre, place: middle, projection: "TAN" } };
}

/** Without islands of fewer than six pixels, unless there are no others. */
function despeckled(pixels, width, height) {
  const { labels, members } = islands(pixels, width, height);
  if (!members.some((island) => island.length >= C.SMALLEST_ISLAND)) return pixels;
  return pixels.map((v, i) => (members[labels[i]].length >= C.SMALLEST_ISLAND && labels[i] ? v : 0));
}

/** The image clipped at 3 rms, without small islands, and the rms; NaN if it had been clipped before. */
function clipped({ pixels, width, height }, notes) {
  const exact = pixels instanceof Float32Array ? Math.fround : Number; // Python computes in the file's precision
  const finite = kept(pixels, Number.isFinite), lowest = least(finite);
  if (kept(pixels, (v) => v === lowest).length > C.CLIPPED * finite.length) {
    const rest = pixels.map((v) => v - lowest), border = beside(pixels, width, height);
    if (border.filter((v) => v > lowest).length > C.NOISY * border.length) { // only the darker half of the sky was cut off
      const above = rest.filter((v) => v > 0), [, rms] = clippedStatistics([...above, ...above.map((v) => -v)]);
      notes.push("the darker half of the sky is black: what is left of the noise was clipped");
      return [despeckled(rest.map((v) => (v >= exact(3 * rms) ? v : 0)), width, height), NaN];
    }
    notes.push("the image had been clipped before: its rms and the S/N of the source are not known");
    return [despeckled(rest.map((v) => (Number.isFinite(v) ? v : 0)), width, height), NaN];
  }
  let [middle, rms] = clippedStatistics(kept(finite, (v) => v !== 0));
  rms ||= (least(kept(finite, (v) => v > middle)) - middle) / 2; // less than a grey level
  const above = pixels.map((v) => v - exact(middle));
  return [despeckled(above.map((v) => (v >= exact(3 * rms) ? v : 0)), width, height), rms];
}

/** Islands that peak above 5 rms: pixels, brightness-weighted place and flux. */
function bright(pixels, width, { members }, rms) {
  return members.slice(1).flatMap((island) => {
    if (greatest(island.map((i) => pixels[i])) < C.PEAK * rms) return [];
    return [{ island, ...centroid(island.map((i) => [i % width, Math.floor(i / width), pixels[i]])) }];
  });
}

/** Brightness-weighted mean of places [x, y, brightness], and their sum. */
function centroid(places) {
  const flux = places.reduce((sum, [, , light]) => sum + light, 0);
  const [x, y] = [0, 1].map((axis) => places.reduce((sum, place) => sum + place[axis] * place[2], 0) / flux);
  return { x, y, flux };
}

/** The middle of the image if it is on a source, or else the middle of the nearest source, and its pixel. */
function middleOf(sources, pixels, { width, height, pixel }, centres, notes) {
  const target = [(width - 1) / 2, (height - 1) / 2], far = (x, y) => Math.hypot(x - target[0], y - target[1]);
  const lit = sources.flatMap(({ island }) => island).sort((a, b) => a - b).map((i) => [i % width, Math.floor(i / width), pixels[i]]);
  const within = (x, y) => lit.filter(([u, v]) => Math.hypot(u - x, v - y) <= C.RADIUS / pixel);
  const away = centres.map(({ x, y }) => far(x, y) * pixel), nearest = away.indexOf(Math.min(...away)), near = within(...target);
  if (near.length) {
    const { x, y } = centroid(near);
    away.push(far(x, y) * pixel);
  }
  let [x, y] = target;
  if (Math.min(...away) > C.CENTRED) {
    notes.push(`the nearest source is ${rounded(away[nearest])}″ from the middle of the image: the field was centred on it`);
    ({ x, y } = centres[nearest]);
  }
  if (!within(x, y).length) { // the middle of a wide ring or double
    [x, y] = lit.reduce((a, b) => (Math.hypot(b[0] - x, b[1] - y) < Math.hypot(a[0] - x, a[1] - y) ? b : a));
  }
  return [x, y];
}

/** Refuses a source that reaches far into blank surroundings; returns its peak, and whether it reaches an edge. */
function peakOf(pixels, blank, { name, width, height, pixel }, [x0, y0], notes) {
  const reach = C.RADIUS / pixel, isBlank = (x, y) => x < 0 || y < 0 || x >= width || y >= height || blank[y * width + x];
  let seen = 0, peak = 0, atEnd = 0;
  for (let i = Math.max(0, Math.floor(y0 - reach)) * width; i < Math.min(height, y0 + reach + 1) * width; i++) {
    const x = i % width, y = Math.floor(i / width);
    if (Math.hypot(x - x0, y - y0) > reach) continue;
    seen += !blank[i];
    peak = Math.max(peak, pixels[i]);
    if ([-1, 0, 1].some((v) => [-1, 0, 1].some((u) => isBlank(x + u, y + v)))) atEnd = Math.max(atEnd, pixels[i]);
  }
  const lost = 1 - seen / (Math.PI * reach ** 2), outside = `${rounded(100 * lost)}% of the source's surroundings are blank or outside of the image`;
  const partial = atEnd > C.FAINT * peak;
  if (lost > C.BLANK && partial) {
    throw new Refused(`${name} does not show the whole source, because ${outside}: use a larger image`);
  }
  if (lost > 0.05) notes.push(`${outside}, and treated as empty sky`);
  if (partial) notes.push("the source reaches an edge of the image, or blank pixels");
  return [peak, partial];
}

/** Distance, arcsec, of two sources [x, y, flux] that may be the lobes of one too wide to be classified, or 0. */
function lobes(centres, { width, height, pixel }) {
  const arm = ({ x, y }) => [pixel * (x - (width - 1) / 2) + 1e-6, pixel * (y - (height - 1) / 2)];
  centres = centres.filter((one) => Math.hypot(...arm(one)) <= C.WIDEST); // others are farther apart than that
  const arms = centres.map(arm);
  const within = (ratio, factor) => ratio <= factor && ratio >= 1 / factor;
  let widest = 0;
  arms.forEach((a, i) => arms.forEach((b, j) => {
    const apart = Math.hypot(a[0] - b[0], a[1] - b[1]), [far, other] = [a, b].map((arm) => Math.hypot(...arm));
    const opposite = -(a[0] * b[0] + a[1] * b[1]) / (far * other) > Math.cos(Math.PI / 6);
    const alike = within(centres[i].flux / centres[j].flux, 3) && within(far / other, 2);
    if (opposite && alike && apart > 2 * C.RADIUS && apart <= C.WIDEST) widest = Math.max(widest, apart);
  }));
  return widest;
}

/** The clipped field around the source in the middle of an image: what rgz.open_cutout returns. */
export function centre(image, given) {
  const notes = [...image.notes];
  if (image.sky?.unscaled && given) notes.push(`pixels of ${given}″, as given, with east to the left of north`);
  const square = squarePixels(image, given, notes), { width, height, pixel } = square;
  const blank = square.pixels.map((v) => !Number.isFinite(v)), [clear, rms] = clipped(square, notes);
  const found = islands(clear, width, height), sources = bright(clear, width, found, rms);
  if (!sources.length) throw new Refused(noSource(square, rms));
  const group = linked(sources.map(({ x, y }) => [x * pixel, y * pixel]), C.RADIUS), names = [...new Set(group)].sort((a, b) => a - b);
  const parts = names.map((one) => sources.filter((_, i) => group[i] === one));
  const centres = parts.map((part) => centroid(part.map((one) => [one.x, one.y, one.flux])));
  const [x, y] = middleOf(sources, clear, square, centres, notes), apart = lobes(centres, square);
  const [peak, ended] = peakOf(clear, blank, square, [x, y], notes), partial = ended || apart > 0;
  if (apart) {
    notes.push(`two sources of similar brightness, ${rounded(apart)}″ apart, on opposite sides of the requested position may be `
      + `lobes of one galaxy, which is wider than the ${rounded(2 * C.RADIUS)}″ that are classified`);
  }
  const own = new Set(group.filter((_, i) => Math.hypot(rounded(sources[i].x) - x, rounded(sources[i].y) - y) <= C.RADIUS / pixel));
  const others = names.filter((one) => !own.has(one)).length;
  if (others) notes.push(`${others} further source${others > 1 ? "s" : ""} in the image; cut the one you mean out, or choose it with rgz look --at RA DEC`);
  return { name: image.name, field: cut(clear, width, height, x, y), pixel, place: position(square.sky, x, y), snr: peak / rms, others, notes, beam: square.beam, partial };
}

/** Pixels around (x, y), zero beyond the edge. */
function cut(pixels, width, height, x, y) {
  const [left, bottom] = [x, y].map((v) => rounded(v - (C.FIELD - 1) / 2)), made = new Float32Array(C.FIELD ** 2);
  for (let i = 0; i < made.length; i++) {
    const u = left + (i % C.FIELD), v = bottom + Math.floor(i / C.FIELD);
    if (u >= 0 && v >= 0 && u < width && v < height) made[i] = pixels[v * width + u];
  }
  return made;
}

function noSource({ name, pixels }, rms) {
  const shown = kept(pixels, Number.isFinite), peak = greatest(shown);
  if (!shown.length || peak === least(shown)) return `${name} is blank: every pixel has the same value, or none; use an image with a source`;
  if (Number.isNaN(rms)) return `${name} shows nothing larger than a few pixels: use an image with a source`;
  const times = rms > 0 ? ((peak - median(shown)) / rms).toFixed(1) : "0.0";
  return `${name} has no source above ${C.PEAK} times its rms noise, of at least ${C.SMALLEST_ISLAND} pixels: its brightest pixel is at ${times} times the rms noise, use another image`;
}
