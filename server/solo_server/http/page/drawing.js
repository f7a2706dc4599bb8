// Draws instances on a canvas: fill, contour, label. The same code draws the page's stage and the PNG that is saved.

import { placeLabels } from "./labels.js";
import { colourOf, textColourOn } from "./palette.js";

const FILL = 0.38, FILL_HIGHLIGHTED = 0.3;
const SHADE = "rgba(0, 0, 0, 0.55)"; // around contours, so that they show on any image
const FADED = "rgba(12, 14, 18, 0.78)"; // over everything but an isolated instance

/** How to draw. scale: canvas pixels an image pixel; unit: canvas pixels that one pixel of a contour or of a 13 px label takes. */
export class Style {
  constructor(scale, unit, colourBy) {
    Object.assign(this, { scale, unit, colourBy });
  }
}

/** Draws all instances, the best on top, with labels where there is a free place for them. Returns the places by instance. */
export function drawInstances(context, instances, style) {
  for (const instance of [...instances].reverse()) drawMask(context, instance, style, FILL, 1.6);
  const labels = instances.map((instance) => measureLabel(context, instance, style));
  const places = placeLabels(labels, context.canvas.width, context.canvas.height);
  places.forEach((place, i) => place && drawLabel(context, labels[i], place, style));
  return new Map(instances.map((instance, i) => [instance, places[i]]));
}

/** Draws one instance so that it stands out, with its label. place: where it is already, or null. */
export function drawHighlight(context, instance, style, place) {
  drawMask(context, instance, style, FILL_HIGHLIGHTED, 3);
  const label = measureLabel(context, instance, style);
  drawLabel(context, label, place ?? placeLabels([label], context.canvas.width, context.canvas.height)[0], style);
}

/** Fades everything but one instance. */
export function drawIsolated(context, instance, style) {
  const { width, height } = context.canvas, outside = new Path2D();
  outside.rect(0, 0, width, height);
  outside.addPath(instance.path(style.scale));
  context.fillStyle = FADED;
  context.fill(outside, "evenodd");
  drawMask(context, instance, style, 0, 2);
}

function drawMask(context, instance, { scale, unit, colourBy }, alpha, lineWidth) {
  const path = instance.path(scale), colour = colourOf(instance, colourBy);
  context.fillStyle = colour;
  context.globalAlpha = alpha;
  if (alpha) context.fill(path, "evenodd");
  context.globalAlpha = 1;
  context.lineJoin = "round";
  context.strokeStyle = SHADE;
  context.lineWidth = (lineWidth + 1.6) * unit;
  context.stroke(path);
  context.strokeStyle = colour;
  context.lineWidth = lineWidth * unit;
  context.stroke(path);
}

function measureLabel(context, instance, { scale, unit }) {
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  const text = `${instance.label}  ${instance.score.toFixed(2)}`;
  const width = context.measureText(text).width + 14 * unit;
  return { instance, text, width, height: 22 * unit, box: instance.box.map((side) => side * scale), peakX: instance.peakX * scale };
}

function drawLabel(context, { instance, text, width, height }, { x, y }, { unit, colourBy }) {
  const colour = colourOf(instance, colourBy);
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(x, y, width, height, 5 * unit);
  context.fill();
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.fillStyle = textColourOn(colour);
  context.fillText(text, x + 7 * unit, y + height / 2 + 0.5 * unit);
}
