// New product with a model of the same name.

import { send, showProblem } from "./api.js";

document.getElementById("create")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const name = form.elements.name.value.trim();
  try {
    const product = await send("/api/v1/products", "POST", { name, note: form.elements.note.value });
    const address = `/api/v1/products/${product.id}/models`;
    const model = await send(address, "POST", { name, alpha: Number(form.elements.alpha.value) });
    window.location.assign(`/models/${model.id}/parts`);
  } catch (problem) {
    showProblem(form, problem.message);
  }
});
