// Every page: forms, language, theme, times in the reader's zone, live events.

import { listen } from "./api.js";

const YEAR_S = 31536000;

function keep(name, value) {
  document.cookie = `anomem_${name}=${value}; path=/; max-age=${YEAR_S}; samesite=strict`;
}

function chooseLook() {
  document.getElementById("language").addEventListener("change", (event) => {
    keep("language", event.target.value);
    window.location.reload();
  });
  document.getElementById("theme").addEventListener("change", (event) => {
    keep("theme", event.target.value);
    document.documentElement.dataset.theme = event.target.value;
  });
  document.getElementById("model")?.addEventListener("change", (event) => {
    window.location.assign(window.location.pathname.replace(/^\/models\/\d+/, `/models/${event.target.value}`));
  });
}

function showTimes(root) {
  const { lang } = document.documentElement;
  const own = navigator.languages.find((name) => name.startsWith(lang)) ?? lang;
  const form = new Intl.DateTimeFormat(own, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.title = time.dateTime;
    time.textContent = form.format(new Date(time.dateTime));
  }
}

function hideMissing(root) {
  for (const picture of root.querySelectorAll("img[data-plain]")) {
    picture.addEventListener("error", () => (picture.src = picture.dataset.plain), { once: true });
  }
}

function settle(root) {
  showTimes(root);
  hideMissing(root);
}

let paused = false;

function follow(model) {
  const source = new EventSource("/api/v1/events");
  for (const kind of ["inspection", "label", "job", "version", "drift"]) {
    source.addEventListener(kind, (event) => {
      const facts = JSON.parse(event.data);
      if (String(facts.model) !== model || (paused && kind === "inspection")) return;
      document.body.dispatchEvent(new CustomEvent(`station-${kind}`, { detail: facts }));
    });
  }
  window.addEventListener("pagehide", () => source.close());
}

function pauseBy(button) {
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? button.dataset.on : button.dataset.off;
    if (!paused) document.body.dispatchEvent(new CustomEvent("station-inspection"));
  });
}

listen();
chooseLook();
settle(document);
document.addEventListener("htmx:afterSettle", () => settle(document));
if (document.body.dataset.model) follow(document.body.dataset.model);
const button = document.getElementById("pause");
if (button) pauseBy(button);
