"use strict";
// What the gallery does with the data of one run. Text from the run, or typed, only ever becomes
// textContent, never markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const CHUNK = 240; // images that are added to an open labeling at a time
  const ON_CARD = 12; // positives pictured on a card, and negatives
  const labelings = data.labelings;
  const byKey = new Map(labelings.map((labeling) => [labeling.key, labeling]));
  const byNumber = new Map(labelings.map((labeling) => [labeling.number, labeling]));
  const decisions = new Map(); // key -> {name, keep: true, false or null}
  let shown = []; // what passes the filters, in order
  let open = null; // the labeling in the dialog
  let place = 0; // where in `shown` the current labeling is, or was before a filter hid it
  let remembers = true;

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // --- What is known of a labeling

  const decided = (labeling) => decisions.get(labeling.key) ?? { name: "", keep: null };
  const nameOf = (labeling) => decided(labeling).name.trim() || `Labeling ${labeling.number}`;
  const matchOf = (labeling) => labeling.match[$("target").value];
  const fixed = (value) => value.toFixed(2).replace("-", "−");
  const matchText = (match) => `${match.class} (${match.shared} of ${data.nPositives})`;

  function sides(labeling) {
    if (!labeling.sides) {
      labeling.sides = { positives: [], negatives: [] };
      data.positions.forEach((_, i) => {
        const nibble = parseInt(labeling.positives[i >> 2], 16);
        labeling.sides[(nibble >> (3 - (i & 3))) & 1 ? "positives" : "negatives"].push(i);
      });
    }
    return labeling.sides;
  }

  function evenly(items, most) {
    if (items.length <= most) return items;
    return Array.from({ length: most }, (_, i) =>
      items[Math.round((i * (items.length - 1)) / (most - 1))]);
  }

  // --- Pictures: every one is a window on the one sheet

  function tile(index, tag = "li") {
    const made = element(tag, { class: "tile" });
    made.style.setProperty("--x", index % data.columns);
    made.style.setProperty("--y", Math.floor(index / data.columns));
    return made;
  }

  function picture(index) {
    const made = tile(index);
    const text = `image ${data.positions[index]}`;
    made.title = text;
    made.append(element("span", { class: "unseen" }, text));
    return made;
  }

  // --- Cards

  function makeCard(labeling) {
    const { positives, negatives } = sides(labeling);
    const strip = element("span", { class: "strip", "aria-hidden": "true" });
    for (const i of evenly(positives, ON_CARD)) strip.append(tile(i, "span"));
    const others = element("span", { class: "strip others", "aria-hidden": "true" });
    for (const i of evenly(negatives, ON_CARD)) others.append(tile(i, "span"));
    const parts = {
      name: element("strong", { class: "name" }),
      badge: element("span", { class: "badge" }),
      match: element("span", { class: "fact match" }),
    };
    const button = element("button", {
      type: "button", class: "card", "aria-keyshortcuts": "y n u r", "aria-describedby": "keys",
    },
      element("span", { class: "line" }, parts.name, parts.badge),
      strip, others,
      element("span", { class: "line" },
        element("span", { class: "taskness" }, labeling.tasknessText),
        ...(labeling.isTask ? [] : [element("span", { class: "no-task" }, "not a task")])),
      parts.match,
      element("span", { class: "fact" }, labeling.nearest
        ? `ablation ${fixed(labeling.nearest.ablation)} to labeling ${labeling.nearest.number}`
        : "no other task"));
    button.addEventListener("click", () => show(labeling));
    button.addEventListener("focus", () => { place = Math.max(shown.indexOf(labeling), 0); mark(labeling); });
    // The keys do the same from the card itself, so these are no stops of the Tab key.
    const keep = element("button", { type: "button", tabindex: "-1" }, "Keep");
    const drop = element("button", { type: "button", tabindex: "-1" }, "Drop");
    keep.addEventListener("click", () => { toggle(labeling, true); button.focus(); });
    drop.addEventListener("click", () => { toggle(labeling, false); button.focus(); });
    labeling.item = element("li", { class: labeling.isTask ? "task" : "failed" },
      button, element("div", { class: "pick" }, keep, drop));
    labeling.card = button;
    labeling.draw = () => {
      const { keep: kept } = decided(labeling);
      parts.name.textContent = nameOf(labeling);
      parts.badge.textContent = kept === null ? "" : kept ? "kept" : "dropped";
      labeling.item.dataset.decision = kept === null ? "open" : kept ? "keep" : "drop";
      keep.setAttribute("aria-pressed", kept === true);
      drop.setAttribute("aria-pressed", kept === false);
      keep.setAttribute("aria-label", `Keep ${nameOf(labeling)}`);
      drop.setAttribute("aria-label", `Drop ${nameOf(labeling)}`);
      const match = matchOf(labeling);
      parts.match.textContent = match ? `class ${matchText(match)}` : "";
      parts.match.classList.toggle("recovered", Boolean(match?.recovered));
      labeling.node.dataset.decision = labeling.item.dataset.decision;
      labeling.node.querySelector("title").textContent = `${nameOf(labeling)}, ${labeling.tasknessText}`;
    };
  }

  // --- The map

  function svg(tag, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function makeMap() {
    const side = labelings.length > 40 ? 22 : labelings.length > 16 ? 28 : 36;
    const { width, height, stress } = data.map;
    const drawing = svg("svg", {
      viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `Map of ${labelings.length} labelings by ablation; the list holds the same labelings.`,
    });
    const sheet = data.positions.length
      ? getComputedStyle(labelings[0].item.querySelector(".tile")).backgroundImage.slice(5, -2) : "";
    const rows = Math.ceil(data.positions.length / data.columns);
    if (sheet) {
      // One picture, used by every point.
      drawing.append(svg("defs", {}, svg("image", {
        id: "sheet", href: sheet, width: data.columns * side, height: rows * side,
        preserveAspectRatio: "none",
      })));
    }
    for (const labeling of labelings) {
      const [x, y] = labeling.point;
      const node = svg("g", {
        class: `node ${labeling.isTask ? "task" : "failed"}`,
        transform: `translate(${x - side / 2} ${y - side / 2})`,
      }, svg("title", {}));
      const [first] = sides(labeling).positives;
      if (sheet && first !== undefined) {
        node.append(svg("svg", { width: side, height: side, viewBox: `0 0 ${side} ${side}` },
          svg("use", {
            href: "#sheet",
            x: -(first % data.columns) * side, y: -Math.floor(first / data.columns) * side,
          })));
      }
      node.append(svg("rect", { width: side, height: side, rx: 2 }));
      node.addEventListener("click", () => show(labeling));
      labeling.node = node;
      drawing.append(node);
    }
    $("map").append(drawing);
    $("stress").textContent = fixed(stress);
  }

  function mark(labeling) {
    for (const other of labelings) other.node.classList.toggle("current", other === labeling);
    labeling.node.parentNode.append(labeling.node); // on top
  }

  // --- Sorting and filtering

  const ORDERS = {
    taskness: (a, b) => b.taskness - a.taskness,
    nearest: (a, b) => (b.nearest?.ablation ?? 2) - (a.nearest?.ablation ?? 2),
    match: (a, b) => (matchOf(b)?.share ?? 0) - (matchOf(a)?.share ?? 0),
    class: (a, b) => (matchOf(a)?.class ?? "").localeCompare(matchOf(b)?.class ?? "", "en", { numeric: true }),
    name: (a, b) => nameOf(a).localeCompare(nameOf(b), "en", { numeric: true }),
  };

  function ordered() {
    const order = ORDERS[$("order").value];
    return [...labelings].sort((a, b) => order(a, b) || b.taskness - a.taskness || a.number - b.number);
  }

  function words(labeling) {
    const classes = Object.values(labeling.classes).flat().map(([name]) => name);
    const matches = Object.values(labeling.match).map((match) => match.class);
    return [nameOf(labeling), `labeling ${labeling.number}`, ...matches, ...classes].join("\n").toLowerCase();
  }

  function passes(labeling) {
    const { keep } = decided(labeling);
    const decision = $("decision").value;
    const match = $("match").value;
    const least = (id, value) => $(id).value === "" || value >= Number($(id).value);
    return ($("kind").value === "all" || labeling.isTask)
      && (decision === "any" || (keep === null ? "open" : keep ? "keep" : "drop") === decision)
      && (match === "any" || Boolean(matchOf(labeling)?.recovered) === (match === "yes"))
      && least("least-taskness", labeling.taskness)
      && least("least-ablation", labeling.nearest?.ablation ?? 1)
      && $("find").value.toLowerCase().split(/\s+/).every((word) => words(labeling).includes(word));
  }

  function refresh() {
    const focused = labelings.find((labeling) => labeling.card === document.activeElement);
    shown = ordered().filter(passes);
    const visible = new Set(shown);
    for (const labeling of labelings) {
      labeling.draw();
      labeling.item.hidden = !visible.has(labeling);
      labeling.node.classList.toggle("off", !visible.has(labeling));
    }
    // Only what is out of order moves, for moving an element takes the focus off it.
    shown.forEach((labeling, i) => {
      const there = $("cards").children[i];
      if (there !== labeling.item) $("cards").insertBefore(labeling.item, there ?? null);
    });
    $("nothing").hidden = shown.length > 0;
    if (focused && visible.has(focused)) focused.card.focus({ preventScroll: true });
    else if (focused) shown[Math.min(place, shown.length - 1)]?.card.focus();
    const all = [...decisions.values()];
    const n = (keep) => all.filter((decision) => decision.keep === keep).length;
    $("count").textContent = `${shown.length} of ${labelings.length} shown · ${n(true)} kept · ${n(false)} dropped`;
  }

  // --- Deciding

  function decide(labeling, change) {
    const next = { ...decided(labeling), ...change };
    if (next.name || next.keep !== null) decisions.set(labeling.key, next);
    else decisions.delete(labeling.key);
    remember();
    refresh();
    if (open === labeling) drawDecision();
  }

  const toggle = (labeling, keep) =>
    decide(labeling, { keep: decided(labeling).keep === keep ? null : keep });

  function rename(labeling, name) {
    const { keep } = decided(labeling);
    decide(labeling, { name, keep: name.trim() && keep === null ? true : keep });
  }

  function remember() {
    try {
      localStorage.setItem(data.memory, JSON.stringify([...decisions]));
    } catch {
      if (remembers) tell("This browser remembers nothing for this page: save keep.json before you leave.");
      remembers = false;
    }
  }

  function recall() {
    try {
      for (const [key, { name, keep }] of JSON.parse(localStorage.getItem(data.memory) ?? "[]")) {
        if (byKey.has(key)) decisions.set(key, { name: String(name), keep: typeof keep === "boolean" ? keep : null });
      }
    } catch {
      decisions.clear(); // refused, or not what this page wrote
    }
  }

  function tell(text) {
    $("message").textContent = text;
    $("message").hidden = false;
  }

  function save() {
    const tasks = ordered()
      .map((labeling) => ({ key: labeling.key, ...decided(labeling) }))
      .filter((task) => task.keep !== null)
      .map(({ key, name, keep }) => ({ key, name: name.trim(), keep }));
    const content = { schema: data.schema, run: data.run, images: data.images, tasks };
    const file = new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" });
    const link = element("a", { href: URL.createObjectURL(file), download: "keep.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    const n = tasks.filter((task) => task.keep).length;
    tell(`Saved ${tasks.length} decision${tasks.length === 1 ? "" : "s"}, ${n} to keep.`);
  }

  async function load(file) {
    try {
      const content = JSON.parse(await file.text());
      if (content.schema !== data.schema) throw new Error(`its schema is ${content.schema}, not ${data.schema}`);
      if (content.images !== data.images) throw new Error("it was saved for other images");
      for (const { key, name, keep } of content.tasks) {
        if (!byKey.has(key)) throw new Error("it holds a labeling that this run does not have");
        if (typeof name !== "string" || typeof keep !== "boolean") throw new Error("a decision in it is damaged");
      }
      for (const { key, name, keep } of content.tasks) decisions.set(key, { name, keep });
      remember();
      refresh();
      tell(`Loaded ${content.tasks.length} decision${content.tasks.length === 1 ? "" : "s"} from ${file.name}.`);
    } catch (error) {
      tell(`${file.name} was not loaded: ${error instanceof SyntaxError ? "it is no JSON" : error.message}.`);
    }
  }

  // --- One labeling, with all its images

  function show(labeling, naming = false) {
    open = labeling;
    place = Math.max(shown.indexOf(labeling), 0);
    mark(labeling);
    drawOpen();
    if (!$("dialog").open) $("dialog").showModal();
    $("dialog").scrollTop = 0;
    if (naming) {
      $("name").focus();
      $("name").select();
    }
    else $("title").focus({ preventScroll: true });
  }

  function drawOpen() {
    const rows = [["Confirmed taskness", open.tasknessText], ...open.evidence];
    for (const [target, match] of Object.entries(open.match)) {
      const side = match.flipped ? "negatives" : "positives";
      const verdict = match.recovered ? ": recovered" : "";
      rows.push([`Best class (${target})`, `${match.class}, ${match.shared} of ${data.nPositives} ${side}${verdict}`]);
    }
    for (const [target, counts] of Object.entries(open.classes)) {
      const text = counts.map(([name, count]) => `${count} × ${name}`).join(", ");
      rows.push([`Positives by class (${target})`, text]);
    }
    $("evidence").replaceChildren(...rows.map(([term, text]) =>
      element("div", {}, element("dt", {}, term), element("dd", {}, text))));
    $("evidence").firstChild.className = "main";
    $("evidence").firstChild.lastChild.append(element("small", {},
      open.taskness > data.threshold ? "above T" : "not above T", element("sub", {}, "task"),
      ` = ${data.threshold.toFixed(3)}`));
    if (open.nearest) {
      const to = byNumber.get(open.nearest.number);
      const link = element("button", { type: "button", class: "plain" }, nameOf(to));
      link.addEventListener("click", () => show(to));
      $("evidence").append(element("div", {}, element("dt", {}, "Nearest other task"),
        element("dd", {}, link, ` at ablation ${fixed(open.nearest.ablation)}`)));
    }
    $("evidence").append(element("div", {}, element("dt", {}, "Curves"), element("dd", {},
      element("a", { href: `${data.report}#labeling-${open.number}` }, "in the report"))));
    drawImages();
    drawDecision();
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) target.more();
  }, { root: $("dialog"), rootMargin: "600px" });

  function drawImages() {
    watcher.disconnect();
    const all = { positives: data.nPositives, negatives: data.nImages - data.nPositives };
    $("images").replaceChildren();
    for (const [side, indices] of Object.entries(sides(open))) {
      const title = side === "positives" ? "Positives" : "Negatives";
      const count = indices.length === all[side] ? `all ${all[side]}` : `${indices.length} of ${all[side]}`;
      const list = element("ul", { class: "tiles", "aria-label": title });
      const end = element("div", { class: "end" });
      let done = 0;
      end.more = () => {
        list.append(...indices.slice(done, done + CHUNK).map(picture));
        done += CHUNK;
        watcher.unobserve(end);
        if (done < indices.length) watcher.observe(end); // looks again, for there may be room left
        else end.remove();
      };
      $("images").append(element("h3", {}, `${title} `, element("small", {}, count)), list, end);
      end.more();
    }
  }

  function drawDecision() {
    const { name, keep } = decided(open);
    $("title").textContent = `${nameOf(open)} `;
    $("title").append(element("span", { class: `badge ${open.isTask ? "" : "no"}` }, open.isTask ? "task" : "not a task"));
    if ($("name").value !== name) $("name").value = name;
    $("name").placeholder = `Labeling ${open.number}`;
    $("keep").setAttribute("aria-pressed", keep === true);
    $("drop").setAttribute("aria-pressed", keep === false);
    const twin = name.trim() && labelings.find((other) => other !== open && decided(other).name.trim() === name.trim());
    $("name-note").textContent = twin ? `Labeling ${twin.number} has this name too; taskdisc export needs different ones.` : "";
  }

  // --- Moving

  function neighbour(step) {
    let next = place + step;
    // The current one left the list: the next has taken its place.
    const current = open ?? shown[place];
    if (open && shown[place] !== current && step > 0) next = place;
    return shown[Math.min(Math.max(next, 0), shown.length - 1)];
  }

  function move(step) {
    if (!shown.length) return;
    if (open) return show(neighbour(step));
    const at = shown.findIndex((labeling) => labeling.card === document.activeElement);
    const next = at < 0 ? shown[Math.min(place, shown.length - 1)] : neighbour(step);
    next.card.focus();
    next.item.scrollIntoView({ block: "nearest" });
  }

  function columns() {
    const top = shown[0]?.item.offsetTop;
    const n = shown.findIndex((labeling) => labeling.item.offsetTop !== top);
    return n < 0 ? shown.length || 1 : n;
  }

  const KEYS = {
    j: () => move(1), k: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1),
    ArrowDown: () => open ? null : move(columns()), ArrowUp: () => open ? null : move(-columns()),
    y: () => current() && decide(current(), { keep: true }),
    n: () => current() && decide(current(), { keep: false }),
    u: () => current() && decide(current(), { keep: null }),
    r: () => current() && show(current(), true),
    "/": () => { if (!open) { $("find").focus(); $("find").select(); } },
  };

  const current = () =>
    open ?? shown.find((labeling) => labeling.item.contains(document.activeElement));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (open && event.key === "Escape") {
      event.preventDefault();
      leave();
      return;
    }
    if (event.target.matches("input, select")) {
      if (event.target === $("find") && ["Enter", "Escape"].includes(event.key)) {
        event.preventDefault();
        place = 0;
        event.target.blur();
        move(1);
      } else if (event.target === $("name") && event.key === "Enter") $("title").focus();
      return;
    }
    const arrow = event.key.startsWith("Arrow");
    // On the page at large the arrows scroll, as everywhere; in the dialog up and down do.
    if (!KEYS[event.key] || (arrow && !current()) || (open && /^Arrow(Up|Down)$/.test(event.key))) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  // Not left to the event of the dialog alone, which may come after the next key.
  function leave() {
    if (!open) return;
    const last = open;
    open = null;
    watcher.disconnect();
    $("dialog").close();
    (shown.includes(last) ? last : shown[Math.min(place, shown.length - 1)])?.card.focus();
  }

  $("dialog").addEventListener("close", () => { if (!$("dialog").open) leave(); });
  $("dialog").addEventListener("click", (event) => { if (event.target === $("dialog")) leave(); });
  $("close").addEventListener("click", leave);
  $("previous").addEventListener("click", () => move(-1));
  $("following").addEventListener("click", () => move(1));
  $("keep").addEventListener("click", () => toggle(open, true));
  $("drop").addEventListener("click", () => toggle(open, false));
  $("name").addEventListener("input", () => rename(open, $("name").value));
  $("save").addEventListener("click", save);
  $("load").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    if ($("file").files.length) load($("file").files[0]);
    $("file").value = "";
  });
  for (const control of document.querySelectorAll(".controls input, .controls select")) {
    control.addEventListener("input", refresh);
  }
  $("reset").addEventListener("click", () => {
    for (const control of document.querySelectorAll(".controls input")) control.value = "";
    for (const id of ["decision", "match"]) $(id).value = "any";
    $("kind").value = "all";
    refresh();
    shown[0]?.card.focus();
  });

  // --- Beginning

  for (const target of data.targets) $("target").append(element("option", { value: target }, target));
  for (const label of document.querySelectorAll(".targets")) label.hidden = data.targets.length === 0;
  $("target").parentNode.hidden = data.targets.length < 2;
  for (const id of ["match", "class"]) {
    const option = $("order").querySelector(`[value=${id}]`);
    if (!data.targets.length) option.remove();
  }
  if (!labelings.some((labeling) => labeling.isTask)) $("kind").value = "all";
  recall();
  labelings.forEach(makeCard);
  $("cards").append(...labelings.map((labeling) => labeling.item));
  for (const id of ["bar", "room", "next"]) $(id).hidden = false;
  makeMap();
  refresh();
  const asked = /^#labeling-(\d+)$/.exec(location.hash);
  if (asked && byNumber.has(Number(asked[1]))) show(byNumber.get(Number(asked[1])));
})();
