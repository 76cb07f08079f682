"use strict";
// Search, filter and sort of tables that are complete without this script.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const form = table.closest("section, main").querySelector("form.filters");
  const words = rows.map((row) => row.textContent.normalize("NFKD").toLowerCase());
  const number = (cell) => {
    const text = cell.dataset.value ?? cell.textContent.replace("−", "-").replace(",", ".");
    const value = Number.parseFloat(text);
    return Number.isNaN(value) ? -Infinity : value;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("num");
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numeric || column === 0;
      const key = new Map(rows.map((row) => {
        const cell = row.cells[column];
        return [row, numeric ? number(cell) : cell.textContent];
      }));
      const compare = numeric ? (a, b) => a - b : new Intl.Collator(document.documentElement.lang).compare;
      const sorted = [...rows].sort((a, b) => (up ? 1 : -1) * compare(key.get(a), key.get(b)));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...sorted);
    });
  });
  if (!form) continue;
  const search = form.querySelector("[data-search]"), filters = [...form.querySelectorAll("[data-filter]")];
  const count = form.querySelector("output");
  const show = () => {
    const wanted = search.value.normalize("NFKD").toLowerCase().trim();
    let shown = 0;
    rows.forEach((row, k) => {
      const held = words[k].includes(wanted) &&
        filters.every((f) => !f.value || row.dataset[f.dataset.filter] === f.value);
      row.hidden = !held;
      shown += held;
    });
    count.textContent = count.dataset.count.replace("{n}", shown).replace("{all}", rows.length);
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  // A link to a row that is filtered away brings it back.
  window.addEventListener("hashchange", () => {
    const row = document.getElementById(location.hash.slice(1));
    if (row?.hidden) {
      form.reset();
      show();
      row.scrollIntoView();
    }
  });
  show();
}
