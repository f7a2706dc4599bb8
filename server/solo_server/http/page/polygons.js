// Edges of runs -> polygons along pixel edges, exact, with holes; and from those a smooth path for drawing.
//
// Rings are found by following the cracks between pixels with the object on the right hand. Pixels that touch at a corner only are
// separate (4-connected), so no ring touches itself along an edge. Outer rings run clockwise on the screen, holes counter-clockwise.

import { forEachRun } from "./rle.js";

const STEP_X = [1, 0, -1, 0], STEP_Y = [0, 1, 0, -1]; // east, south, west, north
const STAIR_INSET = 4; // pixels: how far a long edge beside a stair is bent, so that slopes look straight
const SPACING = 1.5; // display pixels between the points of a drawn contour: half of them, and nobody sees it

/** [{exterior, holes}], each ring a flat array [x0, y0, x1, y1, ...] of corners; the last is joined to the first. */
export function tracePolygons(edges, height) {
  const rings = traceRings(edges, height);
  const exteriors = rings.filter((ring) => ring.area > 0).sort((a, b) => a.area - b.area);
  const polygons = new Map(exteriors.map((ring) => [ring, { exterior: ring.points, holes: [] }]));
  for (const hole of rings) {
    if (hole.area > 0) continue;
    const owner = exteriors.find((ring) => ring.area > -hole.area && isPointInRing(ring.points, hole.pixelX + 0.5, hole.pixelY + 0.5));
    polygons.get(owner).holes.push(hole.points);
  }
  return [...polygons.values()].reverse(); // the largest first
}

function traceRings(edges, height) {
  const runs = [];
  let left = Infinity, right = 0, top = Infinity, bottom = 0;
  forEachRun(edges, height, (column, start, end) => {
    runs.push(column, start, end);
    left = Math.min(left, column);
    right = Math.max(right, column + 1);
    top = Math.min(top, start);
    bottom = Math.max(bottom, end);
  });
  if (!runs.length) return [];
  const stride = bottom - top + 2; // a frame of background around the box
  const pixels = new Uint8Array((right - left + 2) * stride); // column by column
  const at = (x, y) => (x - left + 1) * stride + y - top + 1;
  for (let i = 0; i < runs.length; i += 3) pixels.fill(1, at(runs[i], runs[i + 1]), at(runs[i], runs[i + 2]));
  const rings = [];
  for (let i = 0; i < runs.length; i += 3) {
    if (pixels[at(runs[i], runs[i + 1])] === 1) rings.push(followRing(pixels, stride, at, runs[i], runs[i + 1]));
  }
  return rings;
}

/** The ring through the upper edge of the pixel (startX, startY), whose pixel above is background. Marks upper edges with 2. */
function followRing(pixels, stride, at, startX, startY) {
  const ahead = [[0, -1], [-stride, 0], [-stride - 1, -stride], [-1, -stride - 1]]; // [right, left] pixel of each direction
  const points = [];
  let x = startX, y = startY, direction = 0;
  do {
    if (direction === 0) pixels[at(x, y)] = 2;
    x += STEP_X[direction];
    y += STEP_Y[direction];
    const vertex = at(x, y), [right, left] = ahead[direction];
    const turn = !pixels[vertex + right] ? 1 : pixels[vertex + left] ? 3 : 0;
    if (turn) points.push(x, y);
    direction = (direction + turn) % 4;
  } while (x !== startX || y !== startY || direction !== 0);
  return { points, area: signedArea(points), pixelX: startX, pixelY: startY };
}

function signedArea(points) {
  let twice = 0;
  for (let i = 0, j = points.length - 2; i < points.length; j = i, i += 2) {
    twice += points[j] * points[i + 1] - points[i] * points[j + 1];
  }
  return twice / 2;
}

function isPointInRing(points, x, y) {
  let inside = false;
  for (let i = 0, j = points.length - 2; i < points.length; j = i, i += 2) {
    const isBetween = (points[i + 1] > y) !== (points[j + 1] > y); // all edges are vertical or horizontal
    if (isBetween && points[i] > x) inside = !inside;
  }
  return inside;
}

/** A Path2D of polygons at `scale` display pixels an image pixel. Stairs of one pixel become slopes; no point moves by more than
 * half a pixel, of the image or of the display, whichever is larger. Fill it with the even-odd rule. */
export function smoothPath(polygons, scale) {
  const path = new Path2D();
  for (const { exterior, holes } of polygons) {
    addRing(path, exterior, scale);
    for (const hole of holes) addRing(path, hole, scale);
  }
  return path;
}

function addRing(path, points, scale) {
  let line = bentRing(points, scale, SPACING);
  if (line.length < 8) line = bentRing(points, scale, 0); // a few pixels
  const count = line.length;
  const middle = (i) => [(line[i] + line[(i + 2) % count]) / 2, (line[i + 1] + line[(i + 3) % count]) / 2];
  path.moveTo(...middle(count - 2));
  for (let i = 0; i < count; i += 2) path.quadraticCurveTo(line[i], line[i + 1], ...middle(i));
  path.closePath();
}

/** The ring's points in display pixels with stairs bent to slopes; points nearer than `nearest` to the last one are left out,
 * but for those at corners. */
function bentRing(points, scale, nearest) {
  const count = points.length, line = [];
  let lastX = Infinity, lastY = Infinity;
  const add = (x, y, isCorner) => {
    if (!isCorner && Math.abs(x - lastX) < nearest && Math.abs(y - lastY) < nearest) return;
    line.push((lastX = x), (lastY = y));
  };
  const lengthFrom = (i) => Math.abs(points[(i + 2) % count] - points[i]) + Math.abs(points[(i + 3) % count] - points[i + 1]);
  let before = lengthFrom(count - 2), length = lengthFrom(0);
  for (let i = 0; i < count; i += 2) {
    const after = lengthFrom((i + 2) % count), endX = points[(i + 2) % count], endY = points[(i + 3) % count];
    const directionX = (endX - points[i]) / length, directionY = (endY - points[i + 1]) / length;
    const first = inset(length, before), last = inset(length, after);
    add((points[i] + first * directionX) * scale, (points[i + 1] + first * directionY) * scale, isCorner(length, before));
    if (first + last < length) add((endX - last * directionX) * scale, (endY - last * directionY) * scale, isCorner(length, after));
    before = length;
    length = after;
  }
  return line;
}

function isCorner(length, neighbour) {
  return length > 1 && neighbour > 1;
}

function inset(length, neighbour) {
  return length > 1 && neighbour === 1 ? Math.min(length / 2, STAIR_INSET) : 0.5;
}
