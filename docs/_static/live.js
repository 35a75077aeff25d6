// The fused 3x3 kernel and bias of one RepVGG channel, as the batch-norm parameters of its branches are moved. No library, no network.
"use strict";

const W3 = [0.25, -0.5, 0.125, 0.75, 1.0, -0.25, -0.125, 0.5, -0.75];
const W1 = 0.625;
const BRANCHES = [["3x3", W3], ["1x1", [0, 0, 0, 0, W1, 0, 0, 0, 0]], ["identity", [0, 0, 0, 0, 1, 0, 0, 0, 0]]];
const PARAMETERS = [
  { name: "gamma", low: -2, high: 2, step: 0.01, start: 1 },
  { name: "beta", low: -2, high: 2, step: 0.01, start: 0 },
  { name: "mean", low: -2, high: 2, step: 0.01, start: 0 },
  { name: "variance", low: 0.0001, high: 2, step: 0.0001, start: 1 },
];

const root = document.getElementById("live");
const sliders = new Map();

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function slider(key, label, { low, high, step, start }) {
  const input = element("input", { type: "range", id: key, min: low, max: high, step, value: start });
  const shown = element("output", { for: key });
  input.addEventListener("input", update);
  sliders.set(key, { input, shown });
  return element("div", { class: "live-row" }, element("label", { for: key }, label), input, shown);
}

function value(key) {
  return Number(sliders.get(key).input.value);
}

function grid(title, id) {
  const cells = Array.from({ length: 9 }, () => element("span", {}));
  const box = element("div", { class: "live-grid", id, role: "img" }, ...cells);
  return element("figure", { class: "live-figure" }, element("figcaption", {}, title), box);
}

function paint(id, kernel, limit, title) {
  const box = document.getElementById(id);
  box.setAttribute("aria-label", `${title}: ${kernel.map((k) => k.toFixed(3)).join(", ")}`);
  box.dataset.values = JSON.stringify(kernel); // all digits, for those who check
  kernel.forEach((number, i) => {
    const share = Math.min(1, Math.abs(number) / limit);
    const [r, g, b] = number < 0 ? [94, 60, 153] : [179, 88, 6]; // purple and orange: colour-blind readers can tell them apart
    const mixed = [r, g, b].map((colour) => Math.round(255 + share * (colour - 255)));
    const cell = box.children[i];
    cell.textContent = number.toFixed(3);
    cell.style.backgroundColor = `rgb(${mixed})`;
    cell.style.color = share > 0.55 ? "white" : "black";
  });
}

function fused() {
  const eps = 10 ** value("eps");
  const kernel = new Array(9).fill(0);
  const parts = [];
  let bias = 0;
  for (const [branch, w] of BRANCHES) {
    const s = value(`${branch}-gamma`) / Math.sqrt(value(`${branch}-variance`) + eps);
    const part = w.map((weight) => s * weight);
    part.forEach((number, i) => { kernel[i] += number; });
    bias += value(`${branch}-beta`) - s * value(`${branch}-mean`);
    parts.push(part);
  }
  return { kernel, bias, parts, eps };
}

function update() {
  for (const [key, { input, shown }] of sliders) {
    shown.textContent = key === "eps" ? (10 ** Number(input.value)).toExponential(1) : Number(input.value).toFixed(key.endsWith("variance") ? 4 : 2);
  }
  const { kernel, bias, parts, eps } = fused();
  const limit = Math.max(1e-9, ...kernel.map(Math.abs), ...parts.flat().map(Math.abs));
  parts.forEach((part, i) => paint(`part-${i}`, part, limit, `${BRANCHES[i][0]} branch`));
  paint("fused", kernel, limit, "fused kernel");
  const shown = document.getElementById("fused-bias");
  shown.textContent = `bias ${bias.toFixed(4)}`;
  shown.dataset.value = String(bias);
  shown.dataset.eps = String(eps);
}

function reset() {
  for (const { input } of sliders.values()) input.value = input.defaultValue;
  update();
}

for (const [branch] of BRANCHES) {
  const rows = PARAMETERS.map((parameter) => slider(`${branch}-${parameter.name}`, parameter.name, parameter));
  root.append(element("fieldset", {}, element("legend", {}, `${branch} branch`), ...rows));
}
const again = element("button", { type: "button" }, "Reset");
again.addEventListener("click", reset);
root.append(element("fieldset", {}, element("legend", {}, "all branches"), slider("eps", "eps", { low: -8, high: 0, step: 0.1, start: -5 }), again));
const figures = element("div", { class: "live-figures" }, ...BRANCHES.map(([branch], i) => grid(branch, `part-${i}`)), grid("fused", "fused"));
root.append(element("div", { class: "live-result" }, figures, element("p", { id: "fused-bias", "aria-live": "polite" })));
update();
