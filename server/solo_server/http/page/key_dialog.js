// Asks for the API key.

import { apiKey, setApiKey } from "./api.js";

/** Opens the dialog unless it is open. onKey(): called when a key was entered. */
export function askForKey(onKey) {
  const dialog = document.getElementById("key-dialog"), field = document.getElementById("key"), problem = document.getElementById("key-problem");
  if (dialog.open) return;
  problem.textContent = apiKey() ? "The server does not know this key." : "";
  document.getElementById("key-cancel").onclick = () => dialog.close();
  document.getElementById("key-form").onsubmit = (event) => {
    event.preventDefault();
    try {
      setApiKey(field.value.trim());
    } catch (bad) {
      problem.textContent = bad.words.advice;
      return;
    }
    field.value = "";
    dialog.close();
    onKey();
  };
  dialog.showModal();
}
