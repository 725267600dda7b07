// Threshold: dragged in the chart, it moves the slider to the nearest position, of equal ones to the smallest rate.

const slider = document.getElementById("position");
const thresholds = JSON.parse(document.getElementById("threshold").dataset.thresholds);
let dragged = null;

function scoreAt(event) {
  const { left, width } = dragged.box;
  const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
  return dragged.low + share * (dragged.high - dragged.low);
}

function follow(event) {
  const score = scoreAt(event);
  const distance = (i) => Math.abs(thresholds[i] - score);
  const nearest = [...thresholds.keys()].reduce((best, i) => (distance(i) <= distance(best) ? i : best));
  if (slider.value === String(nearest)) return;
  slider.value = nearest;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
}

document.addEventListener("pointerdown", (event) => {
  const chart = event.target.closest(".chart[data-low]");
  if (!chart || !thresholds.length) return;
  const { low, high } = chart.dataset;
  dragged = { box: chart.getBoundingClientRect(), low: Number(low), high: Number(high) };
  follow(event);
});
document.addEventListener("pointermove", (event) => dragged && follow(event));
for (const kind of ["pointerup", "pointercancel"]) document.addEventListener(kind, () => (dragged = null));
