// What is said of a galaxy, from the numbers that the graph gives: as rgz.tasks.inspect does.
import { C } from "./library.mjs";
import { greatest, islands, least } from "./pixels.mjs";

const SIZE = () => C.FIELD;

/** Distance of a pixel from the middle, arcsec. */
const distance = (i, pixel) => Math.hypot((i % SIZE()) - (SIZE() - 1) / 2, Math.floor(i / SIZE()) - (SIZE() - 1) / 2) * pixel;

/** Peak over the rms, or three times the peak over the faintest pixel if the rms is not known. */
function signalToNoise({ field, pixel, snr }) {
  if (Number.isFinite(snr)) return snr;
  const lit = field.filter((v, i) => v > 0 && distance(i, pixel) <= C.RADIUS);
  return (3 * greatest(lit)) / least(lit);
}

const effective = (light) => light.reduce((a, b) => a + b, 0) ** 2 / light.reduce((a, b) => a + b * b, 0);

/** Effective area of the source over that of a point source with the same beam, threshold and peak. */
function areaOverPoint(cutout) {
  const { field, pixel } = cutout, beam = cutout.beam >= pixel ? cutout.beam : C.BEAM * pixel;
  const near = Float64Array.from(field, (v, i) => (distance(i, pixel) <= C.RADIUS ? v : 0)), peak = greatest(near);
  const least_ = (C.PEAK / Math.max(signalToNoise(cutout), C.PEAK)) * peak;
  const kept = islands(near, SIZE(), SIZE()).members.filter((island) => island.some((i) => near[i] >= least_));
  const lit = kept.flatMap((island) => island.map((i) => near[i])), brightest = greatest(lit);
  const point = [...field.keys()].map((i) => [distance(i, pixel), Math.exp(-4 * Math.log(2) * (distance(i, pixel) / beam) ** 2)]);
  const faintest = Math.min(least(lit) / brightest, greatest(point.map(([, light]) => light)));
  return effective(lit) / effective(point.filter(([far, light]) => far <= C.RADIUS && light >= faintest).map(([, light]) => light));
}

/** Class, set, status, notes and neighbours of a cut-out, from the outputs of the graph. */
export function inspection(cutout, outputs, galaxies) {
  let area = areaOverPoint(cutout);
  if (area < C.NARROWER && Number.isNaN(cutout.beam)) {
    const told = `the source is narrower than the beam of ${(C.BEAM * cutout.pixel).toFixed(1)}″ that was assumed: is the pixel width right?`;
    cutout = { ...cutout, notes: [...cutout.notes, told] };
  } else if (area < C.NARROWER) {
    const told = `the source is narrower than the beam in the header (${cutout.beam.toFixed(1)}″), so that beam was not used`;
    cutout = { ...cutout, beam: NaN, notes: [...cutout.notes, told] };
    area = areaOverPoint(cutout);
  }
  const snr = signalToNoise(cutout), [nats, error, rank] = outputs.likelihood;
  const percentile = Number.isFinite(nats) ? rank : 0;
  const kind = cutout.pixel > C.COARSE && area < C.BARELY ? "coarse" : "centroid", classes = C.classes[kind];
  const shares = [...outputs[kind]], likeliest = Math.max(...shares);
  const status = area < 1 + C.POINT + C.SCATTER / snr ? "unresolved" : snr < C.FAINTEST ? "faint" : cutout.partial ? "partly outside" : percentile < C.UNLIKE ? "unlike" : "ok";
  const shapeless = status === "unresolved" || status === "faint";
  const set = classes.names.filter((_, i) => shares[i] >= classes.threshold || shares[i] === likeliest);
  return {
    status, kind, area, nats, error, percentile,
    label: shapeless ? null : classes.names[shares.indexOf(likeliest)],
    probabilities: classes.names.map((name, i) => [name, shares[i]]),
    set: shapeless ? [] : set,
    basis: C.BASIS[kind],
    notes: [...cutout.notes, ...(C.REASONS[status] ? [C.REASONS[status].replace("{:.2f}", area.toFixed(2))] : []), ...catalogued(cutout.place, galaxies)],
    neighbours: neighbours(outputs.cosines, cutout.place, galaxies),
  };
}

/** The ten galaxies with the largest cosine, with 1 − cos, and whether they lie where the galaxy does. */
function neighbours(cosines, place, { ra, dec }) {
  const order = [...cosines.keys()].sort((a, b) => cosines[b] - cosines[a] || a - b).slice(0, 10);
  return order.map((row) => ({ row, separation: 1 - cosines[row], same: lies(place, ra[row], dec[row]) }));
}

/** Whether a galaxy of the samples lies at a place. */
const lies = (place, ra, dec) => place !== null && ra !== null && separation(place, [ra, dec]) <= C.SAME;

/** What the samples say of the galaxy at a place, if it is in one of them, as a note. */
function catalogued(place, { ra, dec, label, labels }) {
  const known = [...new Set(label.filter((_, row) => lies(place, ra[row], dec[row])).map((one) => labels[one]).filter(Boolean))].sort();
  if (!known.length) return [];
  const says = known.length > 1 ? `catalogues disagree about this galaxy (${known.join(", ")})` : `this galaxy is catalogued as ${known[0]}`;
  return [`${says}; it may be in the training set`];
}

/** Angle between two positions in degrees, arcsec. */
function separation(one, other) {
  const [ra1, dec1, ra2, dec2] = [...one, ...other].map((v) => (v * Math.PI) / 180);
  const half = Math.sin((dec1 - dec2) / 2) ** 2 + Math.cos(dec1) * Math.cos(dec2) * Math.sin((ra1 - ra2) / 2) ** 2;
  return ((2 * Math.asin(Math.sqrt(half)) * 180) / Math.PI) * 3600;
}
