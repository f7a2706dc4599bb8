// The card of the instance that is shown alone: its cut-out, to be saved or copied.

import { canCopyImages, copyPng, cutOut, save, stem } from "./exports.js";
import { showNotice } from "./messages.js";

const card = document.getElementById("cut-out"), image = document.getElementById("cut-out-image");
let present = null; // {instance, url, blob, name}

/** Shows the cut-out of an instance of an image; hides the card where instance is null. */
export async function showCutOut(item, instance) {
  hide();
  if (!instance) return;
  const mine = (present = { instance, url: "", blob: null, name: `${stem(item.name)}-${instance.label}-${instance.index + 1}.png` });
  try {
    mine.blob = await cutOut(item, instance);
  } catch (problem) {
    return showNotice(problem);
  }
  if (present !== mine) return;
  mine.url = URL.createObjectURL(mine.blob);
  image.src = mine.url;
  image.alt = `Cut-out of ${instance.label}`;
  document.getElementById("cut-out-title").textContent = `Cut-out: ${instance.label}`;
  document.getElementById("cut-out-copy").hidden = !canCopyImages;
  card.hidden = false;
}

/** Listens to the card's buttons. onClose(): all instances are to be shown again. onCopied(): the image is on the clipboard. */
export function listenToCutOut({ onClose, onCopied }) {
  document.getElementById("cut-out-close").addEventListener("click", onClose);
  document.getElementById("cut-out-save").addEventListener("click", () => save(present.blob, present.name));
  document.getElementById("cut-out-copy").addEventListener("click", () => void copyPng(present.blob).then(onCopied, showNotice));
}

function hide() {
  if (present?.url) URL.revokeObjectURL(present.url);
  present = null;
  card.hidden = true;
  image.removeAttribute("src");
}
