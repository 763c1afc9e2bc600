"use strict";
// Interaction with the page. Without this script, the page still shows all figures, tables and texts.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
const embedOptions = { renderer: "svg", actions: false, tooltip: { theme: dark ? "dark" : "light" } };
const details = read("details"), templates = read("templates");

// Replace the colours for a light background by those for a dark background (figures/chart.py).
function inColours(spec) {
  if (!dark) return spec;
  const colours = new RegExp(`"(${Object.keys(templates.dark).join("|")})"`, "g");
  return JSON.parse(JSON.stringify(spec).replaceAll(colours, (_, light) => `"${templates.dark[light]}"`));
}

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function zoomable(spec) {
  if (spec.facet) return spec;
  const layer = spec.layer.slice();
  const first = layer.findIndex((mark) => mark.encoding.tooltip);
  if (first >= 0 && spec.layer[0].encoding.x?.type === "quantitative" &&
      spec.layer[0].encoding.y?.type === "quantitative")
    layer[first] = { ...layer[first], params: [{ name: "zoom", select: "interval", bind: "scales" }] };
  return { ...spec, layer };
}

const NARROW = 600, AXIS = 80, SPACING = 20; // pixels: maximum width of a phone, width of an axis

// A figure is as wide as the page. On a phone, facets and the entries of legends are stacked, and the
// names of rows take at most 45 % of the width.
function fitToWidth(spec, available) {
  const axisX = { labelOverlap: true, labelSeparation: 6 };
  const legend = { ...spec.config.legend, ...(available < NARROW && { columns: 1 }) };
  const config = { ...spec.config, axisX, legend };
  if (spec.facet) {
    const columns = available < NARROW ? 1 : spec.columns;
    const width = (available - AXIS) / columns - SPACING * (columns - 1) / columns;
    return { ...spec, columns, spacing: SPACING, spec: { ...spec.spec, width }, config };
  }
  const layer = spec.layer.map((mark) => {
    const y = mark.encoding.y, axis = { ...y?.axis, labelLimit: 0.45 * available };
    return y?.axis?.labelLimit ? { ...mark, encoding: { ...mark.encoding, y: { ...y, axis } } } : mark;
  });
  // Vega fits the axes in one pass, and the labels at the ends of curves then shift by a few pixels.
  const padding = { left: 5, top: 5, right: 15, bottom: 5 };
  return { ...spec, layer, width: available, padding, autosize: { type: "fit-x", contains: "padding" }, config };
}

// Maximum distances (pixels) from a tap to a mark, and between marks that coincide.
const TOUCH_RADIUS = 20, SAME_DISTANCE = 1;
const DRAG_DISTANCE = 5, RESIZE_DELAY = 150; // pixels; milliseconds

// Return the point whose mark is nearest to a tap. If marks coincide, each tap returns the next point.
function nearest(drawing, event) {
  const distances = new Map();
  for (const mark of drawing.querySelectorAll("path")) {
    const id = mark.__data__?.datum?.id; // set by Vega
    if (id === undefined) continue;
    const box = mark.getBoundingClientRect();
    const distance = Math.hypot(event.clientX - (box.left + box.right) / 2,
                                event.clientY - (box.top + box.bottom) / 2);
    distances.set(id, Math.min(distance, distances.get(id) ?? Infinity));
  }
  const minimum = Math.min(...distances.values());
  if (minimum > TOUCH_RADIUS) return undefined;
  const ids = [...distances.keys()].filter((id) => distances.get(id) <= minimum + SAME_DISTANCE);
  return ids[(ids.indexOf(shownId) + 1) % ids.length];
}

// All figures, each with the page width for which it was drawn.
const figures = [];
for (const container of document.querySelectorAll("[data-spec]")) {
  const spec = JSON.parse(container.querySelector("script").textContent);
  if (!spec) continue;
  const fixed = container.querySelector(".drawing"), drawing = fixed.cloneNode(false);
  fixed.classList.add("printed");
  fixed.before(drawing);
  let pressed = { clientX: 0, clientY: 0 };
  drawing.addEventListener("pointerdown", (event) => { pressed = event; });
  drawing.addEventListener("click", (event) => {
    const moved = Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY);
    if (moved > DRAG_DISTANCE || event.detail > 1) return; // panning, or a double click, which resets the zoom
    const id = nearest(drawing, event);
    if (id !== undefined) show(id, container);
  });
  figures.push({ container, width: 0, drawn: undefined, draw: () =>
    vegaEmbed(drawing, inColours(fitToWidth(zoomable(spec), container.clientWidth)), embedOptions)
      .catch((error) => console.error(error)) });
}

function drawFigures() {
  for (const figure of figures) {
    const width = figure.container.clientWidth;
    if (width === figure.width) continue;
    figure.width = width;
    figure.drawn = Promise.resolve(figure.drawn).then((result) => {
      result?.finalize();
      return figure.draw();
    });
  }
}

const OTHER = "other tuned values";

// Return the chart that figures/point.py describes, with the data that details.py wrote.
function fitChart(point) {
  const datasets = {
    interval: point.interval ? [point.interval] : [],
    curve: point.curve.map(([n, chance]) => ({ n, chance })),
    trainings: point.probes.map(([n, , verdict, missed, accuracy, , , , , other, tuned], number) =>
      ({ number, n, missed, accuracy, verdict, tuned, shown: other ? OTHER : verdict })),
  };
  return withLegend({ ...templates.fit, datasets }, datasets.trainings);
}

// Restrict the legend to the values that the rows contain. Vega cannot draw an empty legend.
function withLegend(spec, rows) {
  const copy = withTooltip(spec, rows), color = copy.layer.at(-1).encoding.color;
  const values = [...new Set(rows.map((row) => row[color.field]))];
  color.legend = values.length ? { ...color.legend, values } : null;
  return copy;
}

// Omit tuned values from tooltips if nothing is tuned.
function withTooltip(spec, rows) {
  const copy = structuredClone(spec), encoding = copy.layer.at(-1).encoding;
  if (!rows.some((row) => row.tuned))
    encoding.tooltip = encoding.tooltip.filter((entry) => entry.field !== "tuned");
  return copy;
}

function lossChart(point) {
  const losses = point.probes.flatMap(([n, , verdict, , , , , , , , tuned, epochs, losses], number) =>
    epochs.map((epoch, i) => ({ number, n, verdict, tuned, epoch, loss: losses[i] })));
  return { ...withLegend(templates.loss, losses),
           datasets: { losses: losses.filter((row) => row.loss > 0) } };
}

const DIGITS = "\\d+(?:\\.\\d+)?(?:e[-+]?\\d+)?", NUMBER = new RegExp(`^${DIGITS}$`);
const LEADING = new RegExp(`^(?:[<>]=? *)?(-?${DIGITS})`); // also the number of a bound
const withoutSeparators = (text) => text.replaceAll(/(\d),(?=\d{3})/g, "$1"); // 1,200 is 1200

// Return the sort key of a cell: a number, with or without an interval, or text; null if empty.
function sortKey(cell) {
  const text = withoutSeparators(cell.dataset.value ?? cell.textContent.trim());
  if (text === "") return null;
  const number = Number(text);
  if (!Number.isNaN(number)) return number;
  const leading = cell.classList.contains("text") ? null : text.match(LEADING);
  return leading ? Number(leading[1]) : text;
}

// Sort the rows by a column when its header is clicked.
function makeSortable(table, onSort = () => {}) {
  const heads = [...table.querySelectorAll(":scope > thead th")];
  heads.forEach((head, column) => {
    const button = element("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      onSort();
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [sortKey(a.cells[column]), sortKey(b.cells[column])];
        if (x === null || y === null) return (x === null) - (y === null);
        const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0)
          : typeof x === "number" ? -1 : 1;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

const panel = document.getElementById("point");
let shownId; // id of the point in the panel
const panelRow = element("tr"); // contains the panel below a row of the table
panelRow.append(element("td"));
panelRow.className = "panel-row";

// Put the panel below a figure, or below a row of the table of results.
function placePanel(anchor) {
  panelRow.remove();
  if (anchor.tagName !== "TR") return anchor.after(panel);
  const cell = panelRow.firstChild, wide = anchor.closest(".wide");
  cell.colSpan = anchor.cells.length;
  cell.append(panel);
  panel.style.width = `${wide.clientWidth}px`;
  anchor.after(panelRow);
}

function highlight(id) {
  for (const row of document.querySelectorAll("tr.point")) {
    const selected = Number(row.dataset.id) === id;
    row.classList.toggle("selected", selected);
    if (selected) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

function close() {
  const row = panelRow.isConnected ? panelRow.previousElementSibling : null;
  const hadFocus = panel.contains(document.activeElement);
  panel.hidden = true;
  shownId = undefined;
  panelRow.remove();
  table.after(panel);
  highlight(undefined);
  if (hadFocus && row) row.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !panel.hidden) close();
});
let pageWidth = window.innerWidth, resizeTimer;
window.addEventListener("resize", () => {
  if (window.innerWidth === pageWidth) return; // a phone showed or hid its address bar
  pageWidth = window.innerWidth;
  if (panelRow.isConnected) panel.style.width = `${panelRow.closest(".wide").clientWidth}px`;
  clearTimeout(resizeTimer);
  resizeTimer = setTimeout(drawFigures, RESIZE_DELAY);
});
window.addEventListener("beforeprint", () => {
  for (const hidden of document.querySelectorAll("details")) hidden.open = true;
});

const runNumbers = (numbers) =>
  `${numbers.length === 1 ? "training run" : "training runs"} ${numbers.join(", ")}`;

function describeBracket(point) {
  const [fitted, failed] = point.ends, sentences = [];
  const tuned = [...fitted, ...failed].map((number) => point.probes[number][10])[0];
  if (fitted.length)
    sentences.push(`Largest n that fitted: ${point.probes[fitted[0]][0]}, in ${runNumbers(fitted)}.`);
  if (failed.length)
    sentences.push(`Smallest n that failed: ${point.probes[failed[0]][0]}, in ${runNumbers(failed)}.`);
  if (tuned) sentences.push(`${fitted.length && failed.length ? "Both at" : "At"} the best value, ${tuned}.`);
  if (point.by_curve) sentences.push("The EMC is read from the fit curve of all training runs that count.");
  return sentences.join(" ");
}

function show(id, anchor) {
  const point = details[id];
  if (!point) return;
  shownId = id;
  panel.style.width = "";
  placePanel(anchor);
  const facts = [`EMC ${point.emc || "not known yet"}`, point.reason,
    point.params ? `${point.params.toLocaleString("en")} parameters` : "",
    point.ratio ? `${point.ratio} per parameter` : "",
    point.bracket ? `bracket ${point.bracket}` : "", point.ended ? `ended by ${point.ended}` : ""];
  const closeButton = element("button", "Close");
  closeButton.type = "button";
  closeButton.addEventListener("click", close);
  panel.replaceChildren(closeButton, element("h3", point.label),
    element("p", facts.filter(Boolean).join(" · "), "muted"),
    element("p", describeBracket(point), "muted"));
  const pair = element("div", undefined, "pair");
  for (const spec of [fitChart(point), lossChart(point)]) {
    const drawing = element("div", undefined, "drawing");
    drawing.setAttribute("aria-hidden", "true"); // the table below contains the training runs
    pair.append(drawing);
    vegaEmbed(drawing, inColours(spec), embedOptions).catch((error) => console.error(error));
  }
  const heads = ["#", "n", "repeat", "verdict", "missed", "accuracy", "epochs", "sample passes",
                 "seconds"];
  const table = element("table"), body = element("tbody"), head = element("tr");
  if (point.probes.some((probe) => probe[10])) heads.push("tuned");
  for (const text of heads) head.append(element("th", text));
  const top = element("thead");
  top.append(head);
  table.append(top, body);
  point.probes.forEach((probe, number) => {
    const row = element("tr");
    const [n, repeat, verdict, errors, accuracy, epochs, cost, seconds, rejected] = probe;
    const cells = [number, n, repeat, verdict + (rejected ? ", rejected" : ""), errors, accuracy,
                   epochs, cost.toLocaleString("en"), seconds];
    if (heads.length > cells.length) cells.push(probe[10]);
    for (const cell of cells) row.append(element("td", String(cell)));
    row.classList.toggle("end", point.ends.flat().includes(number));
    body.append(row);
  });
  const wide = element("div", undefined, "wide");
  wide.tabIndex = 0;
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-label", "training runs of this point, in order");
  wide.append(table);
  makeSortable(table);
  const title = "Training runs of this point, in order of execution:";
  panel.append(pair, element("p", title, "muted"), wide);
  panel.hidden = false;
  highlight(id);
  panel.scrollIntoView({ block: "nearest" });
}

const table = document.getElementById("results");
for (const row of table.querySelectorAll("tr.point")) {
  if (!details[row.dataset.id]) { // no training run to show
    row.style.cursor = "default";
    continue;
  }
  const toggle = () => row.classList.contains("selected") && panelRow.isConnected
    ? close() : show(Number(row.dataset.id), row);
  row.tabIndex = 0;
  row.addEventListener("click", toggle);
  row.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      toggle();
    }
  });
}
for (const other of document.querySelectorAll("table"))
  makeSortable(other, () => { if (other === table && panelRow.isConnected) close(); });

const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  if (panelRow.isConnected) close();
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let matches = 0;
  for (const row of table.querySelectorAll("tr.point")) {
    const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
    const digits = withoutSeparators(text).match(new RegExp(DIGITS, "g")) ?? [];
    const numbers = new Set(digits.map(Number));
    row.hidden = !words.every((word) => {
      const number = withoutSeparators(word);
      return NUMBER.test(number) ? numbers.has(Number(number)) : text.includes(word);
    });
    matches += !row.hidden;
  }
  document.getElementById("matches").textContent =
    words.length ? `${matches} of ${table.querySelectorAll("tr.point").length}` : "";
});
document.getElementById("csv").addEventListener("click", () => {
  const link = element("a");
  const [head, ...lines] = read("rows");
  const visible = [...table.querySelectorAll("tr.point")].filter((row) => !row.hidden);
  const text = [head, ...visible.map((row) => lines[Number(row.dataset.id)]), ""].join("\n");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "results.csv";
  link.click();
});
document.querySelector(".bar").hidden = false;

const contents = document.querySelector("nav");
for (const [number, head] of document.querySelectorAll("h2").entries()) {
  head.id = `part-${number}`;
  const link = element("a", head.textContent);
  link.href = `#${head.id}`;
  contents.append(link);
}
contents.hidden = false;
drawFigures();
