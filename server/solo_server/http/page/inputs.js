// Ways in for images: drop, paste, pick, samples.

import { address } from "./api.js";
import { Item } from "./queue.js";

/** Calls onImages([Item]) for images that are dropped anywhere, pasted, picked or chosen from the samples; onProblem for others. */
export function listenForImages({ onImages, onProblem }) {
  const picker = document.getElementById("files");
  const take = (files) => files.length && onImages([...files].map((file) => new Item(file.name || "pasted.png", file)));
  for (const id of ["choose", "add"]) document.getElementById(id).addEventListener("click", () => picker.click());
  picker.addEventListener("change", () => {
    take(picker.files);
    picker.value = ""; // the same file can be picked again
  });
  addEventListener("paste", ({ clipboardData }) => take(clipboardData?.files ?? []));
  listenForDrops(take);
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.addEventListener("click", () => void openSample(button.dataset.sample).then((item) => onImages([item]), onProblem));
  }
}

function listenForDrops(take) {
  const veil = document.getElementById("veil"), hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) veil.hidden = true; // the window was left
  });
  addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  });
}

async function openSample(path) {
  const response = await fetch(address(path)), blob = await response.blob();
  return new Item(path.split("/").at(-1), blob, path);
}
