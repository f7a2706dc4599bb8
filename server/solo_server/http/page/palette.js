// Colours of instances and classes, told apart by people with any colour vision.
//
// Okabe and Ito's eight (2008) without black, in an order in which neighbours differ in lightness; after them the same hues lighter
// and darker. Text on a colour is black or white, whichever has more contrast.

const BASE = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00"];
const SHADES = [0, 0.4, -0.3];

const COLOURS = SHADES.flatMap((shade) => BASE.map((hex) => shaded(hex, shade)));

/** The colour of an instance, as "#rrggbb". by: "instance" or "class". */
export function colourOf(instance, by) {
  return COLOURS[(by === "class" ? instance.classId : instance.index) % COLOURS.length];
}

/** "#000" or "#fff", to be read on the colour. */
export function textColourOn(hex) {
  const [red, green, blue] = channels(hex).map((value) => ((value / 255) ** 2.2));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000" : "#fff";
}

function shaded(hex, shade) {
  const end = shade > 0 ? 255 : 0;
  const mixed = channels(hex).map((value) => Math.round(value + (end - value) * Math.abs(shade)));
  return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

function channels(hex) {
  return [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
}
