// Drop zones: files and whole folders, sent in requests of the size that the station takes.

import { send } from "./api.js";

const IMAGE = /\.(png|jpe?g|bmp|tiff?|webp|gif|ppm|pgm)$/i;
const BATCH = 16;

async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    return [{ file, name: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesIn))).flat();
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  return (await Promise.all(entries.map(filesIn))).flat();
}

function chosen(input) {
  return [...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

class Zone {
  constructor(zone) {
    this.zone = zone;
    this.bar = zone.querySelector("progress");
    this.said = zone.querySelector(".said");
    for (const input of zone.querySelectorAll("input[type=file]")) {
      input.addEventListener("change", () => this.upload(chosen(input)).finally(() => (input.value = "")));
    }
    for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => this.hover(event, true));
    zone.addEventListener("dragleave", (event) => this.hover(event, false));
    zone.addEventListener("drop", async (event) => {
      this.hover(event, false);
      this.upload(await dropped(event.dataTransfer));
    });
  }

  hover(event, over) {
    event.preventDefault();
    this.zone.classList.toggle("over", over);
  }

  async upload(all) {
    const images = all.filter(({ name }) => IMAGE.test(name)).sort((a, b) => a.name.localeCompare(b.name));
    if (!images.length) {
      this.said.textContent = this.zone.dataset.none;
      return;
    }
    Object.assign(this.bar, { hidden: false, max: images.length, value: 0 });
    this.counts = { sent: 0, refused: [] };
    const size = Math.min(BATCH, Number(this.zone.dataset.most));
    for (let start = 0; start < images.length; start += size) {
      await this.sendAll(images.slice(start, start + size));
      this.bar.value = Math.min(images.length, start + size);
      this.tell(images.length);
    }
    this.bar.hidden = true;
    document.body.dispatchEvent(new CustomEvent("uploaded"));
  }

  // A request with one unusable image is refused as a whole: its halves find it.
  async sendAll(images) {
    const form = new FormData();
    for (const { file, name } of images) form.append("images", file, name);
    try {
      await send(this.zone.dataset.upload, "POST", form);
      this.counts.sent += images.length;
    } catch (problem) {
      if (problem.status === 429 || problem.status === 503) {
        this.said.textContent = this.zone.dataset.busy;
        await new Promise((done) => setTimeout(done, 1000 * problem.wait));
        await this.sendAll(images);
      } else if (images.length > 1 && [413, 422].includes(problem.status)) {
        const half = images.length >> 1;
        await this.sendAll(images.slice(0, half));
        await this.sendAll(images.slice(half));
      } else {
        this.counts.refused.push(`${images[0].name}: ${problem.message}`);
      }
    }
  }

  tell(total) {
    const { sent, refused } = this.counts;
    const { sent: text, refused: other } = this.zone.dataset;
    const line = text.replace("{n}", sent).replace("{total}", total);
    this.said.textContent = refused.length ? `${line} ${other.replace("{n}", refused.length)} ${refused[0]}` : line;
  }
}

for (const zone of document.querySelectorAll("[data-upload]")) new Zone(zone);
