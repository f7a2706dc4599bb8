// Where labels go: as near to the top of their instance as possible, and never on each other.

const STEPS = 6;

/** Places labels in order. labels: [{width, height, box: [x, y, width, height], peakX}] in display pixels; peakX: of the highest pixel.
 * Returns [{x, y} or null]; null where there is no free place. */
export function placeLabels(labels, canvasWidth, canvasHeight) {
  const taken = [];
  return labels.map((label) => {
    for (const [wantedX, wantedY] of candidates(label)) {
      const x = clamp(wantedX, 0, canvasWidth - label.width), y = clamp(wantedY, 0, canvasHeight - label.height);
      const place = { x, y, width: label.width, height: label.height };
      if (taken.some((other) => overlap(place, other))) continue;
      taken.push(place);
      return { x, y };
    }
    return null;
  });
}

function* candidates({ width, height, box: [left, top, boxWidth, boxHeight], peakX }) {
  const right = left + boxWidth - width, middle = left + (boxWidth - width) / 2, isSmall = boxWidth < 1.5 * width || boxHeight < 3 * height;
  yield [peakX - width / 2, top - height];
  yield [left, top - height];
  yield [right, top - height];
  if (!isSmall) yield* inside(left, right, middle, top, height, boxHeight);
  for (let step = 1; step < STEPS; step++) yield [middle, top - height * (1 + 1.1 * step)];
  yield [middle, top + boxHeight];
  yield [left + boxWidth, top];
  yield [left - width, top];
  if (isSmall) yield* inside(left, right, middle, top, height, boxHeight);
}

function* inside(left, right, middle, top, height, boxHeight) {
  yield [left, top];
  yield [right, top];
  for (let y = top; y + height <= top + boxHeight; y += Math.max(height * 1.1, boxHeight / 2 / STEPS)) yield [middle, y];
}

function overlap(a, b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(value, high));
}
