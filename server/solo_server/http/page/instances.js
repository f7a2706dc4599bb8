// The instances of an answer of /segment, with masks that can be asked, drawn and cut out.

import { decodeEdges, forEachRun, isInside } from "./rle.js";
import { smoothPath, tracePolygons } from "./polygons.js";

const SLICE_MS = 8; // work between two pauses, so that the page answers while large masks are decoded

/** One instance. index: its place in the answer, best first. */
export class Instance {
  #edges;
  #polygons = null;
  #peakX = null;
  #path = null;
  #pathScale = 0;

  constructor(json, index) {
    [this.height, this.width] = json.mask.size;
    this.index = index;
    this.label = json.label;
    this.classId = json.class_id;
    this.score = json.score;
    this.box = json.box_xywh;
    this.area = json.area;
    this.rle = json.mask;
    this.#edges = decodeEdges(json.mask.counts, this.height, this.width);
  }

  /** Whether the mask has the pixel of this point, in image pixels. */
  contains(x, y) {
    const [left, top, width, height] = this.box;
    if (x < left || y < top || x >= left + width || y >= top + height) return false;
    return isInside(this.#edges, Math.floor(x) * this.height + Math.floor(y));
  }

  /** Exact polygons along pixel edges: [{exterior, holes}]. */
  get polygons() {
    this.#polygons ??= tracePolygons(this.#edges, this.height);
    return this.#polygons;
  }

  /** The x of the middle of the highest edge, in image pixels. */
  get peakX() {
    this.#peakX ??= peakOf(this.polygons);
    return this.#peakX;
  }

  /** The outline for drawing, at `scale` display pixels an image pixel. */
  path(scale) {
    if (this.#pathScale !== scale) {
      this.#path = smoothPath(this.polygons, scale);
      this.#pathScale = scale;
    }
    return this.#path;
  }

  /** Makes all pixels outside of the mask transparent. pixels: ImageData of the instance's box. */
  cut(pixels) {
    const [left, top] = this.box, words = new Uint32Array(pixels.data.buffer), kept = new Uint32Array(words.length);
    forEachRun(this.#edges, this.height, (column, start, end) => {
      for (let y = start; y < end; y++) {
        const place = (y - top) * pixels.width + column - left;
        kept[place] = words[place];
      }
    });
    words.set(kept);
  }
}

function peakOf(polygons) {
  const rings = polygons.map(({ exterior }) => exterior), highest = Math.min(...rings.map((ring) => ringTop(ring)));
  const ring = rings.find((each) => ringTop(each) === highest), ends = ring.filter((_, i) => i % 2 === 0 && ring[i + 1] === highest);
  return ends.reduce((sum, x) => sum + x, 0) / ends.length;
}

function ringTop(ring) {
  let top = Infinity;
  for (let i = 1; i < ring.length; i += 2) top = Math.min(top, ring[i]);
  return top;
}

/** Instances of an answer, decoded in slices of a few milliseconds. Throws an Error for a damaged mask. */
export async function readInstances(answer) {
  const instances = [];
  let sliceEnd = performance.now() + SLICE_MS;
  for (const [index, json] of answer.instances.entries()) {
    const instance = new Instance(json, index);
    void instance.polygons; // traced here and not while it is drawn first
    instances.push(instance);
    if (performance.now() > sliceEnd) {
      await new Promise((resume) => setTimeout(resume));
      sliceEnd = performance.now() + SLICE_MS;
    }
  }
  return instances;
}

/** The smallest instance whose mask has the point, or null. */
export function instanceAt(instances, x, y) {
  let found = null;
  for (const instance of instances) {
    if ((found === null || instance.area < found.area) && instance.contains(x, y)) found = instance;
  }
  return found;
}
