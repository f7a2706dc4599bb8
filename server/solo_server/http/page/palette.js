// Colours of instances and classes, told apart by people with any colour vision: those of solo_results/palette.py.

const PALETTE = [
  "#0ea6ff", "#fe7802", "#c0018e", "#0ff6a7", "#fde819", "#980ffc", "#008362", "#cc113a",
  "#eca6c4", "#91ad6f", "#ccbcfc", "#6063aa", "#1ca597", "#c25c19", "#c9c16a", "#9367e9",
];

/** The colour of an instance, as "#rrggbb". by: "instance" or "class". */
export function colourOf(instance, by) {
  return PALETTE[(by === "class" ? instance.classId : instance.index) % PALETTE.length];
}

/** Black or white, whichever has the higher contrast on the colour (WCAG 2.2). */
export function textColourOn(hex) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16) / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) ? "#000" : "#fff";
}
