// The map of tasks: draws the points, and shows what was stored for the chosen place between two of them.
"use strict";

const { points, walks, examples } = JSON.parse(document.getElementById("map-data").textContent);
const [first, second, way, place, picture, legend, rows] = ["first", "second", "way", "place", "picture", "legend", "rows"]
  .map(name => document.getElementById(`map-${name}`));
const LOOKS = { // shape and colour of each category
  cls: ["classification", "#332288", "circle"], mcqa: ["multiple choice", "#117733", "square"], qa: ["questions", "#882255", "up"],
  gen: ["generation", "#a63603", "diamond"], seq: ["extraction", "#1b6ca8", "down"],
};
const WIDTH = 640, HEIGHT = 440, EDGE = 36, SIZE = 6;
const by = new Map(points.map(point => [point.task, point]));
const span = key => [Math.min(...points.map(p => p[key])), Math.max(...points.map(p => p[key]))];
const scale = ([low, high], from, to) => value => from + (to - from) * (value - low) / (high - low || 1);
const x = scale(span("x"), EDGE, WIDTH - EDGE), y = scale(span("y"), HEIGHT - EDGE, EDGE);

function element(name, attributes, text = "") { // an SVG element
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function mark(shape, cx, cy, r, look) {
  if (shape === "circle") return element("circle", { cx, cy, r, ...look });
  const corners = {
    square: [[-1, -1], [1, -1], [1, 1], [-1, 1]], diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
    up: [[0, -1.2], [1.1, 0.9], [-1.1, 0.9]], down: [[0, 1.2], [1.1, -0.9], [-1.1, -0.9]],
  }[shape];
  return element("polygon", { points: corners.map(([a, b]) => `${cx + a * r},${cy + b * r}`).join(" "), ...look });
}

function stored() { // the steps of the chosen pair, from the first task to the second
  const [a, b] = [first.value, second.value];
  const walk = walks.find(one => one.first === a && one.second === b);
  if (walk) return walk.steps;
  const back = walks.find(one => one.first === b && one.second === a);
  const turned = step => Object.fromEntries(Object.entries(step).map(([key, both]) => [key, [...both].reverse()]));
  return back.steps.map(turned).reverse();
}

function draw() {
  picture.replaceChildren(element("rect", { width: WIDTH, height: HEIGHT, fill: "#ffffff" }));
  const ends = [by.get(first.value), by.get(second.value)], share = way.value / way.max;
  const middle = ["x", "y"].map(key => ends[0][key] + share * (ends[1][key] - ends[0][key]));
  picture.append(element("line", { x1: x(ends[0].x), y1: y(ends[0].y), x2: x(ends[1].x), y2: y(ends[1].y), stroke: "#1b1b1b", "stroke-width": 2 }));
  for (const point of points) {
    const [, colour, shape] = LOOKS[point.category];
    const look = point.task in examples ? { fill: colour, stroke: "#1b1b1b" } : { fill: "#ffffff", stroke: colour, "stroke-width": 1.5 };
    const shown = mark(shape, x(point.x), y(point.y), point.task in examples ? SIZE + 1 : SIZE - 1, look);
    shown.append(element("title", {}, `${point.task} (${point.side})`));
    if (point.task in examples) {
      shown.style.cursor = "pointer";
      shown.addEventListener("click", () => choose(way.value > way.max / 2 ? 1 : 0, point.task)); // the nearer end
    }
    picture.append(shown);
  }
  for (const [i, end] of ends.entries()) {
    const anchor = x(end.x) > WIDTH / 2 ? "end" : "start", side = anchor === "end" ? -12 : 12;
    const label = { x: x(end.x) + side, y: y(end.y) + (i ? 16 : -8), "text-anchor": anchor, "font-size": 15, "font-weight": 600 };
    picture.append(element("text", { ...label, stroke: "#ffffff", "stroke-width": 4 }, end.task), element("text", { ...label, fill: "#1b1b1b" }, end.task));
  }
  picture.append(element("circle", { cx: x(middle[0]), cy: y(middle[1]), r: 10, fill: "none", stroke: "#1b1b1b", "stroke-width": 3 }));
}

function show() {
  const step = stored()[way.value];
  place.textContent = `${Math.round(100 * way.value / way.max)} % of the way`;
  rows.replaceChildren(...[first.value, second.value].map((task, i) => {
    const row = document.createElement("tr"), { input, target } = examples[task];
    const cells = [task, step.answer[i], target, step.score[i].toFixed(2), step.log_likelihood[i].toFixed(2), input];
    row.append(...cells.map((text, column) => {
      const cell = document.createElement(column ? "td" : "th");
      if (!column) cell.scope = "row";
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
  draw();
}

function choose(end, task) { // both ends differ: the other end takes this one's task, if it had the new one
  const selects = [first, second];
  if (selects[1 - end].value === task) selects[1 - end].value = chosen[end];
  selects[end].value = task;
  chosen = selects.map(select => select.value);
  show();
}

let chosen = Object.keys(examples).slice(0, 2);
for (const [end, select] of [first, second].entries()) {
  select.append(...Object.keys(examples).map(task => new Option(task, task)));
  select.value = chosen[end];
  select.addEventListener("change", () => choose(end, select.value));
}
way.max = walks[0].steps.length - 1;
way.addEventListener("input", show);
for (const [name, colour, shape] of Object.values(LOOKS)) {
  const key = element("svg", { width: 16, height: 16, viewBox: "0 0 16 16", "aria-hidden": "true" });
  key.append(element("rect", { width: 16, height: 16, fill: "#ffffff" }), mark(shape, 8, 8, 5, { fill: colour }));
  legend.append(key, ` ${name}  `);
}
document.getElementById("task-map").hidden = false;
show();
