// COCO's compressed run lengths -> edges of the runs.
//
// The format is that of cocoapi's common/maskApi.c (rleFrString): pixels column by column, runs of background and object in turn,
// background first; five bits a character, the sixth says that more follow; from the fourth number on, differences to the one two before.

const OFFSET = 48, VALUE = 0x1f, SIGN = 0x10, MORE = 0x20, MAX_GROUPS = 7; // 35 bits: more than any image has pixels

/** The ends of the runs as pixel indices (column * height + row): pixels edges[2k] to edges[2k + 1] - 1 are the object's.
 * Throws an Error where the text is damaged or does not cover height * width pixels. */
export function decodeEdges(counts, height, width) {
  const edges = new Uint32Array(counts.length);
  let runs = 0, total = 0, before = 0, last = 0; // before, last: the two latest run lengths
  for (let place = 0; place < counts.length;) {
    let number = 0, groups = 0, group;
    do {
      if (place === counts.length || groups === MAX_GROUPS) throw new Error("a mask ends inside a number");
      group = counts.charCodeAt(place++) - OFFSET;
      if (!(group >= 0 && group < 64)) throw new Error("a mask has an illegal character");
      number += (group & VALUE) * 32 ** groups++;
    } while (group & MORE);
    if (group & SIGN) number -= 32 ** groups;
    const length = runs > 2 ? number + before : number;
    total += length;
    if (length < 0 || total > height * width) throw new Error("a mask has an impossible run");
    edges[runs++] = total;
    before = last;
    last = length;
  }
  if (total !== height * width) throw new Error(`a mask covers ${total} pixels of ${height * width}`);
  return edges.slice(0, runs);
}

/** Whether the pixel is the object's. */
export function isInside(edges, pixel) {
  let low = 0, high = edges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (edges[middle] <= pixel) low = middle + 1;
    else high = middle;
  }
  return low % 2 === 1;
}

/** Calls visit(column, top, bottom) for each vertical run of object pixels, columns in order; bottom is exclusive. */
export function forEachRun(edges, height, visit) {
  for (let k = 0; k + 1 < edges.length; k += 2) {
    let start = edges[k];
    while (start < edges[k + 1]) {
      const column = Math.floor(start / height), end = Math.min(edges[k + 1], (column + 1) * height);
      visit(column, start - column * height, end - column * height);
      start = end;
    }
  }
}
