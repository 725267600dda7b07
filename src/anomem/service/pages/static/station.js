"use strict";

const form = document.getElementById("login");
if (form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = JSON.stringify(Object.fromEntries(new FormData(form)));
    const headers = { "content-type": "application/json" };
    const answer = await fetch("/api/v1/session", { method: "POST", headers, body });
    if (answer.ok) window.location.assign("/");
    else document.getElementById("problem").textContent = (await answer.json()).detail;
  });
}
