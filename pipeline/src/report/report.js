"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("data");
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Colours: as the system, light, dark.
  const theme = document.getElementById("theme");
  const themes = ["", "light", "dark"];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const repaint = [];
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "";
    const next = themes[(themes.indexOf(now) + 1) % 3];
    document.documentElement.dataset.theme = next;
    theme.setAttribute("aria-label", "Colours: " + (next || "as the system"));
    theme.title = next || "as the system";
    repaint.forEach((paint) => paint());
  });
  dark.addEventListener("change", () => repaint.forEach((paint) => paint()));

  // Files made in the page.
  function save(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
  // A text that a spreadsheet would take for a formula stays a text.
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value !== "string") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  function csv({ columns, data }) {
    const lines = [columns.map(cell).join(",")];
    const rows = data.length ? data[0].length : 0;
    for (let row = 0; row < rows; row++) lines.push(data.map((column) => cell(column[row])).join(","));
    return lines.join("\n") + "\n";
  }
  function mapTable(map) {
    const columns = ["clip_id"], all = [map.ids];
    for (const label of map.labels) {
      columns.push(label.name);
      all.push(label.of.map((value) => (label.kind === "category" && value !== null ? label.values[value] : value)));
    }
    for (const space of map.spaces) for (const layout of space.layouts) {
      for (const [axis, at] of [["x", 0], ["y", 1]]) {
        columns.push([space.stage, space.subspace, layout.name, axis].join(" "));
        all.push(layout[axis].map((v) => (v === null ? null : +(layout.from[at] + v * layout.unit).toPrecision(5))));
      }
    }
    return { columns, data: all };
  }
  for (const button of document.querySelectorAll("[data-csv]")) {
    button.addEventListener("click", () => {
      const id = button.dataset.csv;
      const table = id === "map-1" && data.map ? mapTable(data.map) : data.figures[id];
      save(document.title.split(" ")[0].replace(/[^\w.-]/g, "_") + "-" + id + ".csv", "text/csv", csv(table));
    });
  }
  for (const button of document.querySelectorAll("[data-save]")) {
    button.addEventListener("click", () => save(button.dataset.save, "text/plain", data.files[button.dataset.save]));
  }

  if (data.map) startMap(data.map);

  function startMap(map) {
    const $ = (id) => document.getElementById("map-" + id);
    const canvas = $("canvas"), context = canvas.getContext("2d"), tip = $("tip");
    const n = map.ids.length;
    const still = window.matchMedia("(prefers-reduced-motion: reduce)");
    const state = { space: 0, layout: 0, label: -1, clip: -1, hover: -1, only: -1, x: 0, y: 0, zoom: 1 };
    let points = [], from = null, started = 0, sounds = null;
    $("app").hidden = false;

    // Lists to choose from.
    let group = null;
    map.spaces.forEach((space, i) => {
      if (!group || group.label !== space.stage) $("space").append((group = make("optgroup", { label: space.stage })));
      group.append(make("option", { value: i }, space.subspace));
    });
    $("label").append(make("option", { value: -1 }, "none"));
    map.labels.forEach((label, i) => {
      if (label.kind !== "text") $("label").append(make("option", { value: i }, label.name));
    });
    const colourable = map.labels.findIndex((label) => label.kind !== "text");
    state.label = map.first !== null && map.labels[map.first].kind !== "text" ? map.first : colourable;
    $("label").value = state.label;
    $("ids").append(...map.ids.map((id) => make("option", { value: id })));
    const layouts = () => map.spaces[state.space].layouts;
    function listLayouts() {
      $("layout").replaceChildren(...layouts().map((layout, i) => make("option", { value: i }, layout.name)));
      state.layout = Math.min(state.layout, layouts().length - 1);
      $("layout").value = state.layout;
      $("layouts").hidden = map.spaces.every((space) => space.layouts.length < 2);
    }

    // Eight colours that all eyes tell apart, and three shapes: 24 categories.
    const colours = () => {
      const style = getComputedStyle(document.documentElement);
      return Array.from({ length: 8 }, (_, i) => style.getPropertyValue("--c" + i).trim());
    };
    let palette = colours(), ink = "", paper = "", soft = "";
    const SHADES = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
    function shade(part) {
      const at = Math.min(Math.max(part, 0), 1) * (SHADES.length - 1), i = Math.min(Math.floor(at), SHADES.length - 2), t = at - i;
      return "rgb(" + SHADES[i].map((c, k) => Math.round(c + t * (SHADES[i + 1][k] - c))).join(",") + ")";
    }
    let range = [0, 1];
    function rangeOf(label) {
      const values = label.of.filter((v) => v !== null).sort((a, b) => a - b);
      const at = (part) => values[Math.round(part * (values.length - 1))];
      return at(0.02) < at(0.98) ? [at(0.02), at(0.98)] : [values[0], values[values.length - 1]];
    }
    function look(clip) {
      const label = map.labels[state.label];
      const value = label ? label.of[clip] : 0;
      if (value === null || value === undefined) return { colour: soft, shape: 3, faint: state.only >= 0 };
      if (!label) return { colour: palette[0], shape: 0, faint: false };
      if (label.kind === "number") return { colour: shade((value - range[0]) / (range[1] - range[0] || 1)), shape: 0, faint: false };
      const grey = value >= 24;
      return { colour: grey ? soft : palette[value % 8], shape: grey ? 3 : Math.floor(value / 8), faint: state.only >= 0 && state.only !== value };
    }
    function draw(context, x, y, size, { colour, shape }) {
      context.fillStyle = colour;
      context.beginPath();
      if (shape === 1) context.rect(x - size * 0.86, y - size * 0.86, size * 1.72, size * 1.72);
      else if (shape === 2) {
        context.moveTo(x, y - size * 1.2); context.lineTo(x + size * 1.1, y + size * 0.8); context.lineTo(x - size * 1.1, y + size * 0.8);
      } else context.arc(x, y, shape === 3 ? size * 0.6 : size, 0, 7);
      context.fill();
    }

    // Places: layout units to pixels.
    function target() {
      const { x, y } = layouts()[state.layout];
      return map.ids.map((_, i) => (x[i] === null ? null : [x[i] / map.grid, y[i] / map.grid]));
    }
    let frame = { width: 1, height: 1, left: 0, top: 0, scale: 1 };
    function fit() {
      const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
      canvas.width = Math.max(1, Math.round(box.width * ratio));
      canvas.height = Math.max(1, Math.round(box.height * ratio));
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      let width = 0.01, height = 0.01;
      for (const p of points) if (p) { width = Math.max(width, p[0]); height = Math.max(height, p[1]); }
      const scale = Math.min((box.width - 48) / width, (box.height - 48) / height);
      frame = { width: box.width, height: box.height, scale, left: (box.width - width * scale) / 2, top: (box.height + height * scale) / 2 };
    }
    const screen = (p) => [
      (frame.left + p[0] * frame.scale - frame.width / 2) * state.zoom + frame.width / 2 + state.x,
      (frame.top - p[1] * frame.scale - frame.height / 2) * state.zoom + frame.height / 2 + state.y,
    ];
    function now(i) {
      const to = points[i];
      if (!from || !to || !from[i]) return to;
      const t = Math.min(1, (performance.now() - started) / 450), s = t * t * (3 - 2 * t);
      return [from[i][0] + s * (to[0] - from[i][0]), from[i][1] + s * (to[1] - from[i][1])];
    }
    let waiting = false;
    function paint() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        const style = getComputedStyle(document.documentElement);
        [ink, paper, soft] = ["--ink", "--paper", "--soft"].map((name) => style.getPropertyValue(name).trim());
        palette = colours();
        context.clearRect(0, 0, frame.width, frame.height);
        const size = Math.max(2.2, Math.min(5, 90 / Math.sqrt(n))) * Math.min(2, Math.pow(state.zoom, 0.35));
        const near = state.clip >= 0 ? map.spaces[state.space].near[state.clip] : [];
        const order = [];
        for (let i = 0; i < n; i++) if (points[i]) order.push([i, look(i)]);
        order.sort((a, b) => b[1].faint - a[1].faint);
        for (const [i, how] of order) {
          const [x, y] = screen(now(i));
          if (x < -9 || y < -9 || x > frame.width + 9 || y > frame.height + 9) continue;
          context.globalAlpha = how.faint ? 0.1 : 0.82;
          draw(context, x, y, size, how);
        }
        context.globalAlpha = 1;
        if (state.clip >= 0 && points[state.clip]) {
          const [x0, y0] = screen(now(state.clip));
          context.strokeStyle = ink;
          for (const other of near) {
            if (!points[other]) continue;
            const [x, y] = screen(now(other));
            context.lineWidth = 1; context.globalAlpha = 0.55;
            context.beginPath(); context.moveTo(x0, y0); context.lineTo(x, y); context.stroke();
            context.globalAlpha = 1; context.lineWidth = 1.5;
            context.beginPath(); context.arc(x, y, size + 2.5, 0, 7); context.stroke();
          }
          context.lineWidth = 2.5;
          context.beginPath(); context.arc(x0, y0, size + 4, 0, 7); context.stroke();
          draw(context, x0, y0, size, look(state.clip));
        }
        if (state.hover >= 0 && points[state.hover]) {
          const [x, y] = screen(now(state.hover));
          context.strokeStyle = ink; context.lineWidth = 1.5;
          context.beginPath(); context.arc(x, y, size + 2, 0, 7); context.stroke();
        }
        if (from && performance.now() - started < 450) paint(); else from = null;
      });
    }
    function move() {
      const before = points.length ? map.ids.map((_, i) => now(i)) : null;
      points = target();
      from = still.matches ? null : before;
      started = performance.now();
      fit();
      const layout = layouts()[state.layout];
      $("note").textContent = layout.name + (layout.note ? ": " + layout.note : "");
      paint();
    }
    function whole() { state.x = 0; state.y = 0; state.zoom = 1; paint(); }
    function zoom(by, x, y) {
      const next = Math.min(60, Math.max(0.5, state.zoom * by));
      const [cx, cy] = [x === undefined ? frame.width / 2 : x, y === undefined ? frame.height / 2 : y];
      const change = next / state.zoom;
      state.x = cx - frame.width / 2 - (cx - frame.width / 2 - state.x) * change;
      state.y = cy - frame.height / 2 - (cy - frame.height / 2 - state.y) * change;
      state.zoom = next;
      paint();
    }
    function at(x, y) {
      let best = -1, least = 14 * 14;
      for (let i = 0; i < n; i++) {
        if (!points[i]) continue;
        const [px, py] = screen(now(i)), d = (px - x) ** 2 + (py - y) ** 2;
        if (d < least && !look(i).faint) { least = d; best = i; }
      }
      return best;
    }

    // What is known of a clip.
    const shown = (label, clip) => {
      const value = label.of[clip];
      if (value === null || value === undefined) return null;
      return label.kind === "category" ? label.values[value] : String(value);
    };
    function about(clip) {
      const tags = new Map(), plain = [];
      for (const label of map.labels) {
        const value = shown(label, clip), cut = label.name.indexOf(": ");
        if (value === null) continue;
        if (cut > 0 && label.kind === "category" && label.values[0] === "yes") {
          const name = label.name.slice(0, cut);
          if (!tags.has(name)) tags.set(name, []);
          if (value === "yes") tags.get(name).push(label.name.slice(cut + 2));
        } else plain.push([label.name, value]);
      }
      for (const [name, list] of tags) plain.push([name, list.join(", ")]);
      return plain;
    }
    function hint(clip, x, y) {
      tip.hidden = clip < 0;
      if (clip < 0) return;
      const label = map.labels[state.label];
      const lines = about(clip).filter(([name]) => !label || name !== label.name).slice(0, 5);
      if (label && shown(label, clip) !== null) lines.unshift([label.name, shown(label, clip)]);
      tip.replaceChildren(make("b", {}, map.ids[clip]), ...lines.flatMap(([name, value]) => [name + ": " + value, make("br")]));
      tip.style.left = Math.min(x + 14, frame.width - tip.offsetWidth - 4) + "px";
      tip.style.top = Math.max(4, Math.min(y + 14, frame.height - tip.offsetHeight - 4)) + "px";
    }
    const heard = new Set(map.sound.of), failed = new Map(map.sound.failed);
    function source(clip) {
      if (!map.sound.inline) return map.sound.folder + "/" + String(clip).padStart(6, "0") + ".opus";
      if (!sounds) sounds = read("sound");
      return "data:audio/ogg;base64," + sounds[clip];
    }
    function choose(clip, play) {
      state.clip = clip;
      const panel = $("clip");
      panel.replaceChildren();
      if (clip < 0) return paint();
      panel.append(make("h4", {}, map.ids[clip]));
      if (heard.has(clip)) {
        const player = make("audio", { controls: true, preload: "auto", src: source(clip) });
        player.setAttribute("aria-label", "The sound of " + map.ids[clip]);
        panel.append(player);
        // A browser may refuse to begin by itself; the player is there.
        if (play) player.play().catch(() => {});
      } else panel.append(make("p", { className: "hint" }, failed.get(clip) || "This clip has no sound in the page."));
      panel.append(make("ul", { className: "labels" }, ...about(clip).map(([name, value]) => make("li", {}, make("b", {}, name + " "), value))));
      const label = map.labels[state.label], lists = make("div", { className: "near" });
      const first = [state.space, ...map.spaces.keys()].filter((space, i, all) => all.indexOf(space) === i);
      for (const number of first) {
        const space = map.spaces[number], list = make("ol", {});
        space.near[clip].forEach((other, k) => {
          const mine = label ? label.of[clip] : null, theirs = label ? label.of[other] : null;
          const same = label && mine !== null && (label.kind === "number" ? Math.abs(Math.log(theirs / mine)) <= Math.log(1.04) : mine === theirs);
          const text = label && shown(label, other) !== null ? shown(label, other) : "";
          const button = make("button", { type: "button", title: map.ids[other] },
            make("span", {}, map.ids[other]), make("i", { className: same ? "same" : "" }, text + (same ? " \u2713" : "")), make("i", {}, space.like[clip][k].toFixed(2)));
          button.addEventListener("click", () => { choose(other, true); canvas.scrollIntoView({ block: "nearest" }); });
          list.append(make("li", {}, button));
        });
        if (!space.near[clip].length) continue;
        const dot = document.createElementNS("http://www.w3.org/2000/svg", "svg"), circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        dot.setAttribute("viewBox", "0 0 12 12"); dot.setAttribute("aria-hidden", "true");
        for (const [name, value] of [["cx", 6], ["cy", 6], ["r", 5], ["class", "f" + (space.colour % 8)]]) circle.setAttribute(name, value);
        dot.append(circle);
        lists.append(make("div", {}, make("h5", {}, dot, (map.spaces.some((s) => s.stage !== space.stage) ? space.stage + " \u00b7 " : "") + space.subspace), list));
      }
      panel.append(lists);
      paint();
    }

    function legend() {
      const box = $("legend"), label = map.labels[state.label];
      state.only = -1;
      box.replaceChildren();
      if (!label) return;
      if (label.kind === "number") {
        range = rangeOf(label);
        const bar = make("canvas", { className: "bar", width: 200, height: 12 }), context = bar.getContext("2d");
        for (let x = 0; x < 200; x++) { context.fillStyle = shade(x / 199); context.fillRect(x, 0, 1, 12); }
        box.append(make("b", {}, label.name), bar, make("div", { className: "ends" }, make("span", {}, String(+range[0].toPrecision(4))), make("span", {}, String(+range[1].toPrecision(4)))));
        return;
      }
      const counts = label.values.map(() => 0);
      label.of.forEach((value) => { if (value !== null) counts[value]++; });
      label.values.forEach((value, i) => {
        const key = make("canvas", { width: 28, height: 28 });
        const entry = make("button", { type: "button" }, key, make("span", {}, value), make("i", {}, String(counts[i])));
        entry.setAttribute("aria-pressed", "false");
        const grey = i >= 24;
        draw(key.getContext("2d"), 14, 14, 9, { colour: grey ? soft : palette[i % 8], shape: grey ? 3 : Math.floor(i / 8) });
        entry.addEventListener("click", () => {
          state.only = state.only === i ? -1 : i;
          [...box.children].forEach((other, k) => other.setAttribute("aria-pressed", String(k === state.only)));
          paint();
        });
        box.append(entry);
      });
    }

    $("space").addEventListener("change", (event) => { state.space = +event.target.value; listLayouts(); move(); if (state.clip >= 0) choose(state.clip, false); });
    $("layout").addEventListener("change", (event) => { state.layout = +event.target.value; move(); });
    $("label").addEventListener("change", (event) => { state.label = +event.target.value; legend(); paint(); if (state.clip >= 0) choose(state.clip, false); });
    $("find").addEventListener("change", (event) => { const clip = map.ids.indexOf(event.target.value); if (clip >= 0) choose(clip, true); });
    $("in").addEventListener("click", () => zoom(1.5));
    $("out").addEventListener("click", () => zoom(1 / 1.5));
    $("all").addEventListener("click", whole);
    const local = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    const fingers = new Map();
    let travelled = 0;
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, local(event)); if (fingers.size === 1) travelled = 0; });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = local(event), before = fingers.get(event.pointerId);
      if (!before) { const over = at(x, y); if (over !== state.hover) { state.hover = over; paint(); } hint(over, x, y); return; }
      tip.hidden = true;
      if (fingers.size === 1) { state.x += x - before[0]; state.y += y - before[1]; paint(); }
      else {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
        zoom(apart([x, y]) / apart(before), other[0], other[1]);
      }
      travelled += Math.hypot(x - before[0], y - before[1]);
      fingers.set(event.pointerId, [x, y]);
    });
    const lift = (event) => {
      const was = fingers.delete(event.pointerId);
      if (was && event.type === "pointerup" && travelled < 6 && !fingers.size) { const clip = at(...local(event)); if (clip >= 0) choose(clip, true); }
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("pointerleave", () => { state.hover = -1; tip.hidden = true; paint(); });
    // The page scrolls until the map is meant: after a click in it, or with Ctrl.
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * 0.0018), ...local(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
      if (step) { state.x += step[0]; state.y += step[1]; paint(); }
      else if (event.key === "+" || event.key === "=") zoom(1.5);
      else if (event.key === "-") zoom(1 / 1.5);
      else if (event.key === "0") whole();
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => { fit(); paint(); }).observe(canvas);
    repaint.push(() => { paint(); setTimeout(legend, 60); });
    listLayouts();
    move();
    legend();
    // For tests and for links: where a clip stands on the canvas.
    canvas.place = (clip) => (points[clip] ? screen(points[clip]) : null);
    canvas.dataset.ready = "true";
  }
})();
