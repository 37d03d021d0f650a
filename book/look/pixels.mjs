// Images as flat arrays: medians, clipped statistics, blank values, islands of emission, resampling.
import { C, Refused } from "./library.mjs";

/** Smallest and greatest of numbers. */
export const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
export const greatest = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

/** The values that pass a test, as the filter of a typed array, which takes ten times as long. */
export function kept(values, passes) {
  const found = new values.constructor(values.length);
  let count = 0;
  for (let i = 0; i < values.length; i++) if (passes(values[i])) found[count++] = values[i];
  return found.slice(0, count);
}

/** Middle value of finite numbers. */
export const median = (values) => ofSorted(new Float64Array(values).sort(), 0, values.length);

const ofSorted = (sorted, from, to) => (sorted[(from + to - 1) >> 1] + sorted[(from + to) >> 1]) / 2;

/** Median and rms after iterative clipping at 3σ, at most five times; zeros for no values. */
export function clippedStatistics(values) {
  const sorted = new Float64Array(values).sort();
  if (!sorted.length) return [0, 0];
  let from = 0, to = sorted.length;
  for (let round = 0; round < 5; round++) {
    const middle = ofSorted(sorted, from, to), reach = 3 * spread(sorted.subarray(from, to)), before = to - from;
    while (sorted[from] < middle - reach) from++;
    while (sorted[to - 1] > middle + reach) to--;
    if (to - from === before) break;
  }
  return [ofSorted(sorted, from, to), spread(sorted.subarray(from, to))];
}

function spread(values) {
  let sum = 0, squares = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  const mean = sum / values.length;
  for (let i = 0; i < values.length; i++) squares += (values[i] - mean) ** 2;
  return Math.sqrt(squares / values.length);
}

/** Rounded to an integer, halves to the even one. */
export const rounded = (v) => (Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v));

/** Without rounding errors of coordinates: what lies on the last pixel is not beyond it. */
const noiseless = (v) => Math.round(v * 1e6) / 1e6;

/** Values that are not blank beside the edges or beside blank pixels. */
export function beside(pixels, width, height) {
  const isBlank = (x, y) => x < 0 || y < 0 || x >= width || y >= height || !Number.isFinite(pixels[y * width + x]);
  return pixels.filter((v, i) => {
    const x = i % width, y = Math.floor(i / width);
    return Number.isFinite(v) && [-1, 0, 1].some((b) => [-1, 0, 1].some((a) => isBlank(x + a, y + b)));
  });
}

/** Values along the four edges. */
function edge(pixels, width, height) {
  const last = (height - 1) * width, values = [...pixels.subarray(0, width), ...pixels.subarray(last, last + width)];
  for (let y = 0; y < height; y++) values.push(pixels[y * width], pixels[y * width + width - 1]);
  return values;
}

/** Whether pixels of a value are a margin around a noisy image; a source in a clipped image touches its box in a few pixels. */
function isMargin(pixels, width, height, value) {
  let left = width, right = -1, top = height, bottom = -1;
  pixels.forEach((v, i) => {
    if (v === value) return;
    left = Math.min(left, i % width), right = Math.max(right, i % width);
    top = Math.min(top, Math.floor(i / width)), bottom = Math.max(bottom, Math.floor(i / width));
  });
  const across = right - left + 1, down = bottom - top + 1, inside = new Float64Array(across * down);
  if (Math.min(across, down) < C.NARROWEST || inside.length === pixels.length) return false;
  inside.forEach((_, i) => (inside[i] = pixels[(top + Math.floor(i / across)) * width + left + (i % across)] !== value));
  const along = edge(inside, across, down);
  return along.reduce((sum, v) => sum + v, 0) / along.length > C.NOISY_MARGIN;
}

/** NaN in place of values that stand for blank, such as -9999, 1e30, or a constant along the edges or in the margin. */
export function withoutSentinels(pixels, width, height, notes, picture = false) {
  const huge = kept(pixels, (v) => Math.abs(v) >= C.SENTINEL).length;
  if (huge) notes.push(`${huge} pixels beyond ±1e+20 were treated as blank`);
  pixels = pixels.map((v) => (Math.abs(v) < C.SENTINEL ? v : NaN));
  const finite = kept(pixels, Number.isFinite), counts = new Map();
  for (const v of edge(pixels, width, height)) if (Number.isFinite(v)) counts.set(v, (counts.get(v) ?? 0) + 1);
  const levels = [...counts.keys()].sort((a, b) => a - b), most = levels.reduce((a, b) => (counts.get(b) > (counts.get(a) ?? 0) ? b : a), NaN);
  const repeated = counts.get(most) >= 8 ? [most] : [];
  const step = levels.length > 1 ? least(levels.slice(1).map((v, i) => v - levels[i])) : 0;
  for (const value of finite.length ? [least(finite), greatest(finite), ...repeated] : []) {
    const same = kept(finite, (v) => v === value).length;
    if (same <= 1 || same === finite.length) continue;
    const rest = kept(finite, (v) => v !== value);
    const sky = median(rest), [low, high] = [least(rest), greatest(rest)];
    const beyond = Math.max(low - value, value - high) > 10 * (high - low) && high > low;
    const scatter = Math.max(median(rest.map((v) => Math.abs(v - sky))), step);
    const unlike = Math.abs(value - sky) > 5 * 1.4826 * scatter && rest.length > C.CLIPPED * finite.length;
    if (beyond || (repeated.includes(value) && (unlike || isMargin(pixels, width, height, value)))) {
      const blank = pixels.map((v) => (v === value ? 1 : 0)), { labels, members } = islands(blank, width, height);
      const around = new Set(picture && repeated.includes(value) ? edge(labels, width, height) : members.keys());
      blank.forEach((v, i) => (blank[i] = v && around.has(labels[i])));
      notes.push(`${kept(blank, (v) => v).length} pixels of the value ${Number(value.toPrecision(6))} were treated as blank`);
      return withoutSentinels(pixels.map((v, i) => (blank[i] ? NaN : v)), width, height, notes, picture);
    }
  }
  return pixels;
}

/** Number of the island of each pixel above zero, 0 elsewhere, and for each island the list of its pixels. */
export function islands(pixels, width, height) {
  const labels = new Int32Array(pixels.length), members = [[]];
  for (let start = 0; start < pixels.length; start++) {
    if (!(pixels[start] > 0) || labels[start]) continue;
    const found = [start], number = members.push(found) - 1;
    labels[start] = number;
    for (let next = 0; next < found.length; next++) {
      const x = found[next] % width, y = Math.floor(found[next] / width);
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const beside = v * width + u;
          if (!(pixels[beside] > 0) || labels[beside]) continue;
          labels[beside] = number;
          found.push(beside);
        }
      }
    }
  }
  return { labels, members };
}

/** For each place [x, y] the first one of its group; neighbours in a group are at most `reach` apart. */
export function linked(places, reach) {
  const group = places.map(() => -1), cells = new Map(), cell = ([x, y]) => [Math.floor(x / reach), Math.floor(y / reach)];
  places.forEach((place, i) => {
    const key = cell(place).join();
    cells.has(key) ? cells.get(key).push(i) : cells.set(key, [i]);
  });
  places.forEach((_, first) => {
    if (group[first] >= 0) return;
    group[first] = first;
    for (const queue = [first]; queue.length; ) {
      const place = places[queue.pop()], [u, v] = cell(place);
      for (let near = 0; near < 9; near++) {
        const key = `${u - 1 + (near % 3)},${v - 1 + Math.floor(near / 3)}`, left = [];
        for (const j of cells.get(key) ?? []) {
          if (Math.hypot(place[0] - places[j][0], place[1] - places[j][1]) > reach) left.push(j);
          else if (group[j] < 0) queue.push(j), (group[j] = first);
        }
        if (cells.has(key)) cells.set(key, left); // those within reach have their group
      }
    }
  });
  return group;
}

/** Smoothed by a Gaussian of `sigma` pixels along rows or columns; the image is continued by its mirror image. */
function smoothed(pixels, width, height, sigma, alongRows) {
  if (!sigma) return pixels;
  const reach = Math.floor(4 * sigma + 0.5), kernel = [];
  for (let k = -reach; k <= reach; k++) kernel.push(Math.exp((-0.5 * k * k) / sigma ** 2));
  const total = kernel.reduce((a, b) => a + b), made = new Float64Array(pixels.length);
  const [length, lines, step, jump] = alongRows ? [width, height, 1, width] : [height, width, width, 1];
  const inside = (i) => (i = ((i % (2 * length)) + 2 * length) % (2 * length), i < length ? i : 2 * length - 1 - i);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (let k = -reach; k <= reach; k++) sum += kernel[k + reach] * pixels[line * jump + inside(i + k) * step];
      made[line * jump + i * step] = sum / total;
    }
  }
  return made;
}

/** Linear interpolation at (x, y); `beyond` outside of the image. */
function interpolated(pixels, width, height, x, y, beyond) {
  if (!(x >= 0 && y >= 0 && x <= width - 1 && y <= height - 1)) return beyond;
  const [u, v] = [Math.min(Math.floor(x), width - 2), Math.min(Math.floor(y), height - 2)], [a, b] = [x - u, y - v], at = v * width + u;
  return (1 - b) * ((1 - a) * pixels[at] + a * pixels[at + 1]) + b * ((1 - a) * pixels[at + width] + a * pixels[at + width + 1]);
}

/** The image on square pixels of `pixel` arcsec, north up and east left; `matrix` has arcsec for the old ones. */
export function resampled(image, matrix, widths, pixel) {
  const { name, pixels, width, height } = image;
  const sides = matrix.map(([x, y]) => (Math.abs(x) * width + Math.abs(y) * height) / pixel); // all of it, also if it is turned
  if (sides[0] * sides[1] > 4 * C.LARGEST ** 2) throw new Refused(`${name} is too wide to be turned with north up: cut the galaxy out of it first`);
  const size = sides.map((n) => Math.max(16, rounded(noiseless(n))));
  const blank = Float64Array.from(pixels, (v) => (Number.isFinite(v) ? 0 : 1)), finite = kept(pixels, Number.isFinite);
  const level = finite.length ? median(finite) : 0, sigma = widths.map((w) => (pixel > 1.01 * w ? 0.42 * pixel : 0));
  const filled = Float64Array.from(pixels, (v) => (Number.isFinite(v) ? v : level));
  const down = smoothed(filled, width, height, sigma[1] / widths[1], false);
  const smooth = smoothed(down, width, height, sigma[0] / widths[0], true);
  const [[a, b], [c, d]] = matrix, determinant = a * d - b * c, made = new Float64Array(size[0] * size[1]);
  for (let i = 0; i < made.length; i++) {
    const east = -((i % size[0]) - (size[0] - 1) / 2) * pixel, north = (Math.floor(i / size[0]) - (size[1] - 1) / 2) * pixel;
    const x = noiseless((d * east - b * north) / determinant + (width - 1) / 2);
    const y = noiseless((a * north - c * east) / determinant + (height - 1) / 2);
    made[i] = interpolated(blank, width, height, x, y, 1) > 0.5 ? NaN : interpolated(smooth, width, height, x, y, 0);
  }
  const variance = (sigma[0] ** 2 + widths[0] ** 2 / 6 + sigma[1] ** 2 + widths[1] ** 2 / 6) / 2;
  const beam = Math.sqrt(image.beam ** 2 + 8 * Math.log(2) * variance);
  return { ...image, pixels: made, width: size[0], height: size[1], beam };
}
