"use strict";

// The rules of the nodes for numbers: the same as the layers' forward and backward in xpnet/layers.
const log = (x) => (x < 0 ? NaN : Math.log(x));
const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
const same = { forward: (x) => x, backward: (dout) => [dout] };
const RULES = {
  AddLayer: { forward: (x, y) => x + y, backward: (dout) => [dout, dout] },
  SubLayer: { forward: (x, y) => x - y, backward: (dout) => [dout, -dout] },
  MulLayer: { forward: (x, y) => x * y, backward: (dout, z, x, y) => [dout * y, dout * x] },
  DivLayer: { forward: (x, y) => x / y, backward: (dout, z, x, y) => [dout / y, (-dout * z) / y] },
  PowLayer: {
    forward: (x, y) => x ** y,
    backward: (dout, z, x, y) => [dout * y * x ** (y - 1), dout * z * (x === 0 ? 0 : log(x))],
  },
  ExpLayer: { forward: Math.exp, backward: (dout, y) => [dout * y] },
  LogLayer: { forward: log, backward: (dout, y, x) => [dout / x] },
  SumLayer: same,
  MeanLayer: same,
  MaxLayer: same,
  Relu: { forward: (x) => (x > 0 ? x : x * 0), backward: (dout, y, x) => [x > 0 ? dout : dout * 0] },
  Tanh: { forward: Math.tanh, backward: (dout, y) => [dout * (1 - y * y)] },
  Softplus: {
    forward: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
    backward: (dout, y) => [-dout * Math.expm1(-y)],
  },
  Silu: {
    forward: (x) => x * sigmoid(x),
    backward: (dout, y, x) => [dout * (sigmoid(x) + y * (1 - sigmoid(x)))],
  },
  Sigmoid: { forward: sigmoid, backward: (dout, y) => [dout * y * (1 - y)] },
};

const graph = JSON.parse(document.getElementById("graph").textContent);
const nodes = graph.nodes;
const steps = graph.steps;
const svg = document.querySelector(".xpnet-graph");
const byId = (id) => document.getElementById(id);
const edges = [...svg.querySelectorAll(".edge")].map((element) => ({
  element,
  source: Number(element.dataset.source),
  target: Number(element.dataset.target),
  slot: Number(element.dataset.slot),
}));
const figures = [...svg.querySelectorAll(".node")];
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

let position = steps.length; // how many steps are done; the page opens with the whole picture
let isResting = true; // no step is being looked at: nothing is marked
let pinned = null; // the node whose rule is shown because somebody points at it
let timer = null;

// ---- numbers ----

/** Write a number as labels.py does: four significant digits, integers below a million in full. */
function numberText(x) {
  if (Number.isNaN(x)) return "NaN";
  const sign = x < 0 ? "\u2212" : "";
  x = Math.abs(x);
  if (x === Infinity) return `${sign}\u221e`;
  if (x === 0) return "0";
  if (x >= 1e4 && x < 999999.5) return sign + x.toFixed(0);
  const [mantissa, exponent] = x.toExponential(3).split("e");
  const power = Number(exponent);
  const withoutZeros = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (power < -4 || power > 5) {
    return `${sign}${withoutZeros(mantissa)}e${power < 0 ? "\u2212" : ""}${Math.abs(power)}`;
  }
  return sign + withoutZeros(x.toFixed(Math.max(0, 3 - power)));
}

const ofNumber = (x) => ({ number: x, lines: [numberText(x)] });
const said = (quantity) => quantity.lines.join(" ");
/** An operand within a formula: a number, or the shape of an array. */
const operand = (quantity) => quantity.lines[0];

/** Compute both passes again, from the numbers of inputs and constants. */
function recompute() {
  for (const node of nodes) {
    if (node.rule) node.value = ofNumber(RULES[node.kind].forward(...numbersInto(node)));
  }
  if (graph.dout === null) return;
  const grads = nodes.map(() => null);
  grads[graph.output] = Number(graph.dout.number);
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i];
    if (!node.rule || grads[i] === null) continue;
    const given = RULES[node.kind].backward(grads[i], Number(node.value.number), ...numbersInto(node));
    node.inputGrads = given.map(ofNumber);
    node.inputs.forEach((source, slot) => {
      grads[source] = grads[source] === null ? given[slot] : grads[source] + given[slot];
    });
  }
  nodes.forEach((node, i) => {
    node.grad = grads[i] === null ? null : ofNumber(grads[i]);
  });
}

const numbersInto = (node) => node.inputs.map((source) => Number(nodes[source].value.number));

// ---- words ----

/** Put the numbers, or names, of the moment in the place of a formula's letters. */
const fillIn = (formula, words) => formula.replace(/[a-zA-Z]\w*/g, (word) => (Object.hasOwn(words, word) ? words[word] : word));

const wordsOf = (node, write) => Object.fromEntries(node.rule.operands.map((letter, i) => [letter, write(nodes[node.inputs[i]])]));

function numbersOf(node) {
  const words = {};
  node.rule.operands.forEach((letter, i) => {
    const quantity = nodes[node.inputs[i]].value;
    if (quantity) words[letter] = operand(quantity);
  });
  for (const parameter of node.rule.parameters) words[parameter.name] = operand(parameter.value);
  if (node.value) words[node.rule.result] = operand(node.value);
  if (node.grad) words.dout = operand(node.grad);
  return words;
}

/** "a = b = c", without repeating what is the same. */
const equation = (...parts) => parts.filter((part, i) => part && part !== parts[i - 1]).join(" = ");

function forwardWords(node) {
  const byName = fillIn(node.rule.forward, wordsOf(node, (source) => source.name));
  const byNumber = node.rule.sign ? fillIn(node.rule.forward, numbersOf(node)) : "";
  return equation(node.isNamed || !node.rule.sign ? node.name : "", byName, byNumber, said(node.value));
}

function backwardWords(node) {
  const parts = node.inputGrads.map((grad, slot) => {
    const source = nodes[node.inputs[slot]];
    if (grad === null || source.kind === "constant") return "";
    const formula = node.rule.backward[slot] || "";
    return `${source.name} gets ${equation(formula, formula && fillIn(formula, numbersOf(node)), said(grad))}`;
  });
  return `${said(node.grad)} comes in; ${parts.filter(Boolean).join("; ")}`;
}

function stepWords() {
  if (steps.length === 0) return "Nothing is computed yet: run forward on the graph, then make the page again.";
  if (position === 0) return "Start: only the inputs are known.";
  const output = nodes[graph.output];
  if (isResting) return `All is computed: ${output.name} = ${said(output.value)}. The next step leads to the start.`;
  const [pass, number] = steps[position - 1];
  const node = nodes[number];
  if (pass === "forward") return `Forward, ${titleOf(node)}: ${forwardWords(node)}.`;
  if (pass === "dout") return `The way back begins at ${node.name}, with dout = ${said(graph.dout)}.`;
  return `Backward, ${titleOf(node)}: ${backwardWords(node)}.`;
}

const titleOf = (node) => (node.rule.sign ? `node ${node.rule.sign}` : node.isNamed ? node.kind : node.name);

// ---- drawing ----

const currentStep = () => (position === 0 || isResting ? ["", -1] : steps[position - 1]);

function show() {
  const done = { forward: new Set(), backward: new Set() };
  let isBack = false;
  for (const [pass, number] of steps.slice(0, position)) {
    if (pass === "dout") isBack = true;
    else done[pass].add(number);
  }
  const [pass, current] = currentStep();
  for (const edge of edges) {
    const isLast = edge.target === nodes.length;
    const source = nodes[edge.source];
    const node = isLast ? null : nodes[edge.target];
    const grad = isLast ? graph.dout : (node.inputGrads || [])[edge.slot];
    const isGradDone = isLast ? isBack : done.backward.has(edge.target);
    write(edge.element.querySelector(".value"), source.value, !source.rule || done.forward.has(edge.source));
    write(edge.element.querySelector(".grad"), grad, isGradDone);
    const isForward = pass === "forward" && edge.source === current;
    const isBackward = (pass === "backward" && edge.target === current) || (pass === "dout" && isLast);
    edge.element.classList.toggle("forward", isForward);
    edge.element.classList.toggle("backward", isBackward);
  }
  figures.forEach((figure, i) => {
    figure.classList.toggle("forward", pass === "forward" && i === current);
    figure.classList.toggle("backward", pass !== "forward" && i === current);
    const total = figure.querySelector(".caption.grad");
    if (total) total.classList.toggle("pending", !isComplete(i, done.backward));
    if (total && graph.editable && nodes[i].grad) total.textContent = `in all ${said(nodes[i].grad)}`;
    if (i < nodes.length && nodes[i].rule && nodes[i].value) figure.setAttribute("aria-label", forwardWords(nodes[i]));
  });
  byId("step").textContent = stepWords();
  byId("progress").textContent = steps.length ? `Step ${position} of ${steps.length}` : "";
  byId("back").disabled = byId("reset").disabled = position === 0;
  byId("next").disabled = byId("play").disabled = steps.length === 0;
  byId("all").disabled = isResting;
  showRule();
  showGrads(done.backward);
}

function write(text, quantity, isDone) {
  if (!text) return;
  text.classList.toggle("pending", !isDone);
  if (quantity && graph.editable) text.textContent = said(quantity);
}

/** Bring what the step is about into view, sideways only: the page itself stays where it is. */
function follow() {
  const [, current] = currentStep();
  const box = byId("drawing");
  if (current < 0) {
    if (position === 0) box.scrollTo({ left: 0 });
    return;
  }
  const frame = box.getBoundingClientRect();
  const figure = figures[current].getBoundingClientRect();
  const middle = figure.left + figure.width / 2 - frame.left;
  box.scrollBy({ left: middle - frame.width / 2, behavior: reducedMotion.matches ? "auto" : "smooth" });
}

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function showRule() {
  const box = byId("rule");
  box.replaceChildren();
  const number = pinned !== null ? pinned : isResting ? graph.output : currentStep()[1];
  const node = nodes[number];
  if (!node || !node.rule) {
    box.append(element("p", "Point at a node, or go a step, to see what it computes."));
    return;
  }
  const { rule } = node;
  const meaning = rule.operands.map((letter, i) => [letter, nodes[node.inputs[i]].name]);
  if (node.isNamed) meaning.push([rule.result, node.name]);
  box.append(element("h3", headingOf(node)));
  box.append(element("p", meaning.filter(([letter, name]) => letter !== name).map((pair) => pair.join(": ")).join(", ")));
  const list = element("dl");
  const numbers = numbersOf(node);
  list.append(element("dt", "forward"));
  list.append(line("value", rule.result, rule.forward, numbers, node.value));
  if (node.inputGrads && node.inputGrads.length) {
    list.append(element("dt", `backward, with dout = ${node.grad ? said(node.grad) : "?"}`));
    node.inputGrads.forEach((grad, i) => {
      if (grad) list.append(line("grad", `d${rule.operands[i]}`, rule.backward[i] || "", numbers, grad));
    });
    for (const parameter of rule.parameters) {
      if (parameter.grad) list.append(line("grad", `d${parameter.name}`, parameter.formula, numbers, parameter.grad));
    }
  } else if (rule.backward.length) {
    list.append(element("dt", "backward"));
    rule.backward.forEach((formula, i) => list.append(line("grad", `d${rule.operands[i]}`, formula, null, null)));
  }
  box.append(list);
  if (rule.text) box.append(element("p", rule.text));
}

function headingOf(node) {
  if (node.rule.sign) return node.isNamed ? `${node.rule.sign} \u00a0${node.name}` : node.rule.sign;
  return node.isNamed ? `${node.kind} \u00a0${node.name}` : node.name;
}

function line(kind, letter, formula, numbers, result) {
  const filled = numbers && result && formula ? fillIn(formula, numbers) : "";
  const shown = element("dd");
  shown.append(element("span", equation(letter, formula, filled, "")));
  if (result) shown.append(element("strong", filled === said(result) ? "" : ` = ${said(result)}`, kind));
  return shown;
}

// ---- inputs ----

/** Tell whether a value has got its derivative from all that it is used for. */
const isComplete = (i, done) =>
  edges.every(({ source, target }) => source !== i || target === nodes.length || done.has(target));

function showGrads(done) {
  for (const cell of document.querySelectorAll("#inputs [data-grad]")) {
    const i = Number(cell.dataset.grad);
    cell.textContent = nodes[i].grad && isComplete(i, done) ? said(nodes[i].grad) : "";
  }
}

function listInputs() {
  nodes.forEach((node, i) => {
    if (node.kind !== "input") return;
    const row = element("tr");
    const heading = element("th", node.name);
    heading.scope = "row";
    row.append(heading, graph.editable ? editable(node, i) : element("td", node.value ? said(node.value) : "", "value fixed"));
    const grad = element("td", "", "grad");
    grad.dataset.grad = i;
    row.append(grad);
    byId("inputs").append(row);
  });
  const canEdit = graph.editable && nodes.some((node) => node.kind === "input");
  byId("editing").hidden = byId("restore").hidden = !canEdit;
}

function editable(node, i) {
  const cell = element("td");
  const field = element("input");
  const given = Number(node.value.number);
  field.type = "number";
  field.step = "any";
  field.value = field.defaultValue = String(given);
  field.setAttribute("aria-label", node.name);
  const problem = element("span", "", "problem");
  problem.id = `problem-${i}`;
  problem.setAttribute("role", "alert");
  field.addEventListener("input", () => {
    const isGood = field.value.trim() !== "" && field.validity.valid && Number.isFinite(Number(field.value));
    field.setAttribute("aria-invalid", String(!isGood));
    problem.textContent = isGood ? "" : "Enter a number.";
    if (isGood) {
      field.removeAttribute("aria-describedby");
      setInput(node, Number(field.value));
    } else {
      field.setAttribute("aria-describedby", problem.id);
    }
  });
  field.restore = () => {
    field.value = field.defaultValue;
    field.setAttribute("aria-invalid", "false");
    problem.textContent = "";
    node.value = ofNumber(given);
  };
  cell.append(field, problem);
  return cell;
}

function setInput(node, number) {
  stop();
  node.value = ofNumber(number);
  recompute();
  position = steps.length;
  isResting = true;
  show();
  const output = nodes[graph.output];
  byId("step").textContent = `${node.name} = ${said(node.value)}: ${output.name} = ${said(output.value)}.`;
}

// ---- steps ----

function goTo(next) {
  position = Math.max(0, Math.min(steps.length, next));
  isResting = false;
  pinned = null;
  show();
  follow();
}

function rest() {
  goTo(steps.length);
  isResting = true;
  show();
}

const forward = () => goTo(position === steps.length ? 0 : position + 1); // from the end to the beginning

function stop() {
  clearInterval(timer);
  timer = null;
  byId("play").textContent = "Play";
}

function play() {
  if (timer !== null) return stop();
  if (steps.length === 0) return undefined;
  if (position === steps.length) goTo(0);
  byId("play").textContent = "Pause";
  timer = setInterval(() => {
    goTo(position + 1);
    if (position === steps.length) stop();
  }, 1400);
  return undefined;
}

function byHand(action) {
  stop();
  action();
}

const ACTIONS = {
  ArrowRight: () => byHand(forward),
  ArrowLeft: () => byHand(() => goTo(position - 1)),
  Home: () => byHand(() => goTo(0)),
  End: () => byHand(rest),
  " ": play,
};

document.addEventListener("keydown", (event) => {
  const isField = event.target.matches("input");
  const isPressed = event.key === " " && event.target.matches("button");
  if (isField || isPressed || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(ACTIONS, event.key)) return;
  event.preventDefault();
  ACTIONS[event.key]();
});
byId("next").addEventListener("click", ACTIONS.ArrowRight);
byId("back").addEventListener("click", ACTIONS.ArrowLeft);
byId("reset").addEventListener("click", ACTIONS.Home);
byId("all").addEventListener("click", ACTIONS.End);
byId("play").addEventListener("click", play);
byId("restore").addEventListener("click", () => {
  for (const field of document.querySelectorAll("#inputs input")) field.restore();
  recompute();
  byHand(rest);
});

figures.forEach((figure, i) => {
  if (!figure.hasAttribute("tabindex")) return;
  const point = () => {
    pinned = i;
    showRule();
  };
  const leave = () => {
    pinned = figures.indexOf(document.activeElement) >= 0 ? figures.indexOf(document.activeElement) : null;
    showRule();
  };
  figure.addEventListener("mouseenter", point);
  figure.addEventListener("focus", point);
  figure.addEventListener("click", () => figure.focus());
  figure.addEventListener("mouseleave", leave);
  figure.addEventListener("blur", leave);
});

const { width } = svg.viewBox.baseVal;
svg.style.minWidth = `${0.9 * width}px`;
svg.style.maxWidth = `${1.5 * width}px`;
listInputs();
show();
