"use strict";
// The table of all classes and the card of one. Everything else on the page stands without this script.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const STEP = 50; // rows shown at first and by each further click: 3,755 at once would take seconds on a phone
  const chars = Array.from(data.characters);
  const table = document.getElementById("classes-table");
  const body = table.tBodies[0];
  const search = document.getElementById("search");
  const only = document.getElementById("only");
  const found = document.getElementById("found");
  const more = document.getElementById("show-more");
  const dialog = document.getElementById("class");
  dialog.setAttribute("aria-labelledby", "class-title");
  document.documentElement.classList.add("js");

  // null stands for a figure that is undefined, as the recall of a class without samples.
  const share = (part, whole) => (whole ? part / whole : null);
  const classes = chars.map((char, label) => ({
    char,
    label,
    point: char.codePointAt(0),
    code: "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"),
    n: data.n[label],
    correct: data.correct[label],
    recall: share(data.correct[label], data.n[label]),
    precision: share(data.correct[label], data.predicted[label]),
    f1: share(2 * data.correct[label], data.n[label] + data.predicted[label]),
    top5: share(data.top5[label], data.n[label]),
    confidence: data.confidence[label],
    answers: data.answers[label],
    wrong: data.answers[label].length ? data.answers[label][0][1] : null,
  }));
  const byCode = new Map(classes.map((one) => [one.code, one]));
  let order = { key: "point", direction: 1 };
  let rows = classes;
  let shown = STEP;

  const percent = (value) => (value === null ? "" : (100 * value).toFixed(2) + "%");
  const number = (value) => (value === null ? "" : value.toLocaleString("en"));

  // Text goes in as text nodes alone, so that a class called "<" is a character and nothing else.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function picture(place, label, miss) {
    const made = element("i", { class: `pic s${place >> 8}` + (miss ? " miss" : ""), role: "img", "aria-label": label });
    made.style.setProperty("--x", place & 15);
    made.style.setProperty("--y", (place >> 4) & 15);
    return made;
  }

  // ---- Search and sort -------------------------------------------------------------------------------------------

  // By the characters that were typed, or by the beginning of a code point: U+4E00, 4e00, 4E.
  function matches(one, asked) {
    const [, prefix, hex] = /^(U\+|0x|\\u)?([0-9A-F]{2,6})$/i.exec(asked) ?? [];
    if (hex && one.code.slice(2).startsWith(hex.toUpperCase())) return true;
    return !prefix && !(hex?.length >= 4) && asked.includes(one.char);
  }

  function select() {
    const asked = search.value.trim();
    const { key, direction } = order;
    rows = classes.filter((one) => {
      if (only.value === "errors" && one.correct === one.n) return false;
      if (only.value === "perfect" && (!one.n || one.correct < one.n)) return false;
      if (only.value === "empty" && one.n) return false;
      return !asked || matches(one, asked);
    });
    // Undefined figures come last whichever way it is sorted.
    rows.sort((a, b) => {
      if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null) || a.label - b.label;
      return direction * (a[key] - b[key]) || a.label - b.label;
    });
    shown = STEP;
    body.replaceChildren();
    append();
    found.textContent = `${number(rows.length)} of ${number(classes.length)} classes`;
    for (const head of table.tHead.rows[0].cells) {
      if (head.dataset.key !== key) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    }
  }

  function append() {
    const fragment = document.createDocumentFragment();
    for (const one of rows.slice(body.rows.length, shown)) fragment.append(row(one));
    body.append(fragment);
    more.hidden = shown >= rows.length;
    more.textContent = `Show ${Math.min(STEP, rows.length - shown)} more of ${number(rows.length)}`;
  }

  function row(one) {
    const button = element("button", { class: "han", lang: "zh", type: "button", "aria-label": `${one.char} ${one.code}, open` }, one.char);
    const meter = element("span", { class: "meter" }, element("i"));
    meter.firstChild.style.width = `${100 * (one.recall ?? 0)}%`;
    const answers = element("td", { class: "answers", lang: "zh" });
    for (const [label, count] of one.answers.slice(0, 3)) {
      answers.append(element("span", {}, chars[label], element("small", {}, ` ${count}`)));
    }
    const made = element(
      "tr",
      { "data-label": one.label },
      element("td", {}, button, " ", element("code", { class: "soft" }, one.code)),
      element("td", {}, String(one.label)),
      element("td", {}, number(one.n)),
      element("td", {}, one.n ? number(one.correct) : ""),
      element("td", {}, one.n ? meter : "", element("span", { class: "value" }, percent(one.recall))),
      element("td", {}, percent(one.precision)),
      element("td", {}, percent(one.f1)),
      element("td", {}, percent(one.top5)),
      element("td", {}, percent(one.confidence)),
      answers,
    );
    return made;
  }

  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const key = head.dataset.key;
    order = { key, direction: order.key === key ? -order.direction : 1 };
    select();
  });
  search.addEventListener("input", select);
  only.addEventListener("change", select);
  search.form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (rows.length) open(rows[0]);
  });
  more.addEventListener("click", () => {
    const first = body.rows.length;
    shown += STEP;
    append();
    body.rows[first].querySelector("button").focus();
  });
  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr");
    if (line) open(classes[line.dataset.label]);
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && event.target.closest("tr")[step];
    if (!next) return;
    event.preventDefault();
    next.querySelector("button").focus();
  });

  // ---- One class --------------------------------------------------------------------------------------------------

  function open(one) {
    dialog.replaceChildren(bar(one), card(one));
    if (!dialog.open) dialog.showModal();
    dialog.dataset.label = one.label;
    history.replaceState(null, "", "#" + one.code);
  }

  function neighbour(step) {
    const at = rows.findIndex((one) => one.label === Number(dialog.dataset.label));
    const next = rows[at + step];
    if (at < 0 || !next) return;
    open(next);
    const kept = dialog.querySelector(step < 0 ? ".previous" : ".next");
    (kept.disabled ? dialog.querySelector(".close") : kept).focus();
  }

  function bar(one) {
    const at = rows.indexOf(one);
    const previous = element("button", { class: "plain previous", type: "button", "aria-label": "Previous class" }, "←");
    const next = element("button", { class: "plain next", type: "button", "aria-label": "Next class" }, "→");
    const close = element("button", { class: "plain close", type: "button" }, "Close");
    previous.disabled = at <= 0;
    next.disabled = at < 0 || at === rows.length - 1;
    previous.addEventListener("click", () => neighbour(-1));
    next.addEventListener("click", () => neighbour(1));
    close.addEventListener("click", () => dialog.close());
    return element("div", { class: "bar" }, previous, next, close);
  }

  function card(one) {
    const figures = element("dl", { class: "figures" });
    for (const [name, value] of [
      ["Samples", number(one.n)],
      ["Read correctly", one.n ? number(one.correct) : ""],
      ["Recall", percent(one.recall)],
      ["Precision", percent(one.precision)],
      ["F1", percent(one.f1)],
      ["Within five", percent(one.top5)],
      ["Mean confidence", percent(one.confidence)],
    ]) {
      figures.append(element("div", {}, element("dt", {}, name), element("dd", {}, value || "–")));
    }
    const title = element("div", {},
      element("h2", { id: "class-title" }, one.code),
      element("p", { class: "soft" }, `label ${one.label}`),
    );
    const made = element("div", { class: "body", tabindex: "0" },
      element("div", { class: "title" }, element("span", { class: "han", lang: "zh" }, one.char), title),
      figures,
    );
    if (!one.n) made.append(element("p", {}, "There is no sample of this class in this split."));
    if (one.answers.length) made.append(element("h3", {}, "What it was read as"), tally(one.answers));
    const others = data.mistaken[one.label];
    if (others.length) made.append(element("h3", {}, "What was read as it"), tally(others));
    const errors = data.errors[one.label];
    if (errors.length) {
      const line = element("div", { class: "line" });
      for (const [place, answer, score] of errors) {
        const said = chars[answer] ?? "–"; // another system may have given no answer
        const sure = score === null ? "" : ` ${Math.round(100 * score)}%`;
        line.append(element("span", { class: "shot" },
          picture(place, `${one.char} read as ${said}`, true),
          element("span", {}, element("span", { lang: "zh" }, said), element("small", {}, sure)),
        ));
      }
      const left = one.n - one.correct - errors.length;
      made.append(element("h3", {}, "Misread, and how sure it was"), line);
      if (left > 0) made.append(element("p", { class: "soft small" }, `and ${number(left)} more`));
    }
    if (data.right[one.label] !== null) {
      made.append(element("h3", {}, "Read correctly"),
        element("div", { class: "line" }, picture(data.right[one.label], `${one.char}, read correctly`, false)));
    }
    return made;
  }

  function tally(pairs) {
    const list = element("ul", { class: "tally" });
    for (const [label, count] of pairs) {
      const link = element("a", { class: "han", lang: "zh", href: "#" + classes[label].code }, chars[label]);
      list.append(element("li", {}, link, `${number(count)} ×`));
    }
    return list;
  }

  dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // outside the card
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) neighbour(step);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#U+"]');
    const one = link && byCode.get(link.getAttribute("href").slice(1));
    if (!one) return;
    event.preventDefault();
    open(one);
  });
  const named = () => byCode.get(decodeURIComponent(location.hash.slice(1)).toUpperCase());
  addEventListener("hashchange", () => named() && open(named()));

  select();
  if (named()) open(named());
})();
