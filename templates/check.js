"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // Light or dark: the reader's system decides until the button is used.
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const now = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const show = () => { theme.textContent = now() === "dark" ? "Light" : "Dark"; };
  // A file that is opened from a disk may have no storage.
  const stored = (write) => { try { return write ? localStorage.setItem("verilume-theme", write) : localStorage.getItem("verilume-theme"); } catch { return null; } };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  theme.addEventListener("click", () => {
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    stored(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  theme.hidden = false;
  show();

  // The table: a method's row unfolds, a heading sorts.
  const table = document.getElementById("matrix");
  const fold = (button, open) => {
    button.setAttribute("aria-expanded", open);
    document.getElementById(button.getAttribute("aria-controls")).hidden = !open;
  };
  all(".unfold", table).forEach((button) => {
    fold(button, false);
    button.closest("tr").addEventListener("click", (event) => {
      if (getSelection().isCollapsed && !event.target.closest("a")) fold(button, button.getAttribute("aria-expanded") !== "true");
    });
  });
  const bodies = all("tbody", table);
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      // Best first, worst first, as the methods were named.
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? next : "none"));
      const rank = (body) => Number(body.rows[0].cells[column].dataset.rank);
      const sign = { none: 0, ascending: 1, descending: -1 }[next];
      table.append(...[...bodies].sort((a, b) => sign * (rank(a) - rank(b))));
    });
  });

  // Pictures.
  const pictures = all("details.picture");
  const unfold = document.getElementById("all");
  const label = () => { unfold.textContent = pictures.every((p) => p.open) ? "Fold all" : "Unfold all"; };
  unfold.addEventListener("click", () => {
    const open = !pictures.every((p) => p.open);
    pictures.forEach((p) => { p.open = open; });
  });
  pictures.forEach((p) => p.addEventListener("toggle", label));
  unfold.hidden = pictures.length < 2;
  label();

  // A link to a folded picture unfolds it.
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.matches("details.picture")) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Paper shows every picture; the table's rows stay as the reader left them.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => { folded.forEach((d) => { d.open = false; }); });
})();
