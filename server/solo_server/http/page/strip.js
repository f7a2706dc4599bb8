// The strip of images below the stage, with the progress of each.

const WORDS = { waiting: "waiting", running: "in progress", failed: "failed" };

/** Shows the items; the current one is marked. Callbacks: onChoose(item), onRemove(item). */
export function showStrip(strip, items, current, { countOf, onChoose, onRemove }) {
  const focused = strip.contains(document.activeElement) ? [...strip.querySelectorAll("button")].indexOf(document.activeElement) : -1;
  strip.hidden = items.length < 2;
  strip.replaceChildren(...items.map((item) => {
    const entry = document.createElement("li");
    entry.className = item.state;
    entry.append(thumbnailOf(item, item === current, countOf, onChoose), removeButton(item, onRemove));
    return entry;
  }));
  if (focused >= 0) strip.querySelectorAll("button")[focused]?.focus();
}

function thumbnailOf(item, isCurrent, countOf, onChoose) {
  const button = document.createElement("button"), badge = document.createElement("span");
  const words = item.state === "done" ? `${countOf(item)} instances` : WORDS[item.state];
  button.className = "thumbnail";
  button.setAttribute("aria-label", `${item.name}, ${words}`);
  button.title = item.name;
  if (isCurrent) button.setAttribute("aria-current", "true");
  badge.className = "badge";
  if (item.state === "done") badge.textContent = countOf(item);
  else if (item.state === "failed") badge.textContent = "!";
  else if (item.state === "running") badge.append(Object.assign(document.createElement("span"), { className: "spinner" }));
  else badge.textContent = "…";
  if (item.thumbnail) button.append(item.thumbnail);
  button.append(badge);
  button.addEventListener("click", () => onChoose(item));
  return button;
}

function removeButton(item, onRemove) {
  const button = document.createElement("button");
  button.className = "remove";
  button.textContent = "✕";
  button.setAttribute("aria-label", `Remove ${item.name}`);
  button.addEventListener("click", () => onRemove(item));
  return button;
}
