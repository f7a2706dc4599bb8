// The small bar of the time that each stage took.

const COLOURS = { queue: "#8d96a5", decode: "#56b4e9", preprocess: "#0072b2", categories: "#009e73", towers: "#e69f00", masks: "#d55e00",
  nms: "#cc79a7", encode: "#7a5bb5" };
const OTHER = "#8d96a5";

/** Shows the stages in milliseconds, and further figures [[name, text]] before them, the frame rate for example. */
export function showTimings(timingsMs, figures) {
  const { total, ...stages } = timingsMs;
  document.getElementById("timings").hidden = false;
  document.getElementById("timings-bar").replaceChildren(...Object.entries(stages).map(([name, ms]) => {
    const part = document.createElement("span");
    part.style.flex = `${ms} 0 0`;
    part.style.background = COLOURS[name] ?? OTHER;
    return part;
  }));
  const leading = [["Server", `${rounded(total)} ms`], ...figures].map(([name, text]) => {
    const figure = document.createElement("span"), value = document.createElement("b");
    value.textContent = text;
    figure.append(`${name} `, value);
    return figure;
  });
  const parts = Object.entries(stages).map(([name, ms]) => {
    const part = document.createElement("span"), swatch = document.createElement("i");
    swatch.style.background = COLOURS[name] ?? OTHER;
    part.append(swatch, `${name} ${rounded(ms)}`);
    return part;
  });
  document.getElementById("timings-text").replaceChildren(...leading, ...parts);
}

/** Hides the bar. */
export function hideTimings() {
  document.getElementById("timings").hidden = true;
}

function rounded(ms) {
  return ms < 10 ? ms.toFixed(1) : ms.toFixed(0);
}
