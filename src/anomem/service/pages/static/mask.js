// Mask of a defect, drawn on the image with brush and polygon; zoom and pan.

const COLOUR = "#00e5ff";
const CLOSE_PX = 12;
const LARGEST_ZOOM = 12;

export class Mask {
  constructor(stage, canvas, layers) {
    Object.assign(this, { stage, canvas, layers, tool: "move", size: 24, corners: [], empty: true });
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
    this.fit();
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, () => (this.last = null));
    stage.addEventListener("dblclick", () => this.close());
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("keydown", (event) => this.key(event));
  }

  use(tool) {
    this.tool = tool;
    this.corners = [];
    this.stage.dataset.tool = tool;
  }

  start(width, height) {
    Object.assign(this.canvas, { width, height });
    Object.assign(this, { corners: [], empty: true, kept: null });
    this.fit();
  }

  clear() {
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    Object.assign(this, { corners: [], empty: true, kept: null });
  }

  fit() {
    Object.assign(this, { scale: 1, x: 0, y: 0 });
    this.place();
  }

  zoom(factor, px = this.stage.clientWidth / 2, py = this.stage.clientHeight / 2) {
    const scale = Math.min(LARGEST_ZOOM, Math.max(1, this.scale * factor));
    this.x = px - ((px - this.x) * scale) / this.scale;
    this.y = py - ((py - this.y) * scale) / this.scale;
    this.scale = scale;
    if (scale === 1) Object.assign(this, { x: 0, y: 0 });
    this.place();
  }

  place() {
    this.layers.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
  }

  wheel(event) {
    if (!event.ctrlKey && this.scale === 1 && event.deltaY > 0) return;
    event.preventDefault();
    const box = this.stage.getBoundingClientRect();
    this.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  }

  key(event) {
    if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.fit();
    else if (event.key === "Enter") this.close();
    else if (event.key === "Escape") this.use(this.tool);
  }

  // Pixels of the canvas per pixel of the screen.
  get ratio() {
    return this.canvas.width / this.canvas.getBoundingClientRect().width;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
  }

  down(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.last = this.tool === "move" ? [event.clientX, event.clientY] : this.at(event);
    if (this.tool === "polygon") this.corner(this.last);
    else if (this.tool !== "move") this.stroke(this.last);
  }

  move(event) {
    if (!this.last) return;
    if (this.tool === "move") {
      if (this.scale === 1) return;
      this.x += event.clientX - this.last[0];
      this.y += event.clientY - this.last[1];
      this.last = [event.clientX, event.clientY];
      this.place();
    } else if (this.tool !== "polygon") {
      const to = this.at(event);
      this.stroke(to);
      this.last = to;
    }
  }

  stroke(to) {
    const { pen } = this;
    pen.globalCompositeOperation = this.tool === "erase" ? "destination-out" : "source-over";
    Object.assign(pen, { lineCap: "round", lineJoin: "round", strokeStyle: COLOUR, lineWidth: this.size * this.ratio });
    pen.beginPath();
    pen.moveTo(...this.last);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
    this.empty = false;
  }

  corner(point) {
    const [first] = this.corners;
    if (first && Math.hypot(first[0] - point[0], first[1] - point[1]) < CLOSE_PX * this.ratio) {
      this.close();
      return;
    }
    if (!first) this.kept = this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height);
    this.corners.push(point);
    this.outline();
  }

  outline() {
    const { pen } = this;
    pen.putImageData(this.kept, 0, 0);
    pen.globalCompositeOperation = "source-over";
    Object.assign(pen, { strokeStyle: COLOUR, fillStyle: COLOUR, lineWidth: 2 * this.ratio });
    pen.beginPath();
    this.corners.forEach((point) => pen.lineTo(...point));
    pen.stroke();
    for (const [x, y] of this.corners) pen.fillRect(x - 3 * this.ratio, y - 3 * this.ratio, 6 * this.ratio, 6 * this.ratio);
  }

  close() {
    if (this.kept) this.pen.putImageData(this.kept, 0, 0);
    if (this.corners.length >= 3) {
      this.pen.globalCompositeOperation = "source-over";
      this.pen.fillStyle = COLOUR;
      this.pen.beginPath();
      this.corners.forEach((point) => this.pen.lineTo(...point));
      this.pen.fill();
      this.empty = false;
    }
    Object.assign(this, { corners: [], kept: null });
  }

  // PNG in base64, black where nothing is drawn; null without a drawing.
  png() {
    this.close();
    if (this.empty) return null;
    const { width, height } = this.canvas;
    const copy = Object.assign(document.createElement("canvas"), { width, height });
    const pen = copy.getContext("2d");
    pen.fillRect(0, 0, width, height);
    pen.drawImage(this.canvas, 0, 0);
    return copy.toDataURL("image/png");
  }
}
