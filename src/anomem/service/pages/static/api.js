// Requests to the station's interface, and forms that are sent to it as JSON.

export const csrf = document.querySelector("meta[name=csrf]").content;

export async function send(address, method, body) {
  const headers = csrf ? { "x-csrf-token": csrf } : {};
  if (body !== undefined && !(body instanceof FormData)) {
    headers["content-type"] = "application/json";
    body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(address, { method, headers, body });
  } catch {
    throw Object.assign(new Error(document.body.dataset.offline), { status: 0 });
  }
  if (answer.status === 204) return null;
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const problem = new Error(content.detail || `${answer.status} ${answer.statusText}`);
  throw Object.assign(problem, { status: answer.status, wait: Number(answer.headers.get("retry-after")) || 1 });
}

export function say(text) {
  document.getElementById("said").textContent = text;
}

function valueOf(field) {
  if (field.type === "checkbox") return field.checked;
  const text = field.value;
  if (field.dataset.kind === "list") return text ? [text] : [];
  if (text === "" && field.dataset.empty === "null") return null;
  if (field.dataset.kind === "number") return Number(text);
  return field.dataset.kind === "boolean" ? text === "true" : text;
}

export function bodyOf(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    const path = field.name.split(".");
    const last = path.pop();
    const place = path.reduce((inner, name) => (inner[name] ??= {}), body);
    place[last] = valueOf(field);
  }
  return Object.keys(body).length ? body : undefined;
}

export function showProblem(form, text) {
  let shown = form.querySelector("[role=alert]");
  if (!shown) {
    shown = document.createElement("p");
    shown.className = "problem";
    shown.setAttribute("role", "alert");
    form.append(shown);
  }
  shown.textContent = text;
}

function showOnce(form, text) {
  const shown = form.querySelector("output") ?? form.appendChild(document.createElement("output"));
  const code = document.createElement("code");
  code.textContent = text;
  shown.replaceChildren(form.dataset.shown, " ", code);
}

async function sendForm(form) {
  const buttons = [...form.querySelectorAll("button")];
  buttons.forEach((button) => (button.disabled = true));
  showProblem(form, "");
  try {
    const found = await send(form.dataset.api, form.dataset.method ?? "POST", bodyOf(form));
    const then = form.dataset.then;
    if (form.dataset.show) showOnce(form, found[form.dataset.show]);
    else if (then === "reload") window.location.reload();
    else if (then !== "stay") window.location.assign(then);
  } catch (problem) {
    showProblem(form, problem.message);
  }
  buttons.forEach((button) => (button.disabled = false));
}

export function listen() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.dataset.api) return;
    event.preventDefault();
    if (!form.dataset.ask || window.confirm(document.body.dataset.sure)) sendForm(form);
  });
  document.addEventListener("change", (event) => {
    if (event.target.dataset.submit === "change") event.target.form.requestSubmit();
  });
}
