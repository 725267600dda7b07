// Review: one inspection after the other, labelled by keyboard or buttons.

import { send } from "./api.js";
import { Mask } from "./mask.js";

const WIDTH = 1400;
const SHAPES = { normal: "○", defect: "◆", unsure: "?" };
const KEYS = { n: "normal", d: "defect", u: "unsure" };

const find = (selector) => document.querySelector(selector);

class Review {
  constructor(root) {
    this.root = root;
    this.items = [...root.querySelectorAll(".film button")];
    this.image = find("#image");
    this.map = find("#map");
    this.mask = new Mask(find(".stage"), find("#mask"), find(".layers"));
    this.done = [];
    this.at = 0;
    this.waiting = Promise.resolve();
    this.image.addEventListener("load", () => this.ready());
    this.contour = find("#contour");
    for (const layer of [this.map, this.contour]) layer.addEventListener("error", () => (layer.hidden = true));
    this.items.forEach((item, i) => item.addEventListener("click", () => this.show(i)));
    this.listen();
    this.show(0);
  }

  get id() {
    return this.items[this.at].dataset.id;
  }

  listen() {
    const each = (selector, work) =>
      this.root.querySelectorAll(selector).forEach((part) => part.addEventListener("click", () => work(part)));
    each("[data-verdict]", (button) => this.label(button.dataset.verdict));
    each("[data-go]", (button) => this.go(button.dataset.go));
    each("[data-tool]", (button) => this.use(button));
    each("[data-do]", (button) => this.view(button.dataset.do));
    find("#brush").addEventListener("input", (event) => (this.mask.size = Number(event.target.value)));
    const opacity = find("#opacity");
    const fade = () => (this.map.style.opacity = opacity.value / 100);
    opacity.addEventListener("input", fade);
    fade();
    find("#outline").addEventListener("change", (event) => (this.contour.hidden = !event.target.checked));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !find("#keys")?.checked) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const key = event.key.toLowerCase();
    if (KEYS[key]) this.label(KEYS[key]);
    else if (key === "arrowright") this.go("on");
    else if (key === "arrowleft") this.go("back");
    else if (key === "z") this.go("undo");
    else return;
    event.preventDefault();
  }

  use(chosen) {
    for (const button of this.root.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button === chosen));
    }
    this.mask.use(chosen.dataset.tool);
  }

  view(name) {
    if (name === "clear") this.mask.clear();
    else if (name === "fit") this.mask.fit();
    else this.mask.zoom(name === "in" ? 1.4 : 1 / 1.4);
  }

  go(name) {
    if (name === "undo") this.undo();
    else this.show(this.at + (name === "on" ? 1 : -1));
  }

  show(i) {
    if (i < 0) return;
    if (i >= this.items.length) {
      find("#told").textContent = this.root.dataset.end;
      return;
    }
    this.items[this.at].removeAttribute("aria-current");
    this.at = i;
    const item = this.items[i];
    item.setAttribute("aria-current", "true");
    const strip = item.closest("ol");
    strip.scrollTo({ left: item.offsetLeft - strip.clientWidth / 2, behavior: "auto" });
    find("#facts").replaceChildren(item.parentElement.querySelector("template").content.cloneNode(true));
    const address = `/api/v1/inspections/${item.dataset.id}/picture.png?width=${WIDTH}`;
    this.image.alt = item.querySelector("img").alt;
    this.image.src = address;
    this.map.hidden = false;
    this.map.src = `${address}&layer=map`;
    this.contour.hidden = !find("#outline").checked;
    this.contour.src = `${address}&layer=contour`;
    for (const field of ["#type", "#comment"]) if (find(field)) find(field).value = "";
    this.alike(item.dataset.id);
  }

  ready() {
    this.mask.start(this.image.naturalWidth, this.image.naturalHeight);
  }

  async alike(id) {
    const list = find("#alike");
    list.replaceChildren();
    const found = await send(`/api/v1/inspections/${id}/alike?count=4`, "GET").catch(() => []);
    if (id !== this.id) return;
    for (const { kind, id: other } of found) {
      const picture = document.createElement("img");
      picture.src = `/api/v1/${kind}s/${other}/picture.png?width=240`;
      picture.alt = this.root.dataset.alike;
      const entry = document.createElement("li");
      entry.append(picture);
      list.append(entry);
    }
  }

  label(verdict) {
    if (this.root.dataset.may !== "yes") return;
    const item = this.items[this.at];
    const drawn = verdict === "defect" ? this.mask.png() : null;
    const body = { verdict, comment: find("#comment").value };
    if (verdict === "defect" && find("#type").value) body.type = find("#type").value;
    if (drawn) body.mask_png = drawn;
    this.post(item, body, this.root.dataset[verdict] + (drawn ? ` · ${this.root.dataset.maskKept}` : ""));
    this.done.push(this.at);
    this.show(this.at + 1);
  }

  undo() {
    const last = this.done.pop();
    if (last === undefined) return;
    this.show(last);
    this.post(this.items[last], { verdict: null }, this.root.dataset.undone);
  }

  // One after the other, so that the last judgement is the one that counts.
  post(item, body, text) {
    this.waiting = this.waiting.then(async () => {
      try {
        await send(`/api/v1/inspections/${item.dataset.id}/labels`, "POST", body);
        this.mark(item, body.verdict);
        find("#told").textContent = `${this.root.dataset.saved} ${text}`;
        find("#trouble").textContent = "";
      } catch (problem) {
        find("#trouble").textContent = problem.message;
      }
    });
  }

  mark(item, verdict) {
    item.dataset.label = verdict ?? "";
    const state = item.querySelector(".state");
    state.replaceChildren();
    if (!verdict) return;
    const badge = document.createElement("span");
    badge.className = `label ${verdict}`;
    badge.textContent = `${SHAPES[verdict]} ${this.root.dataset[verdict]}`;
    state.append(badge);
  }
}

const root = document.getElementById("review");
if (root) new Review(root);
